//! `latentflow init`: prints a commented pipeline or training file to start from.

use clap::{Args, ValueEnum};

use super::{ExitCode, print};

#[derive(Debug, Args)]
pub(super) struct InitCommand {
    /// Template to print.
    #[arg(value_enum, default_value_t = Template::Images)]
    of: Template,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Template {
    /// A pipeline that encodes image files.
    Images,
    /// A pipeline that encodes feature records and writes outliers to a separate dataset.
    Features,
    /// A training file for an autoencoder.
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
