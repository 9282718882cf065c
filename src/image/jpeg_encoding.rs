//! Encoding of pixels as a baseline JPEG, with the quantization tables of libjpeg.

use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, EncodingError, SamplingFactor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::image::error::ImageError;
use crate::image::exif_orientation::XMP_IN_JPEG;
use crate::image::info::ImageFormat;
use crate::image::metadata::{IPTC_PREFIX, ImageMetadata};
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

/// The options of a JPEG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JpegOptions {
    /// The quality, from 1 to 100.
    pub quality: u8,
    /// The resolution of color.
    pub subsampling: ChromaSubsampling,
}

impl JpegOptions {
    /// The options of a quality with colors of full resolution.
    pub const fn of_quality(quality: u8) -> Self {
        Self {
            quality,
            subsampling: ChromaSubsampling::Full,
        }
    }
}

/// The maximum side of a JPEG, in pixels.
pub(super) const MAX_SIDE: usize = 65_535;
/// The application segments of EXIF and XMP, and of IPTC.
const APP1: u8 = 1;
const APP13: u8 = 13;

/// Encodes an image.
///
/// # Errors
/// [`ImageError::Unsupported`] if a side has more than 65,535 pixels or none;
/// [`ImageError::TooLarge`] if a part of the metadata exceeds the size of a segment.
pub(crate) fn encode_jpeg(
    image: &Pixels,
    options: JpegOptions,
    metadata: &ImageMetadata,
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
    let color = match image.channels {
        Channels::Gray => ColorType::Luma,
        Channels::Rgb | Channels::Bgr => ColorType::Rgb,
    };
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, options.quality.clamp(1, 100));
    encoder.set_sampling_factor(match options.subsampling {
        ChromaSubsampling::Full => SamplingFactor::F_1_1,
        ChromaSubsampling::Half => SamplingFactor::F_2_2,
    });
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    let too_large = |error: EncodingError| {
        ImageError::TooLarge(format!("the metadata does not fit into a JPEG: {error}"))
    };
    if let Some(exif) = &metadata.exif {
        encoder.add_exif_metadata(exif).map_err(too_large)?;
    }
    for (segment, prefix, part) in [
        (APP1, XMP_IN_JPEG, &metadata.xmp),
        (APP13, IPTC_PREFIX, &metadata.iptc),
    ] {
        if let Some(part) = part {
            let body = [prefix, part].concat();
            encoder.add_app_segment(segment, body).map_err(too_large)?;
        }
    }
    if let Some(icc) = &metadata.icc {
        encoder.add_icc_profile(icc).map_err(too_large)?;
    }
    encoder
        .encode(&image.data, columns, rows, color)
        .map_err(|error| ImageError::malformed(ImageFormat::Jpeg, error))?;
    Ok(bytes)
}
