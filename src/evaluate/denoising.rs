//! Measures denoising: selects the corruptions, applies them, and compares the output of the model
//! with the clean records.

use super::accumulator::ImageQualityAccumulator;
use super::inference::ModelRunner;
use super::sampler::{MiniBatch, RecordRef, Subsample};
use crate::corruption::spec::{CorruptionKind, CorruptionSpec};
use crate::corruption::{Corruption, Strength};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;
use crate::evaluate::options::EvaluateOptions;
use crate::evaluate::result::anomaly_scores::{DenoisingQuality, DenoisingScores};
use crate::image::PixelFormat;
use crate::model::Model;
use crate::model::{Loss, ModelCard, ModelInput};
use crate::registry;

/// Maximum number of records that are corrupted, once for each corruption. Denoisers of photographs
/// take a second per image.
pub(super) const MAX_CORRUPTED: usize = 1000;

/// The usual standard deviations of noise in benchmarks of denoisers, in units of 1/255.
const DEFAULT_SIGMAS: [f64; 3] = [15.0, 25.0, 50.0];

/// Corruptions that are applied one after the other, with a summary.
pub(super) struct CorruptionLevel {
    corruptions: Vec<Corruption>,
    text: String,
    /// The standard deviation of Gaussian noise if it is the same for all records.
    sigma: Option<f64>,
}

impl CorruptionLevel {
    /// Checks corruptions against the input of a model.
    ///
    /// # Errors
    /// Returns the faults of the first corruption that has any.
    pub(super) fn plan(
        specs: &[CorruptionSpec],
        format: Option<&PixelFormat>,
    ) -> Result<Self, Vec<ConfigError>> {
        let corruptions: Vec<Corruption> = specs
            .iter()
            .map(|spec| spec.plan(format))
            .collect::<Result<_, _>>()?;
        let text: Vec<String> = corruptions.iter().map(Corruption::summary).collect();
        let sigma = specs
            .iter()
            .find_map(|spec| match (spec.noise, spec.sigma) {
                (CorruptionKind::Gaussian, Some(Strength::Fixed(sigma))) => Some(sigma),
                _ => None,
            });
        Ok(Self {
            corruptions,
            text: text.join(", then "),
            sigma,
        })
    }

    /// Returns a summary of the corruptions.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Corrupts a record in place.
    ///
    /// # Errors
    /// If the record is an image that cannot be a JPEG, because of its size.
    pub(super) fn apply(
        &self,
        values: &mut [f32],
        entry: &RecordRef,
        format: Option<&PixelFormat>,
    ) -> Result<(), StageError> {
        let flat = (1, values.len());
        let size = format
            .map_or(Some(flat), |format| format.size(&entry.shape))
            .unwrap_or(flat);
        for (index, corruption) in self.corruptions.iter().enumerate() {
            let seed = entry.identity.wrapping_add(index as u64);
            corruption
                .apply(values, size, format, seed)
                .map_err(|error| {
                    let (part, position) = (entry.subset.as_str(), entry.index);
                    let message = format!("record {position} of the {part} part: {error}");
                    StageError::new(ErrorCode::ArgumentInvalid, message)
                })?;
        }
        Ok(())
    }
}

/// Returns the corruptions that a model was trained with, one list for each level. Gaussian noise
/// with a range of sigma becomes one level for each of the usual sigmas in the range; all other
/// corruptions stay as in the training.
///
/// # Errors
/// Returns the faults of the corruptions on the card.
pub(super) fn trained_with(card: &ModelCard) -> Result<Vec<Vec<CorruptionSpec>>, Vec<ConfigError>> {
    let written = card
        .training
        .as_ref()
        .and_then(|training| training.file.get("corruption"));
    let tables = match written {
        None => return Ok(Vec::new()),
        Some(serde_json::Value::Array(tables)) => tables.clone(),
        Some(table) => vec![table.clone()],
    };
    let specs = tables
        .into_iter()
        .map(registry::parse_options::<CorruptionSpec>)
        .collect::<Result<Vec<_>, _>>()?;
    let range = specs
        .iter()
        .find_map(|spec| match (spec.noise, spec.sigma) {
            (CorruptionKind::Gaussian, Some(Strength::Range([low, high]))) => Some((low, high)),
            _ => None,
        });
    let Some((low, high)) = range else {
        return Ok(if specs.is_empty() {
            vec![]
        } else {
            vec![specs]
        });
    };
    let mut sigmas: Vec<f64> = DEFAULT_SIGMAS
        .into_iter()
        .filter(|sigma| (low..=high).contains(sigma))
        .collect();
    if sigmas.is_empty() {
        sigmas.push((low + high) / 2.0);
    }
    let fixed = |sigma: f64| {
        let fix = |spec: &CorruptionSpec| match spec.noise {
            CorruptionKind::Gaussian => CorruptionSpec {
                sigma: Some(Strength::Fixed(sigma)),
                ..spec.clone()
            },
            _ => spec.clone(),
        };
        specs.iter().map(fix).collect()
    };
    Ok(sigmas.into_iter().map(fixed).collect())
}

