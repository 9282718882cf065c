//! Anomaly scores: the errors of a record relative to those on the validation data of the model, in
//! total and per feature.

pub(crate) mod card_stats;
pub(crate) mod ranking;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, ListArray, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};

use crate::error::StageError;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::model::attribution::FeatureAttributor;
use crate::model::card::error_stats::UNUSUAL_ZSCORE;
use crate::model::feature_groups::FeatureGroups;
use crate::plan_context::PlanContext;
use crate::tensor::{TensorShape, fixed_column, vector_field};
use crate::transform::anomaly::card_stats::{ErrorScale, FeatureScales};
use crate::transform::anomaly::ranking::{FeatureRanking, top_fields, top_item};

/// The requested columns of anomaly scores.
pub(super) struct AnomalyOptions<'a> {
    /// The name of the model whose card states the usual errors.
    pub(super) model: Option<&'a str>,
    pub(super) zscore: bool,
    pub(super) feature_errors: bool,
    pub(super) feature_zscores: bool,
    /// The number of features in `top_features`; 0 without the column.
    pub(super) top_features: usize,
}

impl AnomalyOptions<'_> {
    /// Whether any column is requested.
    pub(super) fn is_any(&self) -> bool {
        self.zscore || self.feature_errors || self.feature_zscores || self.top_features > 0
    }
}

/// The requested columns, and the error statistics of the card.
#[derive(Clone, Default)]
pub(super) struct AnomalyScorer {
    error: Option<ErrorScale>,
    features: usize,
    /// The values of a record that belong to each feature.
    groups: Arc<FeatureGroups>,
    feature_errors: bool,
    feature_zscores: bool,
    top_features: usize,
    scales: Arc<FeatureScales>,
    ranking: Option<FeatureRanking>,
}

impl AnomalyScorer {
    /// Plans the requested columns for tensors of `shape`.
    ///
    /// # Errors
    /// Faults of options that require a missing model, and of a card without the required
    /// statistics.
    pub(super) fn plan(
        options: &AnomalyOptions<'_>,
        shape: &TensorShape,
        context: &PlanContext,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut faults = Vec::new();
        let statistics = [
            ("zscore", options.zscore),
            ("feature_zscores", options.feature_zscores),
            ("top_features", options.top_features > 0),
        ];
        let requested: Vec<&str> = statistics
            .into_iter()
            .filter_map(|(key, is_set)| is_set.then_some(key))
            .collect();
        let mut planned = Self {
            features: shape.len().unwrap_or_default(),
            groups: Arc::new(FeatureGroups::single(shape.len().unwrap_or_default())),
            feature_errors: options.feature_errors,
            feature_zscores: options.feature_zscores,
            top_features: options.top_features,
            ..Self::default()
        };
        if options.feature_errors && planned.features == 0 {
            faults.push(ConfigError::new(
                "feature_errors",
                "the records have different shapes, and thus no features",
            ));
        }
        match (options.model, requested.as_slice()) {
            (None, requested) => {
                let message = "requires `model`, whose card states the usual errors";
                faults.extend(requested.iter().map(|&key| ConfigError::new(key, message)));
            }
            (Some(_), []) => {
                let message = "has no effect without zscore, feature_zscores or top_features; \
                               set one of them, or leave it out";
                faults.push(ConfigError::new("model", message));
            }
            (Some(name), requested) => match context.model(name) {
                Ok(model) => {
                    planned.load_card_stats(&model, requested, &mut faults);
                    if faults.is_empty() && options.top_features > 0 {
                        let ranking = FeatureRanking::plan(model, shape);
                        planned.ranking = faults.record(ranking);
                    }
                }
                // `found` is empty if the faults of the model are reported already.
                Err(found) => return Err(faults.into_iter().chain(found).collect()),
            },
        }
        if faults.is_empty() {
            Ok(planned)
        } else {
            Err(faults)
        }
    }

    /// Opens the sessions that rank the features of unusual records, if they are requested.
    ///
    /// # Errors
    /// If a file of the model cannot be opened.
    pub(super) fn attributor(&self) -> Result<Option<FeatureAttributor>, StageError> {
        let ranking = self.ranking.as_ref();
        ranking
            .map(|ranking| FeatureAttributor::new(&ranking.model, &ranking.shape))
            .transpose()
    }

    /// The maximum memory of the attributor and its sessions, in bytes.
    pub(super) fn attributor_bytes(&self) -> u64 {
        self.ranking.as_ref().map_or(0, |ranking| {
            let (per_worker, _) = ranking.model.session_bytes();
            per_worker + FeatureAttributor::scratch_bytes(&ranking.model, self.groups.inputs())
        })
    }

