//! TIFF decoding by the `tiff` library, of the first page: the conversion of all kinds of samples
//! and colors to 8 bits per channel, and checks for what the library ignores.

mod encode;
mod jpeg_chunks;
mod layout;
mod library_error;
pub(crate) mod metadata;
pub(crate) mod page;
mod samples;

pub(crate) use self::encode::encode_tiff;

use std::io::Cursor;

use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::{CompressionMethod, PhotometricInterpretation, Tag};
use tiff::{ColorType, TiffError};

use crate::image::channel_layout::{DecodedImage, DecodedSamples, memory_limit};
use crate::image::codec::tiff::page::{Page, TiffReader};
use crate::image::error::ImageError;
use crate::image::exif_orientation::orientation_or_xmp;
use crate::image::info::{DECODE_BYTES_PER_PIXEL, ImageFormat, ImageInfo};
use crate::image::value_range::ValueRange;

use layout::normalize_bits;
use library_error::map_error;
use samples::{Kind, SampleReader};

/// Reads the width and height, and computes the peak memory of decoding in bytes per pixel: twice
/// the bytes of the samples, plus the converted pixels.
pub(crate) fn size(bytes: &[u8]) -> Result<((u32, u32), u64), ImageError> {
    let failed = |error: TiffError| map_error(bytes, &error);
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(failed)?;
    let size = decoder.dimensions().map_err(failed)?;
    let number = |reader: &mut TiffReader, tag| {
        let values = reader.find_tag_unsigned_vec::<u64>(tag).map_err(failed)?;
        Ok(values
            .and_then(|values| values.first().copied())
            .unwrap_or(1))
    };
    let bits = number(&mut decoder, Tag::BitsPerSample)?;
    let samples = number(&mut decoder, Tag::SamplesPerPixel)?;
    let stored = bits.saturating_mul(samples).div_ceil(8);
    let needed = stored.saturating_mul(2).saturating_add(4);
    Ok((size, DECODE_BYTES_PER_PIXEL.max(needed)))
}

/// Decodes the first page. `range` has the values of black and white of samples whose range is not
/// stated by tags.
pub(crate) fn decode(
    bytes: &[u8],
    header: &ImageInfo,
    range: Option<ValueRange>,
) -> Result<DecodedImage, ImageError> {
    let failed = |error: TiffError| map_error(bytes, &error);
    let limits = || {
        let mut limits = Limits::default();
        let bytes = usize::try_from(memory_limit(bytes, header)).unwrap_or(usize::MAX);
        limits.decoding_buffer_size = bytes;
        limits.intermediate_buffer_size = bytes;
        limits.ifd_value_size = bytes;
        limits
    };
    let mut original = Decoder::new(Cursor::new(bytes))
        .map_err(failed)?
        .with_limits(limits());
    let page = Page::read(&mut original).map_err(failed)?;
    let orientation = orientation_or_xmp(page.orientation, page.xmp.as_deref());
    page.check()?;

    // The library ignores the order of bits, and has no palettes: it reads their indices as gray.
    let normalized = normalize_bits(bytes, &page)?;
    let source = normalized.as_deref().unwrap_or(bytes);
    let mut decoder = Decoder::new(Cursor::new(source))
        .map_err(failed)?
        .with_limits(limits());
    let color = decoder.colortype().map_err(failed)?;
    let mut buffer = DecodingResult::U8(Vec::new());
    let planes = if page.compression == CompressionMethod::ModernJPEG {
        buffer = DecodingResult::U8(jpeg_chunks::read(&decoder, source, &page, header)?);
        match page.is_planar {
            true => page.samples.into(),
            false => 1,
        }
    } else {
        let layout = decoder.read_image_to_buffer(&mut buffer).map_err(failed)?;
        if buffer.as_buffer(0).byte_len() < layout.complete_len {
            return Err(ImageError::memory_exceeded(ImageFormat::Tiff));
        }
        layout.planes
    };
    Ok(DecodedImage {
        samples: convert(&page, header, color, planes, buffer, range)?,
        size: (header.width, header.height),
        orientation,
    })
}

