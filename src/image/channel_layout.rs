//! 8-bit samples as decoders return them, and their conversion to the requested channels.

use image::metadata::Orientation;

use crate::image::error::ImageError;
use crate::image::info::ImageInfo;
use crate::image::pixel_format::Channels;
use crate::image::pixels::Pixels;

/// Interleaved 8-bit samples with the channels of a pixel.
pub(super) enum DecodedSamples {
    Gray(Vec<u8>),
    GrayAlpha(Vec<u8>),
    Rgb(Vec<u8>),
    Rgba(Vec<u8>),
}

impl DecodedSamples {
    /// Converts the samples to pixels of an image of the size in the header. Alpha is dropped.
    ///
    /// # Errors
    /// [`ImageError::Malformed`] if the number of samples does not match the size: decoders
    /// misreport their output for some files.
    pub(super) fn into_pixels(
        self,
        header: &ImageInfo,
        channels: Channels,
    ) -> Result<Pixels, ImageError> {
        let (actual, each) = match &self {
            Self::Gray(data) => (data.len(), 1),
            Self::GrayAlpha(data) => (data.len(), 2),
            Self::Rgb(data) => (data.len(), 3),
            Self::Rgba(data) => (data.len(), 4),
        };
        let ImageInfo {
            format,
            width,
            height,
            ..
        } = *header;
        if header.pixels().checked_mul(each) != Some(actual as u64) {
            let reason = format!(
                "{actual} samples, {each} per pixel, do not fill {width} x {height} pixels"
            );
            return Err(ImageError::malformed(format, reason));
        }
        let channels = channels.decoded();
        let data = match (self, channels == Channels::Gray) {
            (Self::Gray(data), true) | (Self::Rgb(data), false) => data,
            (Self::GrayAlpha(data), true) => compact(data, |[gray, _]| [gray]),
            (Self::Rgb(data), true) => compact(data, |rgb: [u8; 3]| [luma(rgb)]),
            (Self::Rgba(data), true) => compact(data, |[r, g, b, _]| [luma([r, g, b])]),
            (Self::Rgba(data), false) => compact(data, |[r, g, b, _]| [r, g, b]),
            (Self::Gray(data), false) => data.iter().flat_map(|&gray| [gray; 3]).collect(),
            (Self::GrayAlpha(data), false) => data
                .chunks_exact(2)
                .flat_map(|pixel| [pixel[0]; 3])
                .collect(),
        };
        Ok(Pixels {
            width: width as usize,
            height: height as usize,
            channels,
            data,
        })
    }
}

impl DecodedSamples {
    /// Whether pixels have no color.
    pub(super) fn is_gray(&self) -> bool {
        matches!(self, Self::Gray(_) | Self::GrayAlpha(_))
    }

    /// Returns the alpha of each pixel, if pixels have one.
    pub(super) fn into_alpha(self) -> Option<Vec<u8>> {
        match self {
            Self::Gray(_) | Self::Rgb(_) => None,
            Self::GrayAlpha(data) => Some(compact(data, |[_, alpha]| [alpha])),
            Self::Rgba(data) => Some(compact(data, |[_, _, _, alpha]| [alpha])),
        }
    }
}

/// Converts each pixel to one with fewer samples, in place.
fn compact<const FROM: usize, const TO: usize>(
    mut data: Vec<u8>,
    pixel: impl Fn([u8; FROM]) -> [u8; TO],
) -> Vec<u8> {
    let pixels = data.len() / FROM;
    for index in 0..pixels {
        let mut from = [0; FROM];
        from.copy_from_slice(&data[index * FROM..][..FROM]);
        data[index * TO..][..TO].copy_from_slice(&pixel(from));
    }
    data.truncate(pixels * TO);
    data
}

/// Luma (ITU-R BT.601) in the 16-bit fixed-point arithmetic of Pillow (`L24` in its Convert.c),
/// with bit-identical results.
pub(super) fn luma([r, g, b]: [u8; 3]) -> u8 {
    let weighted = u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471;
    // The weights add up to 1 << 16, so the result fits into 8 bits.
    ((weighted + 0x8000) >> 16) as u8
}

