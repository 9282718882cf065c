//! Compression of pixels as JPEG and back, which leaves the artifacts of images as cameras and
//! phones store them.

use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};
use scaled_jpeg::{Decoder, Limits, Scale};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::image::error::ImageError;
use crate::image::info::ImageFormat;
use crate::image::pixel_format::Channels;
use crate::image::pixels::Pixels;

/// The resolution at which a JPEG stores color.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ChromaSubsampling {
    /// Full resolution.
    #[serde(rename = "4:4:4")]
    Full,
    /// Half the height and half the width, as most cameras, phones and programs write.
    #[serde(rename = "4:2:0")]
    Half,
}

impl ChromaSubsampling {
    /// The name in options.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "4:4:4",
            Self::Half => "4:2:0",
        }
    }
}

/// The maximum side of a JPEG, in pixels.
const MAX_SIDE: usize = 65_535;

/// Encodes an image as a baseline JPEG of a quality from 1 to 100, with the quantization tables of
/// libjpeg, and decodes it. Returns the pixels of the same size and channels.
///
/// # Errors
/// [`ImageError::Unsupported`] if a side has more than 65,535 pixels or none.
pub(crate) fn compressed(
    image: &Pixels,
    quality: u8,
    subsampling: ChromaSubsampling,
) -> Result<Vec<u8>, ImageError> {
    let Pixels { height, width, .. } = *image;
    let side = |side: usize| {
        u16::try_from(side)
            .ok()
            .filter(|&side| side > 0)
            .ok_or_else(|| {
                ImageError::Unsupported(format!(
                    "{height} x {width} pixels cannot be a JPEG, whose sides have 1 to {MAX_SIDE} \
                     pixels"
                ))
            })
    };
    let (rows, columns) = (side(height)?, side(width)?);
    let (color, channels) = match image.channels {
        Channels::Gray => (ColorType::Luma, scaled_jpeg::Channels::Gray),
        Channels::Rgb | Channels::Bgr => (ColorType::Rgb, scaled_jpeg::Channels::Rgb),
    };
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality.clamp(1, 100));
    encoder.set_sampling_factor(match subsampling {
        ChromaSubsampling::Full => SamplingFactor::F_1_1,
        ChromaSubsampling::Half => SamplingFactor::F_2_2,
    });
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    let failed = |reason: String| ImageError::malformed(ImageFormat::Jpeg, reason);
    encoder
        .encode(&image.data, columns, rows, color)
        .map_err(|error| failed(error.to_string()))?;
    let decoder = Decoder::new(&bytes, Limits::default());
    let decoded = decoder.and_then(|decoder| decoder.decode(Scale::Full, channels));
    decoded.map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn picture(channels: Channels) -> Pixels {
        let (height, width) = (41, 53);
        let sample = |index: usize| {
            let (pixel, channel) = (index / channels.count(), index % channels.count());
            let (y, x) = ((pixel / width) as f64, (pixel % width) as f64);
            let wave = (x / 5.0 + channel as f64).sin() * 60.0 + (y / 7.0).cos() * 50.0;
            (wave + 128.0) as u8
        };
        Pixels {
            height,
            width,
            channels,
            data: (0..height * width * channels.count()).map(sample).collect(),
        }
    }

    fn mean_change(image: &Pixels, quality: u8, subsampling: ChromaSubsampling) -> f64 {
        let decoded = compressed(image, quality, subsampling).unwrap();
        assert_eq!(decoded.len(), image.data.len());
        let changes = image.data.iter().zip(&decoded);
        let sum: u32 = changes.map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        f64::from(sum) / image.data.len() as f64
    }

    #[test]
    fn lower_quality_and_subsampling_change_more() {
        let colors = picture(Channels::Rgb);
        let full =
            [100, 90, 50, 10].map(|quality| mean_change(&colors, quality, ChromaSubsampling::Full));
        assert!(full[0] < 1.0, "{full:?}");
        assert!(full.is_sorted() && full[3] > 4.0, "{full:?}");
        assert!(mean_change(&colors, 90, ChromaSubsampling::Half) > full[1]);
        let gray = picture(Channels::Gray);
        let both = [ChromaSubsampling::Full, ChromaSubsampling::Half]
            .map(|subsampling| mean_change(&gray, 75, subsampling));
        assert!(both[0] > 0.1 && both[0] == both[1], "{both:?}");
    }

    #[test]
    fn sides_that_a_jpeg_cannot_have_are_errors() {
        for (height, width) in [(1, 65_536), (0, 3), (65_536, 1)] {
            let image = Pixels {
                height,
                width,
                channels: Channels::Gray,
                data: vec![0; height * width],
            };
            let error = compressed(&image, 75, ChromaSubsampling::Half).unwrap_err();
            assert!(error.to_string().contains("65535"), "{error}");
        }
        let widest = Pixels {
            height: 1,
            width: MAX_SIDE,
            channels: Channels::Gray,
            data: vec![7; MAX_SIDE],
        };
        assert_eq!(
            compressed(&widest, 100, ChromaSubsampling::Full).unwrap(),
            widest.data
        );
    }
}
