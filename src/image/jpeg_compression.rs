//! Compression of pixels as JPEG and back, which leaves the artifacts of images as cameras and
//! phones store them.

use scaled_jpeg::{Decoder, Limits, Scale};

use crate::image::error::ImageError;
use crate::image::info::ImageFormat;
use crate::image::jpeg_encoding::{JpegOptions, encode_jpeg};
use crate::image::metadata::ImageMetadata;
use crate::image::pixel_format::Channels;
use crate::image::pixels::Pixels;

/// Encodes an image as a JPEG and decodes it. Returns the pixels of the same size and channels.
///
/// # Errors
/// [`ImageError::Unsupported`] if a side has more than 65,535 pixels or none.
pub(crate) fn compressed(image: &Pixels, options: JpegOptions) -> Result<Vec<u8>, ImageError> {
    let bytes = encode_jpeg(image, options, &ImageMetadata::default())?;
    let channels = match image.channels {
        Channels::Gray => scaled_jpeg::Channels::Gray,
        Channels::Rgb | Channels::Bgr => scaled_jpeg::Channels::Rgb,
    };
    let decoder = Decoder::new(&bytes, Limits::default());
    let decoded = decoder.and_then(|decoder| decoder.decode(Scale::Full, channels));
    decoded.map_err(|error| ImageError::malformed(ImageFormat::Jpeg, error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::image::jpeg_encoding::{ChromaSubsampling, MAX_SIDE};

    const HALF: JpegOptions = JpegOptions {
        quality: 75,
        subsampling: ChromaSubsampling::Half,
    };

    fn picture(channels: Channels) -> Pixels {
        let (height, width) = (41, 53);
        let sample = |index: usize| {
            let (pixel, channel) = (index / channels.count(), index % channels.count());
            let (y, x) = ((pixel / width) as f64, (pixel % width) as f64);
            let wave = (x / 5.0 + channel as f64).sin() * 60.0 + (y / 7.0).cos() * 50.0;
            (wave + 128.0) as u8
        };
        Pixels {
            height,
            width,
            channels,
            data: (0..height * width * channels.count()).map(sample).collect(),
        }
    }

    fn mean_change(image: &Pixels, quality: u8, subsampling: ChromaSubsampling) -> f64 {
        let options = JpegOptions {
            quality,
            subsampling,
        };
        let decoded = compressed(image, options).unwrap();
        assert_eq!(decoded.len(), image.data.len());
        let changes = image.data.iter().zip(&decoded);
        let sum: u32 = changes.map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        f64::from(sum) / image.data.len() as f64
    }

    #[test]
    fn lower_quality_and_subsampling_change_more() {
        let colors = picture(Channels::Rgb);
        let full =
            [100, 90, 50, 10].map(|quality| mean_change(&colors, quality, ChromaSubsampling::Full));
        assert!(full[0] < 1.0, "{full:?}");
        assert!(full.is_sorted() && full[3] > 4.0, "{full:?}");
        assert!(mean_change(&colors, 90, ChromaSubsampling::Half) > full[1]);
        let gray = picture(Channels::Gray);
        let both = [ChromaSubsampling::Full, ChromaSubsampling::Half]
            .map(|subsampling| mean_change(&gray, 75, subsampling));
        assert!(both[0] > 0.1 && both[0] == both[1], "{both:?}");
    }

    #[test]
    fn sides_that_a_jpeg_cannot_have_are_errors() {
        for (height, width) in [(1, 65_536), (0, 3), (65_536, 1)] {
            let image = Pixels {
                height,
                width,
                channels: Channels::Gray,
                data: vec![0; height * width],
            };
            let error = compressed(&image, HALF).unwrap_err();
            assert!(error.to_string().contains("65535"), "{error}");
        }
        let widest = Pixels {
            height: 1,
            width: MAX_SIDE,
            channels: Channels::Gray,
            data: vec![7; MAX_SIDE],
        };
        assert_eq!(compressed(&widest, HALF).unwrap(), widest.data);
    }
}
