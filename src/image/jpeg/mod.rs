//! JPEG decoding by the `zune-jpeg` library, after a check of all markers and of the entropy-coded
//! data (ITU-T T.81), because the library decodes some images wrongly without an error.

mod check;
mod entropy;
mod frame;
mod huffman;
mod markers;
#[cfg(test)]
#[path = "../../../crates/scaled-jpeg/tests/encoder/mod.rs"]
pub mod test_encoder;
#[cfg(test)]
mod tests;

use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use check::MAX_SCANS;
pub(super) use check::check;
use markers::{EOI, MarkerSegments, SOF0, SOF2, SOS};

use crate::image::channel_layout::DecodedSamples;
use crate::image::decode::DecodedImage;
use crate::image::error::ImageError;
use crate::image::probe::{ImageFormat, ImageInfo};

/// Decodes the first image of a file.
pub(super) fn decode(bytes: &[u8], header: &ImageInfo) -> Result<DecodedImage, ImageError> {
    let checked = check(bytes)?;
    checked.check_sampling()?;
    let stream = checked.stream();
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(header.width as usize)
        .set_max_height(header.height as usize)
        .jpeg_set_max_scans(MAX_SCANS);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(stream.as_slice()), options);
    decoder
        .decode_headers()
        .map_err(|error| map_error(&error))?;
    let gray = decoder.input_colorspace() == Some(ColorSpace::Luma);
    decoder.set_options(options.jpeg_set_out_colorspace(if gray {
        ColorSpace::Luma
    } else {
        ColorSpace::RGB
    }));
    let data = decoder.decode().map_err(|error| map_error(&error))?;
    let samples = if gray {
        DecodedSamples::Gray(data)
    } else {
        DecodedSamples::Rgb(data)
    };
    let (width, height) = decoder.dimensions().unwrap_or_default();
    // A JPEG's sides are 16 bits.
    let size = (
        u32::try_from(width).unwrap_or(u32::MAX),
        u32::try_from(height).unwrap_or(u32::MAX),
    );
    Ok(DecodedImage {
        samples,
        size,
        orientation: checked.orientation,
    })
}

/// Converts an error of the decoder for an image that the check accepts.
fn map_error(error: &DecodeErrors) -> ImageError {
    match error {
        DecodeErrors::Format(reason) => ImageError::unsupported(ImageFormat::Jpeg, reason),
        DecodeErrors::FormatStatic(reason) => ImageError::unsupported(ImageFormat::Jpeg, reason),
        error => ImageError::unsupported(ImageFormat::Jpeg, format_args!("{error:?}")),
    }
}

/// Reads the width and height from the frame header, which must be of a kind that the decoder
/// supports.
pub(super) fn size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let unsupported = |what: &str| Err(ImageError::unsupported(ImageFormat::Jpeg, what));
    for (marker, body) in MarkerSegments::new(bytes) {
        match (marker, body) {
            // SOF0, SOF1 and SOF2: baseline, extended and progressive with Huffman coding.
            (SOF0..=SOF2, &[8, h1, h0, w1, w0, ..]) => {
                let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
                if height == 0 {
                    return unsupported("its height is stated only after its pixels (DNL marker)");
                }
                return Ok((width.into(), height.into()));
            }
            (SOF0..=SOF2, [12, ..]) => return unsupported("it has 12 bits per sample"),
            (0xc3 | 0xc5..=0xc7, _) => return unsupported("it is lossless or hierarchical"),
            (0xc9..=0xcf, _) => return unsupported("it is arithmetic-coded"),
            (SOF0..=SOF2 | SOS | EOI, _) => {
                return Err(ImageError::malformed(
                    ImageFormat::Jpeg,
                    "its frame header is missing or invalid",
                ));
            }
            _ => {}
        }
    }
    Err(ImageError::truncated(
        ImageFormat::Jpeg,
        bytes,
        "in its header",
    ))
}
