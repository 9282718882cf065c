//! Batches for training and validation: records in a seeded order, cropped, flipped, scaled and
//! corrupted.

use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::config::Flips;
use crate::corruption::Corruption;
use crate::data::{Permutation, Record, RecordFile, RecordValues};
use crate::error::StageError;
use crate::image::{Channels, PixelFormat, Pixels, ResizeMode, Resizer};
use crate::model::Scaling;

/// The operations that convert records into the input of the network.
pub struct Augmentation {
    /// The type of the values of a record.
    pub values: InputValues,
    /// The corruptions, which are applied to the input in this order; the target stays clean.
    pub corruption: Vec<Corruption>,
    /// Side of the squares that are cut from images, in pixels.
    pub crop: Option<usize>,
    /// The range of the parts that are cut from images, if entire images are not used.
    pub zoom: Option<ZoomRange>,
    /// Number of squares or parts of each image in an epoch.
    pub crops: usize,
    /// Random flips of images.
    pub flips: Flips,
    /// The seed of the training.
    pub seed: u64,
}

/// The parts that are cut from images and resized to one size.
#[derive(Debug, Clone, Copy)]
pub struct ZoomRange {
    /// Height and width that parts are resized to.
    pub size: [usize; 2],
    /// The range of the height and the width of a part, as fractions of the image.
    pub share: [f32; 2],
}

/// The conversion of raw values into the values of a tensor.
pub enum InputValues {
    /// Pixels, converted to planes.
    Pixels(PixelFormat),
    /// Features.
    Features(Scaling),
}

/// Records of one shape: inputs and targets.
#[derive(Debug, Clone)]
pub struct TrainingBatch {
    /// Number of records.
    pub records: usize,
    /// Shape of a record: one dimension, or channels, height, width.
    pub shape: Vec<usize>,
    /// Input values, record after record; empty if they equal the target values.
    pub input: Vec<f32>,
    /// Target values.
    pub target: Vec<f32>,
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
pub struct EpochSampler {
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
            self.append(&record, visit, &mut batch);
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
            .map_err(|error| StageError::Other(error.to_string()))?
            .to_vec();
        (record.shape, record.values) = (
            [zoom.size[0], zoom.size[1], channels],
            RecordValues::U8(resized),
        );
        Ok(())
    }

    /// Appends a record in the form that the network receives; `visit` is the seed of this use of
    /// the record.
    fn append(&self, record: &Record, visit: u64, batch: &mut TrainingBatch) {
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
                InputValues::Features(scaling),
                values @ (RecordValues::F32(_) | RecordValues::F64(_)),
            ) => {
                values.scale_features(scaling, &mut batch.target);
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
                corruption.apply(&mut batch.input[start..], size, format, seed);
            }
        }
        batch.shape = shape;
        batch.records += 1;
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

/// A part of an image and its flips.
struct Crop {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
    mirror: bool,
    upside_down: bool,
    transpose: bool,
}

impl Augmentation {
    fn draw_crop(&self, [height, width, _]: [usize; 3], rng: &mut ChaCha8Rng, flip: bool) -> Crop {
        let (h, w) = self.crop.map_or((height, width), |crop| (crop, crop));
        let mut shift =
            |whole: usize, part: usize| rng.random_range(0..=whole.saturating_sub(part));
        let (top, left) = (shift(height, h), shift(width, w));
        let flips = if flip { self.flips } else { Flips::None };
        let mut coin = |allowed: bool| allowed && rng.random::<bool>();
        let all = flips == Flips::All;
        let (mirror, upside_down) = (coin(flips != Flips::None), coin(all));
        Crop {
            top,
            left,
            height: h,
            width: w,
            mirror,
            upside_down,
            transpose: coin(all && h == w),
        }
    }
}

impl Crop {
    /// Appends the pixels of the crop as planes of the format's values.
    fn write(
        &self,
        format: &PixelFormat,
        pixels: &[u8],
        [rows, columns, channels]: [usize; 3],
        out: &mut Vec<f32>,
    ) {
        // Only square crops are transposed, since height and width have to be the same.
        let line =
            |start: usize, len: usize, reversed: bool, whole: usize, stride: usize| -> Vec<usize> {
                let source_offset = |i: usize| {
                    reflect(start + if reversed { len - 1 - i } else { i }, whole) * stride
                };
                (0..len).map(source_offset).collect()
            };
        let down = line(
            self.top,
            self.height,
            self.upside_down,
            rows,
            columns * channels,
        );
        let right = line(self.left, self.width, self.mirror, columns, channels);
        for channel in 0..channels {
            let (scale, offset) = format.affine(channel);
            let table: [f32; 256] = std::array::from_fn(|byte| byte as f32 * scale + offset);
            let (outer, inner) = if self.transpose {
                (&right, &down)
            } else {
                (&down, &right)
            };
            for line_offset in outer {
                out.extend(inner.iter().map(|inner_offset| {
                    table[usize::from(pixels[line_offset + inner_offset + channel])]
                }));
            }
        }
    }
}

/// Returns the position within the image that a position beyond the edge reflects. An image that is
/// smaller than its crop is extended by reflection.
fn reflect(position: usize, len: usize) -> usize {
    let folded = position % (2 * len).max(1);
    if folded < len {
        folded
    } else {
        2 * len - 1 - folded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(crop: Crop) -> Vec<f32> {
        // Two rows of three pixels with one varying and one constant channel.
        let pixels: Vec<u8> = (0..6).flat_map(|pixel| [pixel, 100]).collect();
        let format = PixelFormat {
            channels: Channels::Gray,
            ..PixelFormat::default()
        };
        let format = PixelFormat {
            range: [0.0, 255.0],
            ..format
        };
        let mut out = Vec::new();
        crop.write(&format, &pixels, [2, 3, 2], &mut out);
        let (first, second) = out.split_at(out.len() / 2);
        assert!(second.iter().all(|&value| value == 100.0), "{second:?}");
        first.to_vec()
    }

    #[test]
    fn crops_are_cut_and_flipped() {
        let crop = |mirror, upside_down, transpose| Crop {
            top: 0,
            left: 1,
            height: 2,
            width: 2,
            mirror,
            upside_down,
            transpose,
        };
        assert_eq!(cut(crop(false, false, false)), [1.0, 2.0, 4.0, 5.0]);
        assert_eq!(cut(crop(true, false, false)), [2.0, 1.0, 5.0, 4.0]);
        assert_eq!(cut(crop(false, true, false)), [4.0, 5.0, 1.0, 2.0]);
        assert_eq!(cut(crop(false, false, true)), [1.0, 4.0, 2.0, 5.0]);
        assert_eq!(cut(crop(true, true, true)), [5.0, 2.0, 4.0, 1.0]);
    }

    #[test]
    fn image_smaller_than_its_crop_is_extended_by_reflection() {
        let crop = Crop {
            top: 0,
            left: 0,
            height: 3,
            width: 5,
            mirror: false,
            upside_down: false,
            transpose: false,
        };
        let expected =
            [0, 1, 2, 2, 1, 3, 4, 5, 5, 4, 3, 4, 5, 5, 4].map(|value: u8| f32::from(value));
        assert_eq!(cut(crop), expected);
    }
}
