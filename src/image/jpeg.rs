//! JPEG decoding by the `zune-jpeg` library in strict mode, after a scan of the markers (ITU-T
//! T.81, annex B) for facts that the library does not report, or reports too late.

use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::image::channel_layout::DecodedSamples;
use crate::image::decode::DecodedImage;
use crate::image::error::{ImageError, UNFINISHED};
use crate::image::exif_orientation::orientation as find_orientation;
use crate::image::probe::{ImageFormat, ImageInfo};

const SOF2: u8 = 0xc2;
const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const APP1: u8 = 0xe1;

/// Maximum number of scans of an image: progressive encoders write about 10, and each costs a pass
/// over all coefficients.
const MAX_SCANS: usize = 64;
/// Maximum number of segments of a file: the largest profiles and depth maps take a few hundred,
/// and the cost of the decoder grows with the square of the number.
const MAX_SEGMENTS: usize = 2048;

/// Replaces the end marker of a baseline image. At an end marker that comes too early, the decoder
/// fills the rest of the image with gray and reports success, whereas it reports an error if it
/// runs out of bytes. The decoder reads ahead by less than this length.
const PADDING: [u8; 16] = [0; 16];

/// Precedes the end marker of a progressive image, whose decoder needs the marker: bits that are
/// all 1, which is not a Huffman code (T.81, annex C), so that a scan that continues into them is
/// an error. The length covers the distance between codes in refinement scans.
const INVALID_HUFFMAN_FILL: [u8; 2048] = {
    let mut bytes = [0; 2048];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = 0xff;
        at += 2;
    }
    bytes
};

/// Decodes the first image of a file.
pub(super) fn decode(bytes: &[u8], header: &ImageInfo) -> Result<DecodedImage, ImageError> {
    let MarkerScan {
        orientation,
        end,
        progressive,
    } = scan_markers(bytes)?;
    let stream = match progressive {
        true => [&bytes[..end], &INVALID_HUFFMAN_FILL, &[0xff, EOI]].concat(),
        false => [&bytes[..end], &PADDING].concat(),
    };
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(header.width as usize)
        .set_max_height(header.height as usize)
        .jpeg_set_max_scans(MAX_SCANS);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(stream.as_slice()), options);
    decoder
        .decode_headers()
        .map_err(|error| map_error(bytes, &error))?;
    let gray = decoder.input_colorspace() == Some(ColorSpace::Luma);
    decoder.set_options(options.jpeg_set_out_colorspace(if gray {
        ColorSpace::Luma
    } else {
        ColorSpace::RGB
    }));
    let data = decoder.decode().map_err(|error| map_error(bytes, &error))?;
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
        orientation,
    })
}

fn map_error(bytes: &[u8], error: &DecodeErrors) -> ImageError {
    match error {
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => {
            ImageError::truncated(ImageFormat::Jpeg, bytes, UNFINISHED)
        }
        DecodeErrors::Unsupported(scheme) => {
            ImageError::unsupported(ImageFormat::Jpeg, format_args!("{scheme:?}"))
        }
        DecodeErrors::Format(reason) => ImageError::malformed(ImageFormat::Jpeg, reason),
        DecodeErrors::FormatStatic(reason) => ImageError::malformed(ImageFormat::Jpeg, reason),
        error => ImageError::malformed(ImageFormat::Jpeg, error),
    }
}

