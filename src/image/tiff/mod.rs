//! TIFF decoding by the `tiff` library, of the first page: the conversion of all kinds of samples
//! and colors to 8 bits per channel, and checks for what the library ignores.

mod samples;
mod jpeg_chunks;
mod layout;
#[cfg(test)]
mod tests;

use std::io::{Cursor, ErrorKind};

use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::{CompressionMethod, PhotometricInterpretation, Tag};
use tiff::{ColorType, TiffError};

use crate::image::channel_layout::DecodedSamples;
use crate::image::decode::{DecodedImage, memory_limit};
use crate::image::error::{ImageError, UNFINISHED};
use crate::image::exif_orientation::orientation_or_xmp;
use crate::image::probe::{DECODE_BYTES_PER_PIXEL, ImageFormat, ImageInfo};
use crate::image::value_range::ValueRange;
use layout::normalize_bits;
use samples::{Kind, SampleReader};

const XMP: Tag = Tag::Unknown(700);
const INK_SET: Tag = Tag::Unknown(332);

type TiffReader<'a> = Decoder<Cursor<&'a [u8]>>;

/// Reads the width and height, and computes the peak memory of decoding in bytes per pixel: twice
/// the bytes of the samples, plus the converted pixels.
pub(super) fn size(bytes: &[u8]) -> Result<((u32, u32), u64), ImageError> {
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
pub(super) fn decode(
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

/// The tags of a page that its decoding depends on.
struct Page {
    photometric: u16,
    compression: CompressionMethod,
    bits: u16,
    /// Number of samples of a pixel.
    samples: u16,
    /// The meaning of the samples that do not belong to the colors.
    extra_samples: Vec<u16>,
    ink_set: u16,
    /// Whether the samples are in planes.
    is_planar: bool,
    /// Whether the page consists of tiles.
    is_tiled: bool,
    /// Whether the first bit of a byte is its lowest.
    lowest_bit_first: bool,
    /// The colors of a palette: all of red, then green, then blue.
    palette: Vec<u16>,
    /// The least and the greatest sample value according to the tags.
    stated_range: Option<[f64; 2]>,
    /// The offsets and lengths of strips or tiles.
    chunks: Vec<(u64, u64)>,
    jpeg_tables: Option<Vec<u8>>,
    orientation: Option<u8>,
    xmp: Option<Vec<u8>>,
}

impl Page {
    fn read(decoder: &mut TiffReader) -> Result<Self, TiffError> {
        let bits = first(decoder, Tag::BitsPerSample)?.unwrap_or(1);
        let mut offsets = decoder.find_tag_unsigned_vec(Tag::StripOffsets)?;
        let mut lengths = decoder.find_tag_unsigned_vec(Tag::StripByteCounts)?;
        if offsets.is_none() {
            offsets = decoder.find_tag_unsigned_vec(Tag::TileOffsets)?;
            lengths = decoder.find_tag_unsigned_vec(Tag::TileByteCounts)?;
        }
        let chunks = offsets.unwrap_or_default().into_iter();
        Ok(Self {
            photometric: first(decoder, Tag::PhotometricInterpretation)?.unwrap_or(u16::MAX),
            compression: first(decoder, Tag::Compression)?.map_or(
                CompressionMethod::None,
                CompressionMethod::from_u16_exhaustive,
            ),
            bits,
            samples: first(decoder, Tag::SamplesPerPixel)?.unwrap_or(1),
            extra_samples: decoder
                .find_tag_unsigned_vec(Tag::ExtraSamples)?
                .unwrap_or_default(),
            ink_set: first(decoder, INK_SET)?.unwrap_or(1),
            is_planar: first(decoder, Tag::PlanarConfiguration)? == Some(2),
            is_tiled: decoder.find_tag(Tag::TileOffsets)?.is_some(),
            lowest_bit_first: first(decoder, Tag::FillOrder)? == Some(2),
            palette: decoder
                .find_tag_unsigned_vec(Tag::ColorMap)?
                .unwrap_or_default(),
            stated_range: samples::stated_range(decoder, bits)?,
            chunks: chunks.zip(lengths.unwrap_or_default()).collect(),
            jpeg_tables: match decoder.find_tag(Tag::JPEGTables)? {
                Some(tables) => Some(tables.into_u8_vec()?),
                None => None,
            },
            orientation: decoder
                .find_tag(Tag::Orientation)?
                .map(|value| {
                    value
                        .into_u64()
                        .ok()
                        .and_then(|value| u8::try_from(value).ok())
                })
                .map(Option::unwrap_or_default),
            xmp: match decoder.find_tag(XMP)? {
                Some(xmp) => xmp.into_u8_vec().ok(),
                None => None,
            },
        })
    }

    fn photometric(&self) -> Option<PhotometricInterpretation> {
        PhotometricInterpretation::from_u16(self.photometric)
    }

    fn is_palette(&self) -> bool {
        self.photometric() == Some(PhotometricInterpretation::RGBPalette)
    }

    /// Whether the colors are multiplied with the alpha of the pixel.
    fn is_premultiplied(&self) -> bool {
        self.extra_samples.first() == Some(&1)
    }

    /// Checks the combinations of tags that the library does not check.
    fn check(&self) -> Result<(), ImageError> {
        if self.photometric() == Some(PhotometricInterpretation::CMYK) && self.ink_set != 1 {
            let reason = "its inks are not cyan, magenta, yellow and black";
            return Err(ImageError::unsupported(ImageFormat::Tiff, reason));
        }
        if self.is_planar && self.is_tiled {
            let reason = "tiles of planes";
            return Err(ImageError::unsupported(ImageFormat::Tiff, reason));
        }
        if self.is_palette() && !matches!(self.bits, 1 | 2 | 4 | 8) {
            let reason = format_args!("a palette with {} bits per index", self.bits);
            return Err(ImageError::unsupported(ImageFormat::Tiff, reason));
        }
        if self.is_palette() && self.palette.len() != 3 << self.bits {
            let reason = format_args!(
                "its palette has {} values; expected {} for {} bits per index",
                self.palette.len(),
                3 << self.bits,
                self.bits
            );
            return Err(ImageError::malformed(ImageFormat::Tiff, reason));
        }
        Ok(())
    }
}

/// The first value of a tag of small numbers.
fn first(decoder: &mut TiffReader, tag: Tag) -> Result<Option<u16>, TiffError> {
    let values = decoder.find_tag_unsigned_vec(tag)?;
    Ok(values.and_then(|values| values.first().copied()))
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
    let kept = colors + usize::from(alpha.is_some() && page.is_premultiplied());
    let mut levels = reader.levels(buffer, kind, colors, kept)?;
    if kept > colors {
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

fn map_error(bytes: &[u8], error: &TiffError) -> ImageError {
    match error {
        TiffError::IoError(io) if io.kind() == ErrorKind::UnexpectedEof => {
            ImageError::truncated(ImageFormat::Tiff, bytes, UNFINISHED)
        }
        TiffError::UnsupportedError(kind) => ImageError::unsupported(ImageFormat::Tiff, kind),
        TiffError::LimitsExceeded => ImageError::memory_exceeded(ImageFormat::Tiff),
        TiffError::FormatError(kind) => ImageError::malformed(ImageFormat::Tiff, kind),
        error => ImageError::malformed(ImageFormat::Tiff, error),
    }
}
