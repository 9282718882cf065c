//! Decodes the images of a batch, on several cores where that pays.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, BinaryArray};

use super::plan::RecordKind;
use crate::image::{Channels, ImageError, Pixels, ResizeMode, Resizer, decode};
use crate::system;

/// Decodes images, and resizes them where they are to have one size.
pub(super) struct ParallelDecoder {
    channels: Channels,
    max_pixels: u64,
    /// One for each thread.
    resizers: Vec<Option<ResizeTo>>,
}

/// Below so many pixels starting threads costs more than it gains.
const PIXELS_FOR_THREADS: u64 = 1 << 18;

impl ParallelDecoder {
    /// A decoder to what the target says; `None` where it is features.
    pub(super) fn new(target: &RecordKind) -> Option<Self> {
        let RecordKind::Images {
            channels,
            size,
            max_pixels,
        } = *target
        else {
            return None;
        };
        let resizers = (0..system::available_cores())
            .map(|_| size.map(ResizeTo::new))
            .collect();
        Some(Self {
            channels,
            max_pixels,
            resizers,
        })
    }

    /// What comes of each image, in order; `pixels` is how many they have together. A batch of many
    /// pixels is one image alone, so threads do not multiply the memory that the largest may take.
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
        let (channels, max_pixels) = (self.channels, self.max_pixels);
        let part = |start: usize, resizer: &mut Option<ResizeTo>| -> Vec<_> {
            let rows = start..images.len().min(start + each);
            rows.map(|row| guarded(images.value(row), channels, max_pixels, resizer))
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

/// As [`one`]; a panic is the fault of this image alone.
fn guarded(
    bytes: &[u8],
    channels: Channels,
    max_pixels: u64,
    resizer: &mut Option<ResizeTo>,
) -> Result<Pixels, ImageError> {
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        one(bytes, channels, max_pixels, resizer)
    }));
    attempt.unwrap_or_else(|_| {
        // The state that a panic leaves behind is not reliable.
        *resizer = resizer.as_ref().map(|fixed| ResizeTo::new(fixed.size));
        Err(ImageError::Malformed(
            "malformed image: resizing it panicked".to_owned(),
        ))
    })
}

fn one(
    bytes: &[u8],
    channels: Channels,
    max_pixels: u64,
    resizer: &mut Option<ResizeTo>,
) -> Result<Pixels, ImageError> {
    let pixels = decode(bytes, channels, max_pixels)?;
    let Some(ResizeTo {
        resizer,
        size: [height, width],
    }) = resizer
    else {
        return Ok(pixels);
    };
    let data = resizer.resize(&pixels)?.to_vec();
    Ok(Pixels {
        width: *width,
        height: *height,
        channels,
        data,
    })
}

/// Resizes to one size, as the transform `pixels` does.
struct ResizeTo {
    resizer: Resizer,
    size: [usize; 2],
}

impl ResizeTo {
    fn new(size: [usize; 2]) -> Self {
        Self {
            resizer: Resizer::new(size[0], size[1], ResizeMode::default()),
            size,
        }
    }
}
