//! Reads encoded images as a model takes them: decoded, and resized or processed by steps.

use std::borrow::Cow;

use crate::image::color_space::{ColorSpace, to_srgb};
use crate::image::decode::{DecodeOptions, decode_resized, decode_with};
use crate::image::error::ImageError;
use crate::image::metadata::ImageMetadata;
use crate::image::pixel_format::{Channels, PixelFormat};
use crate::image::pixels::{DecodeMode, Pixels};
use crate::image::preprocess::Preprocessor;
use crate::image::probe::probe;
use crate::image::resize::{ResizeMode, Resizer};
use crate::image::target_size::TargetSize;
use crate::image::value_range::ValueRange;

/// The operations that give decoded images the size of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Sizing {
    /// Each image keeps its size.
    Original,
    /// All images are resized to one size.
    Resize {
        /// Height and width.
        size: (usize, usize),
        /// The treatment of other aspect ratios.
        fit: ResizeMode,
        /// How JPEGs are decoded.
        decode: DecodeMode,
    },
    /// The steps of another library, on images that are decoded in full.
    Steps(Preprocessor),
}

impl Sizing {
    /// The size of the results.
    pub(crate) fn size(&self) -> TargetSize {
        match self {
            Self::Original => TargetSize::Original,
            Self::Resize {
                size: (height, width),
                ..
            } => TargetSize::Fixed(*height, *width),
            Self::Steps(steps) => {
                let (height, width) = steps.size();
                TargetSize::Fixed(height, width)
            }
        }
    }

    /// Whether all samples of the results are bytes.
    pub(crate) fn gives_bytes(&self) -> bool {
        match self {
            Self::Original | Self::Resize { .. } => true,
            Self::Steps(steps) => steps.gives_bytes(),
        }
    }
}

/// The way from an encoded image to the tensor of a model.
#[derive(Debug, Clone)]
pub struct ImagePreparation {
    /// The conversion of samples to values.
    pub(crate) format: PixelFormat,
    /// The operations on decoded images.
    pub(crate) sizing: Sizing,
    /// Maximum number of pixels of an image, and of the result of a step.
    pub(crate) max_pixels: u64,
    /// The values of black and white of deep samples, if files do not state them.
    pub(crate) value_range: Option<ValueRange>,
    /// The color space of the samples.
    pub(crate) color_space: ColorSpace,
}

impl ImagePreparation {
    /// A reader for one thread.
    pub(crate) fn reader(&self) -> ImageReader {
        let options = self.decode_options(self.format.channels);
        ImageReader::new(options, self.sizing.clone(), self.color_space)
    }

    /// A reader of the images before all operations, in color.
    pub(crate) fn reader_of_originals(&self) -> ImageReader {
        ImageReader::new(
            self.decode_options(Channels::Rgb),
            Sizing::Original,
            self.color_space,
        )
    }

    fn decode_options(&self, channels: Channels) -> DecodeOptions {
        DecodeOptions {
            channels,
            max_pixels: self.max_pixels,
            value_range: self.value_range,
        }
    }
}

/// An image as a model takes it, before its samples are normalized.
#[derive(Debug)]
pub(crate) struct PreparedImage<'a> {
    /// The number of rows.
    pub height: usize,
    /// The number of columns.
    pub width: usize,
    /// The samples, row by row, with interleaved channels (gray or RGB).
    pub samples: ImageSamples<'a>,
}

/// The samples of an image, 0 to 255.
#[derive(Debug)]
pub(crate) enum ImageSamples<'a> {
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// The results of steps, which may lie between two bytes.
    Floats(Vec<f32>),
}

impl ImageSamples<'_> {
    /// The number of samples.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Floats(values) => values.len(),
        }
    }

    /// Converts the samples to the values of a tensor, which has as many.
    pub(crate) fn normalize(&self, format: &PixelFormat, values: &mut [f32]) {
        match self {
            Self::Bytes(bytes) => format.normalize(bytes, values),
            Self::Floats(floats) => format.normalize_samples(floats, values),
        }
    }
}

