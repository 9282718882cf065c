//! Batches for training and validation: records in a seeded order, cropped, flipped, scaled and
//! corrupted.

use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::data::{Permutation, Record, RecordFile, RecordValues};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::image::{Channels, ImageError, Pixels, ResizeMode, Resizer};
use crate::train::augmentation::{Augmentation, InputValues, ZoomRange};

/// Records of one shape: inputs and targets.
#[derive(Debug, Clone)]
pub(crate) struct TrainingBatch {
    /// Number of records.
    pub records: usize,
    /// Shape of a record: one dimension, or channels, height, width.
    pub shape: Vec<usize>,
    /// Input values, record after record; empty if they equal the target values.
    pub input: Vec<f32>,
    /// Target values.
    pub target: Vec<f32>,
    /// The seed of this use of each record, for random values inside of the network. It depends on
    /// the seed of the training, the epoch and the identity of the record.
    pub seeds: Vec<u64>,
}

impl TrainingBatch {
    /// Returns the input values, record after record.
    pub fn input(&self) -> &[f32] {
        if self.input.is_empty() {
            &self.target
        } else {
            &self.input
        }
    }
}

/// The records of one pass over the data, in a fixed order.
#[derive(Clone)]
pub(crate) struct EpochSampler {
    records: Arc<RecordFile>,
    augmentation: Arc<Augmentation>,
    /// The epoch, which determines the order, the crops and the noise. `None` for a validation:
    /// records in their stored order, the same in every run.
    epoch: Option<u32>,
    batch_size: usize,
}

/// Constants that separate the random streams of one seed.
const ORDER: u64 = 0x6f72_6465;
const CUT: u64 = 0x6375_7400;
const ZOOM: u64 = 0x7a6f_6f6d;
const NOISE: u64 = 0x6e6f_6973;

impl EpochSampler {
    /// Samples all records of `records` in batches for an epoch of training.
    pub fn training(
        records: &Arc<RecordFile>,
        augmentation: &Arc<Augmentation>,
        epoch: u32,
        batch_size: usize,
    ) -> Self {
        Self {
            records: Arc::clone(records),
            augmentation: Arc::clone(augmentation),
            epoch: Some(epoch),
            batch_size,
        }
    }

    /// Samples all records of `records` for a validation, in the same way every time.
    pub fn validation(
        records: &Arc<RecordFile>,
        augmentation: &Arc<Augmentation>,
        batch_size: usize,
    ) -> Self {
        Self {
            records: Arc::clone(records),
            augmentation: Arc::clone(augmentation),
            epoch: None,
            batch_size,
        }
    }

    /// Returns the number of records, or of crops of them.
    pub fn len(&self) -> u64 {
        // A validation measures the entire image, so one crop is sufficient.
        let zooms = self.augmentation.zoom.is_some() && self.epoch.is_some();
        let crops = if self.augmentation.crop.is_some() || zooms {
            self.augmentation.crops
        } else {
            1
        };
        self.records.len() as u64 * crops as u64
    }

    /// Returns the number of batches.
    pub fn batches(&self) -> u64 {
        self.len().div_ceil(self.batch_size as u64)
    }

    /// Returns batch `number`, counted from 0.
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn batch(&self, number: u64) -> Result<TrainingBatch, StageError> {
        let (start, len) = (number * self.batch_size as u64, self.len());
        let end = (start + self.batch_size as u64).min(len);
        let key = |epoch: u32| mix(self.augmentation.seed, ORDER) ^ u64::from(epoch);
        let permutation = self
            .epoch
            .map(|epoch| Permutation::new(len, mix(key(epoch), 1)));
        let mut batch = TrainingBatch {
            records: 0,
            shape: Vec::new(),
            input: Vec::new(),
            target: Vec::new(),
            seeds: Vec::new(),
        };
        let mut record = Record::default();
        let mut resizer = self
            .augmentation
            .zoom
            .map(|zoom| Resizer::new(zoom.size[0], zoom.size[1], ResizeMode::Stretch));
        for position in start..end {
            let at = permutation.map_or(position, |permutation| permutation.at(position));
            let index = at % self.records.len().max(1) as u64;
            self.records
                .read(usize::try_from(index).unwrap_or(usize::MAX), &mut record)?;
            let visit = mix(
                record.identity ^ mix(self.augmentation.seed, at),
                self.epoch.map_or(0, u64::from),
            );
            if let (Some(zoom), Some(resizer)) = (self.augmentation.zoom, &mut resizer) {
                self.zoom(zoom, resizer, visit, &mut record)?;
            }
            self.append(&record, visit, &mut batch).map_err(|error| {
                let place = match self
                    .records
                    .origin(usize::try_from(index).unwrap_or_default())
                {
                    Ok(Some(origin)) => origin.to_string(),
                    _ => format!("record {index}"),
                };
                StageError::new(ErrorCode::Training, format!("{place}: {error}"))
            })?;
        }
        Ok(batch)
    }

