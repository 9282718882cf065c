//! A warning about scaled features outside of 0..1, which a model with the loss bce clamps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::{FeatureInput, Loss, Model, Scaling};

/// Tolerance of the rounding of scaled values.
const ROUNDING: f32 = 1e-5;

/// Reports the first value outside of 0..1, once for all workers.
#[derive(Debug, Clone)]
pub(super) struct ClampWarning {
    model: String,
    /// The column of each input.
    columns: Vec<String>,
    is_reported: Arc<AtomicBool>,
}

impl ClampWarning {
    /// Returns the warning for a model that clamps values: one with min-max scaling or rules, and
    /// binary cross-entropy.
    pub(super) fn new(model: &Model) -> Option<Self> {
        let features = model.feature_input()?;
        let FeatureInput {
            columns,
            scaling,
            encoder,
        } = features;
        let is_bounded = encoder.is_some() || matches!(scaling, Scaling::MinMax { .. });
        let groups = features.groups(columns.len());
        let inputs = 0..groups.inputs();
        let names = inputs.filter_map(|input| columns.get(groups.feature_of(input)).cloned());
        (is_bounded && model.loss() == Loss::Bce).then(|| Self {
            model: model.name().to_owned(),
            columns: names.collect(),
            is_reported: Arc::default(),
        })
    }

    /// Checks vectors of `width` values.
    pub(super) fn check(&self, vectors: &[f32], width: usize) {
        if self.is_reported.load(Ordering::Relaxed) {
            return;
        }
        let is_outside = |value: &f32| !(-ROUNDING..=1.0 + ROUNDING).contains(value);
        let Some(at) = vectors.iter().position(is_outside) else {
            return;
        };
        if self.is_reported.swap(true, Ordering::Relaxed) {
            return;
        }
        let index = at % width.max(1);
        let column = self.columns.get(index).cloned();
        tracing::warn!(
            model = self.model.as_str(),
            column = column.unwrap_or_else(|| format!("value {index}")),
            scaled = vectors[at],
            "a scaled value lies outside of 0..1, the range of the training data; the model's loss \
             bce clamps such values, so that the error does not show them; further values are not \
             reported"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outside_of_the_range_are_reported_once() {
        let warning = ClampWarning {
            model: "m".to_owned(),
            columns: vec!["a".to_owned(), "b".to_owned()],
            is_reported: Arc::default(),
        };
        let is_reported = || warning.is_reported.load(Ordering::Relaxed);
        warning.check(&[0.0, 1.0, 1.000_005, -0.000_005], 2);
        assert!(!is_reported());
        warning.clone().check(&[0.0, 1.0, 0.5, 1.1], 2);
        assert!(is_reported());
    }
}
