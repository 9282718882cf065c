//! The distance between JPEGs that are decoded in full and at a fraction of their size, in the pixels
//! and in the output of a model.

use super::inference::{ModelOutput, ModelRunner};
use super::sampler::{MiniBatch, Subsample, scored_parts};
use crate::data::PreparedDataset;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::evaluate::options::{EvaluateOptions, Progress};
use crate::evaluate::result::anomaly_scores::DecodeDistance;
use crate::image::PixelFormat;
use crate::model::{Model, ModelInput};

/// Maximum number of records that are compared.
const MAX_COMPARED: usize = 1000;
/// Maximum number of values of the records in memory: 64 MiB.
const MAX_VALUES: usize = 1 << 24;

/// The records of a part, and the output of the model for them.
struct DecodedRecords {
    batch: MiniBatch,
    output: ModelOutput,
}

/// Compares the records of the scored parts, decoded in full and at a fraction of their size. Both
/// have the same records in the same order.
///
/// # Errors
/// If the records cannot be read or differ between the modes, or the error of `progress`.
pub(super) fn measure(
    model: &Model,
    [full, scaled]: [&PreparedDataset; 2],
    options: &EvaluateOptions,
    progress: &mut Progress<'_>,
) -> Result<DecodeDistance, StageError> {
    let format = model.image_input().map(|image| image.format);
    let mut runner = ModelRunner::new(model)?;
    let most = MAX_COMPARED.min(MAX_VALUES / runner.record_len().unwrap_or(1).max(1));
    let mut records = |prepared, name| {
        let sample = Subsample::new(scored_parts(prepared, options), most.max(1));
        let mut batch = MiniBatch::default();
        sample.read(model.input(), &mut |read| {
            batch.append(read);
            progress(name, batch.records.len(), sample.len())
        })?;
        let output = runner.run(&batch, false);
        Ok::<_, StageError>(DecodedRecords { batch, output })
    };
    let full = records(full, "comparing full decoding")?;
    let scaled = records(scaled, "comparing scaled decoding")?;
    let distance = format.and_then(|format| compare(model, &format, &full, &scaled));
    distance.ok_or_else(|| {
        let message = "the records that are decoded in full differ from those that are decoded at a \
                       fraction of their size";
        StageError::new(ErrorCode::Training, message.to_owned())
    })
}

fn compare(
    model: &Model,
    format: &PixelFormat,
    full: &DecodedRecords,
    scaled: &DecodedRecords,
) -> Option<DecodeDistance> {
    let both = [full, scaled];
    let [one, other] = both.map(|records| format.denormalize(&records.batch.values));
    if one.len() != other.len() || one.is_empty() {
        return None;
    }
    let steps = || one.iter().zip(&other).map(|(a, b)| a.abs_diff(*b));
    let errors = both.map(|records| mean_error(model, records));
    let latent = both.map(|records| records.output.codes.as_deref());
    Some(DecodeDistance {
        records: full.batch.records.len(),
        mean_steps: steps().map(f64::from).sum::<f64>() / one.len() as f64,
        max_steps: steps().max().unwrap_or_default(),
        full_error: errors[0],
        scaled_error: errors[1],
        latent: match latent {
            [Some(full_codes), Some(scaled_codes)] => {
                relative_distance(full_codes, scaled_codes, full.batch.records.len())
            }
            _ => None,
        },
    })
}

/// The mean reconstruction error, if the model reconstructs.
fn mean_error(model: &Model, records: &DecodedRecords) -> Option<f64> {
    let outputs = records.output.outputs.as_ref()?;
    let errors = records.batch.records.iter().map(|entry| {
        let range = entry.at.clone();
        let original = &records.batch.values[range.clone()];
        model.loss().error(original, &outputs[range])
    });
    Some(errors.sum::<f64>() / records.batch.records.len() as f64)
}

/// The root of the mean squared difference, divided by the standard deviation of a value over the
/// records.
fn relative_distance(one: &[f32], other: &[f32], records: usize) -> Option<f64> {
    let size = one.len().checked_div(records).filter(|size| *size > 0)?;
    let mut means = vec![0.0; size];
    for code in one.chunks_exact(size) {
        for (mean, value) in means.iter_mut().zip(code) {
            *mean += f64::from(*value) / records as f64;
        }
    }
    let square = |difference: f64| difference * difference;
    let (mut differences, mut variance) = (0.0, 0.0);
    for (code, changed_code) in one.chunks_exact(size).zip(other.chunks_exact(size)) {
        for ((value, changed), mean) in code.iter().zip(changed_code).zip(&means) {
            differences += square(f64::from(*value) - f64::from(*changed));
            variance += square(f64::from(*value) - mean);
        }
    }
    (variance > 0.0).then(|| (differences / variance).sqrt())
}

/// Whether a model resizes images without steps, so that the mode of decoding matters.
pub(super) fn applies(model: &Model) -> bool {
    matches!(model.input(), ModelInput::Image(image) if image.size.is_some() && image.steps.is_none())
}