    /// Replaces the image with a resized part of it, or with the entire image, resized, for a
    /// validation.
    fn zoom(
        &self,
        zoom: ZoomRange,
        resizer: &mut Resizer,
        visit: u64,
        record: &mut Record,
    ) -> Result<(), StageError> {
        let ([rows, columns, channels], RecordValues::U8(pixels)) = (record.shape, &record.values)
        else {
            return Ok(());
        };
        let mut rng = ChaCha8Rng::seed_from_u64(mix(visit, ZOOM));
        let [low, high] = if self.epoch.is_some() {
            zoom.share
        } else {
            [1.0, 1.0]
        };
        let mut part = |whole: usize| {
            let len =
                ((whole as f32 * rng.random_range(low..=high)).round() as usize).clamp(1, whole);
            (rng.random_range(0..=whole - len), len)
        };
        let ((top, height), (left, width)) = (part(rows), part(columns));
        let row = |y: usize| &pixels[((top + y) * columns + left) * channels..][..width * channels];
        let data: Vec<u8> = (0..height).flat_map(row).copied().collect();
        let channels_of = if channels == 1 {
            Channels::Gray
        } else {
            Channels::Rgb
        };
        let resized = resizer.resize(&Pixels {
            width,
            height,
            channels: channels_of,
            data,
        });
        let resized = resized
            .map_err(|error| StageError::new(ErrorCode::Internal, error.to_string()))?
            .to_vec();
        (record.shape, record.values) = (
            [zoom.size[0], zoom.size[1], channels],
            RecordValues::U8(resized),
        );
        Ok(())
    }

    /// Appends a record in the form that the network receives; `visit` is the seed of this use of
    /// the record.
    ///
    /// # Errors
    /// If the record cannot be corrupted.
    fn append(
        &self,
        record: &Record,
        visit: u64,
        batch: &mut TrainingBatch,
    ) -> Result<(), ImageError> {
        let augmentation = &*self.augmentation;
        let start = batch.target.len();
        let shape = match (&augmentation.values, &record.values) {
            (InputValues::Pixels(format), RecordValues::U8(pixels)) => {
                let mut rng = ChaCha8Rng::seed_from_u64(mix(visit, CUT));
                let crop = augmentation.draw_crop(record.shape, &mut rng, self.epoch.is_some());
                crop.write(format, pixels, record.shape, &mut batch.target);
                vec![format.channels.count(), crop.height, crop.width]
            }
            (
                InputValues::Features(features),
                values @ (RecordValues::F32(_) | RecordValues::F64(_)),
            ) => {
                values.append_features(features, &mut batch.target);
                vec![batch.target.len() - start]
            }
            // Records match the augmentation. A record of the other type would give a batch that no
            // network accepts.
            _ => Vec::new(),
        };
        if !augmentation.corruption.is_empty() {
            batch.input.extend_from_slice(&batch.target[start..]);
            let (size, format) = match (&augmentation.values, shape.as_slice()) {
                (InputValues::Pixels(format), &[_, height, width]) => {
                    ((height, width), Some(format))
                }
                _ => ((1, batch.target.len() - start), None),
            };
            for (index, corruption) in augmentation.corruption.iter().enumerate() {
                let seed = mix(mix(visit, NOISE), index as u64);
                corruption.apply(&mut batch.input[start..], size, format, seed)?;
            }
        }
        batch.shape = shape;
        batch.seeds.push(visit);
        batch.records += 1;
        Ok(())
    }
}

/// Mixes two numbers: the finalizer of MurmurHash3 over their sum.
fn mix(one: u64, other: u64) -> u64 {
    let mut x = one
        .wrapping_add(other.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests;
