//! The images of the rows of a batch.

use std::iter::repeat_n;
use std::ops::Range;

use arrow::array::{ArrayRef, BinaryArray};

use crate::image::probe;
use crate::source::batch_size::PIXEL_BYTES;

/// The rows of a table, one for each image, before the images are decoded.
pub(crate) struct ImageRows {
    /// All columns.
    pub(crate) columns: Vec<ArrayRef>,
    /// The source of each image, if the images have paths.
    pub(crate) sources: Option<ArrayRef>,
    /// Stored bytes of each image, and pixels according to its header; 0 pixels if the header
    /// cannot be read.
    pub(super) sizes: Vec<(u64, u64)>,
    /// The number of images up to the end of each row of the table, if a row holds a list.
    pub(super) ends: Option<Vec<usize>>,
}

impl ImageRows {
    /// Rows of a table without images.
    pub(crate) fn without_images(columns: Vec<ArrayRef>) -> Self {
        Self {
            columns,
            sources: None,
            sizes: Vec::new(),
            ends: None,
        }
    }

    /// The rows that the rows `rows` of the table became.
    pub(crate) fn of(&self, rows: Range<usize>) -> Range<usize> {
        let end = |row: usize| match (&self.ends, row) {
            (None, row) => row,
            (Some(_), 0) => 0,
            (Some(ends), row) => ends[row - 1],
        };
        end(rows.start)..end(rows.end)
    }

    /// For each of the rows that the rows `rows` of the table became, its row among `rows`.
    pub(crate) fn origin(&self, rows: Range<usize>) -> Vec<u32> {
        let start = rows.start;
        let ordinal = |row: usize| u32::try_from(row - start).unwrap_or(u32::MAX);
        rows.flat_map(|row| repeat_n(ordinal(row), self.of(row..row + 1).len()))
            .collect()
    }

    /// Of the rows `rows` of the table, the ordinals of those that hold an empty list.
    pub(crate) fn without_image(&self, rows: Range<usize>) -> impl Iterator<Item = u32> {
        let start = rows.start;
        rows.filter(|&row| self.of(row..row + 1).is_empty())
            .map(move |row| u32::try_from(row - start).unwrap_or(u32::MAX))
    }

    /// Pixels of the images in these rows of the table.
    pub(crate) fn pixels(&self, rows: Range<usize>) -> u64 {
        let sizes = self.sizes.get(self.of(rows)).unwrap_or_default();
        sizes
            .iter()
            .fold(0, |total, (_, pixels)| total.saturating_add(*pixels))
    }

    /// Bytes by which the decoded images in these rows of the table exceed the stored ones.
    pub(crate) fn decoded_beyond_stored(&self, rows: Range<usize>) -> u64 {
        let sizes = self.sizes.get(self.of(rows)).unwrap_or_default();
        let beyond = |(stored, pixels): &(u64, u64)| {
            pixels.saturating_mul(PIXEL_BYTES).saturating_sub(*stored)
        };
        sizes.iter().map(beyond).fold(0, u64::saturating_add)
    }
}

pub(super) fn measure(images: &BinaryArray) -> Vec<(u64, u64)> {
    let size = |bytes: Option<&[u8]>| {
        let bytes = bytes.unwrap_or_default();
        (
            bytes.len() as u64,
            probe(bytes).map_or(0, |header| header.charged_pixels()),
        )
    };
    images.iter().map(size).collect()
}
