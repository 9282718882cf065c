//! PNG decoding by the `png` library: text and color profiles are skipped, and the end of the file
//! is required.

use std::io::Cursor;

use png::{BitDepth, ColorType, DecodeOptions, Decoder, DecodingError, Limits, Transformations};

use crate::image::channel_layout::{DecodedImage, DecodedSamples, memory_limit};
use crate::image::codec::png_text;
use crate::image::error::{ImageError, UNFINISHED};
use crate::image::exif_orientation::{exif_orientation, orientation_or_xmp};
use crate::image::info::{ImageFormat, ImageInfo};
use crate::image::value_range::{ValueRange, levels_of_16_bits};

/// Decodes the default image.
pub(crate) fn decode(
    bytes: &[u8],
    header: &ImageInfo,
    range: Option<ValueRange>,
) -> Result<DecodedImage, ImageError> {
    let failed = |error: DecodingError| map_error(bytes, &error);
    let mut options = DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(Limits {
        bytes: usize::try_from(memory_limit(bytes, header)).unwrap_or(usize::MAX),
    });
    // Palettes and small bit depths are expanded to 8 bits; of 16-bit samples, the upper 8 bits are
    // kept unless there is a range of values.
    decoder.set_transformations(match range {
        Some(_) => Transformations::EXPAND,
        None => Transformations::normalize_to_color8(),
    });
    let mut reader = decoder.read_info().map_err(failed)?;
    let size = reader
        .output_buffer_size()
        .ok_or_else(|| ImageError::malformed(ImageFormat::Png, "its size overflows"))?;
    let mut data = vec![0; size];
    let frame = reader.next_frame(&mut data).map_err(failed)?;
    // Chunks after the image data change the color type that the reader reports, but not the
    // decoded samples: a late tRNS is ignored, as in libpng.
    reader.finish().map_err(failed)?;

    let exif = reader.info().exif_metadata.as_deref();
    let mut stored = exif.and_then(exif_orientation);
    let mut xmp = None;
    if stored.is_none() {
        let text = png_text::read(bytes)?;
        // EXIF of a text chunk counts only in a file without an eXIf chunk.
        let old_exif = text.exif.filter(|_| exif.is_none());
        stored = old_exif.as_deref().and_then(exif_orientation);
        xmp = text.xmp;
    }
    let orientation = orientation_or_xmp(stored, xmp.as_deref());
    let data = match (frame.bit_depth, range) {
        (BitDepth::Eight, _) => data,
        (BitDepth::Sixteen, Some(_)) => {
            let words = data.chunks_exact(2);
            let words: Vec<u16> = words
                .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
                .collect();
            levels_of_16_bits(&words, range)
        }
        _ => {
            return Err(ImageError::malformed(
                ImageFormat::Png,
                "its samples are not expanded to 8 bits",
            ));
        }
    };
    let samples = match frame.color_type {
        ColorType::Grayscale => DecodedSamples::Gray(data),
        ColorType::GrayscaleAlpha => DecodedSamples::GrayAlpha(data),
        ColorType::Rgb => DecodedSamples::Rgb(data),
        ColorType::Rgba => DecodedSamples::Rgba(data),
        ColorType::Indexed => {
            return Err(ImageError::malformed(
                ImageFormat::Png,
                "its palette is missing",
            ));
        }
    };
    Ok(DecodedImage {
        samples,
        size: (frame.width, frame.height),
        orientation,
    })
}

fn map_error(bytes: &[u8], error: &DecodingError) -> ImageError {
    match error {
        DecodingError::IoError(_) => ImageError::truncated(ImageFormat::Png, bytes, UNFINISHED),
        DecodingError::LimitsExceeded => ImageError::memory_exceeded(ImageFormat::Png),
        error => ImageError::malformed(ImageFormat::Png, error),
    }
}

#[cfg(test)]
mod tests;
