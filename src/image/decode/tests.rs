//! Unit tests of the module `decode`.

#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, ImageEncoder, RgbImage};

use super::*;
use crate::batch::reject::RejectCode;

/// An image of 48 x 32 pixels with quarters of different colors, so that JPEG does not blur the
/// corners.
fn picture() -> RgbImage {
    RgbImage::from_fn(48, 32, |x, y| match (x < 24, y < 16) {
        (true, true) => image::Rgb([250, 10, 20]),
        (false, true) => image::Rgb([20, 240, 30]),
        (true, false) => image::Rgb([30, 40, 230]),
        (false, false) => image::Rgb([200, 200, 200]),
    })
}

fn written(image: &DynamicImage, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn every_format_restores_the_written_pixels() {
    let image = DynamicImage::ImageRgb8(picture());
    let formats = [
        (image::ImageFormat::Png, ImageFormat::Png),
        (image::ImageFormat::WebP, ImageFormat::WebP),
        (image::ImageFormat::Bmp, ImageFormat::Bmp),
        (image::ImageFormat::Gif, ImageFormat::Gif),
        (image::ImageFormat::Tiff, ImageFormat::Tiff),
        (image::ImageFormat::Pnm, ImageFormat::Pnm),
    ];
    for (library, format) in formats {
        let bytes = written(&image, library);
        assert_eq!(
            probe(&bytes).unwrap(),
            ImageInfo {
                format,
                width: 48,
                height: 32,
                bytes_per_pixel: 12
            }
        );
        let pixels = decode(&bytes, Channels::Rgb, 48 * 32).unwrap();
        assert_eq!((pixels.width, pixels.height), (48, 32));
        assert!(pixels.data == *picture().as_raw(), "{format:?}");
        let half = decode(&bytes[..bytes.len() / 2], Channels::Rgb, 48 * 32).unwrap_err();
        assert!(
            matches!(half.code(), RejectCode::Truncated | RejectCode::Malformed),
            "{half}"
        );
        let large = decode(&bytes, Channels::Rgb, 48 * 32 - 1).unwrap_err();
        assert_eq!(large.code(), RejectCode::TooLarge, "{large}");
    }
}

#[test]
fn image_with_deep_samples_is_charged_for_its_decoding() {
    let deep =
        DynamicImage::ImageRgb32F(image::ImageBuffer::from_pixel(30, 20, image::Rgb([0.5; 3])));
    let bytes = written(&deep, image::ImageFormat::Tiff);
    let header = probe(&bytes).unwrap();
    assert_eq!(
        (header.bytes_per_pixel, header.charged_pixels()),
        (28, 600 * 28 / 12)
    );
    let large = decode(&bytes, Channels::Rgb, 1399).unwrap_err();
    assert_eq!(large.code(), RejectCode::TooLarge, "{large}");
    assert_eq!(
        large.to_string(),
        "TIFF of 30 x 20 pixels needs 16800 bytes to decode; the limit of 1399 pixels \
             (limits.pixels) allows 16788 (12 bytes per pixel)"
    );
    assert_eq!(
        decode(&bytes, Channels::Rgb, 1400).unwrap().data.len(),
        1800
    );
}

#[test]
fn upper_8_of_16_bits_are_kept() {
    let image = image::ImageBuffer::from_fn(4, 4, |x, y| {
        image::Luma([(x as u16 * 40 + y as u16) << 8 | 255])
    });
    for format in [
        image::ImageFormat::Png,
        image::ImageFormat::Tiff,
        image::ImageFormat::Pnm,
    ] {
        let bytes = written(&DynamicImage::ImageLuma16(image.clone()), format);
        let expected: Vec<u8> = image
            .as_raw()
            .iter()
            .map(|&sample| (sample >> 8) as u8)
            .collect();
        assert_eq!(
            decode(&bytes, Channels::Gray, 32).unwrap().data,
            expected,
            "{format:?}"
        );
    }
}

/// EXIF that contains only an orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    exif
}

fn with_exif(mut encoder: impl ImageEncoder, orientation: u8) {
    encoder.set_exif_metadata(exif(orientation)).unwrap();
    encoder
        .write_image(picture().as_raw(), 48, 32, ExtendedColorType::Rgb8)
        .unwrap();
}

#[test]
fn images_of_all_eight_orientations_become_upright() {
    for orientation in 1..=8 {
        let mut upright = DynamicImage::ImageRgb8(picture());
        upright.apply_orientation(Orientation::from_exif(orientation).unwrap());
        let upright = upright.into_rgb8();
        let (mut jpeg, mut png, mut webp) = (Vec::new(), Vec::new(), Vec::new());
        with_exif(JpegEncoder::new_with_quality(&mut jpeg, 100), orientation);
        with_exif(PngEncoder::new(&mut png), orientation);
        with_exif(WebPEncoder::new_lossless(&mut webp), orientation);
        for bytes in [jpeg, png, webp] {
            let pixels = decode(&bytes, Channels::Rgb, 48 * 32).unwrap();
            assert_eq!(
                (pixels.width as u32, pixels.height as u32),
                upright.dimensions(),
                "{orientation}"
            );
            let differ = pixels
                .data
                .iter()
                .zip(upright.as_raw())
                .filter(|(a, b)| a.abs_diff(**b) > 4)
                .count();
            assert_eq!(
                differ,
                0,
                "orientation {orientation} of {:?}",
                ImageFormat::from_bytes(&bytes)
            );
        }
    }
}
