//! `latentflow init`: a commented pipeline, or training file, to start from.

use clap::{Args, ValueEnum};

use super::{Exit, print};

#[derive(Debug, Args)]
pub(super) struct Init {
    /// What flows.
    #[arg(value_enum, default_value_t = Starter::Images)]
    of: Starter,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Starter {
    /// Image files to latents.
    Images,
    /// Feature records to latents, outliers to a dataset of their own.
    Features,
    /// An autoencoder to train.
    #[cfg(feature = "train")]
    Training,
}

impl Init {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        print(match self.of {
            Starter::Images => include_str!("init/images.toml"),
            Starter::Features => include_str!("init/features.toml"),
            #[cfg(feature = "train")]
            Starter::Training => include_str!("init/training.toml"),
        })?;
        Ok(Exit::Done)
    }
}
