//! The features of a record that explain its error, in the order of their contributions.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};

use crate::error::config_error::ConfigError;
use crate::model::attribution::FeatureAttributor;
use crate::model::card::error_stats::ErrorStats;
use crate::model::files::ModelPath;
use crate::model::{Model, same_layout};
use crate::tensor::TensorShape;

/// The model whose features are ranked, and the statistics by which a record is unusual.
#[derive(Clone)]
pub(super) struct FeatureRanking {
    pub(super) model: Arc<Model>,
    pub(super) shape: Vec<usize>,
    pub(super) stats: Arc<ErrorStats>,
}

impl FeatureRanking {
    pub(super) fn plan(model: Arc<Model>, shape: &TensorShape) -> Result<Self, ConfigError> {
        let fault = |reason: String| {
            let message = format!("requires a model that can be run again: {reason}");
            ConfigError::new("top_features", message)
        };
        let TensorShape::Fixed(shape) = shape else {
            return Err(fault("the records have different shapes".to_owned()));
        };
        let output = model
            .output_shape(ModelPath::Reconstruct, shape)
            .map_err(|error| fault(error.to_string()))?;
        if !same_layout(&output, shape) {
            return Err(fault(format!(
                "it returns the shape {output:?} for records of shape {shape:?}"
            )));
        }
        let stats = model
            .card()
            .and_then(|card| card.reconstruction_error.clone());
        let stats = stats.ok_or_else(|| fault("it has no card".to_owned()))?;
        Ok(Self {
            model,
            shape: shape.clone(),
            stats: Arc::new(stats),
        })
    }

    /// The first `count` features of a record, most unusual first.
    pub(super) fn order(
        &self,
        target: &[f32],
        output: &[f32],
        zscores: &[f64],
        count: usize,
        attributor: Option<&mut FeatureAttributor>,
    ) -> Vec<usize> {
        let error = self.model.loss().error(target, output);
        match attributor.filter(|_| self.stats.is_unusual(error)) {
            Some(attributor) => {
                let ranked = attributor.rank(target, output, zscores, count);
                ranked.iter().map(|explained| explained.feature).collect()
            }
            None => {
                let mut order: Vec<usize> = (0..zscores.len()).collect();
                order.sort_by(|&a, &b| (zscores[b] as f32).total_cmp(&(zscores[a] as f32)));
                order.truncate(count);
                order
            }
        }
    }
}

pub(super) fn top_item() -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Struct(top_fields()), false))
}

pub(super) fn top_fields() -> Fields {
    Fields::from(vec![
        Field::new("feature", DataType::Utf8, false),
        Field::new("zscore", DataType::Float32, false),
    ])
}
