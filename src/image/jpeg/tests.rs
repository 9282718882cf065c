//! Tests of JPEG decoding.

#![allow(clippy::unwrap_used)]

use super::test_encoder::{TestComponent, TestJpeg};
use crate::batch::RejectCode;
use crate::image::{
    Channels, CropBox, DecodeOptions, OutputFormat, Pixels, ResizeMode, Resizer, decode,
    decode_with, encode, probe,
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
const PROGRESSIVE: &[u8] = include_bytes!("../../../tests/suite/malformed_input/progressive.jpg");

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

/// Decodes an image for a target of this height and width.
fn decode_for(bytes: &[u8], channels: Channels, target: (usize, usize)) -> (Pixels, CropBox) {
    let options = DecodeOptions {
        channels,
        max_pixels: 1 << 20,
        value_range: None,
        scaled_for: Some(target),
    };
    decode_with(bytes, &options).unwrap()
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
    let mut bytes = encode(&pixels, OutputFormat::Jpeg(95)).unwrap();
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

#[test]
fn scaled_decoding_is_near_full_decoding() {
    for exif in 1..=8 {
        let bytes = oriented(333, 217, exif);
        let whole = decode(&bytes, Channels::Rgb, 1 << 20).unwrap();
        for ((height, width), by) in [((16, 30), 4), ((30, 16), 2), ((11, 12), 8)] {
            let size = match exif {
                5.. => (width, height),
                _ => (height, width),
            };
            let (pixels, area) = decode_for(&bytes, Channels::Rgb, size);
            let expected_side = whole.width.min(whole.height).div_ceil(by);
            assert_eq!(
                pixels.width.min(pixels.height),
                expected_side,
                "orientation {exif}, {size:?}"
            );
            for fit in [ResizeMode::Stretch, ResizeMode::Crop, ResizeMode::Pad] {
                let [mut one, mut other] = [(); 2].map(|()| Resizer::new(size.0, size.1, fit));
                let expected = one.resize(&whole).unwrap();
                let worst = worst(other.resize_box(&pixels, area).unwrap(), expected);
                assert!(
                    worst <= 2,
                    "orientation {exif}, {size:?}, {fit:?}: off by {worst}"
                );
            }
        }
    }
}

#[test]
fn scaled_gray_is_the_stored_luma() {
    let bytes = oriented(400, 300, 1);
    let (pixels, area) = decode_for(&bytes, Channels::Gray, (32, 32));
    assert_eq!((pixels.width, pixels.height), (100, 75));
    let whole = decode(&bytes, Channels::Gray, 1 << 20).unwrap();
    let [mut one, mut other] = [(); 2].map(|()| Resizer::new(32, 32, ResizeMode::Stretch));
    let expected = one.resize(&whole).unwrap();
    assert!(worst(other.resize_box(&pixels, area).unwrap(), expected) <= 2);
}

#[test]
fn images_below_twice_the_target_are_decoded_in_full() {
    let bytes = oriented(333, 217, 1);
    let width = |target| decode_for(&bytes, Channels::Rgb, target).0.width;
    assert_eq!((width((27, 41)), width((28, 41))), (84, 167));
    assert_eq!((width((54, 83)), width((54, 84))), (167, 333));
    let (full, area) = decode_for(&bytes, Channels::Rgb, (54, 84));
    assert_eq!(area, CropBox::full(&full));
    let png = encode(&full, OutputFormat::Png).unwrap();
    assert_eq!(decode_for(&png, Channels::Rgb, (9, 9)), (full, area));
}