    /// The fields of the new columns.
    pub(super) fn fields(&self, prefix: &str) -> Vec<Field> {
        let name = |name: &str| format!("{prefix}{name}");
        let mut fields = Vec::new();
        if self.error.is_some() {
            fields.push(Field::new(name("zscore"), DataType::Float32, false));
        }
        if self.feature_errors {
            fields.push(vector_field(&name("feature_errors"), self.features));
        }
        if self.feature_zscores {
            fields.push(vector_field(&name("feature_zscores"), self.features));
        }
        if self.top_features > 0 {
            fields.push(Field::new(
                name("top_features"),
                DataType::List(top_item()),
                false,
            ));
        }
        fields
    }

    /// Appends the scores of a record to `to`. The record and its reconstruction must have finite
    /// values and the planned shape.
    pub(super) fn add(
        &self,
        target: &[f32],
        output: &[f32],
        attributor: Option<&mut FeatureAttributor>,
        to: &mut AnomalyColumns,
    ) {
        if let Some(ErrorScale { loss, mean, std }) = &self.error {
            to.zscores
                .push(((loss.error(target, output) - mean) / std) as f32);
        }
        let errors = self.groups.squared_errors(target, output);
        if self.feature_errors {
            to.feature_errors
                .extend(errors.clone().map(|error| error as f32));
        }
        let scales = self.scales.mean.iter().zip(&self.scales.divisor);
        let zscores = errors
            .zip(scales)
            .map(|(error, (mean, by))| (error - mean) / by);
        if self.feature_zscores {
            to.feature_zscores
                .extend(zscores.clone().map(|zscore| zscore as f32));
        }
        let Some(ranking) = &self.ranking else { return };
        let zscores: Vec<f64> = zscores.collect();
        let order = ranking.order(target, output, &zscores, self.top_features, attributor);
        let top = order
            .into_iter()
            .map(|feature| (feature, zscores[feature] as f32));
        to.top.extend(top);
    }

    /// Builds the columns from the appended scores, in the order of [`AnomalyScorer::fields`].
    ///
    /// # Errors
    /// An error of Arrow, which the plan excludes.
    pub(super) fn columns(&self, added: AnomalyColumns) -> Result<Vec<ArrayRef>, StageError> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        if self.error.is_some() {
            columns.push(Arc::new(Float32Array::from(added.zscores)));
        }
        if self.feature_errors {
            columns.push(fixed_column(self.features, added.feature_errors)?);
        }
        if self.feature_zscores {
            columns.push(fixed_column(self.features, added.feature_zscores)?);
        }
        if self.top_features > 0 {
            let names = added
                .top
                .iter()
                .map(|&(feature, _)| self.scales.names.get(feature).map_or("", String::as_str));
            let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
            let zscores: Float32Array = added.top.iter().map(|&(_, zscore)| zscore).collect();
            let tops = StructArray::try_new(top_fields(), vec![names, Arc::new(zscores)], None)?;
            let rows = added
                .top
                .len()
                .checked_div(self.top_features)
                .unwrap_or_default();
            let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(self.top_features, rows));
            columns.push(Arc::new(ListArray::try_new(
                top_item(),
                offsets,
                Arc::new(tops),
                None,
            )?));
        }
        Ok(columns)
    }

    /// The statistics of the card on which the columns depend; `None` if they do not depend on the
    /// card.
    pub(super) fn fingerprint(&self) -> Option<String> {
        let Self { error, scales, .. } = self;
        let statistics = format!("{error:?} {scales:?}");
        // Without means, as in cards of earlier versions, the text is that of earlier versions.
        let ranked_by = self.ranking.as_ref().and_then(|ranking| {
            let stats = &ranking.stats;
            let means = stats.features.as_ref()?.value_mean.as_ref()?;
            Some(format!(" {} {} {means:?}", stats.mean, stats.std))
        });
        (error.is_some() || !scales.names.is_empty())
            .then(|| statistics + &ranked_by.unwrap_or_default())
    }

    /// Descriptions of the new columns.
    pub(super) fn summary(&self) -> Vec<String> {
        let ErrorScale { loss, mean, std } = self.error.clone().unwrap_or_default();
        let descriptions = [
            (
                self.error.is_some(),
                format!("zscore of {} ({mean:.6} ± {std:.6})", loss.as_str()),
            ),
            (
                self.feature_errors,
                format!("errors of {} features", self.features),
            ),
            (
                self.feature_zscores,
                format!("z-scores of {} features", self.features),
            ),
            (
                self.top_features > 0,
                format!(
                    "the {} most unusual features; those of records with a zscore above \
                     {UNUSUAL_ZSCORE} by one more run of the model per feature",
                    self.top_features
                ),
            ),
        ];
        descriptions
            .into_iter()
            .filter_map(|(is_added, description)| is_added.then_some(description))
            .collect()
    }
}

/// The scores of the records of a batch so far.
#[derive(Default)]
pub(super) struct AnomalyColumns {
    zscores: Vec<f32>,
    feature_errors: Vec<f32>,
    feature_zscores: Vec<f32>,
    /// The requested number of features per record, by index, most unusual first.
    top: Vec<(usize, f32)>,
}

#[cfg(test)]
mod tests;
