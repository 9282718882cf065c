//! Changes of EXIF and XMP in place.

/// The tags that are changed.
const ORIENTATION: u16 = 0x0112;
const EXIF_DIRECTORY: u16 = 0x8769;
const PIXEL_X_DIMENSION: u16 = 0xa002;
const PIXEL_Y_DIMENSION: u16 = 0xa003;

/// The types of values.
const SHORT: u16 = 3;
const LONG: u16 = 4;

/// The maximum number of pixels of a side that EXIF can state.
const MAX_SIDE: usize = u32::MAX as usize;

/// Changes EXIF to that of an upright image of `height` x `width` pixels without a thumbnail.
/// Directories that are not complete stay as they are.
pub(super) fn set_upright(exif: &mut [u8], height: usize, width: usize) {
    let Some(mut editor) = DirectoryEditor::new(exif) else {
        return;
    };
    let Some(first) = editor.long(4).map(|offset| offset as usize) else {
        return;
    };
    if let Some(entry) = editor.find(first, ORIENTATION) {
        editor.set(entry, SHORT, 1);
    }
    let directory = editor.find(first, EXIF_DIRECTORY);
    if let Some(directory) = directory.and_then(|entry| editor.long(entry + 8)) {
        for (tag, side) in [(PIXEL_X_DIMENSION, width), (PIXEL_Y_DIMENSION, height)] {
            if let Some(entry) = editor.find(directory as usize, tag) {
                editor.set(entry, LONG, side.min(MAX_SIDE) as u32);
            }
        }
    }
    // The second directory is that of the thumbnail.
    if let Some(count) = editor.short(first) {
        editor.put(first + 2 + 12 * usize::from(count), &[0; 4]);
    }
}

/// Changes the orientation in an XMP packet to normal.
pub(super) fn set_upright_xmp(xmp: &mut [u8]) {
    let name = b"tiff:Orientation";
    let found: Vec<usize> = memchr::memmem::find_iter(xmp, name).collect();
    for at in found {
        let value = at + name.len();
        let start = match xmp.get(value..) {
            Some([b'=', b'"', ..]) => value + 2,
            Some([b'>', ..]) => value + 1,
            _ => continue,
        };
        if let Some(digit) = xmp.get_mut(start).filter(|digit| digit.is_ascii_digit()) {
            *digit = b'1';
        }
    }
}

/// The directories of a TIFF, whose values are changed in place.
struct DirectoryEditor<'a> {
    bytes: &'a mut [u8],
    is_little_endian: bool,
}

impl<'a> DirectoryEditor<'a> {
    fn new(bytes: &'a mut [u8]) -> Option<Self> {
        let is_little_endian = match bytes.first_chunk()? {
            b"II\x2a\0" => true,
            b"MM\0\x2a" => false,
            _ => return None,
        };
        Some(Self {
            bytes,
            is_little_endian,
        })
    }

    fn short(&self, at: usize) -> Option<u16> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(match self.is_little_endian {
            true => u16::from_le_bytes(bytes),
            false => u16::from_be_bytes(bytes),
        })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(match self.is_little_endian {
            true => u32::from_le_bytes(bytes),
            false => u32::from_be_bytes(bytes),
        })
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        if let Some(to) = self.bytes.get_mut(at..at + value.len()) {
            to.copy_from_slice(value);
        }
    }

    /// Returns the position of the entry with a tag in the directory at `directory`.
    fn find(&self, directory: usize, tag: u16) -> Option<usize> {
        let count = self.short(directory)?;
        (0..usize::from(count))
            .map(|index| directory + 2 + 12 * index)
            .find(|&entry| self.short(entry) == Some(tag))
    }

    /// Replaces the type, the number of values and the value of an entry.
    fn set(&mut self, entry: usize, kind: u16, value: u32) {
        let short = |number: u16| match self.is_little_endian {
            true => number.to_le_bytes(),
            false => number.to_be_bytes(),
        };
        let long = |number: u32| match self.is_little_endian {
            true => number.to_le_bytes(),
            false => number.to_be_bytes(),
        };
        let value = match kind {
            // A SHORT occupies the first two of the four bytes.
            SHORT => [short(value as u16), [0; 2]].concat(),
            _ => long(value).to_vec(),
        };
        let field = [short(kind).to_vec(), long(1).to_vec(), value].concat();
        self.put(entry + 2, &field);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::image::exif_orientation::exif_orientation;

    /// A directory with entries (tag, type, value), and the offset of the next directory.
    fn directory(is_little_endian: bool, entries: &[(u16, u16, u32)], next: u32) -> Vec<u8> {
        let short = |value: u16| match is_little_endian {
            true => value.to_le_bytes().to_vec(),
            false => value.to_be_bytes().to_vec(),
        };
        let long = |value: u32| match is_little_endian {
            true => value.to_le_bytes().to_vec(),
            false => value.to_be_bytes().to_vec(),
        };
        let mut bytes = short(entries.len() as u16);
        for &(tag, kind, value) in entries {
            bytes.extend([short(tag), short(kind), long(1)].concat());
            bytes.extend(match kind {
                SHORT => [short(value as u16), vec![0; 2]].concat(),
                _ => long(value),
            });
        }
        bytes.extend(long(next));
        bytes
    }

    #[test]
    fn orientation_size_and_thumbnail_are_those_of_the_new_image() {
        for is_little_endian in [true, false] {
            let mut exif = match is_little_endian {
                true => b"II\x2a\0\x08\0\0\0".to_vec(),
                false => b"MM\0\x2a\0\0\0\x08".to_vec(),
            };
            let first = [
                (ORIENTATION, SHORT, 6),
                (EXIF_DIRECTORY, LONG, 38),
                (0x9999, LONG, 7),
            ];
            exif.extend(directory(is_little_endian, &first[..2], 99));
            let start = exif.len();
            assert_eq!(start, 38);
            let second = [
                (PIXEL_X_DIMENSION, SHORT, 40),
                (PIXEL_Y_DIMENSION, LONG, 30),
            ];
            exif.extend(directory(is_little_endian, &second, 0));
            set_upright(&mut exif, 400, 300);
            let editor = DirectoryEditor::new(&mut exif).unwrap();
            assert_eq!(editor.long(8 + 2 + 24), Some(0), "no thumbnail");
            assert_eq!(editor.long(38 + 2 + 8), Some(300));
            assert_eq!(editor.long(38 + 2 + 12 + 8), Some(400));
            assert_eq!(exif_orientation(&exif), Some(1));
        }
    }

    #[test]
    fn incomplete_directories_stay_as_they_are() {
        for bytes in [
            &b""[..],
            b"II",
            b"II\x2a\0\xff\xff\xff\xff",
            b"MM\0\x2a\0\0\0\x08\xff\xff\x01\x12",
            b"II\x2a\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\xff\xff\xff\xff",
        ] {
            let mut exif = bytes.to_vec();
            set_upright(&mut exif, 2, 1);
            assert_eq!(exif, bytes);
        }
    }

    #[test]
    fn orientation_in_xmp_is_reset_in_both_notations() {
        let mut xmp = b"<a tiff:Orientation=\"6\"/><tiff:Orientation>8</tiff:Orientation>".to_vec();
        set_upright_xmp(&mut xmp);
        let expected = b"<a tiff:Orientation=\"1\"/><tiff:Orientation>1</tiff:Orientation>";
        assert_eq!(xmp, expected);
    }
}
