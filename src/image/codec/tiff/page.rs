//! The tags of the first page of a TIFF.

use std::io::Cursor;

use tiff::TiffError;
use tiff::decoder::Decoder;
use tiff::tags::{CompressionMethod, PhotometricInterpretation, Tag};

use crate::image::codec::tiff::samples;
use crate::image::error::ImageError;
use crate::image::info::ImageFormat;

pub(super) type TiffReader<'a> = Decoder<Cursor<&'a [u8]>>;

/// The tags of a page that its decoding depends on.
pub(super) struct Page {
    pub(super) photometric: u16,
    pub(super) compression: CompressionMethod,
    pub(super) bits: u16,
    /// Number of samples of a pixel.
    pub(super) samples: u16,
    /// The meaning of the samples that do not belong to the colors.
    pub(super) extra_samples: Vec<u16>,
    ink_set: u16,
    /// Whether the samples are in planes.
    pub(super) is_planar: bool,
    /// Whether the page consists of tiles.
    is_tiled: bool,
    /// Whether the first bit of a byte is its lowest.
    pub(crate) lowest_bit_first: bool,
    /// The colors of a palette: all of red, then green, then blue.
    pub(super) palette: Vec<u16>,
    /// The least and the greatest sample value according to the tags.
    pub(super) stated_range: Option<[f64; 2]>,
    /// The offsets and lengths of strips or tiles.
    pub(crate) chunks: Vec<(u64, u64)>,
    pub(crate) jpeg_tables: Option<Vec<u8>>,
    pub(super) orientation: Option<u8>,
    pub(super) xmp: Option<Vec<u8>>,
}

impl Page {
    pub(super) fn read(decoder: &mut TiffReader) -> Result<Self, TiffError> {
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

    pub(super) fn photometric(&self) -> Option<PhotometricInterpretation> {
        PhotometricInterpretation::from_u16(self.photometric)
    }

    fn is_palette(&self) -> bool {
        self.photometric() == Some(PhotometricInterpretation::RGBPalette)
    }

    /// Whether the colors are multiplied with the alpha of the pixel.
    pub(super) fn is_premultiplied(&self) -> bool {
        self.extra_samples.first() == Some(&1)
    }

    /// Checks the combinations of tags that the library does not check.
    pub(super) fn check(&self) -> Result<(), ImageError> {
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

const XMP: Tag = Tag::Unknown(700);

const INK_SET: Tag = Tag::Unknown(332);

/// The first value of a tag of small numbers.
pub(super) fn first(decoder: &mut TiffReader, tag: Tag) -> Result<Option<u16>, TiffError> {
    let values = decoder.find_tag_unsigned_vec(tag)?;
    Ok(values.and_then(|values| values.first().copied()))
}
