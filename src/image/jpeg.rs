//! JPEG, by the `zune-jpeg` library in its strict mode, after a walk over the markers (ITU-T T.81,
//! annex B) that finds what the library does not tell, or tells too late.

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

/// Scans that an image may have: progressive encoders write some 10, and each costs a pass over all
/// coefficients.
const MAX_SCANS: usize = 64;
/// Segments that a file may have: the largest profiles and depth maps take some hundred, and the
/// decoder's cost grows with their square.
const MAX_SEGMENTS: usize = 2048;

/// Stands in for the marker at the end of a baseline image. At an early one, the decoder would fill
/// the rest of the image with gray and call it sound; that it runs out of bytes it does report. It
/// reads ahead by less than this.
const PADDING: [u8; 16] = [0; 16];

/// Stands before the marker at the end of a progressive image, whose decoder needs it: bits that
/// are all 1, which are no Huffman code (T.81, annex C), so that a scan that goes on into them is
/// an error. So many, since codes may be far apart in the scans that refine.
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

/// Width and height by the frame header, which must be of a kind that the decoder knows.
pub(super) fn size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let unsupported = |what: &str| Err(ImageError::unsupported(ImageFormat::Jpeg, what));
    for (marker, body) in MarkerSegments::new(bytes) {
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
                return Err(ImageError::malformed(
                    ImageFormat::Jpeg,
                    "it has no sound frame header",
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

/// What the markers of a whole image tell.
pub(super) struct MarkerScan {
    pub(super) orientation: Orientation,
    /// Where the marker stands that ends the image.
    end: usize,
    progressive: bool,
}

/// Demands that the image has an end and all of its scans, and bounds what its decoding may cost.
pub(super) fn scan_markers(bytes: &[u8]) -> Result<MarkerScan, ImageError> {
    let mut orientation = Orientation::NoTransforms;
    let mut progressive = false;
    let mut script = ScanProgress::default();
    let mut scans = 0;
    let mut segments = MarkerSegments::new(bytes);
    for count in 0.. {
        let Some((marker, body)) = segments.next() else {
            break;
        };
        if count >= MAX_SEGMENTS {
            return Err(ImageError::TooLarge(format!(
                "JPEG of more than {MAX_SEGMENTS} segments"
            )));
        }
        match marker {
            EOI if script.is_complete() => {
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
                    "before all of its scans are there",
                ));
            }
            0xc0..=SOF2 => {
                progressive = marker == SOF2;
                script = ScanProgress::of_frame(body);
            }
            SOS => {
                scans += 1;
                script.add(body, progressive);
            }
            // XMP has the same marker.
            APP1 if body.starts_with(b"Exif") => orientation = find_orientation(body),
            _ => {}
        }
        if scans > MAX_SCANS {
            return Err(ImageError::TooLarge(format!(
                "JPEG of more than {MAX_SCANS} scans"
            )));
        }
    }
    let place = match scans {
        0 => "before its first scan".to_owned(),
        scan => format!("in the middle of scan {scan}"),
    };
    Err(ImageError::truncated(ImageFormat::Jpeg, bytes, &place))
}

/// How much of each component the scans so far have brought.
#[derive(Default)]
struct ScanProgress {
    components: Vec<ScanComponent>,
}

struct ScanComponent {
    id: u8,
    /// For each coefficient the bits that are still missing at its lower end; [`ABSENT`]: all.
    missing: [u8; 64],
}

const ABSENT: u8 = u8::MAX;

impl ScanProgress {
    /// Nothing yet of the components of a frame.
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

    /// A scan brings a band of coefficients down to a bit; of an image that is not progressive,
    /// everything.
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

/// Walks from marker to marker, past the entropy-coded data of scans, until the end of the bytes.
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
    /// The marker's second byte, and the body of its segment without the length.
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.at += memchr::memchr(0xff, self.bytes.get(self.at..)?)? + 1;
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
    use crate::image::{Channels, OutputFormat, Pixels, decode, encode, probe};

    /// Noise, so that every row of blocks takes many bytes.
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
        assert_eq!(
            refusal(&whole[..2000]).1,
            "JPEG ends after 2000 bytes, in the middle of scan 1"
        );
    }

    #[test]
    fn a_cut_that_was_closed_with_an_end_marker_is_an_error_too() {
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

    /// Colour noise of 40 x 40 pixels in 10 scans, as libjpeg's standard script has them.
    const PROGRESSIVE: &[u8] = include_bytes!("../../tests/suite/malformed_input/progressive.jpg");

    #[test]
    fn a_progressive_image_that_was_cut_and_closed_is_an_error() {
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
            "JPEG ends after {} bytes, before all of its scans are there",
            without.len()
        );
        assert_eq!(refusal(&without), (RejectCode::Truncated, expected));
    }

    #[test]
    fn what_lies_behind_the_image_is_no_matter() {
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
            refusal(&scans),
            (
                RejectCode::TooLarge,
                "JPEG of more than 64 scans".to_owned()
            )
        );
        let segments = [&whole[..2], &[0xff, 0xfe, 0, 2].repeat(3000), &whole[2..]].concat();
        assert_eq!(
            refusal(&segments),
            (
                RejectCode::TooLarge,
                "JPEG of more than 2048 segments".to_owned()
            )
        );
    }

    #[test]
    fn kinds_of_jpeg_that_nobody_decodes_are_named() {
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
            "unsupported JPEG: its height is only given after its pixels"
        );
    }
}
