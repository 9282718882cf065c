//! Example records for a report: clean, corrupted, and the output of the model.

use super::denoising::corruption_levels;
use super::inference::ModelRunner;
use super::sampler::MiniBatch;
use crate::data::{PreparedDataset, Record, RecordOrigin, Subset};
use crate::error::StageError;
use crate::evaluate::options::{EvaluateError, EvaluateOptions};
use crate::model::attribution::{ExplainedFeature, FeatureAttributor};
use crate::model::card::error_stats::ErrorStats;
use crate::model::feature_errors::FeatureStats;
use crate::model::feature_groups::FeatureGroups;
use crate::model::files::ModelPath;
use crate::model::{Loss, Model};

/// Example records and the corruption that was applied to them.
#[derive(Debug, Default)]
pub(crate) struct ExampleSet {
    /// A summary of the corruption; `None` if the records are not corrupted.
    pub corruption: Option<String>,
    /// The records, without those on which the model failed.
    pub records: Vec<ExampleRecord>,
}

/// The input and the output of the model for one record.
#[derive(Debug)]
pub(crate) struct ExampleRecord {
    /// The part of the record.
    pub subset: Subset,
    /// The index of the record in its part, from 0.
    pub index: usize,
    /// The file and the row that the record was read from; `None` if an earlier version prepared the
    /// data.
    pub origin: Option<RecordOrigin>,
    /// The shape of the three tensors.
    pub shape: Vec<usize>,
    /// The clean record, converted to the input of the model.
    pub clean: Vec<f32>,
    /// The corrupted record, if it was corrupted.
    pub corrupted: Option<Vec<f32>>,
    /// The output of the model.
    pub output: Vec<f32>,
    /// The features that explain most of the error, most first, if the record is unusual by the
    /// card and was not corrupted.
    pub explained: Option<Vec<ExplainedFeature>>,
}

/// Runs the model on these records. They are corrupted with the middle one of the corruption levels
/// that an evaluation with `options` measures.
///
/// # Errors
/// Returns an error if the model cannot run, a record cannot be read, or a corruption does not
/// apply to the records.
pub(crate) fn collect_examples(
    model: &Model,
    prepared: &PreparedDataset,
    options: &EvaluateOptions,
    records: &[(Subset, usize)],
) -> Result<ExampleSet, EvaluateError> {
    let format = model.image_input().map(|image| image.format);
    let mut levels =
        corruption_levels(model, options, format.as_ref()).map_err(EvaluateError::Faults)?;
    let level = (!levels.is_empty()).then(|| levels.swap_remove(levels.len() / 2));
    let mut runner = ModelRunner::new(model)?;
    let mut explainer = match level {
        None => RecordExplainer::new(model)?,
        // The model has not reconstructed the clean records.
        Some(_) => None,
    };
    let mut examples = ExampleSet {
        corruption: level.as_ref().map(|level| level.text().to_owned()),
        records: Vec::new(),
    };
    let mut record = Record::default();
    for &(subset, index) in records {
        prepared.subset(subset).read(index, &mut record)?;
        let mut batch = MiniBatch::default();
        batch.add(model.input(), &record, (subset, index, 0));
        let Some(entry) = batch.records.first().cloned() else {
            continue;
        };
        let clean = batch.values.clone();
        if let Some(level) = &level {
            level.apply(&mut batch.values, &entry, format.as_ref())?;
        }
        let model_output = runner.run(&batch, false);
        if let (Some(output), [false]) = (model_output.outputs, model_output.failed.as_slice()) {
            let explained = explainer
                .as_mut()
                .and_then(|explainer| explainer.explain(&clean, &output));
            let corrupted = level.is_some().then_some(batch.values);
            examples.records.push(ExampleRecord {
                subset,
                index,
                origin: prepared.subset(subset).origin(index)?,
                shape: entry.shape,
                clean,
                corrupted,
                output,
                explained,
            });
        }
    }
    Ok(examples)
}

/// Maximum number of features that are explained.
const MAX_EXPLAINED: usize = 12;

/// Explains the errors of records that are unusual by the card, as the stage `score` does.
struct RecordExplainer<'a> {
    loss: Loss,
    stats: &'a ErrorStats,
    features: &'a FeatureStats,
    groups: FeatureGroups,
    attributor: FeatureAttributor,
}

impl<'a> RecordExplainer<'a> {
    /// Opens the model again; `None` if its card does not have the errors of single features.
    fn new(model: &'a Model) -> Result<Option<Self>, StageError> {
        let stats = model
            .card()
            .and_then(|card| card.reconstruction_error.as_ref());
        let features = stats.and_then(|stats| stats.features.as_ref());
        let (Some(stats), Some(features), Some(shape)) = (stats, features, model.input_shape())
        else {
            return Ok(None);
        };
        if model.files(ModelPath::Reconstruct).is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            loss: model.loss(),
            stats,
            features,
            groups: model.feature_groups(shape.iter().product()),
            attributor: FeatureAttributor::new(model, &shape)?,
        }))
    }

    fn explain(&mut self, record: &[f32], output: &[f32]) -> Option<Vec<ExplainedFeature>> {
        let is_unusual = self.stats.is_unusual(self.loss.error(record, output));
        let fits = record.len() == self.groups.inputs()
            && self.features.mean.len() == self.groups.features();
        (is_unusual && fits).then(|| {
            let zscores = self.features.zscores(&self.groups, record, output);
            self.attributor
                .rank(record, output, &zscores, MAX_EXPLAINED)
        })
    }
}