/// Reads the width and height from the frame header, which must be of a kind that the decoder
/// supports.
pub(super) fn size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let unsupported = |what: &str| Err(ImageError::unsupported(ImageFormat::Jpeg, what));
    for (marker, body) in MarkerSegments::new(bytes) {
        match (marker, body) {
            // SOF0, SOF1 and SOF2: baseline, extended and progressive with Huffman coding.
            (0xc0..=0xc2, &[8, h1, h0, w1, w0, ..]) => {
                let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
                if height == 0 {
                    return unsupported("its height is stated only after its pixels (DNL marker)");
                }
                return Ok((width.into(), height.into()));
            }
            (0xc0..=0xc2, [12, ..]) => return unsupported("it has 12 bits per sample"),
            (0xc3 | 0xc5..=0xc7, _) => return unsupported("it is lossless or hierarchical"),
            (0xc9..=0xcf, _) => return unsupported("it is arithmetic-coded"),
            (0xc0..=0xc2 | SOS | EOI, _) => {
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

/// The result of the scan of the markers of an image.
pub(super) struct MarkerScan {
    pub(super) orientation: Orientation,
    /// The offset of the marker that ends the image.
    end: usize,
    progressive: bool,
}

/// Checks that the image has an end marker and all of its scans, and bounds the cost of its
/// decoding.
pub(super) fn scan_markers(bytes: &[u8]) -> Result<MarkerScan, ImageError> {
    let mut orientation = Orientation::NoTransforms;
    let mut progressive = false;
    let mut progress = ScanProgress::default();
    let mut scans = 0;
    let mut segments = MarkerSegments::new(bytes);
    for count in 0.. {
        let Some((marker, body)) = segments.next() else {
            break;
        };
        if count >= MAX_SEGMENTS {
            return Err(ImageError::TooLarge(format!(
                "JPEG has more than {MAX_SEGMENTS} segments, the maximum"
            )));
        }
        match marker {
            EOI if progress.is_complete() => {
                return Ok(MarkerScan {
                    orientation,
                    end: segments.at - 2,
                    progressive,
                });
            }
            EOI => {
                return Err(ImageError::truncated(
                    ImageFormat::Jpeg,
                    bytes,
                    "before all of its scans are complete",
                ));
            }
            0xc0..=SOF2 => {
                progressive = marker == SOF2;
                progress = ScanProgress::of_frame(body);
            }
            SOS => {
                scans += 1;
                progress.add(body, progressive);
            }
            // XMP has the same marker.
            APP1 if body.starts_with(b"Exif") => orientation = find_orientation(body),
            _ => {}
        }
        if scans > MAX_SCANS {
            return Err(ImageError::TooLarge(format!(
                "JPEG has more than {MAX_SCANS} scans, the maximum"
            )));
        }
    }
    let position = match scans {
        0 => "before its first scan".to_owned(),
        scan => format!("in the middle of scan {scan}"),
    };
    Err(ImageError::truncated(ImageFormat::Jpeg, bytes, &position))
}

/// The coefficients of each component that the scans so far contain.
#[derive(Default)]
struct ScanProgress {
    components: Vec<ScanComponent>,
}

struct ScanComponent {
    id: u8,
    /// For each coefficient, the number of low bits that are still missing; [`ABSENT`] if all are.
    missing: [u8; 64],
}

const ABSENT: u8 = u8::MAX;

impl ScanProgress {
    /// The state before the first scan of a frame.
    fn of_frame(body: &[u8]) -> Self {
        let components = body.get(6..).unwrap_or_default().chunks_exact(3);
        Self {
            components: components
                .map(|part| ScanComponent {
                    id: part[0],
                    missing: [ABSENT; 64],
                })
                .collect(),
        }
    }

    /// Adds a scan: a band of coefficients down to a bit, or everything if the image is not
    /// progressive.
    fn add(&mut self, body: &[u8], progressive: bool) {
        let Some((&count, rest)) = body.split_first() else {
            return;
        };
        let Some((ids, parameters)) = rest.split_at_checked(2 * usize::from(count)) else {
            return;
        };
        let &[start, end, bits, ..] = parameters else {
            return;
        };
        let (band, low) = if progressive {
            (start..=end, bits & 0x0f)
        } else {
            (0..=63, 0)
        };
        for component in &mut self.components {
            if ids.chunks_exact(2).any(|id| id[0] == component.id) {
                let (from, to) = (usize::from(*band.start()), usize::from(*band.end()));
                component
                    .missing
                    .iter_mut()
                    .take(to + 1)
                    .skip(from)
                    .for_each(|missing| *missing = low);
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.components
            .iter()
            .all(|component| component.missing == [0; 64])
    }
}

/// Iterates over the markers up to the end of the bytes, and skips the entropy-coded data of scans.
struct MarkerSegments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> MarkerSegments<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl<'a> Iterator for MarkerSegments<'a> {
    /// The second byte of the marker, and the body of its segment without the length.
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.at += memchr::memchr(0xff, self.bytes.get(self.at..)?)? + 1;
            match *self.bytes.get(self.at)? {
                // Stuffing, fill bytes, TEM and restart markers are not segments.
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
    use crate::image::{Channels, OutputFormat, Pixels, decode, encode, probe};

    /// An image of noise, so that every row of blocks takes many bytes.
    fn jpeg() -> Vec<u8> {
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        let data = std::iter::repeat_with(&mut noise)
            .take(64 * 64 * 3)
            .collect();
        let pixels = Pixels {
            width: 64,
            height: 64,
            channels: Channels::Rgb,
            data,
        };
        encode(&pixels, OutputFormat::Jpeg(90)).unwrap()
    }

    fn rejection(bytes: &[u8]) -> (RejectCode, String) {
        let error = decode(bytes, Channels::Rgb, 1 << 20).unwrap_err();
        (error.code(), error.to_string())
    }

    #[test]
    fn jpeg_cut_at_any_byte_is_truncated() {
        let whole = jpeg();
        assert!(decode(&whole, Channels::Rgb, 1 << 20).is_ok());
        for cut in (0..whole.len()).step_by(50).chain([whole.len() - 1]) {
            let (code, reason) = rejection(&whole[..cut]);
            // The format of an image cannot be detected from two bytes.
            assert!(code == RejectCode::Truncated || cut < 3, "{cut}: {reason}");
        }
        assert_eq!(
            rejection(&whole[..2000]).1,
            "JPEG ends after 2000 bytes, in the middle of scan 1"
        );
    }

    #[test]
    fn cut_that_is_closed_with_an_end_marker_is_an_error() {
        let whole = jpeg();
        for cut in (1000..whole.len() - 1000).step_by(50) {
            let closed = [&whole[..cut], &[0xff, 0xd9]].concat();
            assert!(
                decode(&closed, Channels::Rgb, 1 << 20).is_err(),
                "closed after {cut} of {}",
                whole.len()
            );
        }
    }

    /// Color noise of 40 x 40 pixels in 10 scans, according to libjpeg's standard script.
    const PROGRESSIVE: &[u8] = include_bytes!("../../tests/suite/malformed_input/progressive.jpg");

    #[test]
    fn progressive_image_that_is_cut_and_closed_is_an_error() {
        assert!(decode(PROGRESSIVE, Channels::Rgb, 1 << 20).is_ok());
        let first_scan = PROGRESSIVE
            .windows(2)
            .position(|pair| pair == [0xff, 0xda])
            .unwrap();
        for cut in first_scan..PROGRESSIVE.len() - 8 {
            let closed = [&PROGRESSIVE[..cut], &[0xff, 0xd9]].concat();
            assert!(
                decode(&closed, Channels::Rgb, 1 << 20).is_err(),
                "closed after {cut} of {}",
                PROGRESSIVE.len()
            );
        }
        let last_scan = PROGRESSIVE
            .windows(2)
            .rposition(|pair| pair == [0xff, 0xda])
            .unwrap();
        let without = [&PROGRESSIVE[..last_scan], &[0xff, 0xd9]].concat();
        let expected = format!(
            "JPEG ends after {} bytes, before all of its scans are complete",
            without.len()
        );
        assert_eq!(rejection(&without), (RejectCode::Truncated, expected));
    }

    #[test]
    fn bytes_after_the_image_are_ignored() {
        let whole = jpeg();
        let followed = [whole.as_slice(), b"a second image, or a film", &whole].concat();
        assert_eq!(
            decode(&followed, Channels::Rgb, 1 << 20),
            decode(&whole, Channels::Rgb, 1 << 20)
        );
    }

    #[test]
    fn scans_and_segments_are_bounded() {
        let whole = jpeg();
        let scans = [
            &whole[..whole.len() - 2],
            &[0xff, 0xda, 0, 2].repeat(100),
            &[0xff, 0xd9],
        ]
        .concat();
        assert_eq!(
            rejection(&scans),
            (
                RejectCode::TooLarge,
                "JPEG has more than 64 scans, the maximum".to_owned()
            )
        );
        let segments = [&whole[..2], &[0xff, 0xfe, 0, 2].repeat(3000), &whole[2..]].concat();
        assert_eq!(
            rejection(&segments),
            (
                RejectCode::TooLarge,
                "JPEG has more than 2048 segments, the maximum".to_owned()
            )
        );
    }

    #[test]
    fn unsupported_kinds_of_jpeg_are_named() {
        let start = [0xff, 0xd8, 0xff];
        let reason = |frame: &[u8]| probe(&[&start, frame].concat()).unwrap_err().to_string();
        assert_eq!(
            reason(&[0xc0, 0, 8, 12, 0, 8, 0, 8, 3]),
            "unsupported JPEG: it has 12 bits per sample"
        );
        assert_eq!(
            reason(&[0xc9, 0, 8, 8, 0, 8, 0, 8, 3]),
            "unsupported JPEG: it is arithmetic-coded"
        );
        assert_eq!(
            reason(&[0xc3, 0, 8, 8, 0, 8, 0, 8, 3]),
            "unsupported JPEG: it is lossless or hierarchical"
        );
        assert_eq!(
            reason(&[0xc0, 0, 8, 8, 0, 0, 0, 8, 3]),
            "unsupported JPEG: its height is stated only after its pixels (DNL marker)"
        );
    }
}
