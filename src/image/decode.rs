//! From encoded bytes to upright 8-bit pixels, whatever the format; bounded in memory and time.

use image::metadata::Orientation;

use crate::image::error::ImageError;
use crate::image::format::Channels;
use crate::image::header::{Format, Header, read_header};
use crate::image::orient::orient;
use crate::image::samples::Samples;
use crate::image::{jpeg, library, png};

/// A decoded image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// What each pixel consists of.
    pub channels: Channels,
    /// Interleaved, row after row: `height * width * channels.count()` bytes.
    pub data: Vec<u8>,
}

/// Decodes an image and turns it upright, as its EXIF orientation says.
///
/// Everything becomes 8 bits per channel. As Pillow's `convert` does, alpha is dropped, not composited; of 16 bits
/// the upper 8 are kept; luma is BT.601. Colour profiles and gamma are not applied.
///
/// No more is allocated than some 25 bytes per pixel of the header, and a small multiple of the bytes.
///
/// # Errors
/// When the bytes are no sound and complete image, or one of more than `max_pixels` pixels.
pub fn decode(bytes: &[u8], channels: Channels, max_pixels: u64) -> Result<Pixels, ImageError> {
    let header = read_header(bytes)?;
    if header.pixels() > max_pixels {
        return Err(ImageError::too_large(&header, max_pixels));
    }
    ImageError::catch(header.format, || {
        let decoded = match header.format {
            Format::Jpeg => jpeg::decode(bytes, &header)?,
            Format::Png => png::decode(bytes, &header)?,
            _ => library::decode(bytes, &header)?,
        };
        Ok(orient(decoded.samples.into_pixels(&header, channels), decoded.orientation))
    })
}

/// What a decoder makes of an image, before it has the wanted channels and stands upright.
pub(super) struct Decoded {
    pub(super) samples: Samples,
    pub(super) orientation: Orientation,
}

/// Bytes that the decoder of an image may allocate: room for two copies of its widest pixels (four 32-bit floats),
/// and for what it carries beside them.
pub(super) fn memory_limit(bytes: &[u8], header: &Header) -> u64 {
    let pixels = header.pixels().saturating_mul(32);
    pixels.saturating_add(bytes.len() as u64).saturating_add(1 << 20)
}