/// Corrupts records, runs the model on them, and compares the corrupted records and the output with
/// the clean ones. Anomalies are left out. Returns `None` if no record could be compared.
///
/// # Errors
/// Returns an error if a record cannot be read.
pub(super) fn measure(
    runner: &mut ModelRunner,
    input: &ModelInput,
    sample: &Subsample<'_>,
    level: &CorruptionLevel,
    progress: &mut dyn FnMut(usize) -> Result<(), StageError>,
) -> Result<Option<DenoisingScores>, StageError> {
    let format = match input {
        ModelInput::Image(image) => Some(&image.format),
        _ => None,
    };
    let mut before = DenoisingComparison::new(format, sample.len());
    let mut after = DenoisingComparison::new(format, sample.len());
    sample.read(input, &mut |clean| {
        let mut noisy = clean.clone();
        for entry in &clean.records {
            level.apply(&mut noisy.values[entry.at.clone()], entry, format)?;
        }
        let model_output = runner.run(&noisy, false);
        let Some(outputs) = model_output.outputs else {
            return Ok(());
        };
        for (entry, _) in clean
            .records
            .iter()
            .zip(model_output.failed)
            .filter(|(entry, failed)| !failed && !entry.anomaly)
        {
            before.add(clean, entry, &noisy.values[entry.at.clone()]);
            after.add(clean, entry, &outputs[entry.at.clone()]);
        }
        progress(
            clean
                .records
                .last()
                .map_or(0, |entry| entry.sample_index + 1),
        )
    })?;
    let corruption = level.text.clone();
    let records = before.records;
    let both = before.finish().zip(after.finish());
    Ok(both.map(|(noisy, output)| DenoisingScores {
        corruption,
        sigma: level.sigma,
        records,
        noisy,
        output,
    }))
}

/// Accumulates the distance of records from the clean ones.
struct DenoisingComparison {
    squares: f64,
    records: usize,
    quality: Option<ImageQualityAccumulator>,
}

impl DenoisingComparison {
    fn new(format: Option<&PixelFormat>, expected: usize) -> Self {
        Self {
            squares: 0.0,
            records: 0,
            quality: format.map(|format| ImageQualityAccumulator::new(format.clone(), expected)),
        }
    }

    fn add(&mut self, clean: &MiniBatch, entry: &RecordRef, other: &[f32]) {
        let target = clean.record_values(entry);
        self.squares += Loss::Mse.error(target, other);
        self.records += 1;
        if let Some(quality) = &mut self.quality {
            quality.add(entry.sample_index, &entry.shape, target, other);
        }
    }

    fn finish(&self) -> Option<DenoisingQuality> {
        let images = self
            .quality
            .as_ref()
            .and_then(ImageQualityAccumulator::finish);
        (self.records > 0).then(|| DenoisingQuality {
            mse: self.squares / self.records as f64,
            images,
        })
    }
}

/// The corruptions to measure: those of the options, or those of the training.
///
/// # Errors
/// The faults of the corruptions.
pub(super) fn corruption_levels(
    model: &Model,
    options: &EvaluateOptions,
    format: Option<&PixelFormat>,
) -> Result<Vec<CorruptionLevel>, Vec<ConfigError>> {
    if options.corruptions.is_empty() {
        let trained = model
            .card()
            .map(trained_with)
            .transpose()?
            .unwrap_or_default();
        return trained
            .iter()
            .map(|specs| CorruptionLevel::plan(specs, format))
            .collect();
    }
    options
        .corruptions
        .iter()
        .map(|spec| CorruptionLevel::plan(std::slice::from_ref(spec), format))
        .collect()
}
