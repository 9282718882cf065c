//! Single records, to be looked at: as they are, corrupted, and as the model gives them back.

use super::inference::ModelRunner;
use super::sampler::MiniBatch;
use super::{EvaluateError, EvaluateOptions, levels};
use crate::data::{PreparedDataset, Record, Subset};
use crate::model::Model;

/// Records as a model sees them.
#[derive(Debug, Default)]
pub struct ExampleSet {
    /// What was done to each before the model got it, in a phrase; `None`: nothing.
    pub corruption: Option<String>,
    /// The records, without those on which the model failed.
    pub records: Vec<ExampleRecord>,
}

/// A record before and after.
#[derive(Debug)]
pub struct ExampleRecord {
    /// The part it is in.
    pub subset: Subset,
    /// Its place there, counted from 0.
    pub index: usize,
    /// The shape of its tensors.
    pub shape: Vec<usize>,
    /// As the model takes it.
    pub clean: Vec<f32>,
    /// As the model took it, where it was corrupted.
    pub corrupted: Option<Vec<f32>>,
    /// What the model made of it.
    pub output: Vec<f32>,
}

/// Looks at these records, corrupted in the middle one of the ways that an evaluation with
/// `options` tries.
///
/// # Errors
/// When the model cannot run, the records cannot be read, or a corruption does not fit them.
pub fn collect_examples(
    model: &Model,
    prepared: &PreparedDataset,
    options: &EvaluateOptions,
    records: &[(Subset, usize)],
) -> Result<ExampleSet, EvaluateError> {
    let format = model.image_input().map(|image| image.format);
    let mut levels = levels(model, options, format.as_ref()).map_err(EvaluateError::Faults)?;
    let level = (!levels.is_empty()).then(|| levels.swap_remove(levels.len() / 2));
    let mut runner = ModelRunner::new(model)?;
    let mut shown = ExampleSet {
        corruption: level.as_ref().map(|level| level.text().to_owned()),
        records: Vec::new(),
    };
    let mut record = Record::default();
    for &(subset, index) in records {
        prepared.subset(subset).read(index, &mut record)?;
        let mut slice = MiniBatch::default();
        slice.add(model.input(), &record, (subset, index, 0));
        let Some(entry) = slice.records.first().cloned() else {
            continue;
        };
        let clean = slice.values.clone();
        level
            .iter()
            .for_each(|level| level.apply(&mut slice.values, &entry, format.as_ref()));
        let given = runner.run(&slice, false);
        if let (Some(output), [false]) = (given.outputs, given.failed.as_slice()) {
            let corrupted = level.is_some().then_some(slice.values);
            shown.records.push(ExampleRecord {
                subset,
                index,
                shape: entry.shape,
                clean,
                corrupted,
                output,
            });
        }
    }
    Ok(shown)
}
