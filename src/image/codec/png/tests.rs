//! Unit tests of the module `png`.

#![allow(clippy::unwrap_used)]

use png::{BitDepth, ColorType, Encoder};

use crate::batch::reject::RejectCode;
use crate::image::decode::decode_with;
use crate::image::{Channels, DecodeOptions, ValueRange, decode};

/// A PNG of one row of pixels.
fn png(width: u32, color: ColorType, depth: BitDepth, palette: &[u8], samples: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, 1);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if !palette.is_empty() {
        encoder.set_palette(palette.to_vec());
    }
    encoder
        .write_header()
        .unwrap()
        .write_image_data(samples)
        .unwrap();
    bytes
}

fn pixels(png: &[u8], channels: Channels) -> Vec<u8> {
    decode(png, channels, 100).unwrap().data
}

#[test]
fn every_depth_becomes_8_bits() {
    let gray = |width, depth, sample: &[u8]| {
        pixels(
            &png(width, ColorType::Grayscale, depth, &[], sample),
            Channels::Gray,
        )
    };
    assert_eq!(gray(3, BitDepth::One, &[0b1010_0000]), [255, 0, 255]);
    assert_eq!(gray(3, BitDepth::Two, &[0b0001_1100]), [0, 85, 255]);
    assert_eq!(gray(2, BitDepth::Four, &[0x1f]), [17, 255]);
    assert_eq!(gray(2, BitDepth::Eight, &[1, 200]), [1, 200]);
    assert_eq!(gray(2, BitDepth::Sixteen, &[1, 255, 200, 0]), [1, 200]);
}

#[test]
fn samples_of_16_bits_are_scaled_to_a_range() {
    let options = DecodeOptions {
        channels: Channels::Gray,
        max_pixels: 100,
        value_range: ValueRange::new([0.0, 4095.0]).ok(),
    };
    let deep = png(
        3,
        ColorType::Grayscale,
        BitDepth::Sixteen,
        &[],
        &[0, 0, 8, 0, 15, 255],
    );
    assert_eq!(decode_with(&deep, &options).unwrap().data, [0, 128, 255]);
    let shallow = png(2, ColorType::Grayscale, BitDepth::Four, &[], &[0x1f]);
    assert_eq!(decode_with(&shallow, &options).unwrap().data, [17, 255]);
}

#[test]
fn palettes_and_alpha_become_colors() {
    let indexed = png(
        2,
        ColorType::Indexed,
        BitDepth::Eight,
        &[1, 2, 3, 250, 251, 252],
        &[1, 0],
    );
    assert_eq!(pixels(&indexed, Channels::Rgb), [250, 251, 252, 1, 2, 3]);
    let alpha = png(
        1,
        ColorType::Rgba,
        BitDepth::Sixteen,
        &[],
        &[1, 9, 2, 9, 3, 9, 0, 0],
    );
    assert_eq!(pixels(&alpha, Channels::Rgb), [1, 2, 3]);
    let gray = png(1, ColorType::GrayscaleAlpha, BitDepth::Eight, &[], &[7, 0]);
    assert_eq!(pixels(&gray, Channels::Rgb), [7, 7, 7]);
}

/// Inserts a chunk of `kind` before the last chunk of kind `before`.
fn with_chunk(png: &[u8], before: &[u8; 4], kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let start = png.windows(4).rposition(|window| window == before).unwrap() - 4;
    let named = [kind, body].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let chunk = [
        &length,
        named.as_slice(),
        &crc32fast::hash(&named).to_be_bytes(),
    ]
    .concat();
    [&png[..start], &chunk, &png[start..]].concat()
}

