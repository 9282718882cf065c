//! Models: a folder with its card, or bare ONNX files; opened, checked, and run by sessions.

pub mod card;
pub mod input;
pub mod loss;
pub mod port;
pub mod spec;

use std::sync::Arc;

pub use card::Card;
pub use input::{FeatureInput, ImageInput, ModelInput, Scaling};
pub use loss::Loss;
pub use spec::{ModelSpec, RuntimeSpec};

use crate::error::Fault;
use crate::metrics::Metrics;

/// A model that was opened and understood.
pub struct Model {
    name: String,
    kind: String,
    digest: String,
    loss: Loss,
    card: Option<Card>,
    input: ModelInput,
    code_size: Option<usize>,
}

impl Model {
    /// Reads the card and the ONNX files, and checks them against each other. Keys of faults are relative to the
    /// model's table.
    ///
    /// # Errors
    /// Every fault of the card; a file that cannot be read or is not what its digest says; shapes that don't match.
    pub fn open(
        _name: &str,
        _spec: &ModelSpec,
        _runtime: &RuntimeSpec,
        _metrics: &Arc<Metrics>,
    ) -> Result<Self, Vec<Fault>> {
        Err(vec![Fault::new("", "models cannot be opened yet")])
    }

    /// The name that the pipeline gives it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The sort of network, by its card; `onnx` for bare files.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// SHA-256 over all that determines its results: the ONNX files, their external data, the preprocessing.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The measure of its reconstruction error.
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// Its card; bare files have none.
    pub fn card(&self) -> Option<&Card> {
        self.card.as_ref()
    }

    /// What it takes.
    pub fn input(&self) -> &ModelInput {
        &self.input
    }

    /// The images that it takes, if images.
    pub fn image_input(&self) -> Option<ImageInput> {
        match &self.input {
            ModelInput::Image(image) => Some(image.clone()),
            _ => None,
        }
    }

    /// The features that it takes, if features.
    pub fn feature_input(&self) -> Option<&FeatureInput> {
        match &self.input {
            ModelInput::Features(features) => Some(features),
            _ => None,
        }
    }

    /// Values of a code, where that is fixed.
    pub fn code_size(&self) -> Option<usize> {
        self.code_size
    }
}
