//! Models: a folder with its card, or bare ONNX files; opened, checked, and run by sessions.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::image::PixelFormat;

/// A model as the pipeline declares it: a folder with a card, or bare ONNX files with what a card would have said.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ModelSpec {
    /// A folder that holds `model.toml`, and `encoder.onnx` and `decoder.onnx`, or `model.onnx`.
    pub path: Option<PathBuf>,
}

/// What a model whose input is an image wants.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageInput {
    /// How the pixels stand in the tensor.
    pub format: PixelFormat,
    /// Height and width; `None`: any.
    pub size: Option<(usize, usize)>,
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

    /// How the model takes images; `None` where its input is none.
    pub fn image_input(&self) -> Option<ImageInput> {
        None
    }
}
