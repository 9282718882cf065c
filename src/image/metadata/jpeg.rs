//! The metadata in the application segments of a JPEG.

use scaled_jpeg::{Decoder, Limits};

use crate::image::codec::jpeg::map_error;
use crate::image::error::ImageError;
use crate::image::exif_orientation::{EXIF_PREFIX, XMP_IN_JPEG};
use crate::image::metadata::ImageMetadata;

const APP1: u8 = 0xe1;
const APP2: u8 = 0xe2;
const APP13: u8 = 0xed;
/// The prefix of a part of an ICC profile; the number of the part and the number of parts follow.
const ICC_PREFIX: &[u8] = b"ICC_PROFILE\0";
/// The prefix of image resources.
pub(in crate::image) const IPTC_PREFIX: &[u8] = b"Photoshop 3.0\0";

/// Reads the metadata. Only the header of the file is read.
pub(super) fn read(bytes: &[u8]) -> Result<ImageMetadata, ImageError> {
    let decoder =
        Decoder::new(bytes, Limits::default()).map_err(|error| map_error(bytes, &error))?;
    let bodies = |marker: u8, prefix: &'static [u8]| {
        let of_marker = decoder
            .app_segments()
            .filter(move |(found, _)| *found == marker);
        of_marker.filter_map(move |(_, body)| body.strip_prefix(prefix))
    };
    Ok(ImageMetadata {
        exif: bodies(APP1, EXIF_PREFIX).next().map(<[u8]>::to_vec),
        xmp: bodies(APP1, XMP_IN_JPEG).last().map(<[u8]>::to_vec),
        iptc: bodies(APP13, IPTC_PREFIX).next().map(<[u8]>::to_vec),
        icc: profile(bodies(APP2, ICC_PREFIX)),
        ..ImageMetadata::default()
    })
}

/// Joins the parts of a profile; `None` if there are none, or if one is missing.
fn profile<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut parts: Vec<([u8; 2], &[u8])> = parts
        .filter_map(|part| part.split_first_chunk().map(|(place, data)| (*place, data)))
        .collect();
    parts.sort_by_key(|(place, _)| *place);
    let count = parts.first()?.0[1];
    let is_complete = parts.len() == usize::from(count)
        && parts
            .iter()
            .zip(1..=count)
            .all(|((place, _), number)| *place == [number, count]);
    is_complete.then(|| parts.iter().flat_map(|(_, data)| *data).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_is_joined_in_the_order_of_its_parts() {
        let parts: [&[u8]; 2] = [b"\x02\x02cd", b"\x01\x02ab"];
        assert_eq!(profile(parts.into_iter()), Some(b"abcd".to_vec()));
        assert_eq!(profile(parts[..1].iter().copied()), None);
        assert_eq!(profile([&b"\x01"[..]].into_iter()), None);
        assert_eq!(profile(std::iter::empty()), None);
    }
}
