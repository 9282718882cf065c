//! The samples of a TIFF as levels of 8 bits: the order of planes, bit depths, and ranges of values.

use std::io::Cursor;

use tiff::TiffError;
use tiff::decoder::ifd::Value;
use tiff::decoder::{Decoder, DecodingResult};
use tiff::tags::Tag;

use crate::image::error::ImageError;
use crate::image::info::ImageFormat;
use crate::image::value_range::{ValueRange, levels_of_16_bits};

/// The greatest value of 12 bits. Samples of 16 bits that are all smaller would be almost black.
const MAX_OF_12_BITS: u16 = 4095;
/// The range of floating-point samples without another range.
const UNIT: [f64; 2] = [0.0, 1.0];

/// The meaning of the samples of a pixel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A level between black and white.
    Level,
    /// An amount of an ink, or a component of YCbCr, of which all bits are used.
    Ink,
    /// An index into a palette.
    Index,
}

/// The layout of decoded samples, and the range of their values.
pub(super) struct SampleReader {
    /// The number of columns, and of all pixels.
    pub(super) width: usize,
    pub(super) pixels: usize,
    /// The number of samples of a pixel.
    pub(super) samples: usize,
    /// The number of planes: 1 if the samples are interleaved.
    pub(super) planes: usize,
    pub(super) bits: usize,
    /// The range according to tags, and else the one of the pipeline.
    pub(super) stated_range: Option<[f64; 2]>,
    pub(super) range: Option<ValueRange>,
}

impl SampleReader {
    /// The levels of the first `kept` samples of each pixel, interleaved; the first `colors` of them
    /// decide whether the range is plausible.
    pub(super) fn levels(
        &self,
        buffer: DecodingResult,
        kind: Kind,
        colors: usize,
        kept: usize,
    ) -> Result<Vec<u8>, ImageError> {
        match buffer {
            DecodingResult::U8(packed) if self.bits < 8 => {
                Ok(self.select(&self.unpack(&packed, kind)?, kept))
            }
            DecodingResult::U8(samples) => Ok(self.select(&samples, kept)),
            DecodingResult::U16(samples) => {
                self.levels_of_words(&self.select(&samples, kept), kind, colors, kept)
            }
            _ if kind != Kind::Level => Err(ImageError::unsupported(
                ImageFormat::Tiff,
                format_args!("colors of {} bits per sample", self.bits),
            )),
            DecodingResult::F16(samples) => {
                self.levels_of_floats(&self.select(&samples, kept), |value| value.to_f64())
            }
            DecodingResult::F32(samples) => {
                self.levels_of_floats(&self.select(&samples, kept), f64::from)
            }
            DecodingResult::F64(samples) => {
                self.levels_of_floats(&self.select(&samples, kept), |value| value)
            }
            DecodingResult::U32(samples) => {
                self.levels_of_integers(&self.select(&samples, kept), f64::from)
            }
            DecodingResult::U64(samples) => {
                self.levels_of_integers(&self.select(&samples, kept), |value| value as f64)
            }
            DecodingResult::I8(samples) => {
                self.levels_of_integers(&self.select(&samples, kept), f64::from)
            }
            DecodingResult::I16(samples) => {
                self.levels_of_integers(&self.select(&samples, kept), f64::from)
            }
            DecodingResult::I32(samples) => {
                self.levels_of_integers(&self.select(&samples, kept), f64::from)
            }
            DecodingResult::I64(samples) => {
                self.levels_of_integers(&self.select(&samples, kept), |value| value as f64)
            }
        }
    }

    /// The first samples of each pixel, interleaved.
    fn select<T: Copy>(&self, samples: &[T], kept: usize) -> Vec<T> {
        if self.planes > 1 {
            let plane = samples.len() / self.planes;
            let pixel = |pixel: usize| {
                (0..kept).filter_map(move |channel| samples.get(channel * plane + pixel).copied())
            };
            return (0..self.pixels).flat_map(pixel).collect();
        }
        if kept == self.samples {
            return samples.to_vec();
        }
        let pixels = samples.chunks_exact(self.samples);
        pixels
            .flat_map(|pixel| pixel[..kept].iter().copied())
            .collect()
    }

    /// Samples of 1, 2 or 4 bits, as levels or indices.
    fn unpack(&self, packed: &[u8], kind: Kind) -> Result<Vec<u8>, ImageError> {
        if !matches!(self.bits, 1 | 2 | 4) || self.planes > 1 {
            let reason = format_args!("{} planes of {} bits", self.planes, self.bits);
            return Err(ImageError::unsupported(ImageFormat::Tiff, reason));
        }
        let max = (1 << self.bits) - 1;
        let scale = if kind == Kind::Index { 1 } else { 255 / max };
        let per_row = self.width * self.samples;
        let mut samples = Vec::with_capacity(self.pixels * self.samples);
        for row in packed.chunks_exact((per_row * self.bits).div_ceil(8)) {
            samples.extend((0..per_row).map(|index| {
                let at = index * self.bits;
                let value = row[at / 8] >> (8 - self.bits - at % 8) & max;
                value * scale
            }));
        }
        Ok(samples)
    }

