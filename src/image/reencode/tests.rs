//! Tests of new pixels in the format of encoded images.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::image::decode::decode;
use crate::image::jpeg_encoding::ChromaSubsampling;
use crate::image::metadata::PngColor;
use crate::image::pixel_format::Channels;

const OPTIONS: ReencodeOptions = ReencodeOptions {
    jpeg: JpegOptions::of_quality(92),
    keeps_gray: true,
    max_pixels: 1 << 20,
};

/// EXIF of an image that is shown rotated by 90 degrees.
const ROTATED: &[u8] = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
const UPRIGHT: &[u8] = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x01\0\0\0\0\0\0";
const XMP: &[u8] = b"<x:xmpmeta tiff:Orientation=\"6\"/>";

/// The header of a color profile of a space, which is not checked further.
fn profile(space: &[u8]) -> Vec<u8> {
    let mut icc = vec![7; 70_000];
    icc[16..20].copy_from_slice(space);
    icc
}

/// An image of 6 rows and 4 columns with smooth shades.
fn image(channels: Channels, offset: u8) -> Pixels {
    let count = channels.count();
    let sample = |index: usize| offset + (index / count * 5 + index % count * 20) as u8;
    Pixels {
        width: 4,
        height: 6,
        channels,
        data: (0..24 * count).map(sample).collect(),
    }
}

fn metadata(space: &[u8]) -> ImageMetadata {
    ImageMetadata {
        exif: Some(ROTATED.to_vec()),
        xmp: Some(XMP.to_vec()),
        iptc: Some(b"8BIM".to_vec()),
        icc: Some(profile(space)),
        ..ImageMetadata::default()
    }
}

fn original(pixels: &Pixels, alpha: Option<&[u8]>, format: OutputFormat, space: &[u8]) -> Vec<u8> {
    let layers = EncodedLayers {
        pixels,
        alpha,
        metadata: &metadata(space),
    };
    encode_layers(layers, format).unwrap()
}

fn read(file: &[u8]) -> (ImageMetadata, AlphaLayer) {
    let header = probe(file).unwrap();
    (
        ImageMetadata::read(file, &header).unwrap(),
        decode_alpha(file, &header, 1 << 20).unwrap(),
    )
}

/// The upright image that replaces the pixels: the sides of the original are exchanged.
fn restored(channels: Channels) -> Pixels {
    Pixels {
        width: 6,
        height: 4,
        ..image(channels, 9)
    }
}

#[test]
fn jpeg_keeps_its_metadata_with_the_orientation_reset() {
    let jpeg = OutputFormat::Jpeg(JpegOptions {
        quality: 80,
        subsampling: ChromaSubsampling::Half,
    });
    let file = original(&image(Channels::Rgb, 0), None, jpeg, b"RGB ");
    let new = restored(Channels::Rgb);
    let ReencodedImage { bytes, format } =
        reencode(&file, new.clone(), ColorSpace::Stored, &OPTIONS).unwrap();
    assert_eq!(format, ImageFormat::Jpeg);
    let (found, layer) = read(&bytes);
    assert_eq!(found.exif.as_deref(), Some(UPRIGHT));
    assert_eq!(found.xmp.unwrap(), b"<x:xmpmeta tiff:Orientation=\"1\"/>");
    assert_eq!(found.iptc.as_deref(), Some(&b"8BIM"[..]));
    assert_eq!(found.icc, Some(profile(b"RGB ")));
    assert!(!layer.is_gray && layer.alpha.is_none());
    let decoded = decode(&bytes, Channels::Rgb, 100).unwrap();
    assert_eq!((decoded.height, decoded.width), (4, 6));
    let pairs = decoded.data.iter().zip(&new.data);
    assert!(
        pairs.clone().all(|(a, b)| a.abs_diff(*b) < 16),
        "{decoded:?}"
    );
    // Pixels that were converted to sRGB have no profile.
    let srgb = reencode(&file, new, ColorSpace::Srgb, &OPTIONS).unwrap();
    assert_eq!(read(&srgb.bytes).0.icc, None);
}