/// Converts the samples to 8-bit channels.
fn convert(
    page: &Page,
    header: &ImageInfo,
    color: ColorType,
    planes: usize,
    buffer: DecodingResult,
    range: Option<ValueRange>,
) -> Result<DecodedSamples, ImageError> {
    use PhotometricInterpretation as Photometric;

    let pixels = header.width as usize * header.height as usize;
    let samples = usize::from(color.num_samples());
    let has_alpha = matches!(page.extra_samples.first(), Some(1 | 2));
    let (kind, colors) = match (page.photometric(), color) {
        (Some(Photometric::RGBPalette), _) => (Kind::Index, 1),
        (Some(Photometric::WhiteIsZero | Photometric::BlackIsZero), _) => (Kind::Level, 1),
        (_, ColorType::RGB(_) | ColorType::RGBA(_)) => (Kind::Level, 3),
        (_, ColorType::CMYK(_) | ColorType::CMYKA(_)) => (Kind::Ink, 4),
        (_, ColorType::YCbCr(_)) => (Kind::Ink, 3),
        (_, other) => {
            let reason = format_args!("color type {other:?}");
            return Err(ImageError::unsupported(ImageFormat::Tiff, reason));
        }
    };
    let alpha = (has_alpha && samples > colors).then_some(colors);
    let reader = SampleReader {
        width: header.width as usize,
        pixels,
        samples,
        planes,
        bits: page.bits.into(),
        stated_range: page.stated_range,
        range,
    };
    let keeps_alpha = matches!(
        page.photometric(),
        Some(Photometric::RGB | Photometric::BlackIsZero)
    ) || page.is_premultiplied();
    let kept = colors + usize::from(alpha.is_some() && keeps_alpha);
    let mut levels = reader.levels(buffer, kind, colors, kept)?;
    if kept > colors && page.is_premultiplied() {
        divide_by_alpha(&mut levels, kept);
    }
    Ok(match (page.photometric(), kept) {
        (Some(Photometric::RGBPalette), _) => DecodedSamples::Rgb(colors_of(page, &levels, kept)),
        (Some(Photometric::WhiteIsZero), 1) => {
            levels.iter_mut().for_each(|level| *level = 255 - *level);
            DecodedSamples::Gray(levels)
        }
        (Some(Photometric::BlackIsZero), 1) => DecodedSamples::Gray(levels),
        (Some(Photometric::BlackIsZero), _) => DecodedSamples::GrayAlpha(levels),
        (Some(Photometric::RGB), 3) => DecodedSamples::Rgb(levels),
        (Some(Photometric::RGB), _) => DecodedSamples::Rgba(levels),
        (Some(Photometric::YCbCr), 3) => DecodedSamples::Rgb(rgb_of_ycbcr(levels)),
        (Some(Photometric::CMYK), 4) => DecodedSamples::Rgb(rgb_of_cmyk(&levels)),
        (other, _) => {
            let reason = format_args!("alpha of the photometric interpretation {other:?}");
            return Err(ImageError::unsupported(ImageFormat::Tiff, reason));
        }
    })
}

/// The colors of palette indices, of which a pixel has the first of `kept` values.
fn colors_of(page: &Page, indices: &[u8], kept: usize) -> Vec<u8> {
    let count = 1 << page.bits;
    // Colors have 16 bits, but some writers use only 8 of them.
    let shift = if page.palette.iter().any(|&value| value > 255) {
        8
    } else {
        0
    };
    let color = |&index: &u8| {
        let at =
            |channel: usize| (page.palette[channel * count + usize::from(index)] >> shift) as u8;
        [at(0), at(1), at(2)]
    };
    indices.iter().step_by(kept).flat_map(color).collect()
}

/// Divides the colors of each pixel by its alpha, in the arithmetic of Pillow.
fn divide_by_alpha(levels: &mut [u8], samples: usize) {
    for pixel in levels.chunks_exact_mut(samples) {
        if let Some((&mut alpha, colors)) = pixel.split_last_mut()
            && alpha < 255
        {
            for level in colors {
                let divided = (u32::from(*level) * 255).checked_div(alpha.into());
                *level = divided.unwrap_or(0).min(255) as u8;
            }
        }
    }
}

/// Converts full-range YCbCr (ITU-R BT.601), as Pillow does.
fn rgb_of_ycbcr(mut levels: Vec<u8>) -> Vec<u8> {
    for pixel in levels.chunks_exact_mut(3) {
        let [y, cb, cr] = [0, 1, 2].map(|channel| f64::from(pixel[channel]));
        let (blue, red) = (cb - 128.0, cr - 128.0);
        let rgb = [
            y + 1.402 * red,
            y - 0.344_136 * blue - 0.714_136 * red,
            y + 1.772 * blue,
        ];
        for (level, value) in pixel.iter_mut().zip(rgb) {
            *level = value.round() as u8;
        }
    }
    levels
}

/// Converts CMYK without a color profile, in the arithmetic of Pillow.
fn rgb_of_cmyk(levels: &[u8]) -> Vec<u8> {
    let rgb = |pixel: &[u8]| {
        let paper = 255 - i32::from(pixel[3]);
        [0, 1, 2].map(|channel| {
            let product = i32::from(pixel[channel]) * paper + 128;
            (paper - ((product + (product >> 8)) >> 8)).clamp(0, 255) as u8
        })
    };
    levels.chunks_exact(4).flat_map(rgb).collect()
}

#[cfg(test)]
mod tests;
