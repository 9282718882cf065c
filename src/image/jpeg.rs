//! JPEG, by the `zune-jpeg` library in its strict mode, after a walk over the markers (ITU-T T.81, annex B)
//! that finds what the library does not tell, or tells too late.

use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::image::decode::Decoded;
use crate::image::error::{ImageError, UNFINISHED};
use crate::image::header::{Format, Header};
use crate::image::orient::orientation as find_orientation;
use crate::image::samples::Samples;

const SOF2: u8 = 0xc2;
const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const APP1: u8 = 0xe1;

/// Scans that an image may have: progressive encoders write some 10, and each costs a pass over all coefficients.
const MAX_SCANS: usize = 64;
/// Segments that a file may have: the largest profiles and depth maps take some hundred, and the decoder's
/// cost grows with their square.
const MAX_SEGMENTS: usize = 2048;

/// Stands in for the marker at the end of a baseline image. At an early one, the decoder would fill the rest of the
/// image with gray and call it sound; that it runs out of bytes it does report. It reads ahead by less than this.
const PADDING: [u8; 16] = [0; 16];

/// Decodes the first image of a file.
pub(super) fn decode(bytes: &[u8], header: &Header) -> Result<Decoded, ImageError> {
    let Survey { orientation, end, progressive } = survey(bytes)?;
    let padded = [&bytes[..end], &PADDING].concat();
    // Between the scans of a progressive image, its decoder needs every marker.
    let stream = if progressive { bytes } else { &padded };
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(header.width as usize)
        .set_max_height(header.height as usize)
        .jpeg_set_max_scans(MAX_SCANS);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(stream), options);
    decoder.decode_headers().map_err(|error| refuse(bytes, &error))?;
    let gray = decoder.input_colorspace() == Some(ColorSpace::Luma);
    decoder.set_options(options.jpeg_set_out_colorspace(if gray { ColorSpace::Luma } else { ColorSpace::RGB }));
    let data = decoder.decode().map_err(|error| refuse(bytes, &error))?;
    let samples = if gray { Samples::Gray(data) } else { Samples::Rgb(data) };
    Ok(Decoded { samples, orientation })
}

fn refuse(bytes: &[u8], error: &DecodeErrors) -> ImageError {
    match error {
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => {
            ImageError::truncated(Format::Jpeg, bytes, UNFINISHED)
        }
        DecodeErrors::Unsupported(scheme) => ImageError::unsupported(Format::Jpeg, format_args!("{scheme:?}")),
        DecodeErrors::Format(reason) => ImageError::malformed(Format::Jpeg, reason),
        DecodeErrors::FormatStatic(reason) => ImageError::malformed(Format::Jpeg, reason),
        error => ImageError::malformed(Format::Jpeg, error),
    }
}

/// Width and height by the frame header, which must be of a kind that the decoder knows.
pub(super) fn size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let unsupported = |what: &str| Err(ImageError::unsupported(Format::Jpeg, what));
    for (marker, body) in Segments::new(bytes) {
        match (marker, body) {
            // SOF0, SOF1 and SOF2: baseline, extended and progressive, by Huffman codes.
            (0xc0..=0xc2, &[8, h1, h0, w1, w0, ..]) => {
                let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
                if height == 0 {
                    return unsupported("its height is only given after its pixels");
                }
                return Ok((width.into(), height.into()));
            }
            (0xc0..=0xc2, [12, ..]) => return unsupported("it has 12 bits per sample"),
            (0xc3 | 0xc5..=0xc7, _) => return unsupported("it is lossless or hierarchical"),
            (0xc9..=0xcf, _) => return unsupported("it is arithmetic-coded"),
            (0xc0..=0xc2 | SOS | EOI, _) => {
                return Err(ImageError::malformed(Format::Jpeg, "it has no sound frame header"));
            }
            _ => {}
        }
    }
    Err(ImageError::truncated(Format::Jpeg, bytes, "in its header"))
}

/// What the markers of a whole image tell.
struct Survey {
    orientation: Orientation,
    /// Where the marker stands that ends the image.
    end: usize,
    progressive: bool,
}

/// Demands that the image has an end, and bounds what its decoding may cost.
fn survey(bytes: &[u8]) -> Result<Survey, ImageError> {
    let mut orientation = Orientation::NoTransforms;
    let mut progressive = false;
    let mut scans = 0;
    let mut segments = Segments::new(bytes);
    for count in 0.. {
        let Some((marker, body)) = segments.next() else { break };
        if count >= MAX_SEGMENTS {
            return Err(ImageError::TooLarge(format!("JPEG of more than {MAX_SEGMENTS} segments")));
        }
        match marker {
            EOI => return Ok(Survey { orientation, end: segments.at - 2, progressive }),
            SOF2 => progressive = true,
            SOS => scans += 1,
            // XMP has the same marker.
            APP1 if body.starts_with(b"Exif") => orientation = find_orientation(body),
            _ => {}
        }
        if scans > MAX_SCANS {
            return Err(ImageError::TooLarge(format!("JPEG of more than {MAX_SCANS} scans")));
        }
    }
    let place = match scans {
        0 => "before its first scan".to_owned(),
        scan => format!("in the middle of scan {scan}"),
    };
    Err(ImageError::truncated(Format::Jpeg, bytes, &place))
}