impl Pixels {
    /// Returns the luma of the pixels.
    pub(super) fn into_gray(self) -> Self {
        match self.channels {
            Channels::Gray => self,
            Channels::Rgb | Channels::Bgr => Self {
                channels: Channels::Gray,
                data: compact(self.data, |rgb: [u8; 3]| [luma(rgb)]),
                ..self
            },
        }
    }
}

/// The output of a decoder, before the conversion of the channels and the orientation.
pub(crate) struct DecodedImage {
    pub(super) samples: DecodedSamples,
    /// The number of columns and rows that the decoder reports.
    pub(super) size: (u32, u32),
    pub(super) orientation: Orientation,
}

/// Maximum number of bytes that the decoder of an image may allocate, for its pixels and its
/// metadata.
pub(super) fn memory_limit(bytes: &[u8], header: &ImageInfo) -> u64 {
    let pixels = header.pixels().saturating_mul(header.bytes_per_pixel);
    pixels
        .saturating_add(bytes.len() as u64)
        .saturating_add(1 << 20)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::batch::reject::RejectCode;
    use crate::image::info::ImageFormat;

    fn converted(samples: DecodedSamples, channels: Channels) -> Vec<u8> {
        samples
            .into_pixels(
                &ImageInfo {
                    format: ImageFormat::Png,
                    width: 2,
                    height: 1,
                    bytes_per_pixel: 12,
                },
                channels,
            )
            .unwrap()
            .data
    }

    #[test]
    fn samples_that_do_not_fill_the_image_are_malformed() {
        let header = ImageInfo {
            format: ImageFormat::Tiff,
            width: 2,
            height: 1,
            bytes_per_pixel: 12,
        };
        for samples in [
            DecodedSamples::Gray(vec![0; 3]),
            DecodedSamples::GrayAlpha(vec![0; 2]),
            DecodedSamples::Rgba(vec![0; 6]),
        ] {
            let error = samples.into_pixels(&header, Channels::Gray).unwrap_err();
            assert_eq!(error.code(), RejectCode::Malformed, "{error}");
        }
        let error = DecodedSamples::Rgb(vec![0; 7])
            .into_pixels(&header, Channels::Rgb)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "malformed TIFF: 7 samples, 3 per pixel, do not fill 2 x 1 pixels"
        );
    }

    #[test]
    fn alpha_is_dropped_and_gray_is_repeated() {
        assert_eq!(
            converted(
                DecodedSamples::Rgba(vec![1, 2, 3, 0, 4, 5, 6, 9]),
                Channels::Rgb
            ),
            [1, 2, 3, 4, 5, 6]
        );
        assert_eq!(
            converted(DecodedSamples::GrayAlpha(vec![7, 0, 8, 9]), Channels::Gray),
            [7, 8]
        );
        assert_eq!(
            converted(DecodedSamples::GrayAlpha(vec![7, 0, 8, 9]), Channels::Rgb),
            [7, 7, 7, 8, 8, 8]
        );
        assert_eq!(
            converted(DecodedSamples::Gray(vec![7, 8]), Channels::Rgb),
            [7, 7, 7, 8, 8, 8]
        );
    }

    #[test]
    fn luma_has_the_weights_of_bt_601() {
        // 0.299 * 255 = 76.2, 0.587 * 255 = 149.7
        assert_eq!(
            converted(
                DecodedSamples::Rgb(vec![255, 0, 0, 0, 255, 0]),
                Channels::Gray
            ),
            [76, 150]
        );
        // 0.114 * 255 = 29.1
        assert_eq!(
            converted(
                DecodedSamples::Rgba(vec![0, 0, 255, 0, 255, 255, 255, 0]),
                Channels::Gray
            ),
            [29, 255]
        );
    }
}
