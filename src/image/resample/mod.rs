//! Resizing as the libraries do it in which models are trained: Pillow, torchvision on tensors,
//! OpenCV and TensorFlow.
//!
//! Every filter is separable: a sample of the result is a weighted sum of samples of one row, and
//! then of one column. The libraries differ in the position of the samples, in whether a filter
//! grows with the reduction (antialiasing), in the treatment of the borders, and in rounding.

mod axis_weights;
mod kernel;
pub(crate) mod options;

use std::collections::VecDeque;

use crate::image::normalize::Sample;
use crate::image::option_error::ImageOptionError;
use crate::image::resample::options::{ResampleFilter, ResampleLibrary};
use axis_weights::AxisWeights;

/// How an image is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Resampling {
    filter: ResampleFilter,
    antialias: bool,
    library: ResampleLibrary,
}

impl Resampling {
    /// The resampling of a library, with its own default for `antialias`.
    ///
    /// # Errors
    /// If the library does not offer the filter, or not with or without antialiasing.
    pub(crate) fn new(
        filter: ResampleFilter,
        antialias: Option<bool>,
        library: ResampleLibrary,
    ) -> Result<Self, ImageOptionError> {
        use ResampleFilter::{Bicubic, Bilinear, Box, Hamming, Nearest};
        use ResampleLibrary::{Opencv, Pillow, Tensorflow, Torchvision};
        let offered = match library {
            Pillow => true,
            Torchvision => matches!(filter, Nearest | Bilinear | Bicubic),
            Opencv | Tensorflow => filter != Hamming,
        };
        if !offered {
            return Err(ImageOptionError::FilterNotOffered { filter, library });
        }
        // Without a choice of their own, these filters have one form in a library.
        let fixed = match (library, filter) {
            (_, Nearest) => Some(false),
            (Pillow, _) => Some(true),
            (Opencv, _) => Some(filter == Box),
            (Tensorflow, Box) => Some(true),
            _ => None,
        };
        if let (Some(fixed), Some(requested)) = (fixed, antialias)
            && fixed != requested
            && filter != Nearest
        {
            return Err(ImageOptionError::AntialiasNotOffered {
                filter,
                library,
                antialias: requested,
            });
        }
        Ok(Self {
            filter,
            antialias: fixed
                .or(antialias)
                .unwrap_or_else(|| library.default_antialias()),
            library,
        })
    }

    /// Whether the library returns bytes for bytes, and not floating-point numbers.
    pub(crate) fn rounds(self) -> bool {
        self.library != ResampleLibrary::Tensorflow || self.filter == ResampleFilter::Nearest
    }

    /// Whether the library resizes the height before the width, which matters because it rounds
    /// and clamps between them. The rule of Pillow 13 was derived from its results for 2,000 sizes;
    /// earlier versions always resize the width first.
    fn resamples_rows_first<T>(
        self,
        from: &SampleGrid<T>,
        (height, width): (usize, usize),
    ) -> bool {
        self.library == ResampleLibrary::Pillow
            && height < from.height
            && from.width.saturating_sub(width) * 2 < from.height - height
    }

    /// Writes a row of results, rounded as the library does.
    fn write(self, row: &mut [f64], to: &mut [f32]) {
        if self.rounds() {
            round_to_bytes(row);
        }
        for (value, exact) in to.iter_mut().zip(row.iter().copied()) {
            *value = exact as f32;
        }
    }

    /// Whether the library rounds between rows and columns.
    fn rounds_between(self) -> bool {
        matches!(
            self.library,
            ResampleLibrary::Pillow | ResampleLibrary::Torchvision
        )
    }
}

/// Samples of an image, row by row, with interleaved channels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SampleGrid<T = f32> {
    /// The number of rows.
    pub height: usize,
    /// The number of columns.
    pub width: usize,
    /// The number of values of a pixel.
    pub channels: usize,
    /// The values, 0 to 255.
    pub values: Vec<T>,
}

