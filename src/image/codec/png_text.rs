//! EXIF and XMP in the text chunks of a PNG, where writers put them before the chunk eXIf existed.

use std::io::Read;

use flate2::read::ZlibDecoder;

use crate::image::error::ImageError;
use crate::image::info::ImageFormat;

/// Maximum number of bytes of a text after its decompression, as in Pillow.
const MAX_TEXT: u64 = 1 << 20;

/// The keyword of an EXIF block that is written in hexadecimal.
const RAW_EXIF: &[u8] = b"Raw profile type exif";
/// The keyword of an XMP packet.
const XMP: &[u8] = b"XML:com.adobe.xmp";

/// The metadata in text chunks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TextMetadata {
    pub(crate) exif: Option<Vec<u8>>,
    pub(crate) xmp: Option<Vec<u8>>,
}

/// Reads the metadata of a complete PNG.
///
/// # Errors
/// [`ImageError::TooLarge`] if a text with metadata exceeds [`MAX_TEXT`].
pub(crate) fn read(png: &[u8]) -> Result<TextMetadata, ImageError> {
    let mut metadata = TextMetadata::default();
    let mut rest = png.get(8..).unwrap_or_default();
    while let Some((header, after)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some((body, next)) = after.split_at_checked(length) else {
            break;
        };
        if let Some((keyword, text)) = split_at_zero(body)
            && matches!(keyword, RAW_EXIF | XMP)
            && let Some(value) = value(&header[4..], text)?
        {
            if keyword == XMP {
                metadata.xmp = Some(value);
            } else {
                metadata.exif = Some(bytes_of_profile(&value));
            }
        }
        // The checksum.
        rest = next.get(4..).unwrap_or_default();
    }
    Ok(metadata)
}

/// The text of a chunk after its keyword; `None` if the chunk has none.
fn value(kind: &[u8], text: &[u8]) -> Result<Option<Vec<u8>>, ImageError> {
    match kind {
        b"tEXt" => Ok(Some(text.to_vec())),
        // The compression method 0 is the only one.
        b"zTXt" => text.strip_prefix(b"\0").map_or(Ok(None), inflate),
        b"iTXt" => {
            let Some((&[is_compressed, method], named)) = text.split_first_chunk() else {
                return Ok(None);
            };
            // The language and the translated keyword.
            let value = split_at_zero(named).and_then(|(_, after)| split_at_zero(after));
            match (value, is_compressed, method) {
                (Some((_, value)), 0, _) => Ok(Some(value.to_vec())),
                (Some((_, value)), _, 0) => inflate(value),
                _ => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

/// Decompresses a text; `None` if it is not valid.
fn inflate(compressed: &[u8]) -> Result<Option<Vec<u8>>, ImageError> {
    let mut text = Vec::new();
    let mut limited = ZlibDecoder::new(compressed).take(MAX_TEXT + 1);
    if limited.read_to_end(&mut text).is_err() {
        return Ok(None);
    }
    if text.len() as u64 > MAX_TEXT {
        return Err(ImageError::TooLarge(format!(
            "{} has EXIF or XMP in a text of more than {MAX_TEXT} bytes, the maximum",
            ImageFormat::Png.name()
        )));
    }
    Ok(Some(text))
}

/// The bytes of a raw profile: an empty line, its name, its length, and hexadecimal digits.
fn bytes_of_profile(text: &[u8]) -> Vec<u8> {
    let lines = text.split(|&byte| byte == b'\n').skip(3);
    let digits = lines
        .flatten()
        .map_while(|&digit| char::from(digit).to_digit(16));
    let digits: Vec<u8> = digits.map(|digit| digit as u8).collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn split_at_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(0, bytes)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fmt::Write as _;

    use png::{BitDepth, ColorType, Encoder};

    use crate::batch::reject::RejectCode;
    use crate::image::{Channels, ImageError, decode};

    type TextEncoder<'a> = Encoder<'a, &'a mut Vec<u8>>;

    /// The levels of a gray PNG of 1, 2, 3 with text chunks.
    fn levels(add: impl FnOnce(&mut TextEncoder)) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 3, 1);
        encoder.set_color(ColorType::Grayscale);
        encoder.set_depth(BitDepth::Eight);
        add(&mut encoder);
        encoder
            .write_header()
            .unwrap()
            .write_image_data(&[1, 2, 3])
            .unwrap();
        decode(&bytes, Channels::Gray, 3).map(|pixels| pixels.data)
    }

    /// An EXIF block of the orientation 3, as the text of a raw profile.
    fn profile() -> String {
        let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0";
        let mut text = format!("\nexif\n{:8}\n", exif.len());
        for (at, byte) in exif.iter().enumerate() {
            if at > 0 && at % 36 == 0 {
                text.push('\n');
            }
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
        text
    }

    const EXIF: &str = "Raw profile type exif";
    const XMP: &str = "XML:com.adobe.xmp";
    const PACKET: &str = "<rdf:Description tiff:Orientation=\"3\"/>";

    #[test]
    fn orientation_is_read_from_every_kind_of_text_chunk() {
        for (keyword, text) in [(EXIF, profile()), (XMP, PACKET.to_owned())] {
            let (keyword, turned) = (keyword.to_owned(), Ok(vec![3, 2, 1]));
            let plain = levels(|png| {
                png.add_text_chunk(keyword.clone(), text.clone()).unwrap();
            });
            assert_eq!(plain, turned);
            let compressed = levels(|png| {
                png.add_ztxt_chunk(keyword.clone(), text.clone()).unwrap();
            });
            assert_eq!(compressed, turned);
            let international = levels(|png| {
                png.add_itxt_chunk(keyword.clone(), text.clone()).unwrap();
            });
            assert_eq!(international, turned);
        }
    }

    #[test]
    fn other_and_invalid_texts_are_ignored() {
        for (keyword, text) in [
            ("Comment", PACKET),
            (EXIF, "exif"),
            (EXIF, "\nexif\n 4\nxyz"),
            (XMP, "tiff:Orientation"),
        ] {
            let upright = levels(|png| {
                png.add_text_chunk(keyword.to_owned(), text.to_owned())
                    .unwrap();
            });
            assert_eq!(upright, Ok(vec![1, 2, 3]), "{text}");
        }
    }

    #[test]
    fn orientation_of_exif_precedes_that_of_xmp() {
        let upright = profile().replace("00010003", "00010001");
        let levels = levels(|png| {
            png.add_text_chunk(XMP.to_owned(), PACKET.to_owned())
                .unwrap();
            png.add_text_chunk(EXIF.to_owned(), upright).unwrap();
        });
        assert_eq!(levels, Ok(vec![1, 2, 3]));
    }

    #[test]
    fn text_that_decompresses_beyond_its_limit_is_too_large() {
        let text = |length: usize| {
            levels(|png| {
                png.add_ztxt_chunk(XMP.to_owned(), " ".repeat(length))
                    .unwrap();
            })
        };
        assert_eq!(text(1 << 20), Ok(vec![1, 2, 3]));
        assert_eq!(
            text((1 << 20) + 1).unwrap_err().code(),
            RejectCode::TooLarge
        );
    }
}
