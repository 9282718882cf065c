//! The model card, `model.toml`: the kind of network, its preprocessing, its quality, its training,
//! and the digests of its files.

pub(crate) mod error_stats;

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;
use crate::fs_durable::write_atomically;
use crate::model::card::error_stats::ErrorStats;
use crate::model::input::spec::InputSpec;
use crate::model::loss::Loss;
use crate::registry::{self, RenamedKeys};

/// The file name of the card in a model folder.
pub(crate) const CARD: &str = "model.toml";

/// The description of a model, stored next to its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelCard {
    /// The name of the model.
    pub name: String,
    /// The kind of network, such as "convolutional autoencoder".
    pub kind: String,
    /// The purpose of the model, in one or two sentences.
    #[serde(default)]
    pub description: String,
    /// The number of values of a latent. Left out if the network has no latent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_size: Option<usize>,
    /// Images of any size: height and width must be multiples of this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiple: Option<usize>,
    /// The loss that was minimized in training, which also measures the reconstruction error.
    #[serde(default)]
    pub loss: Loss,
    /// The preprocessing of the input.
    pub input: InputSpec,
    /// The distribution of the reconstruction error on the validation data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconstruction_error: Option<ErrorStats>,
    /// The distributions that `latentflow calibrate` has replaced, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous_reconstruction_error: Vec<ErrorStats>,
    /// The training of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainingSummary>,
    /// Quality metrics by name.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// The digest of each file, as `sha256:` and 64 hexadecimal digits.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// The training of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TrainingSummary {
    /// The training data.
    pub data: String,
    /// The license of the training data.
    #[serde(alias = "licence")]
    pub license: String,
    /// The number of records of the training data that could not be used.
    #[serde(skip_serializing_if = "is_zero")]
    pub rejects: u64,
    /// The number of nulls and NaN in each column without a rule that imputes them; records with
    /// one of them are among the rejects.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nulls: BTreeMap<String, u64>,
    /// SHA-256 over all records, as `sha256:` and 64 hexadecimal digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub data_digest: String,
    /// The layers, in order.
    pub architecture: Vec<String>,
    /// The options of the training.
    pub hyperparameters: BTreeMap<String, Value>,
    /// The training file, with which the training can be repeated.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub file: Value,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl ModelCard {
    /// Reads and checks a card.
    ///
    /// # Errors
    /// When the file cannot be read; for unknown keys, values of a wrong type, and invalid values.
    pub fn read(path: &Path) -> Result<Self, Vec<ConfigError>> {
        let text = std::fs::read_to_string(path);
        let text = text
            .map_err(|error| vec![ConfigError::new("", format!("{}: {error}", path.display()))])?;
        let faults = Self::parse(&text);
        faults.map_err(|faults| {
            faults
                .into_iter()
                .map(|fault| in_file(path, fault))
                .collect()
        })
    }

    /// Checks the text of a card.
    ///
    /// # Errors
    /// As [`ModelCard::read`]. The keys of the errors are those of the card.
    pub fn parse(text: &str) -> Result<Self, Vec<ConfigError>> {
        let written: Value = toml::from_str(text).map_err(|error| {
            let line = text[..error.span().map_or(0, |span| span.start)]
                .lines()
                .count()
                .max(1);
            vec![ConfigError::new(
                "",
                format!("line {line}: {}", error.message()),
            )]
        })?;
        let mut card: Self = registry::parse_options(written)?;
        card.training = card.training.map(TrainingSummary::with_current_names);
        let faults = card.faults();
        if faults.is_empty() {
            Ok(card)
        } else {
            Err(faults)
        }
    }

    /// Writes the card to a model folder, in place of the present one.
    ///
    /// # Errors
    /// If it cannot be written; the present card is then unchanged.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), StageError> {
        let text = toml::to_string(self).map_err(|error| {
            StageError::new(
                ErrorCode::Internal,
                format!("cannot write the model card: {error}"),
            )
        })?;
        write_atomically(&folder.join(CARD), text.as_bytes())
    }

    fn faults(&self) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        if self.code_size == Some(0) {
            faults.push(ConfigError::new(
                "code_size",
                "must be above 0; remove it if the network has no code",
            ));
        }
        if self.multiple == Some(0) {
            faults.push(ConfigError::new("multiple", "must be above 0"));
        }
        if let Some(stats) = &self.reconstruction_error {
            let columns = self.input.columns.as_deref();
            // The errors of rules are found where the input is resolved.
            let encoder = self.input.encoder().ok().flatten();
            let inputs = match &encoder {
                Some(encoder) => encoder.groups().inputs(),
                None => columns.unwrap_or_default().len(),
            };
            stats.check(columns, inputs, &mut faults);
        }
        for (file, digest) in &self.files {
            let hex = digest.strip_prefix("sha256:").unwrap_or_default();
            if hex.len() != 64
                || !hex
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            {
                let message =
                    format!("`{digest}` is not a digest; expected `sha256:` and 64 digits 0-9a-f");
                faults.push(ConfigError::new(format!("files.{file}"), message));
            }
            if file.contains(['/', '\\']) {
                faults.push(ConfigError::new(
                    format!("files.{file}"),
                    "is not a plain file name in the model folder",
                ));
            }
        }
        faults
    }
}

impl TrainingSummary {
    /// Renames the options that an earlier version has written to their current names.
    fn with_current_names(self) -> Self {
        let hyperparameters = self.hyperparameters.into_iter().collect();
        Self {
            hyperparameters: RenamedKeys::of_table("hyperparameters")
                .current(hyperparameters)
                .into_iter()
                .collect(),
            file: registry::current_training_file(self.file),
            ..self
        }
    }
}

/// Converts an error of a card to an error at `path` of the model's table in the pipeline. The
/// message names the card and its key.
pub(crate) fn in_file(path: &Path, fault: ConfigError) -> ConfigError {
    let key = if fault.key.is_empty() {
        String::new()
    } else {
        format!("`{}`: ", fault.key)
    };
    ConfigError::new(
        "path",
        format!("{}: {key}{}", path.display(), fault.message),
    )
}

#[cfg(test)]
mod tests;
