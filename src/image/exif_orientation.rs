//! Reads the EXIF orientation and applies it to pixels.

use image::metadata::Orientation;

use crate::image::pixels::Pixels;

/// Applies the orientation to the image.
pub(super) fn orient(pixels: Pixels, orientation: Orientation) -> Pixels {
    if orientation == Orientation::NoTransforms {
        return pixels;
    }
    let Pixels {
        width,
        height,
        channels,
        data,
    } = pixels;
    let (last_column, last_row) = (width.saturating_sub(1), height.saturating_sub(1));
    // The stored column and row of the pixel that moves to (x, y).
    let stored: fn(usize, usize, usize, usize) -> (usize, usize) = match orientation {
        Orientation::NoTransforms => |x, y, _, _| (x, y),
        Orientation::FlipHorizontal => |x, y, right, _| (right - x, y),
        Orientation::Rotate180 => |x, y, right, down| (right - x, down - y),
        Orientation::FlipVertical => |x, y, _, down| (x, down - y),
        Orientation::Rotate90FlipH => |x, y, _, _| (y, x),
        Orientation::Rotate90 => |x, y, _, down| (y, down - x),
        Orientation::Rotate270FlipH => |x, y, right, down| (right - y, down - x),
        Orientation::Rotate270 => |x, y, right, _| (right - y, x),
    };
    let sideways = orientation.to_exif() >= 5;
    let (new_width, new_height) = if sideways {
        (height, width)
    } else {
        (width, height)
    };
    let count = channels.count();
    let mut turned = Vec::with_capacity(data.len());
    for y in 0..new_height {
        for x in 0..new_width {
            let (from_x, from_y) = stored(x, y, last_column, last_row);
            turned.extend_from_slice(&data[(from_y * width + from_x) * count..][..count]);
        }
    }
    Pixels {
        width: new_width,
        height: new_height,
        channels,
        data: turned,
    }
}

/// The prefix of an EXIF block in a JPEG, which some writers of other formats add as well.
pub(super) const EXIF_PREFIX: &[u8] = b"Exif\0\0";
/// The prefix of an XMP packet in a JPEG.
pub(super) const XMP_IN_JPEG: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// Finds the orientation in an EXIF block, or in an XMP packet if the block has none, as Pillow's
/// `ImageOps.exif_transpose` does.
pub(super) fn find_orientation(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    orientation_or_xmp(exif.and_then(exif_orientation), xmp)
}

/// Returns the orientation with this EXIF number, or without a number that of an XMP packet.
pub(super) fn orientation_or_xmp(stored: Option<u8>, xmp: Option<&[u8]>) -> Orientation {
    stored
        .or_else(|| xmp.and_then(in_xmp))
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms)
}

/// The tag of the orientation, in EXIF and in TIFF.
const TAG: u16 = 0x0112;

