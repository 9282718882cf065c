//! Rewrites a TIFF into the form that the `tiff` library reads: the highest bit of a byte first, and
//! palette indices as gray.

use tiff::tags::{CompressionMethod, PhotometricInterpretation};

use crate::image::codec::tiff::page::Page;
use crate::image::error::{ImageError, UNFINISHED};
use crate::image::info::ImageFormat;

/// The tag of the photometric interpretation.
const PHOTOMETRIC: u16 = 262;

/// Returns the rewritten bytes of a page, or `None` if it already has the form.
pub(super) fn normalize_bits(bytes: &[u8], page: &Page) -> Result<Option<Vec<u8>>, ImageError> {
    let is_gray = matches!(
        page.photometric(),
        Some(PhotometricInterpretation::WhiteIsZero | PhotometricInterpretation::RGBPalette)
    );
    // A JPEG has its own order of bits.
    let is_reversed = page.lowest_bit_first && page.compression != CompressionMethod::ModernJPEG;
    if !is_gray && !is_reversed {
        return Ok(None);
    }
    let truncated = || ImageError::truncated(ImageFormat::Tiff, bytes, UNFINISHED);
    let mut normalized = bytes.to_vec();
    if is_gray {
        set_black_is_zero(&mut normalized).ok_or_else(truncated)?;
    }
    if is_reversed {
        let mut end = 0;
        let mut chunks = page.chunks.clone();
        chunks.sort_unstable();
        for (offset, length) in chunks {
            let start = usize::try_from(offset).map_err(|_| truncated())?;
            let stop = usize::try_from(offset.saturating_add(length)).map_err(|_| truncated())?;
            if start < end {
                let reason = "its strips or tiles overlap";
                return Err(ImageError::malformed(ImageFormat::Tiff, reason));
            }
            let chunk = normalized.get_mut(start..stop).ok_or_else(truncated)?;
            chunk
                .iter_mut()
                .for_each(|byte| *byte = byte.reverse_bits());
            end = stop;
        }
    }
    Ok(Some(normalized))
}

/// Changes the photometric interpretation of the first page to gray with black as 0. Returns `None`
/// if the bytes end before it.
fn set_black_is_zero(bytes: &mut [u8]) -> Option<()> {
    let is_little_endian = bytes.first() == Some(&b'I');
    let number = |tiff: &[u8], at: usize, length: usize| {
        let field = tiff.get(at..at.checked_add(length)?)?;
        let append = |value: u64, &byte: &u8| value << 8 | u64::from(byte);
        Some(if is_little_endian {
            field.iter().rev().fold(0, append)
        } else {
            field.iter().fold(0, append)
        })
    };
    // The lengths of an offset, of the number of entries, and of an entry in a TIFF and a BigTIFF.
    let (offset, count, entry) = if number(bytes, 2, 2)? == 43 {
        (8, 8, 20)
    } else {
        (4, 2, 12)
    };
    let directory = usize::try_from(number(bytes, offset, offset)?).ok()?;
    let entries = usize::try_from(number(bytes, directory, count)?).ok()?;
    for index in 0..entries {
        let at = directory.checked_add(count)?.checked_add(index * entry)?;
        if number(bytes, at, 2)? == u64::from(PHOTOMETRIC) {
            let value = at + 4 + offset;
            let length = match number(bytes, at + 2, 2)? {
                1 => 1,
                3 => 2,
                _ => 4,
            };
            let field = bytes.get_mut(value..value + length)?;
            field.fill(0);
            let low = if is_little_endian { 0 } else { length - 1 };
            field[low] = 1;
            return Some(());
        }
    }
    None
}
