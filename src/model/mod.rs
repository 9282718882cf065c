//! Models: a folder with its card, or bare ONNX files; opened, checked, and run by sessions.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// A model as the pipeline declares it: a folder with a card, or bare ONNX files with what a card would have said.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ModelSpec {
    /// A folder that holds `model.toml`, and `encoder.onnx` and `decoder.onnx`, or `model.onnx`.
    pub path: Option<PathBuf>,
}

/// A model that was opened and understood.
pub struct Model {
    name: String,
}

impl Model {
    /// The name that the pipeline gives it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The numeric columns that a model of feature records takes, and how they are scaled.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FeatureInput {
    /// Names, in order; empty where the model does not say.
    pub columns: Vec<String>,
    /// How values become inputs.
    pub scaling: Scaling,
}

/// How the values of feature records are scaled, one entry per value of the vector.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Scaling {
    /// As they are.
    #[default]
    None,
    /// `(value - mean) / std`.
    Standard {
        /// Of the training data.
        mean: Vec<f64>,
        /// Of the training data.
        std: Vec<f64>,
    },
    /// `(value - min) / (max - min)`.
    MinMax {
        /// Of the training data.
        min: Vec<f64>,
        /// Of the training data.
        max: Vec<f64>,
    },
}

impl Scaling {
    /// For the i-th value, `(scale, offset)` of `value * scale + offset`.
    pub fn affine(&self, i: usize) -> (f64, f64) {
        let at = |values: &[f64], default| values.get(i).copied().unwrap_or(default);
        let (low, width) = match self {
            Self::None => (0.0, 1.0),
            Self::Standard { mean, std } => (at(mean, 0.0), at(std, 1.0)),
            Self::MinMax { min, max } => (at(min, 0.0), at(max, 1.0) - at(min, 0.0)),
        };
        (1.0 / width, -low / width)
    }
}

impl Model {
    /// The columns and the scaling of a model that takes feature records.
    pub fn feature_input(&self) -> Option<&FeatureInput> {
        None
    }
}
