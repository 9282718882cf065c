//! `latentflow init`: prints a commented pipeline or training file to start from.

use clap::{Args, ValueEnum};

use super::print;
#[cfg(feature = "train")]
use crate::cli::exit::CommandError;
use crate::cli::exit::ExitCode;
#[cfg(feature = "train")]
use crate::error::code::ErrorCode;

#[derive(Debug, Args)]
pub(super) struct InitCommand {
    /// Template to print.
    #[arg(value_enum, default_value_t = Template::Images)]
    of: Template,
    /// Data of a training file. Default: images.
    #[cfg(feature = "train")]
    #[arg(value_enum)]
    data: Option<TrainingData>,
}

/// The data that a training file is for.
#[cfg(feature = "train")]
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum TrainingData {
    /// Image files of a folder; suits a few hundred photographs and more.
    #[default]
    Images,
    /// The numeric columns of a table.
    Features,
    /// Windows of time series, as lists in one column of a table.
    Windows,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Template {
    /// A pipeline that encodes image files.
    Images,
    /// A pipeline that encodes feature records and writes outliers to a separate dataset.
    Features,
    /// A training file for an autoencoder, for images, features or windows of time series.
    #[cfg(feature = "train")]
    Training,
}

impl InitCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        #[cfg(feature = "train")]
        if self.data.is_some() && !matches!(self.of, Template::Training) {
            anyhow::bail!(CommandError::new(
                ErrorCode::ArgumentInvalid,
                "the data can be chosen for training files only, such as `latentflow init training \
                 features`"
            ));
        }
        print(match self.of {
            Template::Images => include_str!("images.toml"),
            Template::Features => include_str!("features.toml"),
            #[cfg(feature = "train")]
            Template::Training => match self.data.unwrap_or_default() {
                TrainingData::Images => include_str!("training_images.toml"),
                TrainingData::Features => include_str!("training_features.toml"),
                TrainingData::Windows => include_str!("training_windows.toml"),
            },
        })?;
        Ok(ExitCode::Done)
    }
}