/// Reads the orientation from the first directory of an EXIF block; `None` if it has none, and 0 if
/// its value is not a number.
pub(super) fn exif_orientation(exif: &[u8]) -> Option<u8> {
    let mut tiff = exif;
    while let Some(rest) = tiff.strip_prefix(EXIF_PREFIX) {
        tiff = rest;
    }
    let is_little_endian = match tiff.first_chunk()? {
        b"II\x2a\0" => true,
        b"MM\0\x2a" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = *tiff.get(at..)?.first_chunk()?;
        Some(if is_little_endian {
            u16::from_le_bytes(bytes)
        } else {
            u16::from_be_bytes(bytes)
        })
    };
    let long = |at: usize| {
        let bytes = *tiff.get(at..)?.first_chunk()?;
        Some(if is_little_endian {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    for index in 0..usize::from(short(directory)?) {
        let entry = directory + 2 + 12 * index;
        if short(entry)? != TAG {
            continue;
        }
        let value = match (short(entry + 2)?, long(entry + 4)?) {
            // SHORT and SSHORT; LONG, SLONG and IFD.
            (3 | 8, 1) => u32::from(short(entry + 8)?),
            (4 | 9 | 13, 1) => long(entry + 8)?,
            _ => 0,
        };
        return Some(u8::try_from(value).unwrap_or(0));
    }
    None
}

/// Reads the orientation from an XMP packet: `tiff:Orientation="6"`, or an element of that name.
fn in_xmp(xmp: &[u8]) -> Option<u8> {
    let name = b"tiff:Orientation";
    memchr::memmem::find_iter(xmp, name).find_map(|at| {
        let after = &xmp[at + name.len()..];
        let value = after.strip_prefix(b"=\"").or(after.strip_prefix(b">"))?;
        value
            .first()
            .filter(|digit| digit.is_ascii_digit())
            .map(|digit| digit - b'0')
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// An EXIF block of one entry: the orientation, of a type with a value of four bytes.
    fn exif(is_little_endian: bool, kind: u16, value: [u8; 4]) -> Vec<u8> {
        let fields = [(kind, 2), (1, 4)];
        let mut block = if is_little_endian {
            b"II\x2a\0\x08\0\0\0\x01\0\x12\x01".to_vec()
        } else {
            b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12".to_vec()
        };
        for (field, bytes) in fields {
            let all = u32::from(field).to_be_bytes();
            let mut bytes = all[4 - bytes..].to_vec();
            if is_little_endian {
                bytes.reverse();
            }
            block.extend(bytes);
        }
        block.extend(value);
        block.extend([0; 4]);
        block
    }

    fn number(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> u8 {
        find_orientation(exif, xmp).to_exif()
    }

    #[test]
    fn orientation_is_read_as_short_and_as_long() {
        for (is_little_endian, kind, value) in [
            (false, 3, [0, 6, 0, 0]),
            (true, 3, [6, 0, 0, 0]),
            (false, 4, [0, 0, 0, 6]),
            (true, 4, [6, 0, 0, 0]),
            (false, 9, [0, 0, 0, 6]),
        ] {
            let block = exif(is_little_endian, kind, value);
            assert_eq!(number(Some(&block), None), 6, "{kind}");
            let prefixed = [EXIF_PREFIX, &block].concat();
            assert_eq!(number(Some(&prefixed), None), 6, "{kind}");
        }
    }

    #[test]
    fn invalid_orientation_is_upright() {
        for (kind, value) in [
            (3, [0, 9, 0, 0]),
            (3, [1, 6, 0, 0]),
            (4, [1, 0, 0, 6]),
            (1, [6, 0, 0, 0]),
            (2, [b'6', 0, 0, 0]),
        ] {
            assert_eq!(number(Some(&exif(false, kind, value)), None), 1, "{kind}");
        }
        let block = exif(false, 3, [0, 6, 0, 0]);
        for length in 0..block.len() - 8 {
            assert_eq!(number(Some(&block[..length]), None), 1, "{length}");
        }
        assert_eq!(number(Some(b"II\x2a\0\xff\xff\xff\xff"), None), 1);
    }

    #[test]
    fn orientation_in_xmp_is_read_if_exif_has_none() {
        let attribute = br#"<rdf:Description tiff:Orientation="8" x="1"/>"#;
        let element = b"<tiff:Orientation>8</tiff:Orientation>";
        for xmp in [attribute.as_slice(), element] {
            assert_eq!(number(None, Some(xmp)), 8);
            assert_eq!(number(Some(&exif(false, 3, [0, 6, 0, 0])), Some(xmp)), 6);
            assert_eq!(number(Some(&exif(false, 3, [0, 1, 0, 0])), Some(xmp)), 1);
            assert_eq!(number(Some(b"MM\0\x2a\0\0\0\x08\0\0"), Some(xmp)), 8);
        }
        assert_eq!(number(None, Some(b"tiff:Orientation=\"x\"")), 1);
        assert_eq!(number(None, Some(b"tiff:Orientation")), 1);
    }
}
