//! The model card, `model.toml`: the kind of network, its preprocessing, its quality, its training,
//! and the digests of its files.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ConfigError;
use crate::model::feature_errors::FeatureStats;
use crate::model::input::InputSpec;
use crate::model::loss::Loss;
use crate::registry;

/// The file name of the card in a model folder.
pub const CARD: &str = "model.toml";

/// The z-score above which a record is unusual.
pub const UNUSUAL_ZSCORE: f32 = 3.0;

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

/// The distribution of reconstruction errors over records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorStats {
    /// The number of records.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// Minimum.
    pub min: f64,
    /// Maximum.
    pub max: f64,
    /// Quantiles.
    pub quantiles: Quantiles,
    /// The distribution of the squared error of each feature, if the model takes features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeatureStats>,
}

/// Quantiles of a distribution: this percentage of the values is at or below the quantile.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quantiles {
    /// 1 %.
    pub p01: f64,
    /// 5 %.
    pub p05: f64,
    /// 25 %.
    pub p25: f64,
    /// The median.
    pub p50: f64,
    /// 75 %.
    pub p75: f64,
    /// 95 %.
    pub p95: f64,
    /// 99 %.
    pub p99: f64,
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
            stats.check(self.input.columns.as_deref(), &mut faults);
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
            hyperparameters: registry::current_options("hyperparameters", hyperparameters)
                .into_iter()
                .collect(),
            file: registry::current_training_file(self.file),
            ..self
        }
    }
}

impl ErrorStats {
    /// Computes the distribution of these errors, and sorts them. `None` if there are no errors, or
    /// if one is not finite. Quantiles are interpolated linearly, as NumPy does by default.
    /// [`super::feature_errors::FeatureErrors`] computes the errors of single features.
    pub fn from_errors(errors: &mut [f64]) -> Option<Self> {
        errors.sort_by(f64::total_cmp);
        let count = errors.len() as f64;
        let (min, max) = (*errors.first()?, *errors.last()?);
        let mean = errors.iter().sum::<f64>() / count;
        let std = (errors
            .iter()
            .map(|error| (error - mean) * (error - mean))
            .sum::<f64>()
            / count)
            .sqrt();
        let quantile = |share: f64| {
            let position = share * (count - 1.0);
            let (low, high) = (
                errors[position.floor() as usize],
                errors[position.ceil() as usize],
            );
            low + (high - low) * position.fract()
        };
        let [p01, p05, p25, p50, p75, p95, p99] =
            [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99].map(quantile);
        let quantiles = Quantiles {
            p01,
            p05,
            p25,
            p50,
            p75,
            p95,
            p99,
        };
        (std.is_finite() && max.is_finite()).then_some(Self {
            count: errors.len() as u64,
            mean,
            std,
            min,
            max,
            quantiles,
            features: None,
        })
    }

    /// The distance of an error from the mean, in standard deviations; infinite for an error above
    /// the mean if all errors were equal.
    pub fn zscore(&self, error: f64) -> f64 {
        (error - self.mean) / self.std
    }

    /// Whether a record with this error is unusual: its z-score is above [`UNUSUAL_ZSCORE`].
    pub fn is_unusual(&self, error: f64) -> bool {
        self.zscore(error) as f32 > UNUSUAL_ZSCORE
    }

    fn check(&self, columns: Option<&[String]>, faults: &mut Vec<ConfigError>) {
        let Quantiles {
            p01,
            p05,
            p25,
            p50,
            p75,
            p95,
            p99,
        } = self.quantiles;
        let ascending = [self.min, p01, p05, p25, p50, p75, p95, p99, self.max];
        // The comparison is also false if a value is NaN.
        if !ascending.windows(2).all(|pair| pair[0] <= pair[1]) {
            let message = format!("min, quantiles and max must ascend; found {ascending:?}");
            faults.push(ConfigError::new("reconstruction_error.quantiles", message));
        }
        if !(self.std >= 0.0 && self.mean.is_finite()) {
            let message = format!(
                "mean must be finite and std 0 or more; found mean {} and std {}",
                self.mean, self.std
            );
            faults.push(ConfigError::new("reconstruction_error", message));
        }
        if let Some(features) = &self.features {
            features.check(columns, faults);
        }
    }
}

