//! `latentflow init`: a commented pipeline, or training file, to start from.

use clap::{Args, ValueEnum};

use super::{ExitCode, print};

#[derive(Debug, Args)]
pub(super) struct InitCommand {
    /// What flows.
    #[arg(value_enum, default_value_t = Template::Images)]
    of: Template,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Template {
    /// Image files to latents.
    Images,
    /// Feature records to latents, outliers to a dataset of their own.
    Features,
    /// An autoencoder to train.
    #[cfg(feature = "train")]
    Training,
}

impl InitCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        print(match self.of {
            Template::Images => include_str!("init/images.toml"),
            Template::Features => include_str!("init/features.toml"),
            #[cfg(feature = "train")]
            Template::Training => include_str!("init/training.toml"),
        })?;
        Ok(ExitCode::Done)
    }
}