impl<T: Sample> SampleGrid<T> {
    /// Resizes the image to `height` x `width`, both above 0. Apart from the result, the memory of
    /// a few rows is used.
    pub(crate) fn resample(&self, (height, width): (usize, usize), by: Resampling) -> SampleGrid {
        let shrinks = height <= self.height && width <= self.width;
        let columns = AxisWeights::new(self.width, width, by, shrinks);
        let rows = AxisWeights::new(self.height, height, by, shrinks);
        let mut resized = SampleGrid {
            height,
            width,
            channels: self.channels,
            values: vec![0.0; height * width * self.channels],
        };
        if by.resamples_rows_first(self, (height, width)) {
            self.rows_then_columns(&rows, &columns, by, &mut resized.values);
        } else {
            self.columns_then_rows(&rows, &columns, by, &mut resized.values);
        }
        resized
    }

    fn columns_then_rows(
        &self,
        rows: &AxisWeights,
        columns: &AxisWeights,
        by: Resampling,
        into: &mut [f32],
    ) {
        let row_len = columns.len() * self.channels;
        let mut resized = vec![0.0; row_len];
        // The results that are computed from the current row, among others, and their sums.
        let mut active = 0..0;
        let mut sums: VecDeque<Vec<f64>> = VecDeque::new();
        let mut finish = |result: usize, exact: Option<Vec<f64>>| {
            let to = &mut into[result * row_len..][..row_len];
            by.write(&mut exact.unwrap_or_default(), to);
        };
        let source = self
            .values
            .chunks_exact((self.width * self.channels).max(1));
        for (index, row) in source.enumerate() {
            while active.end < rows.len() && rows.taps(active.end).start <= index {
                sums.push_back(vec![0.0; row_len]);
                active.end += 1;
            }
            while active.start < active.end && rows.taps(active.start).end() <= index {
                finish(active.start, sums.pop_front());
                active.start += 1;
            }
            if active.is_empty() {
                continue;
            }
            resample_row(row, columns, self.channels, &mut resized);
            if by.rounds_between() {
                round_to_bytes(&mut resized);
            }
            for (result, sum) in active.clone().zip(&mut sums) {
                let taps = rows.taps(result);
                add(sum, &resized, taps.weights[index - taps.start]);
            }
        }
        for result in active {
            finish(result, sums.pop_front());
        }
    }

    fn rows_then_columns(
        &self,
        rows: &AxisWeights,
        columns: &AxisWeights,
        by: Resampling,
        into: &mut [f32],
    ) {
        let row_len = self.width * self.channels;
        let mut combined = vec![0.0; row_len];
        let mut resized = vec![0.0; columns.len() * self.channels];
        let results = into.chunks_exact_mut(resized.len().max(1));
        for (result, to) in results.enumerate() {
            let taps = rows.taps(result);
            combined.fill(0.0);
            for (offset, &weight) in taps.weights.iter().enumerate() {
                let row = &self.values[(taps.start + offset) * row_len..][..row_len];
                add(&mut combined, row, weight);
            }
            if by.rounds_between() {
                round_to_bytes(&mut combined);
            }
            resample_row(&combined, columns, self.channels, &mut resized);
            by.write(&mut resized, to);
        }
    }
}

/// Resizes a row of interleaved samples.
fn resample_row<T: Copy + Into<f64>>(
    row: &[T],
    columns: &AxisWeights,
    channels: usize,
    into: &mut [f64],
) {
    for (result, pixel) in into.chunks_exact_mut(channels).enumerate() {
        let taps = columns.taps(result);
        pixel.fill(0.0);
        let from = row[taps.start * channels..].chunks_exact(channels);
        for (&weight, samples) in taps.weights.iter().zip(from) {
            add(pixel, samples, weight);
        }
    }
}

/// Adds weighted samples.
fn add<T: Copy + Into<f64>>(into: &mut [f64], samples: &[T], weight: f64) {
    for (value, &sample) in into.iter_mut().zip(samples) {
        *value += weight * sample.into();
    }
}

/// Rounds to the nearest byte, halves up, as the libraries do.
fn round_to_bytes(values: &mut [f64]) {
    for value in values {
        *value = (*value + 0.5).floor().clamp(0.0, 255.0);
    }
}

#[cfg(test)]
mod tests;
