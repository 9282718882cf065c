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
    pub fn open(
        name: &str,
        _spec: &ModelSpec,
        _runtime: &RuntimeSpec,
        _metrics: &std::sync::Arc<crate::metrics::Metrics>,
    ) -> Result<Model, Vec<crate::error::Fault>> {
        Ok(Model { name: name.to_owned() })
    }
    pub fn digest(&self) -> &str {
        ""
    }
    pub fn summary(&self) -> String {
        String::new()
    }
    pub fn kind(&self) -> &str {
        ""
    }
    pub fn bytes(&self) -> u64 {
        0
    }
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct RuntimeSpec {}
pub mod runtime {
    pub fn init(_: &super::RuntimeSpec) -> Result<(), crate::error::Fault> {
        Ok(())
    }
}

pub fn describe(_: &std::path::Path, _: &RuntimeSpec) -> Result<String, crate::error::StageError> {
    unimplemented!()

    /// How the model takes images; `None` where its input is none.
    pub fn image_input(&self) -> Option<ImageInput> {
        None
    }
}
