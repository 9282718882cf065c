//! The color profile and the XMP packet of a TIFF.

use std::io::Cursor;

use tiff::TiffError;
use tiff::decoder::{Decoder, Limits};
use tiff::tags::Tag;

use crate::image::codec::tiff::library_error::map_error;
use crate::image::error::ImageError;

/// The tag of an XMP packet.
pub(super) const XMP: Tag = Tag::Unknown(700);
/// Memory that the library takes for each byte of a tag.
const BYTES_PER_VALUE: usize = 64;

/// The metadata of a TIFF.
pub(crate) struct TiffMetadata {
    /// The ICC profile.
    pub icc: Option<Vec<u8>>,
    /// The XMP packet.
    pub xmp: Option<Vec<u8>>,
}

/// Reads the metadata of the first page.
///
/// # Errors
/// If the directory of the page is not valid.
pub(crate) fn read_metadata(bytes: &[u8]) -> Result<TiffMetadata, ImageError> {
    let failed = |error: TiffError| map_error(bytes, &error);
    let mut limits = Limits::default();
    // A tag is not larger than its file.
    limits.ifd_value_size = bytes.len().saturating_mul(BYTES_PER_VALUE);
    let mut decoder = Decoder::new(Cursor::new(bytes))
        .map_err(failed)?
        .with_limits(limits);
    let mut read = |tag| {
        let value = decoder.find_tag(tag).map_err(failed)?;
        let of_tag = value.map(|value| value.into_u8_vec().map_err(failed));
        of_tag.transpose()
    };
    Ok(TiffMetadata {
        icc: read(Tag::IccProfile)?,
        xmp: read(XMP)?,
    })
}
