//! JPEGs decoded straight at a fraction of their size, by libjpeg-turbo: for targets that are far
//! smaller.

use crate::image::decode::Pixels;
use crate::image::pixel_format::Channels;
use crate::image::resize::CropBox;

/// Whether this build can.
pub const AVAILABLE: bool = cfg!(feature = "turbojpeg");

/// Decodes a JPEG at 1/2, 1/4 or 1/8 of its size and turns it upright, if that leaves at least
/// twice the target's `height` and `width`: below, what is skewed by libjpeg's own reduction would
/// show. Also returns where in those pixels the image lies: libjpeg rounds sizes up, so that its
/// last row and column may stand for less than a whole one.
///
/// `None` for everything else, for what libjpeg-turbo so much as warns of, and where this build
/// lacks it: then [`decode`](crate::image::decode()) tells what it is.
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
    use crate::image::jpeg::scan_markers;
    use crate::image::probe::{ImageFormat, probe};

    /// See the module.
    pub fn decode_scaled(
        bytes: &[u8],
        channels: Channels,
        max_pixels: u64,
        (height, width): (usize, usize),
    ) -> Option<(Pixels, CropBox)> {
        let header = probe(bytes)
            .ok()
            .filter(|header| header.format == ImageFormat::Jpeg)?;
        // It bounds scans and segments, and demands that the image is complete.
        let orientation = scan_markers(bytes)
            .ok()
            .filter(|_| header.pixels() <= max_pixels)?
            .orientation;
        let sideways = orientation.to_exif() >= 5;
        let (least_height, least_width) = if sideways {
            (width, height)
        } else {
            (height, width)
        };
        let (full_height, full_width) = (header.height as usize, header.width as usize);
        let leaves =
            |by: usize| full_height >= 2 * by * least_height && full_width >= 2 * by * least_width;
        let by = [8, 4, 2].into_iter().find(|&by| leaves(by))?;
        let mut decoder = Decompressor::new().ok()?;
        let told = decoder.read_header(bytes).ok()?;
        if (told.width, told.height) != (full_width, full_height)
            || !matches!(told.colorspace, Colorspace::YCbCr | Colorspace::Gray)
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
        let covers = [
            full_width as f64 / by as f64,
            full_height as f64 / by as f64,
        ];
        Some((
            pixels,
            area(orientation.to_exif(), [width as f64, height as f64], covers),
        ))
    }

    /// Where an image that covered the upper left of `stored` pixels, as wide and high as `covers`,
    /// lies once they are upright; `exif` is the orientation as EXIF counts them.
    fn area(exif: u8, stored: [f64; 2], covers: [f64; 2]) -> CropBox {
        let [across, down] = [stored[0] - covers[0], stored[1] - covers[1]];
        let [width, height] = covers;
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

        /// Smooth, and different in every corner.
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
            // One entry: the orientation, a short.
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
        fn it_equals_what_is_decoded_whole_and_then_resized_for_every_orientation_and_fit() {
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
                    let least = whole.width.min(whole.height).div_ceil(by);
                    assert_eq!(
                        pixels.width.min(pixels.height),
                        least,
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
        fn gray_is_luma() {
            let bytes = jpeg(400, 300, 1);
            let (pixels, area) = decode_scaled(&bytes, Channels::Gray, u64::MAX, (32, 32)).unwrap();
            let whole = decode(&bytes, Channels::Gray, u64::MAX).unwrap();
            let [mut one, mut other] = [(); 2].map(|()| Resizer::new(32, 32, ResizeMode::Stretch));
            let expected = one.resize(&whole).unwrap();
            assert!(worst(other.resize_box(&pixels, area).unwrap(), expected) <= 3);
        }

        #[test]
        fn there_is_none_of_what_is_small_broken_too_large_or_no_jpeg() {
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