impl PreparedImage<'_> {
    /// The image without a reference to the reader.
    pub(crate) fn into_owned(self) -> PreparedImage<'static> {
        PreparedImage {
            height: self.height,
            width: self.width,
            samples: match self.samples {
                ImageSamples::Bytes(bytes) => ImageSamples::Bytes(Cow::Owned(bytes.into_owned())),
                ImageSamples::Floats(values) => ImageSamples::Floats(values),
            },
        }
    }
}

/// Reads images for one thread. Runs, training and evaluation read images with it alone.
pub(crate) struct ImageReader {
    options: DecodeOptions,
    sizing: Sizing,
    color_space: ColorSpace,
    resizer: Option<Resizer>,
}

impl ImageReader {
    pub(crate) fn new(options: DecodeOptions, sizing: Sizing, color_space: ColorSpace) -> Self {
        let resizer = match &sizing {
            Sizing::Resize {
                size: (height, width),
                fit,
                ..
            } => Some(Resizer::new(*height, *width, *fit)),
            Sizing::Original | Sizing::Steps(_) => None,
        };
        Self {
            options,
            sizing,
            color_space,
            resizer,
        }
    }

    /// Discards the buffers, whose state may be inconsistent after a panic.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.options, self.sizing.clone(), self.color_space);
    }

    /// Reads an image.
    ///
    /// # Errors
    /// If the bytes are not a valid image, or the image or the result of a step is too large.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<PreparedImage<'_>, ImageError> {
        let profile = match self.color_space {
            ColorSpace::Stored => None,
            ColorSpace::Srgb => ImageMetadata::read(bytes, &probe(bytes)?)?.icc,
        };
        // Profiles apply to colors, before luma is computed from them.
        let options = match profile {
            Some(_) => DecodeOptions {
                channels: Channels::Rgb,
                ..self.options
            },
            None => self.options,
        };
        let in_color_space = |mut pixels: Pixels| match &profile {
            None => Ok(pixels),
            Some(icc) => {
                to_srgb(&mut pixels, icc)?;
                Ok(match self.options.channels {
                    Channels::Gray => pixels.into_gray(),
                    Channels::Rgb | Channels::Bgr => pixels,
                })
            }
        };
        if let (Sizing::Resize { size, decode, .. }, Some(resizer)) =
            (&self.sizing, &mut self.resizer)
        {
            let resized = decode_resized(bytes, &options, *decode, resizer)?;
            let samples = match &profile {
                None => Cow::Borrowed(resized),
                Some(_) => {
                    let pixels = Pixels {
                        height: size.0,
                        width: size.1,
                        channels: options.channels,
                        data: resized.to_vec(),
                    };
                    Cow::Owned(in_color_space(pixels)?.data)
                }
            };
            return Ok(PreparedImage {
                height: size.0,
                width: size.1,
                samples: ImageSamples::Bytes(samples),
            });
        }
        let pixels = in_color_space(decode_with(bytes, &options)?)?;
        let Sizing::Steps(steps) = &self.sizing else {
            return Ok(PreparedImage {
                height: pixels.height,
                width: pixels.width,
                samples: ImageSamples::Bytes(Cow::Owned(pixels.data)),
            });
        };
        let result = steps
            .apply(pixels, self.options.max_pixels)
            .map_err(|error| ImageError::TooLarge(error.to_string()))?;
        let samples = if steps.gives_bytes() {
            // The steps round and bound their results.
            let rounded = result.values.iter().map(|&value| value as u8).collect();
            ImageSamples::Bytes(Cow::Owned(rounded))
        } else {
            ImageSamples::Floats(result.values)
        };
        Ok(PreparedImage {
            height: result.height,
            width: result.width,
            samples,
        })
    }
}
