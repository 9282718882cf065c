//! The statistics of errors in a model card.

use std::sync::Arc;

use crate::error::config_error::ConfigError;
use crate::model::card::error_stats::ErrorStats;
use crate::model::{Loss, Model};
use crate::transform::anomaly::AnomalyScorer;

/// The statistics of the error of a record.
#[derive(Debug, Clone, Default)]
pub(super) struct ErrorScale {
    pub(super) loss: Loss,
    pub(super) mean: f64,
    pub(super) std: f64,
}

/// The statistics of the errors of the features.
#[derive(Debug, Default)]
pub(super) struct FeatureScales {
    pub(super) names: Vec<String>,
    pub(super) mean: Vec<f64>,
    pub(super) divisor: Vec<f64>,
}

impl AnomalyScorer {
    /// Loads the statistics for the `requested` options from the card.
    pub(super) fn load_card_stats(
        &mut self,
        model: &Model,
        requested: &[&str],
        faults: &mut Vec<ConfigError>,
    ) {
        let Some(stats) = model
            .card()
            .and_then(|card| card.reconstruction_error.as_ref())
        else {
            let message = format!(
                "the model `{}` has no card with the section [reconstruction_error]",
                model.name()
            );
            return faults.push(ConfigError::new("model", message));
        };
        let groups = model.feature_groups(self.groups.inputs());
        if groups.inputs() == self.groups.inputs() {
            self.features = groups.features();
            self.groups = Arc::new(groups);
        }
        for &key in requested {
            let loaded = match key {
                "zscore" => self.load_error_stats(model, stats),
                _ => self.load_feature_stats(model, stats),
            };
            faults.extend(loaded.err().map(|message| ConfigError::new(key, message)));
        }
        let count = self.scales.names.len();
        if count > 0 && self.top_features > count {
            let message = format!(
                "the model `{}` takes {count} features, fewer than {}",
                model.name(),
                self.top_features
            );
            faults.push(ConfigError::new("top_features", message));
        }
    }

    fn load_error_stats(&mut self, model: &Model, stats: &ErrorStats) -> Result<(), String> {
        if stats.std == 0.0 {
            let name = model.name();
            return Err(format!(
                "all errors in the card of `{name}` are equal, so that the z-score is undefined"
            ));
        }
        self.error = Some(ErrorScale {
            loss: model.loss(),
            mean: stats.mean,
            std: stats.std,
        });
        Ok(())
    }

    fn load_feature_stats(&mut self, model: &Model, stats: &ErrorStats) -> Result<(), String> {
        let name = model.name();
        let (Some(features), Some(input)) = (&stats.features, model.feature_input()) else {
            return Err(format!(
                "the card of `{name}` does not contain reconstruction_error.features, the errors \
                 of single features; `latentflow train` writes them"
            ));
        };
        let (found, expected) = (
            self.groups.inputs(),
            input.groups(features.mean.len()).inputs(),
        );
        if found != expected {
            return Err(format!(
                "the original has {found} values, but the model `{name}` takes {expected} features"
            ));
        }
        let scales = FeatureScales {
            names: input.columns.clone(),
            mean: features.mean.clone(),
            divisor: features.divisors(),
        };
        self.scales = Arc::new(scales);
        Ok(())
    }
}