#[test]
fn chunks_after_the_image_data_are_ignored() {
    let samples: Vec<u8> = (0..24).collect();
    let kinds = [
        (ColorType::Grayscale, BitDepth::Eight, 24, [0, 7].as_slice()),
        (ColorType::Grayscale, BitDepth::Sixteen, 12, &[0, 7]),
        (ColorType::Grayscale, BitDepth::Two, 96, &[0, 1]),
        (ColorType::Rgb, BitDepth::Eight, 8, &[0, 0, 0, 1, 0, 2]),
        (ColorType::Rgba, BitDepth::Eight, 6, &[0, 0, 0, 1, 0, 2]),
        (ColorType::Indexed, BitDepth::Eight, 24, &[9, 9, 9]),
    ];
    for (color, depth, width, transparent) in kinds {
        let palette: Vec<u8> = if color == ColorType::Indexed {
            (0..72).collect()
        } else {
            vec![]
        };
        let sound = png(width, color, depth, &palette, &samples);
        let late = with_chunk(&sound, b"IEND", b"tRNS", transparent);
        let late = with_chunk(&late, b"IEND", b"PLTE", &[1, 2, 3]);
        for channels in [Channels::Gray, Channels::Rgb] {
            let expected = decode(&sound, channels, 100);
            assert!(expected.is_ok());
            // A second palette is an error.
            let late = if color == ColorType::Indexed {
                &with_chunk(&sound, b"IEND", b"tRNS", transparent)
            } else {
                &late
            };
            assert_eq!(decode(late, channels, 100), expected, "{color:?} {depth:?}");
        }
    }
}

#[test]
fn transparency_before_the_image_data_is_dropped() {
    let gray = png(3, ColorType::Grayscale, BitDepth::Eight, &[], &[1, 7, 9]);
    let gray = with_chunk(&gray, b"IDAT", b"tRNS", &[0, 7]);
    assert_eq!(pixels(&gray, Channels::Gray), [1, 7, 9]);
}

#[test]
fn frame_of_other_size_than_image_is_malformed() {
    let image = png(4, ColorType::Grayscale, BitDepth::Eight, &[], &[1, 2, 3, 4]);
    let frame = |width: u8| {
        let control = [
            [0, 0, 0, 0],
            [0, 0, 0, width],
            [0, 0, 0, 1],
            [0; 4],
            [0; 4],
            [0, 1, 0, 10],
        ]
        .concat();
        let animated = with_chunk(&image, b"IDAT", b"acTL", &[0, 0, 0, 1, 0, 0, 0, 0]);
        with_chunk(
            &animated,
            b"IDAT",
            b"fcTL",
            &[control.as_slice(), &[0, 0]].concat(),
        )
    };
    assert_eq!(pixels(&frame(4), Channels::Gray), [1, 2, 3, 4]);
    let error = decode(&frame(2), Channels::Gray, 100).unwrap_err();
    assert_eq!(error.code(), RejectCode::Malformed, "{error}");
}

#[test]
fn png_cut_at_any_byte_is_truncated() {
    let samples: Vec<u8> = (0..3000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let whole = png(1000, ColorType::Rgb, BitDepth::Eight, &[], &samples);
    assert!(decode(&whole, Channels::Rgb, 1000).is_ok());
    for cut in (8..whole.len())
        .step_by(50)
        .chain(whole.len() - 13..whole.len())
    {
        let error = decode(&whole[..cut], Channels::Rgb, 1000).unwrap_err();
        assert_eq!(error.code(), RejectCode::Truncated, "{cut}: {error}");
    }
}

#[test]
fn decompression_bomb_is_rejected_by_its_header() {
    let mut bomb = png(1, ColorType::Rgb, BitDepth::Eight, &[], &[1, 2, 3]);
    bomb[16..20].copy_from_slice(&100_000_u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&100_000_u32.to_be_bytes());
    let error = decode(&bomb, Channels::Rgb, 100_000_000).unwrap_err();
    assert_eq!(error.code(), RejectCode::TooLarge);
    assert_eq!(
        error.to_string(),
        "PNG has 100000 x 100000 pixels, more than the limit of 100000000 pixels"
    );
}

#[test]
fn flipped_bit_is_malformed() {
    let mut damaged = png(
        3,
        ColorType::Rgb,
        BitDepth::Eight,
        &[],
        &[1, 2, 3, 4, 5, 6, 7, 8, 9],
    );
    let middle = damaged.len() - 20;
    damaged[middle] ^= 1;
    assert_eq!(
        decode(&damaged, Channels::Rgb, 100).unwrap_err().code(),
        RejectCode::Malformed
    );
}
