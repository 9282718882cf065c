//! Decodes the images of a batch, on several cores if the batch is large enough.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, BinaryArray};

use crate::data::plan::record_kind::RecordKind;
use crate::image::prepared::{ImageReader, PreparedImage};
use crate::image::{ColorSpace, ImageError};
use crate::system;

/// Decodes images, and resizes them or applies the steps of the input.
pub(super) struct ParallelDecoder {
    channels: usize,
    /// One for each thread.
    readers: Vec<ImageReader>,
}

/// The number of pixels below which starting threads costs more time than it saves.
const PIXELS_FOR_THREADS: u64 = 1 << 18;

impl ParallelDecoder {
    /// Creates a decoder for the target; returns `None` if the records are features.
    pub(super) fn new(target: &RecordKind) -> Option<Self> {
        let RecordKind::Images { options, sizing } = target else {
            return None;
        };
        let readers = (0..system::available_cores())
            .map(|_| ImageReader::new(*options, sizing.clone(), ColorSpace::Stored))
            .collect();
        Some(Self {
            channels: options.channels.count(),
            readers,
        })
    }

    /// Returns the number of samples of a pixel.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// Decodes the images and returns the results in order. `pixels` is the sum of the pixels of
    /// all images. A source puts a very large image into a batch of its own, thus threads do not
    /// multiply the memory that the largest image needs.
    pub(super) fn decode(
        &mut self,
        images: &BinaryArray,
        pixels: u64,
    ) -> Vec<Result<PreparedImage<'static>, ImageError>> {
        let threads = if pixels < PIXELS_FOR_THREADS {
            1
        } else {
            self.readers.len()
        };
        let each = images.len().div_ceil(threads).max(1);
        let part = |start: usize, reader: &mut ImageReader| -> Vec<_> {
            let rows = start..images.len().min(start + each);
            rows.map(|row| read_guarded(images.value(row), reader))
                .collect()
        };
        if threads == 1 {
            return self
                .readers
                .first_mut()
                .map(|reader| part(0, reader))
                .unwrap_or_default();
        }
        std::thread::scope(|scope| {
            let starts = (0..images.len()).step_by(each);
            let running: Vec<_> = starts
                .zip(&mut self.readers)
                .map(|(start, reader)| scope.spawn(move || part(start, reader)))
                .collect();
            running
                .into_iter()
                .flat_map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|p| std::panic::resume_unwind(p))
                })
                .collect()
        })
    }
}

/// Reads an image and returns an error for this image if that panics.
fn read_guarded(
    bytes: &[u8],
    reader: &mut ImageReader,
) -> Result<PreparedImage<'static>, ImageError> {
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        reader.read(bytes).map(PreparedImage::into_owned)
    }));
    attempt.unwrap_or_else(|_| {
        reader.reset();
        Err(ImageError::Malformed(
            "malformed image: resizing it panicked".to_owned(),
        ))
    })
}