#[test]
fn alpha_and_metadata_of_lossless_formats_are_kept() {
    let alpha: Vec<u8> = (0..24).map(|value| value * 10).collect();
    // The alpha of the original, rotated by 90 degrees. A TIFF has its orientation in XMP.
    let rotated: Vec<u8> = (0..24).map(|at| alpha[(5 - at % 6) * 4 + at / 6]).collect();
    for (output, expected) in [
        (OutputFormat::Png, ImageFormat::Png),
        (OutputFormat::WebP, ImageFormat::WebP),
        (OutputFormat::Tiff, ImageFormat::Tiff),
    ] {
        for (channels, space) in [(Channels::Rgb, b"RGB "), (Channels::Gray, b"GRAY")] {
            let file = original(&image(channels, 0), Some(&alpha), output, space);
            let is_tiff = output == OutputFormat::Tiff;
            let new = restored(channels);
            let written = reencode(&file, new.clone(), ColorSpace::Stored, &OPTIONS).unwrap();
            assert_eq!(written.format, expected);
            let (found, layer) = read(&written.bytes);
            assert_eq!(
                &layer.alpha.unwrap().data,
                &rotated,
                "{output:?} {channels:?}"
            );
            // WebP has no gray images.
            if output != OutputFormat::WebP {
                assert_eq!(layer.is_gray, channels == Channels::Gray, "{output:?}");
                assert_eq!(found.icc, Some(profile(space)), "{output:?}");
            }
            let exif = (!is_tiff).then_some(UPRIGHT);
            assert_eq!(found.exif.as_deref(), exif, "{output:?}");
            let xmp = b"<x:xmpmeta tiff:Orientation=\"1\"/>";
            assert_eq!(found.xmp.as_deref(), Some(&xmp[..]), "{output:?}");
            let decoded = decode(&written.bytes, channels, 100).unwrap();
            assert_eq!(decoded, new, "{output:?}");
        }
    }
}

#[test]
fn gray_image_stays_gray_by_default() {
    for output in [
        OutputFormat::Png,
        OutputFormat::Jpeg(JpegOptions::of_quality(90)),
        OutputFormat::Pnm,
    ] {
        let file = original(&image(Channels::Gray, 0), None, output, b"GRAY");
        for keeps_gray in [true, false] {
            let options = ReencodeOptions {
                keeps_gray,
                ..OPTIONS
            };
            let new = image(Channels::Rgb, 3);
            let written = reencode(&file, new, ColorSpace::Stored, &options).unwrap();
            let (found, layer) = read(&written.bytes);
            if output == OutputFormat::Pnm {
                let magic = if keeps_gray { b"P5" } else { b"P6" };
                assert!(written.bytes.starts_with(magic));
            }
            assert_eq!(layer.is_gray, keeps_gray, "{output:?}");
            assert!(
                keeps_gray || found.icc.is_none(),
                "no gray profile for colors"
            );
        }
    }
}

#[test]
fn alpha_of_another_size_is_resized_and_gif_becomes_png() {
    let file = original(
        &image(Channels::Rgb, 0),
        Some(&[90; 24]),
        OutputFormat::Png,
        b"RGB ",
    );
    let small = Pixels {
        width: 2,
        height: 3,
        channels: Channels::Rgb,
        data: vec![5; 18],
    };
    let written = reencode(&file, small.clone(), ColorSpace::Stored, &OPTIONS).unwrap();
    let alpha = read(&written.bytes).1.alpha.unwrap();
    assert_eq!((alpha.height, alpha.width, alpha.data), (3, 2, vec![90; 6]));
    let gif =
        b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
    let png = reencode(gif, small, ColorSpace::Stored, &OPTIONS).unwrap();
    assert_eq!(png.format, ImageFormat::Png);
}

#[test]
fn gamma_of_a_png_stays_unless_a_profile_was_applied() {
    let gamma = png::ScaledFloat::new(1.0);
    for (icc, kept) in [(None, Some(gamma)), (Some(profile(b"RGB ")), None)] {
        let stated = ImageMetadata {
            icc,
            png_color: PngColor {
                gamma: Some(gamma),
                ..PngColor::default()
            },
            ..ImageMetadata::default()
        };
        let layers = EncodedLayers {
            pixels: &image(Channels::Rgb, 0),
            alpha: None,
            metadata: &stated,
        };
        let file = encode_layers(layers, OutputFormat::Png).unwrap();
        assert_eq!(read(&file).0.png_color.gamma, Some(gamma));
        let new = image(Channels::Rgb, 3);
        let written = reencode(&file, new, ColorSpace::Srgb, &OPTIONS).unwrap();
        let found = read(&written.bytes).0;
        assert_eq!((found.png_color.gamma, found.icc), (kept, None));
    }
}

#[test]
fn broken_originals_are_errors() {
    for original in [&b""[..], b"<html>", b"\x89PNG\r\n\x1a\n"] {
        let new = image(Channels::Rgb, 0);
        assert!(reencode(original, new, ColorSpace::Stored, &OPTIONS).is_err());
    }
}
