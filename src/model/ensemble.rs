//! Models whose errors are averaged.

use thiserror::Error;

use crate::model::Model;
use crate::model::files::ModelPath;

/// The reason that the errors of two models cannot be averaged.
#[derive(Debug, Clone, PartialEq, Error)]
pub(crate) enum EnsembleError {
    /// The inputs of the models differ.
    #[error(
        "the model `{model}` prepares its input in another way than `{first}`: columns, scaling or \
         pixels differ; train both on the same data with the same [input]"
    )]
    Input {
        /// The name of the model.
        model: String,
        /// The name of the first model.
        first: String,
    },
    /// The model does not reconstruct its input.
    #[error("the model `{0}` has no decoder, so that it has no reconstruction error")]
    NoReconstruction(String),
    /// The card does not contain the errors of normal records.
    #[error(
        "the model `{0}` has no card with the section [reconstruction_error]; `latentflow \
         calibrate` measures it on normal records"
    )]
    NoErrors(String),
    /// The mean error in the card is not above 0.
    #[error(
        "the model `{model}` has a mean error of {mean} in its card, by which an error cannot be \
         divided"
    )]
    Mean {
        /// The name of the model.
        model: String,
        /// The mean error in the card.
        mean: f64,
    },
}

impl Model {
    /// The mean error on normal records, the unit of the errors of this model in an ensemble with
    /// `first`.
    ///
    /// # Errors
    /// If the model does not reconstruct, if the card states no mean error above 0, or if the input differs from that of `first`.
    pub(crate) fn member_error(&self, first: &Self) -> Result<f64, EnsembleError> {
        let model = self.name().to_owned();
        if self.input() != first.input() {
            let first = first.name().to_owned();
            return Err(EnsembleError::Input { model, first });
        }
        if self.files(ModelPath::Reconstruct).is_none() {
            return Err(EnsembleError::NoReconstruction(model));
        }
        let stats = self
            .card()
            .and_then(|card| card.reconstruction_error.as_ref());
        match stats.map(|stats| stats.mean) {
            Some(mean) if mean > 0.0 && mean.is_finite() => Ok(mean),
            Some(mean) => Err(EnsembleError::Mean { model, mean }),
            None => Err(EnsembleError::NoErrors(model)),
        }
    }
}