/// Walks from marker to marker, past the entropy-coded data of scans, until the end of the bytes.
struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl<'a> Iterator for Segments<'a> {
    /// The marker's second byte, and the body of its segment without the length.
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.at += self.bytes.get(self.at..)?.iter().position(|&byte| byte == 0xff)? + 1;
            match *self.bytes.get(self.at)? {
                // Stuffing, fill bytes, TEM and restarts are part of what lies between segments.
                0x00 | 0x01 | 0xd0..=0xd7 | 0xff => {}
                marker @ (SOI | EOI) => {
                    self.at += 1;
                    return Some((marker, &[]));
                }
                marker => {
                    let length = self.bytes.get(self.at + 1..self.at + 3)?;
                    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                    let body = self.bytes.get(self.at + 3..self.at + 1 + length.max(2))?;
                    self.at += 1 + length.max(2);
                    return Some((marker, body));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::batch::RejectCode;
    use crate::image::{Channels, OutputFormat, Pixels, decode, encode, read_header};

    /// Noise, so that every row of blocks takes many bytes.
    fn jpeg() -> Vec<u8> {
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        let data = std::iter::repeat_with(&mut noise).take(64 * 64 * 3).collect();
        let pixels = Pixels { width: 64, height: 64, channels: Channels::Rgb, data };
        encode(&pixels, OutputFormat::Jpeg(90)).unwrap()
    }

    fn refusal(bytes: &[u8]) -> (RejectCode, String) {
        let error = decode(bytes, Channels::Rgb, 1 << 20).unwrap_err();
        (error.code(), error.to_string())
    }

    #[test]
    fn a_cut_is_an_error_wherever_it_falls() {
        let whole = jpeg();
        assert!(decode(&whole, Channels::Rgb, 1 << 20).is_ok());
        for cut in (0..whole.len()).step_by(50).chain([whole.len() - 1]) {
            let (code, reason) = refusal(&whole[..cut]);
            // Of two bytes nobody can tell what they were the beginning of.
            assert!(code == RejectCode::Truncated || cut < 3, "{cut}: {reason}");
        }
        assert_eq!(refusal(&whole[..2000]).1, "JPEG ends after 2000 bytes, in the middle of scan 1");
    }

    #[test]
    fn a_cut_that_was_closed_with_an_end_marker_is_an_error_too() {
        let whole = jpeg();
        for cut in (1000..whole.len() - 1000).step_by(50) {
            let closed = [&whole[..cut], &[0xff, 0xd9]].concat();
            assert!(decode(&closed, Channels::Rgb, 1 << 20).is_err(), "closed after {cut} of {}", whole.len());
        }
    }

    #[test]
    fn what_lies_behind_the_image_is_no_matter() {
        let whole = jpeg();
        let followed = [whole.as_slice(), b"a second image, or a film", &whole].concat();
        assert_eq!(decode(&followed, Channels::Rgb, 1 << 20), decode(&whole, Channels::Rgb, 1 << 20));
    }

    #[test]
    fn scans_and_segments_are_bounded() {
        let whole = jpeg();
        let scans = [&whole[..whole.len() - 2], &[0xff, 0xda, 0, 2].repeat(100), &[0xff, 0xd9]].concat();
        assert_eq!(refusal(&scans), (RejectCode::TooLarge, "JPEG of more than 64 scans".to_owned()));
        let segments = [&whole[..2], &[0xff, 0xfe, 0, 2].repeat(3000), &whole[2..]].concat();
        assert_eq!(refusal(&segments), (RejectCode::TooLarge, "JPEG of more than 2048 segments".to_owned()));
    }

    #[test]
    fn kinds_of_jpeg_that_nobody_decodes_are_named() {
        let start = [0xff, 0xd8, 0xff];
        let reason = |frame: &[u8]| read_header(&[&start, frame].concat()).unwrap_err().to_string();
        assert_eq!(reason(&[0xc0, 0, 8, 12, 0, 8, 0, 8, 3]), "unsupported JPEG: it has 12 bits per sample");
        assert_eq!(reason(&[0xc9, 0, 8, 8, 0, 8, 0, 8, 3]), "unsupported JPEG: it is arithmetic-coded");
        assert_eq!(reason(&[0xc3, 0, 8, 8, 0, 8, 0, 8, 3]), "unsupported JPEG: it is lossless or hierarchical");
        assert_eq!(
            reason(&[0xc0, 0, 8, 8, 0, 0, 0, 8, 3]),
            "unsupported JPEG: its height is only given after its pixels"
        );
    }
}
