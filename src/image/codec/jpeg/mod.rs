//! JPEG decoding by the crate `scaled-jpeg`: the choice of the scale, the orientation, and the texts
//! of errors.

#[cfg(test)]
#[allow(
    dead_code,
    reason = "the tests of the crate use more of its test encoder"
)]
#[path = "../../../../crates/scaled-jpeg/tests/encoder/mod.rs"]
pub(crate) mod test_encoder;

use image::metadata::Orientation;
use scaled_jpeg::{ColorModel, Decoder, Error, Limits, Scale};

use crate::image::channel_layout::{DecodedImage, DecodedSamples, luma};
use crate::image::error::ImageError;
use crate::image::exif_orientation::{EXIF_PREFIX, XMP_IN_JPEG, find_orientation, orient};
use crate::image::info::{ImageFormat, ImageInfo};
use crate::image::pixel_format::Channels;
use crate::image::pixels::DecodeMode;
use crate::image::resize::{CropBox, ResizeTarget, Resizer};
use crate::image::row_resizer::RowResizer;

const APP1: u8 = 0xe1;

/// Decodes the first image of a file.
pub(crate) fn decode(bytes: &[u8], header: &ImageInfo) -> Result<DecodedImage, ImageError> {
    let decoder = open(bytes, header)?;
    let (size, orientation) = (decoder.size(), orientation(&decoder));
    Ok(DecodedImage {
        samples: decode_samples(decoder, bytes)?,
        size,
        orientation,
    })
}

fn decode_samples(decoder: Decoder<'_>, bytes: &[u8]) -> Result<DecodedSamples, ImageError> {
    let failed = |error: Error| map_error(bytes, &error);
    Ok(match decoder.color_model() {
        ColorModel::Gray => {
            let gray = decoder.decode(Scale::Full, scaled_jpeg::Channels::Gray);
            DecodedSamples::Gray(gray.map_err(failed)?)
        }
        _ => {
            let colors = decoder.decode(Scale::Full, scaled_jpeg::Channels::Rgb);
            DecodedSamples::Rgb(colors.map_err(failed)?)
        }
    })
}

/// Decodes the first image of a file and resizes it: row by row, unless that makes the rows longer. At
/// a fraction of the size, luma is the first component; else, it is computed from the colors.
pub(crate) fn decode_resized<'r>(
    bytes: &[u8],
    header: &ImageInfo,
    channels: Channels,
    mode: DecodeMode,
    resizer: &'r mut Resizer,
) -> Result<&'r [u8], ImageError> {
    let decoder = open(bytes, header)?;
    let (size, orientation) = (decoder.size(), orientation(&decoder));
    let scale = match mode {
        DecodeMode::Full => Scale::Full,
        DecodeMode::Scaled => scale_for(size, resizer.target.turned(orientation)),
    };
    let has_luma = match decoder.color_model() {
        ColorModel::Gray => true,
        ColorModel::YCbCr => scale != Scale::Full && channels == Channels::Gray,
        ColorModel::Rgb | ColorModel::Cmyk | ColorModel::Ycck => false,
    };
    let covered = |side: u32| f64::from(side) / f64::from(scale.divisor());
    let area = CropBox {
        left: 0.0,
        top: 0.0,
        width: covered(size.0),
        height: covered(size.1),
    };
    let width = decoder.scaled_size(scale).0 as usize;
    if resizer.target.turned(orientation).inner_size(area).1 > width {
        let samples = decode_samples(decoder, bytes)?;
        let pixels = orient(samples.into_pixels(header, channels)?, orientation);
        return resizer.resize(&pixels);
    }
    let mut rows = RowResizer::new(resizer, channels, width, area, orientation);
    let mut converted = Vec::new();
    let mut pushed = Ok(());
    let mut push = |row: &[u8]| {
        if pushed.is_ok() {
            pushed = rows.push(row);
        }
    };
    let decoded = match (has_luma, channels) {
        (true, Channels::Gray) => {
            decoder.decode_rows(scale, scaled_jpeg::Channels::Gray, &mut push)
        }
        // The decoder repeats the luma of a gray image.
        (_, Channels::Rgb | Channels::Bgr) => {
            decoder.decode_rows(scale, scaled_jpeg::Channels::Rgb, &mut push)
        }
        (false, Channels::Gray) => decoder.decode_rows(scale, scaled_jpeg::Channels::Rgb, |row| {
            converted.clear();
            converted.extend(row.as_chunks().0.iter().map(|pixel| luma(*pixel)));
            push(&converted);
        }),
    };
    decoded.map_err(|error| map_error(bytes, &error))?;
    pushed?;
    rows.finish()
}

fn open<'a>(bytes: &'a [u8], header: &ImageInfo) -> Result<Decoder<'a>, ImageError> {
    let limits = Limits {
        pixels: header.pixels(),
        ..Limits::default()
    };
    Decoder::new(bytes, limits).map_err(|error| map_error(bytes, &error))
}

/// The smallest scale at which an image of this width and height has at least twice the height and
/// width of the target. Below that, frequencies that resizing would keep are missing.
fn scale_for((width, height): (u32, u32), target: ResizeTarget) -> Scale {
    let is_large_enough = |scale: &Scale| {
        let factor = 2 * scale.divisor() as usize;
        height as usize >= target.height.saturating_mul(factor)
            && width as usize >= target.width.saturating_mul(factor)
    };
    let mut scales = Scale::ALL.into_iter().rev();
    scales.find(is_large_enough).unwrap_or(Scale::Full)
}

fn orientation(decoder: &Decoder<'_>) -> Orientation {
    let metadata = |prefix| {
        let bodies = decoder
            .app_segments()
            .filter(|(marker, _)| *marker == APP1)
            .map(|(_, body)| body);
        bodies.filter(move |body| body.starts_with(prefix))
    };
    // Further segments of EXIF continue the first one, which has the orientation.
    find_orientation(metadata(EXIF_PREFIX).next(), metadata(XMP_IN_JPEG).last())
}

/// Whether the image is gray.
pub(crate) fn is_gray(bytes: &[u8], header: &ImageInfo) -> Result<bool, ImageError> {
    Ok(open(bytes, header)?.color_model() == ColorModel::Gray)
}

/// Reads the width and height from the frame header, which must be of a kind that the decoder
/// supports.
pub(crate) fn size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    scaled_jpeg::read_size(bytes, Limits::default()).map_err(|error| map_error(bytes, &error))
}

pub(crate) fn map_error(bytes: &[u8], error: &Error) -> ImageError {
    const FORMAT: ImageFormat = ImageFormat::Jpeg;
    match error {
        Error::Truncated { place, .. } => ImageError::truncated(FORMAT, bytes, place),
        Error::Unsupported(reason) => ImageError::unsupported(FORMAT, reason),
        Error::TooLarge(reason) => ImageError::TooLarge(format!("too large JPEG: {reason}")),
        error => ImageError::malformed(FORMAT, error),
    }
}

#[cfg(test)]
mod tests;
