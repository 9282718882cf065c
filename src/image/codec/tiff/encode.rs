//! Encoding of pixels as a TIFF, compressed with Deflate.

use std::io::Cursor;

use image::ExtendedColorType;
use tiff::encoder::colortype::{self, ColorType};
use tiff::encoder::{Compression, DeflateLevel, Predictor, TiffEncoder};
use tiff::tags::{ExtraSamples, Tag};
use tiff::{TiffError, TiffResult};

use crate::image::codec::tiff::metadata::XMP;
use crate::image::error::ImageError;
use crate::image::info::ImageFormat;
use crate::image::metadata::ImageMetadata;

/// Encodes interleaved samples of 8 bits. Of the metadata, the color profile and XMP are written.
///
/// # Errors
/// [`ImageError::Unsupported`] if the image does not fit into a TIFF of 4 GiB.
pub(crate) fn encode_tiff(
    samples: &[u8],
    size: [u32; 2],
    color: ExtendedColorType,
    metadata: &ImageMetadata,
) -> Result<Vec<u8>, ImageError> {
    let encoded = match color {
        ExtendedColorType::L8 => write::<colortype::Gray8>(samples, size, false, metadata),
        ExtendedColorType::La8 => write::<colortype::Gray8>(samples, size, true, metadata),
        ExtendedColorType::Rgba8 => write::<colortype::RGB8>(samples, size, true, metadata),
        _ => write::<colortype::RGB8>(samples, size, false, metadata),
    };
    encoded.map_err(|error: TiffError| ImageError::unsupported(ImageFormat::Tiff, error))
}

fn write<C: ColorType<Inner = u8>>(
    samples: &[u8],
    [width, height]: [u32; 2],
    has_alpha: bool,
    metadata: &ImageMetadata,
) -> TiffResult<Vec<u8>> {
    let mut bytes = Vec::new();
    // The library predicts pixels without their extra samples.
    let predictor = match has_alpha {
        true => Predictor::None,
        false => Predictor::Horizontal,
    };
    let mut encoder = TiffEncoder::new(Cursor::new(&mut bytes))?
        .with_compression(Compression::Deflate(DeflateLevel::Balanced))
        .with_predictor(predictor);
    let mut image = encoder.new_image::<C>(width, height)?;
    if has_alpha {
        image.extra_samples(&[ExtraSamples::UnassociatedAlpha])?;
    }
    let directory = image.encoder();
    if let Some(icc) = &metadata.icc {
        directory.write_tag(Tag::IccProfile, icc.as_slice())?;
    }
    if let Some(xmp) = &metadata.xmp {
        directory.write_tag(XMP, xmp.as_slice())?;
    }
    image.write_data(samples)?;
    Ok(bytes)
}
