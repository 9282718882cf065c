//! Decoding of JPEGs at a fraction of their size by libjpeg-turbo, for targets that are much
//! smaller than the image.

use crate::image::decode::Pixels;
use crate::image::pixel_format::Channels;
use crate::image::resize::CropBox;

/// Whether this build includes libjpeg-turbo.
pub const AVAILABLE: bool = cfg!(feature = "turbojpeg");

/// Decodes a JPEG at 1/2, 1/4 or 1/8 of its size and applies its orientation, if the result has at
/// least twice the `height` and `width` of the target: below that, artifacts of libjpeg's reduction
/// become visible. Also returns the area of the pixels that the image covers: libjpeg rounds sizes
/// up, so that the last row and column may be covered only in part.
///
/// Returns `None` for all other images, for an image that causes an error or a warning in
/// libjpeg-turbo, and in builds without it; the caller then uses
/// [`decode`](crate::image::decode()), which reports the error if there is one.
#[cfg(not(feature = "turbojpeg"))]
pub fn decode_scaled(
    _: &[u8],
    _: Channels,
    _: u64,
    _: (usize, usize),
) -> Option<(Pixels, CropBox)> {
    None
}

#[cfg(feature = "turbojpeg")]
pub use turbo::decode_scaled;

#[cfg(feature = "turbojpeg")]
mod turbo {
    use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat, ScalingFactor};

    use super::{Channels, CropBox, Pixels};
    use crate::image::exif_orientation::orient;
    use crate::image::jpeg::check;
    use crate::image::probe::{ImageFormat, probe};

    /// Decodes a JPEG at a fraction of its size, as documented at the function for builds without
    /// libjpeg-turbo.
    pub fn decode_scaled(
        bytes: &[u8],
        channels: Channels,
        max_pixels: u64,
        (target_height, target_width): (usize, usize),
    ) -> Option<(Pixels, CropBox)> {
        let header = probe(bytes)
            .ok()
            .filter(|header| header.format == ImageFormat::Jpeg && header.pixels() <= max_pixels)?;
        // The check bounds the number of scans and segments, and requires that the image is
        // complete; libjpeg-turbo accepts runs that exceed a block.
        let orientation = check(bytes).ok()?.orientation;
        let sideways = orientation.to_exif() >= 5;
        let (min_height, min_width) = if sideways {
            (target_width, target_height)
        } else {
            (target_height, target_width)
        };
        let (full_height, full_width) = (header.height as usize, header.width as usize);
        let is_large_enough =
            |by: usize| full_height >= 2 * by * min_height && full_width >= 2 * by * min_width;
        let by = [8, 4, 2].into_iter().find(|&by| is_large_enough(by))?;
        let mut decoder = Decompressor::new().ok()?;
        let info = decoder.read_header(bytes).ok()?;
        if (info.width, info.height) != (full_width, full_height)
            || !matches!(info.colorspace, Colorspace::YCbCr | Colorspace::Gray)
        {
            return None;
        }
        let factor = ScalingFactor::new(1, by);
        let (height, width) = (factor.scale(full_height), factor.scale(full_width));
        let (count, format) = match channels {
            Channels::Rgb => (3, PixelFormat::RGB),
            Channels::Gray => (1, PixelFormat::GRAY),
        };
        let mut data = vec![0; height * width * count];
        decoder.set_scaling_factor(factor).ok()?;
        let image = Image {
            pixels: data.as_mut_slice(),
            width,
            pitch: width * count,
            height,
            format,
        };
        decoder.decompress(bytes, image).ok()?;
        let pixels = orient(
            Pixels {
                width,
                height,
                channels,
                data,
            },
            orientation,
        );
        let covered = [
            full_width as f64 / by as f64,
            full_height as f64 / by as f64,
        ];
        Some((
            pixels,
            area(
                orientation.to_exif(),
                [width as f64, height as f64],
                covered,
            ),
        ))
    }

    /// The area of the upright pixels that the image covers, for an image that covers the upper
    /// left part of size `covered` of pixels of size `stored` (both width, height); `exif` is the
    /// number of the EXIF orientation.
    fn area(exif: u8, stored: [f64; 2], covered: [f64; 2]) -> CropBox {
        let [across, down] = [stored[0] - covered[0], stored[1] - covered[1]];
        let [width, height] = covered;
        match exif {
            2 => CropBox {
                left: across,
                top: 0.0,
                width,
                height,
            },
            3 => CropBox {
                left: across,
                top: down,
                width,
                height,
            },
            4 => CropBox {
                left: 0.0,
                top: down,
                width,
                height,
            },
            5 => CropBox {
                left: 0.0,
                top: 0.0,
                width: height,
                height: width,
            },
            6 => CropBox {
                left: down,
                top: 0.0,
                width: height,
                height: width,
            },
            7 => CropBox {
                left: down,
                top: across,
                width: height,
                height: width,
            },
            8 => CropBox {
                left: 0.0,
                top: across,
                width: height,
                height: width,
            },
            _ => CropBox {
                left: 0.0,
                top: 0.0,
                width,
                height,
            },
        }
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]

        use super::*;
        use crate::image::{OutputFormat, ResizeMode, Resizer, decode, encode};

        /// A smooth image whose corners differ.
        fn smooth(width: usize, height: usize) -> Pixels {
            let value = |x: usize, y: usize, channel: usize| {
                let (x, y) = (x as f64 / width as f64, y as f64 / height as f64);
                (40.0 + 100.0 * x + 60.0 * y * x + 20.0 * channel as f64 * y) as u8
            };
            let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
            let data = places
                .flat_map(|(x, y)| (0..3).map(move |channel| value(x, y, channel)))
                .collect();
            Pixels {
                width,
                height,
                channels: Channels::Rgb,
                data,
            }
        }

        fn jpeg(width: usize, height: usize, exif: u8) -> Vec<u8> {
            let mut bytes = encode(&smooth(width, height), OutputFormat::Jpeg(95)).unwrap();
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
            one.iter()
                .zip(other)
                .map(|(one, other)| one.abs_diff(*other))
                .max()
                .unwrap()
        }

        #[test]
        fn scaled_decoding_equals_decoding_then_resizing() {
            for exif in 1..=8 {
                let bytes = jpeg(333, 217, exif);
                let whole = decode(&bytes, Channels::Rgb, u64::MAX).unwrap();
                for ((height, width), by) in [((16, 30), 4), ((30, 16), 2), ((11, 12), 8)] {
                    let size = if exif >= 5 {
                        (width, height)
                    } else {
                        (height, width)
                    };
                    let (pixels, area) =
                        decode_scaled(&bytes, Channels::Rgb, u64::MAX, size).unwrap();
                    let expected_side = whole.width.min(whole.height).div_ceil(by);
                    assert_eq!(
                        pixels.width.min(pixels.height),
                        expected_side,
                        "orientation {exif}, {size:?}"
                    );
                    for fit in [ResizeMode::Stretch, ResizeMode::Crop, ResizeMode::Pad] {
                        let [mut one, mut other] =
                            [(); 2].map(|()| Resizer::new(size.0, size.1, fit));
                        let expected = one.resize(&whole).unwrap();
                        let worst = worst(other.resize_box(&pixels, area).unwrap(), expected);
                        assert!(
                            worst <= 3,
                            "orientation {exif}, {size:?}, {fit:?}: off by {worst}"
                        );
                    }
                }
            }
        }

        #[test]
        fn scaled_decoding_to_gray_equals_luma() {
            let bytes = jpeg(400, 300, 1);
            let (pixels, area) = decode_scaled(&bytes, Channels::Gray, u64::MAX, (32, 32)).unwrap();
            let whole = decode(&bytes, Channels::Gray, u64::MAX).unwrap();
            let [mut one, mut other] = [(); 2].map(|()| Resizer::new(32, 32, ResizeMode::Stretch));
            let expected = one.resize(&whole).unwrap();
            assert!(worst(other.resize_box(&pixels, area).unwrap(), expected) <= 3);
        }

        #[test]
        fn small_broken_too_large_or_other_images_are_not_scaled() {
            let bytes = jpeg(333, 217, 1);
            assert!(decode_scaled(&bytes, Channels::Rgb, u64::MAX, (54, 54)).is_some());
            assert!(decode_scaled(&bytes, Channels::Rgb, u64::MAX, (55, 54)).is_none());
            assert!(decode_scaled(&bytes, Channels::Rgb, 333 * 217 - 1, (9, 9)).is_none());
            assert!(
                decode_scaled(&bytes[..bytes.len() - 9], Channels::Rgb, u64::MAX, (9, 9)).is_none()
            );
            let closed = [&bytes[..bytes.len() / 2], &[0xff, 0xd9]].concat();
            assert!(decode_scaled(&closed, Channels::Rgb, u64::MAX, (9, 9)).is_none());
            let png = encode(&smooth(333, 217), OutputFormat::Png).unwrap();
            assert!(decode_scaled(&png, Channels::Rgb, u64::MAX, (9, 9)).is_none());
        }
    }
}
