//! The card of a model, `model.toml`: what it is, how its inputs were made, how well it does, what
//! its files must be.

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

/// The card's name in a model's folder.
pub const CARD: &str = "model.toml";

/// Everything that travels with a model beside its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelCard {
    /// The model's own name.
    pub name: String,
    /// What sort of network it is, such as "convolutional autoencoder".
    pub kind: String,
    /// What it is for, in a sentence or two.
    #[serde(default)]
    pub description: String,
    /// Values of a code; none where the network has no code of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_size: Option<usize>,
    /// Images of any size: height and width must be multiples of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiple: Option<usize>,
    /// What it was trained to make small, and the measure of its reconstruction error.
    #[serde(default)]
    pub loss: Loss,
    /// How its inputs are made.
    pub input: InputSpec,
    /// How far its reconstructions are off, on its own validation data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconstruction_error: Option<ErrorStats>,
    /// How it came to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainingSummary>,
    /// Named figures of quality.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// Each file's digest, as `sha256:` and 64 hexadecimal digits.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// The distribution of reconstruction errors over records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorStats {
    /// Records.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
    /// Quantiles.
    pub quantiles: Quantiles,
    /// Feature by feature, where the model takes features: their squared errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeatureStats>,
}

/// Quantiles of a distribution: a share of so many percent lies at or below.
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

/// How a model came to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TrainingSummary {
    /// What it was trained on.
    pub data: String,
    /// Under which terms that data stands.
    #[serde(alias = "licence")]
    pub license: String,
    /// SHA-256 over all records, as `sha256:` and 64 hexadecimal digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub data_digest: String,
    /// The layers, in order.
    pub architecture: Vec<String>,
    /// Whatever the training was run with.
    pub hyperparameters: BTreeMap<String, Value>,
    /// The training file, from which the model can be trained again.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub file: Value,
}

impl ModelCard {
    /// Reads and checks a card.
    ///
    /// # Errors
    /// Unknown keys, values of a wrong type, values that cannot be.
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
    /// As [`ModelCard::read`]; keys are the card's own.
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
                "must be above 0; leave it out where the network has no code",
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
                    format!("`{digest}` is no digest; write \"sha256:\" and 64 digits 0-9a-f");
                faults.push(ConfigError::new(format!("files.{file}"), message));
            }
            if file.contains(['/', '\\']) {
                faults.push(ConfigError::new(
                    format!("files.{file}"),
                    "is no plain file name in the model's folder",
                ));
            }
        }
        faults
    }
}

impl TrainingSummary {
    /// Returns the summary under current names; an earlier version may have written it.
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
    /// The distribution of these errors, which are sorted; `None` where there is none, or one is no
    /// number. What is known of single features is up to [`super::feature_errors::FeatureErrors`].
    /// Quantiles are interpolated between neighbours, as NumPy does.
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
        let at = |share: f64| {
            let place = share * (count - 1.0);
            let (low, high) = (
                errors[place.floor() as usize],
                errors[place.ceil() as usize],
            );
            low + (high - low) * place.fract()
        };
        let [p01, p05, p25, p50, p75, p95, p99] = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99].map(at);
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
        // Also false where one of them is not a number.
        if !ascending.windows(2).all(|pair| pair[0] <= pair[1]) {
            let message = format!("min, quantiles and max must ascend; met {ascending:?}");
            faults.push(ConfigError::new("reconstruction_error.quantiles", message));
        }
        if !(self.std >= 0.0 && self.mean.is_finite()) {
            let message = format!(
                "mean {} and std {} are no mean and deviation",
                self.mean, self.std
            );
            faults.push(ConfigError::new("reconstruction_error", message));
        }
        if let Some(features) = &self.features {
            features.check(columns, faults);
        }
    }
}

/// A card's fault as the pipeline sees it: at the model's own table, naming the card and its key.
pub fn in_file(path: &Path, fault: ConfigError) -> ConfigError {
    let place = if fault.key.is_empty() {
        String::new()
    } else {
        format!("`{}`: ", fault.key)
    };
    ConfigError::new(
        "path",
        format!("{}: {place}{}", path.display(), fault.message),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use expect_test::{Expect, expect};

    use super::*;

    const WHOLE: &str = r#"
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
    fn a_card_of_an_earlier_version_has_current_names() {
        let former = "[training]\nlicence = 'free'\nhyperparameters = { optimiser = 'adam' }\n[training.file]\n\
                      network = { fold = true }\ntraining = { optimiser = 'muon', patience = 2 }\ndata = { licence = 'free' }";
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
    fn a_whole_card_is_read_and_written_alike() {
        let card = ModelCard::parse(WHOLE).unwrap();
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
    fn errors_of_features_are_told_for_each_column() {
        let input = WHOLE
            .split("[reconstruction_error]")
            .next()
            .unwrap()
            .split("[input]")
            .next()
            .unwrap();
        let rest = WHOLE.split("[reconstruction_error]").nth(1).unwrap();
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
            reconstruction_error.features.mean: has 1 values, but `input.columns` names 2
            reconstruction_error.features.std: must be 0 or more; met -1 for `b`"#]],
        );
        check(
            &card("{ mean = [nan, 1.0], std = [0.2, inf] }", columns),
            expect!["reconstruction_error.features.mean[0]: invalid type: null, expected f64"],
        );
        check(
            &card("{ mean = [], std = [] }", ""),
            expect![
                "reconstruction_error.features: is for features that `input.columns` names; there is none"
            ],
        );
        check(
            &card("{ means = [1.0, 1.0], std = [1.0, 1.0] }", columns),
            expect![[r#"
            reconstruction_error.?.features.?.means: unknown key
            reconstruction_error.features: missing field `mean`"#]],
        );
    }

    #[test]
    fn every_fault_of_a_card_is_named() {
        check(
            &WHOLE.replace("channels =", "chanels ="),
            expect!["input.chanels: unknown key"],
        );
        check(
            &WHOLE
                .replace("name =", "title =")
                .replace("psnr = 24.4", "psnr = 'high'"),
            expect![[r#"metrics.psnr: invalid type: string "high", expected f64"#]],
        );
        let wrong = WHOLE
            .replace("p25 = 0.002", "p25 = 0.5")
            .replace("code_size = 128", "code_size = 0");
        check(
            &wrong
                .replace("sha256:08", "md5:")
                .replace("encoder.onnx", "../encoder.onnx"),
            expect![[r#"
            code_size: must be above 0; leave it out where the network has no code
            reconstruction_error.quantiles: min, quantiles and max must ascend; met [0.0002, 0.0007, 0.001, 0.5, 0.003, 0.0045, 0.008, 0.012, 0.014]
            files.../encoder.onnx: `md5:55639d6e3e596a20a8b99b455458321ecd334c2c3a64e4f60eb3cc7e4f83a3` is no digest; write "sha256:" and 64 digits 0-9a-f
            files.../encoder.onnx: is no plain file name in the model's folder"#]],
        );
        check(
            "name = ",
            expect![": line 1: string values must be quoted, expected literal string"],
        );
    }
}
