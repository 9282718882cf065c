//! Decodes the images of a batch, on several cores if the batch is large enough.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, BinaryArray};

use super::plan::RecordKind;
use crate::image::{
    DecodeMode, DecodeOptions, ImageError, Pixels, ResizeMode, Resizer, decode_resized, decode_with,
};
use crate::system;

/// Decodes images, and resizes them if the input has a fixed size.
pub(super) struct ParallelDecoder {
    options: DecodeOptions,
    /// One for each thread.
    resizers: Vec<Option<ResizeTo>>,
}

/// The number of pixels below which starting threads costs more time than it saves.
const PIXELS_FOR_THREADS: u64 = 1 << 18;

impl ParallelDecoder {
    /// Creates a decoder for the target; returns `None` if the records are features.
    pub(super) fn new(target: &RecordKind) -> Option<Self> {
        let RecordKind::Images {
            channels,
            size,
            decode,
            max_pixels,
            value_range,
        } = *target
        else {
            return None;
        };
        let resizers = (0..system::available_cores())
            .map(|_| size.map(|size| ResizeTo::new(size, decode)))
            .collect();
        let options = DecodeOptions {
            channels,
            max_pixels,
            value_range,
        };
        Some(Self { options, resizers })
    }

    /// Decodes the images and returns the results in order. `pixels` is the sum of the pixels of
    /// all images. A source puts a very large image into a batch of its own, thus threads do not
    /// multiply the memory that the largest image needs.
    pub(super) fn decode(
        &mut self,
        images: &BinaryArray,
        pixels: u64,
    ) -> Vec<Result<Pixels, ImageError>> {
        let threads = if pixels < PIXELS_FOR_THREADS {
            1
        } else {
            self.resizers.len()
        };
        let each = images.len().div_ceil(threads).max(1);
        let options = self.options;
        let part = |start: usize, resizer: &mut Option<ResizeTo>| -> Vec<_> {
            let rows = start..images.len().min(start + each);
            rows.map(|row| decode_guarded(images.value(row), &options, resizer))
                .collect()
        };
        if threads == 1 {
            return self
                .resizers
                .first_mut()
                .map(|resizer| part(0, resizer))
                .unwrap_or_default();
        }
        std::thread::scope(|scope| {
            let starts = (0..images.len()).step_by(each);
            let running: Vec<_> = starts
                .zip(&mut self.resizers)
                .map(|(start, resizer)| scope.spawn(move || part(start, resizer)))
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

/// Calls [`decode_one`] and returns an error for this image if it panics.
fn decode_guarded(
    bytes: &[u8],
    options: &DecodeOptions,
    resizer: &mut Option<ResizeTo>,
) -> Result<Pixels, ImageError> {
    let attempt = catch_unwind(AssertUnwindSafe(|| decode_one(bytes, options, resizer)));
    attempt.unwrap_or_else(|_| {
        // The state of the resizer may be inconsistent after a panic.
        *resizer = resizer
            .as_ref()
            .map(|fixed| ResizeTo::new(fixed.size, fixed.decode));
        Err(ImageError::Malformed(
            "malformed image: resizing it panicked".to_owned(),
        ))
    })
}

fn decode_one(
    bytes: &[u8],
    options: &DecodeOptions,
    resizer: &mut Option<ResizeTo>,
) -> Result<Pixels, ImageError> {
    let Some(ResizeTo {
        resizer,
        size: [height, width],
        decode,
    }) = resizer
    else {
        return decode_with(bytes, options);
    };
    let data = decode_resized(bytes, options, *decode, resizer)?.to_vec();
    Ok(Pixels {
        width: *width,
        height: *height,
        channels: options.channels,
        data,
    })
}

/// Resizes images to one size, in the same way as the transform `pixels`.
struct ResizeTo {
    resizer: Resizer,
    size: [usize; 2],
    decode: DecodeMode,
}

impl ResizeTo {
    fn new(size: [usize; 2], decode: DecodeMode) -> Self {
        Self {
            resizer: Resizer::new(size[0], size[1], ResizeMode::default()),
            size,
            decode,
        }
    }
}
