//! The sizes and positions of resized, cropped and padded images.

use crate::image::normalize::Sample;
use crate::image::pixels::Pixels;
use crate::image::preprocess::steps::{CropRounding, ResizeSide, ResizeStep};
use crate::image::resample::SampleGrid;

/// The size to which a step resizes an image of `height` x `width`. The other side is rounded down,
/// as in torchvision (`Resize(int)`) and transformers (`shortest_edge`).
pub(super) fn resized_size(step: &ResizeStep, (height, width): (usize, usize)) -> (usize, usize) {
    let (side, _) = step.size.height_and_width();
    let (short, long) = (height.min(width), height.max(width));
    let scaled = |length: usize, by: usize, of: usize| (length * by / of.max(1)).max(1);
    let (new_short, new_long) = match step.side {
        ResizeSide::Both => return step.size.height_and_width(),
        ResizeSide::Shorter => (side, scaled(long, side, short)),
        ResizeSide::Longer => (scaled(short, side, long), side),
    };
    if height <= width {
        (new_short, new_long)
    } else {
        (new_long, new_short)
    }
}

/// The first sample of a centered part.
fn offset(excess: usize, rounding: CropRounding) -> usize {
    match rounding {
        CropRounding::Floor => excess / 2,
        // Half of an odd number is rounded to the even neighbor.
        CropRounding::Even => excess / 2 + usize::from(excess % 4 == 3),
    }
}

/// The part of `size` in the center of an image, which is padded with `value` where it is smaller.
pub(super) fn crop_or_pad<T: Sample>(
    image: &SampleGrid<T>,
    (height, width): (usize, usize),
    rounding: CropRounding,
    value: f32,
) -> SampleGrid {
    let count = image.channels;
    let mut values = vec![value; height * width * count];
    // The part of an axis that is copied: its start in the image and in the result, and its length.
    let copied = |from: usize, to: usize| {
        if from >= to {
            (offset(from - to, rounding), 0, to)
        } else {
            (0, padding_before(to - from, rounding), from)
        }
    };
    let (top, into_top, rows) = copied(image.height, height);
    let (left, into_left, columns) = copied(image.width, width);
    for row in 0..rows {
        let from = ((top + row) * image.width + left) * count;
        let into = ((into_top + row) * width + into_left) * count;
        let len = columns * count;
        let samples = &image.values[from..from + len];
        for (copy, sample) in values[into..into + len].iter_mut().zip(samples) {
            *copy = sample.value();
        }
    }
    SampleGrid {
        height,
        width,
        channels: count,
        values,
    }
}

/// The number of samples that are added before the image: of an odd number, transformers adds the
/// greater part before it, and torchvision after it.
fn padding_before(added: usize, rounding: CropRounding) -> usize {
    match rounding {
        CropRounding::Floor => added.div_ceil(2),
        CropRounding::Even => added / 2,
    }
}

impl SampleGrid<u8> {
    /// The samples of decoded pixels.
    pub(crate) fn from_pixels(image: Pixels) -> Self {
        Self {
            height: image.height,
            width: image.width,
            channels: image.channels.count(),
            values: image.data,
        }
    }
}
