//! JPEG decoding by the crate `scaled-jpeg`: the choice of the scale, the orientation, and the texts
//! of errors.

#[cfg(test)]
#[allow(
    dead_code,
    reason = "the tests of the crate use more of its test encoder"
)]
#[path = "../../../crates/scaled-jpeg/tests/encoder/mod.rs"]
pub mod test_encoder;
#[cfg(test)]
mod tests;

use image::metadata::Orientation;
use scaled_jpeg::{ColorModel, Decoder, Error, Limits, Scale};

use crate::image::channel_layout::DecodedSamples;
use crate::image::decode::DecodedImage;
use crate::image::error::ImageError;
use crate::image::exif_orientation::{EXIF_PREFIX, XMP_IN_JPEG, find_orientation};
use crate::image::pixel_format::Channels;
use crate::image::probe::{ImageFormat, ImageInfo};

const APP1: u8 = 0xe1;

/// Decodes the first image of a file. With the height and width of a target, the image is decoded at
/// the smallest scale that has at least twice as many rows and columns; its luma is then the first
/// component, and not computed from its colors.
pub(super) fn decode(
    bytes: &[u8],
    header: &ImageInfo,
    channels: Channels,
    target: Option<(usize, usize)>,
) -> Result<DecodedImage, ImageError> {
    let failed = |error: Error| map_error(bytes, &error);
    let limits = Limits {
        pixels: header.pixels(),
        ..Limits::default()
    };
    let decoder = Decoder::new(bytes, limits).map_err(failed)?;
    let size = decoder.size();
    let orientation = orientation(&decoder);
    let scale = target.map_or(Scale::Full, |target| scale_for(size, target, orientation));
    let has_luma = match decoder.color_model() {
        ColorModel::Gray => true,
        ColorModel::YCbCr => channels == Channels::Gray && scale != Scale::Full,
        ColorModel::Rgb | ColorModel::Cmyk | ColorModel::Ycck => false,
    };
    let samples = if has_luma {
        DecodedSamples::Gray(
            decoder
                .decode(scale, scaled_jpeg::Channels::Gray)
                .map_err(failed)?,
        )
    } else {
        DecodedSamples::Rgb(
            decoder
                .decode(scale, scaled_jpeg::Channels::Rgb)
                .map_err(failed)?,
        )
    };
    Ok(DecodedImage {
        samples,
        size,
        divisor: scale.divisor(),
        orientation,
    })
}

/// The smallest scale at which an image of this width and height has at least twice the height and
/// width of the target. Below that, frequencies that resizing would keep are missing.
fn scale_for(
    (width, height): (u32, u32),
    target: (usize, usize),
    orientation: Orientation,
) -> Scale {
    let (target_height, target_width) = match orientation.to_exif() {
        5.. => (target.1, target.0),
        _ => target,
    };
    let is_large_enough = |scale: &Scale| {
        let by = scale.divisor() as usize;
        let twice = |target: usize| target.saturating_mul(2 * by);
        height as usize >= twice(target_height) && width as usize >= twice(target_width)
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

/// Reads the width and height from the frame header, which must be of a kind that the decoder
/// supports.
pub(super) fn size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    scaled_jpeg::read_size(bytes, Limits::default()).map_err(|error| map_error(bytes, &error))
}

pub(super) fn map_error(bytes: &[u8], error: &Error) -> ImageError {
    const FORMAT: ImageFormat = ImageFormat::Jpeg;
    match error {
        Error::Truncated { place, .. } => ImageError::truncated(FORMAT, bytes, place),
        Error::Unsupported(reason) => ImageError::unsupported(FORMAT, reason),
        Error::TooLarge(reason) => ImageError::TooLarge(format!("too large JPEG: {reason}")),
        error => ImageError::malformed(FORMAT, error),
    }
}