/// Converts an error of a card to an error at `path` of the model's table in the pipeline. The
/// message names the card and its key.
pub fn in_file(path: &Path, fault: ConfigError) -> ConfigError {
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use expect_test::{Expect, expect};

    use super::*;

    const COMPLETE: &str = r#"
        name = "photos"
        kind = "convolutional"
        description = "for photographs"
        code_size = 128
        loss = "mse"
        [input]
        type = "image"
        size = [64, 64]
        channels = "rgb"
        layout = "nchw"
        range = [0.0, 1.0]
        mean = [0.0, 0.0, 0.0]
        std = [1.0, 1.0, 1.0]
        [reconstruction_error]
        count = 240
        mean = 0.003
        std = 0.002
        min = 0.0002
        max = 0.014
        quantiles = { p01 = 0.0007, p05 = 0.001, p25 = 0.002, p50 = 0.003, p75 = 0.0045, p95 = 0.008, p99 = 0.012 }
        [training]
        data = "photographs"
        license = "free"
        architecture = ["conv 3->32", "dense 1024->128"]
        hyperparameters = { optimizer = "adam", epochs = 6, learning_rate = 0.02 }
        [metrics]
        psnr = 24.4
        [files]
        "encoder.onnx" = "sha256:0855639d6e3e596a20a8b99b455458321ecd334c2c3a64e4f60eb3cc7e4f83a3"
    "#;

    fn check(text: &str, expected: Expect) {
        let faults = ModelCard::parse(text).err().unwrap_or_default();
        let lines: Vec<String> = faults
            .iter()
            .map(|fault| format!("{}: {}", fault.key, fault.message))
            .collect();
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn card_of_earlier_version_gets_current_names() {
        let former = "[training]\nlicence = 'free'\nhyperparameters = { optimiser = 'adam' }\n\
                      [training.file]\nnetwork = { fold = true }\n\
                      training = { optimiser = 'muon', patience = 2 }\n\
                      data = { licence = 'free' }";
        let text = format!("name = 'm'\nkind = 'deep'\n[input]\ntype = 'image'\n{former}\n");
        let training = ModelCard::parse(&text).unwrap().training.unwrap();
        assert_eq!(
            (
                training.license.as_str(),
                &training.hyperparameters["optimizer"]
            ),
            ("free", &"adam".into())
        );
        let current = serde_json::json!({ "network": { "space_to_depth": true },
            "training": { "optimizer": "muon", "patience": 2 }, "data": { "license": "free" } });
        assert_eq!(training.file, current);
    }

    #[test]
    fn complete_card_is_unchanged_by_writing_and_reading() {
        let card = ModelCard::parse(COMPLETE).unwrap();
        assert_eq!(card.input.size, Some([64, 64]));
        assert_eq!(
            card.reconstruction_error.as_ref().unwrap().quantiles.p99,
            0.012
        );
        assert_eq!(card.training.as_ref().unwrap().hyperparameters["epochs"], 6);
        assert_eq!(
            ModelCard::parse(&toml::to_string(&card).unwrap()).unwrap(),
            card
        );
    }

    #[test]
    fn feature_errors_are_checked_for_each_column() {
        let input = COMPLETE
            .split("[reconstruction_error]")
            .next()
            .unwrap()
            .split("[input]")
            .next()
            .unwrap();
        let rest = COMPLETE.split("[reconstruction_error]").nth(1).unwrap();
        let card = |features: &str, columns: &str| {
            let input =
                format!("{input}[input]\ntype = \"features\"\n{columns}\n[reconstruction_error]\n");
            format!("{input}features = {features}\n{rest}")
        };
        let columns = r#"columns = ["a", "b"]"#;
        let written =
            ModelCard::parse(&card("{ mean = [0.1, 0.0], std = [0.2, 0.0] }", columns)).unwrap();
        assert_eq!(
            ModelCard::parse(&toml::to_string(&written).unwrap()).unwrap(),
            written
        );
        check(
            &card("{ mean = [0.1], std = [0.2, -1.0] }", columns),
            expect![[r#"
            reconstruction_error.features.mean: expected as many values as columns in `input.columns`, 2; found 1
            reconstruction_error.features.std: must be 0 or more; found -1 for `b`"#]],
        );
        check(
            &card("{ mean = [nan, 1.0], std = [0.2, inf] }", columns),
            expect!["reconstruction_error.features.mean[0]: invalid type: null, expected f64"],
        );
        check(
            &card("{ mean = [], std = [] }", ""),
            expect!["reconstruction_error.features: requires `input.columns`, which is missing"],
        );
        check(
            &card("{ means = [1.0, 1.0], std = [1.0, 1.0] }", columns),
            expect![[r#"
            reconstruction_error.?.features.?.means: unknown key
            reconstruction_error.features: missing field `mean`"#]],
        );
    }

    #[test]
    fn all_errors_of_a_card_are_reported() {
        check(
            &COMPLETE.replace("channels =", "chanels ="),
            expect!["input.chanels: unknown key"],
        );
        check(
            &COMPLETE
                .replace("name =", "title =")
                .replace("psnr = 24.4", "psnr = 'high'"),
            expect![[r#"metrics.psnr: invalid type: string "high", expected f64"#]],
        );
        let wrong = COMPLETE
            .replace("p25 = 0.002", "p25 = 0.5")
            .replace("code_size = 128", "code_size = 0");
        check(
            &wrong
                .replace("sha256:08", "md5:")
                .replace("encoder.onnx", "../encoder.onnx"),
            expect![[r#"
            code_size: must be above 0; remove it if the network has no code
            reconstruction_error.quantiles: min, quantiles and max must ascend; found [0.0002, 0.0007, 0.001, 0.5, 0.003, 0.0045, 0.008, 0.012, 0.014]
            files.../encoder.onnx: `md5:55639d6e3e596a20a8b99b455458321ecd334c2c3a64e4f60eb3cc7e4f83a3` is not a digest; expected `sha256:` and 64 digits 0-9a-f
            files.../encoder.onnx: is not a plain file name in the model folder"#]],
        );
        check(
            "name = ",
            expect![": line 1: string values must be quoted, expected literal string"],
        );
    }
}
