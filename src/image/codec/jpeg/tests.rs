//! Tests of JPEG decoding.

#![allow(clippy::unwrap_used)]

use super::test_encoder::{TestComponent, TestJpeg};
use crate::batch::reject::RejectCode;
use crate::image::decode::decode_resized;
use crate::image::jpeg_encoding::JpegOptions;
use crate::image::{
    Channels, DecodeMode, DecodeOptions, OutputFormat, Pixels, ResizeMode, Resizer, decode, encode,
    probe,
};

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
    encode(&pixels, OutputFormat::Jpeg(JpegOptions::of_quality(90))).unwrap()
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
const PROGRESSIVE: &[u8] =
    include_bytes!("../../../../tests/suite/malformed_input/progressive.jpg");

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
    let mut scans = test_jpeg([(1, 1); 3]);
    (scans.progressive, scans.one_coefficient_per_scan) = (true, true);
    assert_eq!(
        rejection(&scans.encode()),
        (
            RejectCode::TooLarge,
            "too large JPEG: it has more than 64 scans, the maximum".to_owned()
        )
    );
    let segments = [&whole[..2], &[0xff, 0xfe, 0, 2].repeat(3000), &whole[2..]].concat();
    assert_eq!(
        rejection(&segments),
        (
            RejectCode::TooLarge,
            "too large JPEG: it has more than 2048 segments, the maximum".to_owned()
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
}

const WIDTH: usize = 37;
const HEIGHT: usize = 21;

fn luma(x: f64, y: f64) -> f64 {
    60.0 + 2.0 * x + y
}

fn blue(x: f64, y: f64) -> f64 {
    100.0 + 0.5 * x + 0.9 * y
}

fn red(x: f64, y: f64) -> f64 {
    160.0 - 0.7 * x + 0.2 * y
}

/// An image of smooth YCbCr, for which every way of upsampling gives nearly the same pixels.
fn test_jpeg(sampling: [(usize, usize); 3]) -> TestJpeg {
    let parts = (1..).zip(sampling).zip([luma, blue, red]);
    let components = parts.map(|((id, factors), value_at)| TestComponent {
        id,
        sampling: factors,
        value_at,
    });
    TestJpeg::new(WIDTH, HEIGHT, components.collect())
}

#[test]
fn bytes_between_header_segments_are_ignored() {
    let whole = jpeg();
    let expected = decode(&whole, Channels::Rgb, 1 << 20);
    let mut with_junk = whole[..2].to_vec();
    let mut at = 2;
    while whole[at + 1] != 0xda {
        let end = at + 2 + usize::from(u16::from_be_bytes([whole[at + 2], whole[at + 3]]));
        with_junk.extend(&whole[at..end]);
        with_junk.extend([0x12, 0x34, 0, 0xff, 0, 0x55, 0xff, 0xff]);
        at = end;
    }
    with_junk.extend(&whole[at..]);
    assert!(decode(&with_junk, Channels::Rgb, 1 << 20) == expected);
}

#[test]
fn orientation_in_xmp_turns_the_image() {
    let image = test_jpeg([(1, 1); 3]).encode();
    let xmp = b"http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation=\"6\"/>";
    let length = u16::try_from(xmp.len() + 2).unwrap().to_be_bytes();
    let turned = [&image[..2], &[0xff, 0xe1], &length, xmp, &image[2..]].concat();
    let pixels = decode(&turned, Channels::Rgb, 1 << 20).unwrap();
    assert_eq!((pixels.width, pixels.height), (HEIGHT, WIDTH));
}

#[test]
fn height_may_follow_the_pixels() {
    let mut image = test_jpeg([(2, 2), (1, 1), (1, 1)]);
    let expected = decode(&image.encode(), Channels::Rgb, 1 << 20);
    image.height_after_scan = true;
    let bytes = image.encode();
    let header = probe(&bytes).unwrap();
    assert_eq!((header.width, header.height), (WIDTH as u32, HEIGHT as u32));
    assert!(decode(&bytes, Channels::Rgb, 1 << 20) == expected);
}

#[test]
fn gray_of_a_color_image_is_the_luma_of_its_colors() {
    // Saturated colors, for which the stored luma differs from that of the colors in 0..255.
    let parts = [luma as fn(f64, f64) -> f64, |_, _| 20.0, |_, _| 240.0];
    let component = |(id, value_at)| TestComponent {
        id,
        sampling: (1, 1),
        value_at,
    };
    let image = TestJpeg::new(WIDTH, HEIGHT, (1..).zip(parts).map(component).collect());
    let bytes = image.encode();
    let colors = decode(&bytes, Channels::Rgb, 1 << 20).unwrap();
    let png = encode(&colors, OutputFormat::Png).unwrap();
    let gray = decode(&bytes, Channels::Gray, 1 << 20).unwrap();
    assert_eq!(gray, decode(&png, Channels::Gray, 1 << 20).unwrap());
}

fn resized(
    bytes: &[u8],
    channels: Channels,
    mode: DecodeMode,
    (height, width): (usize, usize),
    fit: ResizeMode,
) -> Vec<u8> {
    let options = DecodeOptions {
        channels,
        max_pixels: 1 << 20,
        value_range: None,
    };
    let mut resizer = Resizer::new(height, width, fit);
    decode_resized(bytes, &options, mode, &mut resizer)
        .unwrap()
        .to_vec()
}

/// A smooth image whose corners differ, with an orientation.
fn oriented(width: usize, height: usize, exif: u8) -> Vec<u8> {
    let value = |x: usize, y: usize, channel: usize| {
        let (x, y) = (x as f64 / width as f64, y as f64 / height as f64);
        (40.0 + 100.0 * x + 60.0 * y * x + 20.0 * channel as f64 * y) as u8
    };
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let data = places
        .flat_map(|(x, y)| (0..3).map(move |channel| value(x, y, channel)))
        .collect();
    let pixels = Pixels {
        width,
        height,
        channels: Channels::Rgb,
        data,
    };
    let mut bytes = encode(&pixels, OutputFormat::Jpeg(JpegOptions::of_quality(95))).unwrap();
    // A TIFF with one entry: the orientation, of type SHORT.
    let tiff = [
        b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".as_slice(),
        &[exif],
        &[0; 6],
    ]
    .concat();
    let body = [b"Exif\0\0".as_slice(), &tiff].concat();
    let length = u16::try_from(body.len() + 2).unwrap().to_be_bytes();
    bytes.splice(2..2, [&[0xff, 0xe1], length.as_slice(), &body].concat());
    bytes
}

fn worst(one: &[u8], other: &[u8]) -> u8 {
    assert_eq!(one.len(), other.len());
    let pairs = one.iter().zip(other);
    pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

const FITS: [ResizeMode; 3] = [ResizeMode::Stretch, ResizeMode::Crop, ResizeMode::Pad];

#[test]
fn resizing_by_rows_equals_resizing_the_decoded_image() {
    for exif in 1..=8 {
        let bytes = oriented(133, 217, exif);
        for channels in [Channels::Rgb, Channels::Gray] {
            let whole = decode(&bytes, channels, 1 << 20).unwrap();
            // The last size is wider than the image.
            for size in [(16, 30), (90, 11), (1, 1), (240, 230)] {
                for fit in FITS {
                    let expected = Resizer::new(size.0, size.1, fit)
                        .resize(&whole)
                        .unwrap()
                        .to_vec();
                    let rows = resized(&bytes, channels, DecodeMode::Full, size, fit);
                    let worst = worst(&rows, &expected);
                    assert!(worst <= 1, "{exif}, {size:?}, {fit:?}: off by {worst}");
                }
            }
        }
    }
}

#[test]
fn scaled_decoding_is_near_full_decoding() {
    for exif in 1..=8 {
        let bytes = oriented(333, 217, exif);
        for (height, width) in [(16, 30), (30, 16), (11, 12)] {
            let size = match exif {
                5.. => (width, height),
                _ => (height, width),
            };
            for fit in FITS {
                for channels in [Channels::Rgb, Channels::Gray] {
                    let of = |mode| resized(&bytes, channels, mode, size, fit);
                    let worst = worst(&of(DecodeMode::Scaled), &of(DecodeMode::Full));
                    assert!(worst <= 2, "{exif}, {size:?}, {fit:?}: off by {worst}");
                }
            }
        }
    }
}

#[test]
fn images_below_twice_the_target_are_decoded_in_full() {
    let bytes = jpeg();
    let is_full = |size| {
        let [full, scaled] = [DecodeMode::Full, DecodeMode::Scaled]
            .map(|mode| resized(&bytes, Channels::Rgb, mode, size, ResizeMode::Stretch));
        full == scaled
    };
    assert!(is_full((17, 16)) && is_full((16, 17)));
    assert!(!is_full((16, 16)) && !is_full((8, 8)) && !is_full((2, 2)));
    let png = encode(
        &decode(&bytes, Channels::Rgb, 1 << 20).unwrap(),
        OutputFormat::Png,
    )
    .unwrap();
    let of = |mode| resized(&png, Channels::Rgb, mode, (8, 8), ResizeMode::Stretch);
    assert_eq!(of(DecodeMode::Scaled), of(DecodeMode::Full));
}

#[test]
fn damage_is_found_while_an_image_is_resized() {
    let whole = jpeg();
    let options = DecodeOptions {
        channels: Channels::Gray,
        max_pixels: 1 << 20,
        value_range: None,
    };
    let mut resizer = Resizer::new(4, 4, ResizeMode::Stretch);
    for mode in [DecodeMode::Full, DecodeMode::Scaled] {
        for cut in (4..whole.len()).step_by(97) {
            let result = decode_resized(&whole[..cut], &options, mode, &mut resizer);
            assert_eq!(result.unwrap_err().code(), RejectCode::Truncated);
        }
        assert!(decode_resized(&whole, &options, mode, &mut resizer).is_ok());
    }
}
