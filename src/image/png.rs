//! PNG, by the `png` library: text and colour profiles are skipped, the end of the file is demanded.

use std::io::Cursor;

use image::metadata::Orientation;
use png::{ColorType, DecodeOptions, Decoder, DecodingError, Limits, Transformations};

use crate::image::decode::{Decoded, memory_limit};
use crate::image::error::{ImageError, UNFINISHED};
use crate::image::header::{Format, Header};
use crate::image::orient::orientation;
use crate::image::samples::Samples;

/// Decodes the default image.
pub(super) fn decode(bytes: &[u8], header: &Header) -> Result<Decoded, ImageError> {
    let failed = |error: DecodingError| refuse(bytes, &error);
    let mut options = DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(Limits { bytes: usize::try_from(memory_limit(bytes, header)).unwrap_or(usize::MAX) });
    // Palettes and small bit depths are expanded to 8 bits, 16 bits cut to their upper 8.
    decoder.set_transformations(Transformations::normalize_to_color8());

    let mut reader = decoder.read_info().map_err(failed)?;
    let size = reader.output_buffer_size().ok_or_else(|| ImageError::malformed(Format::Png, "its size overflows"))?;
    let mut data = vec![0; size];
    reader.next_frame(&mut data).map_err(failed)?;
    reader.finish().map_err(failed)?;

    let exif = reader.info().exif_metadata.as_deref();
    let orientation = exif.map_or(Orientation::NoTransforms, orientation);
    let samples = match reader.output_color_type().0 {
        ColorType::Grayscale => Samples::Gray(data),
        ColorType::GrayscaleAlpha => Samples::GrayAlpha(data),
        ColorType::Rgb => Samples::Rgb(data),
        ColorType::Rgba => Samples::Rgba(data),
        ColorType::Indexed => return Err(ImageError::malformed(Format::Png, "its palette is missing")),
    };
    Ok(Decoded { samples, orientation })
}

fn refuse(bytes: &[u8], error: &DecodingError) -> ImageError {
    match error {
        DecodingError::IoError(_) => ImageError::truncated(Format::Png, bytes, UNFINISHED),
        DecodingError::LimitsExceeded => ImageError::too_hungry(Format::Png),
        error => ImageError::malformed(Format::Png, error),
    }
}
