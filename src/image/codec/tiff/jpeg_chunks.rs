//! The strips and tiles of a TIFF that are JPEGs, whose colors the tags of the page state (TIFF
//! Technical Note 2).

use scaled_jpeg::{Channels, Decoder, Limits, Scale};

use crate::image::channel_layout::memory_limit;
use crate::image::codec::jpeg::map_error;
use crate::image::codec::tiff::page::{Page, TiffReader};
use crate::image::error::{ImageError, UNFINISHED};
use crate::image::info::{ImageFormat, ImageInfo};

/// Decodes all strips or tiles to the samples of the page: interleaved, or one plane after the
/// other.
pub(super) fn read(
    decoder: &TiffReader,
    bytes: &[u8],
    page: &Page,
    header: &ImageInfo,
) -> Result<Vec<u8>, ImageError> {
    let truncated = || ImageError::truncated(ImageFormat::Tiff, bytes, UNFINISHED);
    let samples = usize::from(page.samples);
    let (planes, samples) = match page.is_planar {
        true => (samples, 1),
        false => (1, samples),
    };
    let (chunk_width, chunk_height) = decoder.chunk_dimensions();
    let across = header.width.div_ceil(chunk_width.max(1)) as usize;
    let down = header.height.div_ceil(chunk_height.max(1)) as usize;
    let (row_bytes, rows) = (header.width as usize * samples, header.height as usize);
    if page.chunks.len() < across * down * planes {
        return Err(truncated());
    }
    let mut all = vec![0; row_bytes * rows * planes];
    let mut with_tables = Vec::new();
    for (plane, chunks) in all
        .chunks_exact_mut((row_bytes * rows).max(1))
        .zip(page.chunks.chunks_exact((across * down).max(1)))
    {
        for (index, &(offset, length)) in chunks.iter().enumerate() {
            let range = usize::try_from(offset)
                .ok()
                .zip(usize::try_from(offset.saturating_add(length)).ok());
            let chunk = range
                .and_then(|(start, end)| bytes.get(start..end))
                .ok_or_else(truncated)?;
            let stream = match &page.jpeg_tables {
                // Without the end marker of the tables and the start marker of the image.
                Some(tables) if tables.len() >= 2 && chunk.len() >= 2 => {
                    with_tables.clear();
                    with_tables.extend_from_slice(&tables[..tables.len() - 2]);
                    with_tables.extend_from_slice(&chunk[2..]);
                    &with_tables
                }
                _ => chunk,
            };
            let (column, row) = (index % across, index / across * chunk_height as usize);
            let used_rows = (rows - row).min(chunk_height as usize);
            let size = (chunk_width as usize, used_rows..=chunk_height as usize);
            let values = decode(stream, samples, size, memory_limit(bytes, header))?;
            let lines = values.chunks_exact(chunk_width as usize * samples);
            let at = column * chunk_width as usize * samples;
            for (to, from) in plane.chunks_exact_mut(row_bytes).skip(row).zip(lines) {
                let to = &mut to[at..];
                let used = to.len().min(from.len());
                to[..used].copy_from_slice(&from[..used]);
            }
        }
    }
    Ok(all)
}

/// Decodes a JPEG with this number of components, width, and heights.
fn decode(
    stream: &[u8],
    samples: usize,
    (width, heights): (usize, std::ops::RangeInclusive<usize>),
    max_bytes: u64,
) -> Result<Vec<u8>, ImageError> {
    let failed = |error| map_error(stream, &error).in_tiff();
    let limits = Limits {
        pixels: max_bytes,
        ..Limits::default()
    };
    let decoder = Decoder::new(stream, limits).map_err(failed)?;
    let stored = decoder.values_per_pixel(Channels::Components);
    if stored != samples || stored == 2 {
        let reason = format!(
            "a JPEG in it has {stored} components for {samples} samples per pixel; expected 1, 3 \
             or 4 of both"
        );
        return Err(ImageError::unsupported(ImageFormat::Tiff, reason));
    }
    let (actual_width, actual_height) = decoder.size();
    if actual_width as usize != width || !heights.contains(&(actual_height as usize)) {
        let reason = format!(
            "a JPEG in it has {actual_width} x {actual_height} pixels; expected {width} x {}",
            heights.end()
        );
        return Err(ImageError::malformed(ImageFormat::Tiff, reason));
    }
    let output = u64::from(actual_width) * u64::from(actual_height) * stored as u64;
    if decoder.memory(Scale::Full).saturating_add(output) > max_bytes {
        return Err(ImageError::memory_exceeded(ImageFormat::Tiff));
    }
    decoder
        .decode(Scale::Full, Channels::Components)
        .map_err(failed)
}
