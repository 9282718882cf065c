//! The metadata of an encoded image that belongs to the picture and not to its pixels: EXIF, XMP,
//! IPTC and the color profile.

mod exif;
mod jpeg;

pub(super) use self::jpeg::IPTC_PREFIX;

use std::borrow::Cow;
use std::io::Cursor;

use image::ImageDecoder;
use png::{DecodeOptions, Decoder, DecodingError, Limits, PixelDimensions};

use crate::image::channel_layout::memory_limit;
use crate::image::codec::tiff::metadata::{TiffMetadata, read_metadata};
use crate::image::codec::{image_rs, png_text};
use crate::image::error::ImageError;
use crate::image::exif_orientation::EXIF_PREFIX;
use crate::image::info::{ImageFormat, ImageInfo};
use crate::image::pixel_format::Channels;

/// The metadata of an image.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImageMetadata {
    /// EXIF, a TIFF without image data.
    pub exif: Option<Vec<u8>>,
    /// An XMP packet.
    pub xmp: Option<Vec<u8>>,
    /// The image resources of Photoshop with captions and keywords (IPTC), of a JPEG.
    pub iptc: Option<Vec<u8>>,
    /// The ICC profile.
    pub icc: Option<Vec<u8>>,
    /// The color space that a PNG states without a profile.
    pub png_color: PngColor,
    /// The size of a pixel, of a PNG.
    pub pixel_dims: Option<PixelDimensions>,
}

/// The color space that the chunks sRGB, gAMA and cHRM of a PNG state.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct PngColor {
    /// sRGB with its rendering intent.
    pub srgb: Option<png::SrgbRenderingIntent>,
    /// The exponent of the encoding.
    pub gamma: Option<png::ScaledFloat>,
    /// The primaries and the white point.
    pub chromaticities: Option<png::SourceChromaticities>,
}

/// The offset and the values of the color space in the header of an ICC profile.
const ICC_SPACE: usize = 16;
const ICC_GRAY: &[u8] = b"GRAY";
const ICC_RGB: &[u8] = b"RGB ";

impl ImageMetadata {
    /// Reads the metadata of an image.
    ///
    /// # Errors
    /// If the bytes before the metadata are not a valid image, or the metadata is too large.
    pub(crate) fn read(bytes: &[u8], header: &ImageInfo) -> Result<Self, ImageError> {
        ImageError::catch(header.format, || match header.format {
            ImageFormat::Jpeg => jpeg::read(bytes),
            ImageFormat::Png => read_png(bytes, header),
            ImageFormat::Tiff => {
                let TiffMetadata { icc, xmp } = read_metadata(bytes)?;
                Ok(Self {
                    icc,
                    xmp,
                    ..Self::default()
                })
            }
            format => read_by_library(bytes, format),
        })
    }

    /// Changes the metadata to those of an upright image of `height` x `width` pixels: its
    /// orientation is normal, and it has no thumbnail, which would show the former pixels.
    pub(crate) fn set_upright(&mut self, height: usize, width: usize) {
        if let Some(exif) = &mut self.exif {
            exif::set_upright(exif, height, width);
        }
        if let Some(xmp) = &mut self.xmp {
            exif::set_upright_xmp(xmp);
        }
    }

    /// Removes a color profile that is not one of pixels with these channels.
    pub(crate) fn retain_profile_of(&mut self, channels: Channels) {
        let space = match channels {
            Channels::Gray => ICC_GRAY,
            Channels::Rgb | Channels::Bgr => ICC_RGB,
        };
        self.icc = self
            .icc
            .take()
            .filter(|icc| icc.get(ICC_SPACE..ICC_SPACE + 4) == Some(space));
    }

    /// Removes the color profile, which was applied to the pixels, and what a PNG states for programs
    /// that do not apply profiles. Without a profile, the pixels are as they were.
    pub(crate) fn remove_profile(&mut self) {
        if self.icc.take().is_some() {
            self.png_color = PngColor::default();
        }
    }
}

fn read_png(bytes: &[u8], header: &ImageInfo) -> Result<ImageMetadata, ImageError> {
    let failed = |error: DecodingError| ImageError::malformed(ImageFormat::Png, error);
    let mut options = DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(Limits {
        bytes: usize::try_from(memory_limit(bytes, header)).unwrap_or(usize::MAX),
    });
    // Chunks may follow the image data.
    let mut reader = decoder.read_info().map_err(failed)?;
    reader.finish().map_err(failed)?;
    let info = reader.info();
    let text = png_text::read(bytes)?;
    let owned = |value: &Option<Cow<'_, [u8]>>| value.as_deref().map(<[u8]>::to_vec);
    Ok(ImageMetadata {
        exif: owned(&info.exif_metadata).or(text.exif).map(without_prefix),
        xmp: text.xmp,
        iptc: None,
        icc: owned(&info.icc_profile),
        png_color: PngColor {
            srgb: info.srgb,
            gamma: info.gama_chunk,
            chromaticities: info.chrm_chunk,
        },
        pixel_dims: info.pixel_dims,
    })
}

fn read_by_library(bytes: &[u8], format: ImageFormat) -> Result<ImageMetadata, ImageError> {
    let failed = |error: image::ImageError| ImageError::from_library(format, bytes, &error);
    let mut decoder = image_rs::reader(bytes, format)
        .into_decoder()
        .map_err(failed)?;
    Ok(ImageMetadata {
        exif: decoder.exif_metadata().map_err(failed)?.map(without_prefix),
        xmp: decoder.xmp_metadata().map_err(failed)?,
        icc: decoder.icc_profile().map_err(failed)?,
        ..ImageMetadata::default()
    })
}

fn without_prefix(exif: Vec<u8>) -> Vec<u8> {
    match exif.strip_prefix(EXIF_PREFIX) {
        Some(rest) => rest.to_vec(),
        None => exif,
    }
}