    fn levels_of_words(
        &self,
        samples: &[u16],
        kind: Kind,
        colors: usize,
        kept: usize,
    ) -> Result<Vec<u8>, ImageError> {
        if kind == Kind::Ink {
            return Ok(levels_of_16_bits(samples, None));
        }
        let range = self.planned_range()?;
        if let Some(stated) = range.filter(|_| self.stated_range.is_some())
            && let Some(&outside) = samples
                .iter()
                .find(|&&sample| !stated.contains(sample.into()))
        {
            return Err(contradiction(outside.into(), stated));
        }
        let colors_of = |pixel: &[u16]| pixel[..colors].iter().copied().max();
        let max = samples.chunks_exact(kept).filter_map(colors_of).max();
        if range.is_none()
            && let Some(max @ 1..=MAX_OF_12_BITS) = max
        {
            return Err(ImageError::unsupported(
                ImageFormat::Tiff,
                format_args!(
                    "its samples of 16 bits are at most {max}, as if they had 12 bits, and no tag \
                     states their range; set `value_range`, such as [0, 4095], or [0, 65535] if \
                     the image is dark"
                ),
            ));
        }
        Ok(levels_of_16_bits(samples, range))
    }

    fn levels_of_floats<T: Copy>(
        &self,
        samples: &[T],
        value: impl Fn(T) -> f64,
    ) -> Result<Vec<u8>, ImageError> {
        let range = self.planned_range()?;
        let used = match range {
            Some(range) => range,
            None => {
                ValueRange::new(UNIT).map_err(|reason| ImageError::Malformed(reason.to_string()))?
            }
        };
        let mut levels = Vec::with_capacity(samples.len());
        for &sample in samples {
            let sample = value(sample);
            if !sample.is_finite() {
                let reason = format_args!("a sample is {sample}; expected a finite number");
                return Err(ImageError::unsupported(ImageFormat::Tiff, reason));
            }
            if range.is_none() && !used.contains(sample) {
                return Err(ImageError::unsupported(
                    ImageFormat::Tiff,
                    format_args!(
                        "a floating-point sample is {sample}, outside of {used}, and no tag states \
                         the range of the samples; set `value_range`, such as [0, 255]"
                    ),
                ));
            }
            if self.stated_range.is_some() && !used.contains(sample) {
                return Err(contradiction(sample, used));
            }
            levels.push(used.level(sample));
        }
        Ok(levels)
    }

    fn levels_of_integers<T: Copy>(
        &self,
        samples: &[T],
        value: impl Fn(T) -> f64,
    ) -> Result<Vec<u8>, ImageError> {
        if self.planned_range()?.is_none() {
            return Err(ImageError::unsupported(
                ImageFormat::Tiff,
                format_args!(
                    "its samples are signed or have more than 16 bits, and no tag states their \
                     range; set `value_range`, such as [-128, 127]"
                ),
            ));
        }
        self.levels_of_floats(samples, value)
    }

    /// The range that the tags state, or that of the pipeline.
    fn planned_range(&self) -> Result<Option<ValueRange>, ImageError> {
        match self.stated_range {
            Some(stated) => ValueRange::new(stated)
                .map(Some)
                .map_err(|reason| ImageError::malformed(ImageFormat::Tiff, reason)),
            None => Ok(self.range),
        }
    }
}

fn contradiction(sample: f64, stated: ValueRange) -> ImageError {
    let reason = format_args!("a sample is {sample}, but its tags state the range {stated}");
    ImageError::malformed(ImageFormat::Tiff, reason)
}

/// The range of samples of more than 8 bits according to tags: SMinSampleValue and SMaxSampleValue,
/// or a MaxSampleValue that states a number of bits. Other values of MaxSampleValue are statistics
/// (TIFF 6.0, section 8).
pub(super) fn stated_range(
    decoder: &mut Decoder<Cursor<&[u8]>>,
    bits: u16,
) -> Result<Option<[f64; 2]>, TiffError> {
    if bits <= 8 {
        let signed = decoder.find_tag_unsigned_vec::<u16>(Tag::SampleFormat)?;
        if signed.is_none_or(|formats| formats.first() != Some(&2)) {
            return Ok(None);
        }
    }
    let mut value = |tag| Ok::<_, TiffError>(decoder.find_tag(tag)?.and_then(common_value));
    if let Some(max) = value(Tag::SMaxSampleValue)? {
        let min = value(Tag::SMinSampleValue)?.unwrap_or(0.0);
        return Ok((min < max).then_some([min, max]));
    }
    let min = value(Tag::MinSampleValue)?.unwrap_or(0.0);
    let is_bits = |max: &f64| (8..=16).any(|length| *max == f64::from((1_u32 << length) - 1));
    let max = value(Tag::MaxSampleValue)?.filter(is_bits);
    let stated = max.filter(|_| bits == 16 && min == 0.0);
    Ok(stated.map(|white| [0.0, white]))
}

/// The value of a tag that has the same number for each sample; `None` if the numbers differ.
fn common_value(value: Value) -> Option<f64> {
    match value {
        Value::Byte(value) => Some(value.into()),
        Value::Short(value) => Some(value.into()),
        Value::Unsigned(value) => Some(value.into()),
        Value::UnsignedBig(value) => Some(value as f64),
        Value::SignedByte(value) => Some(value.into()),
        Value::SignedShort(value) => Some(value.into()),
        Value::Signed(value) => Some(value.into()),
        Value::SignedBig(value) => Some(value as f64),
        Value::Float(value) => Some(value.into()),
        Value::Double(value) => Some(value),
        Value::Rational(value, by) => Some(f64::from(value) / f64::from(by)),
        Value::SRational(value, by) => Some(f64::from(value) / f64::from(by)),
        Value::List(values) => {
            let mut values = values.into_iter().map(common_value);
            let first = values.next()??;
            values.all(|other| other == Some(first)).then_some(first)
        }
        _ => None,
    }
}
