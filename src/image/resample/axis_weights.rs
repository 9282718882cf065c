//! The weights of the samples of one row or column.

use crate::image::resample::kernel::{KEYS, STEEP, cubic, lanczos, radius, weight};
use crate::image::resample::options::{ResampleFilter, ResampleLibrary};

use super::Resampling;

/// For each sample of the result, the consecutive samples that it is computed from, with their
/// weights. Neither the first nor the last of them ever precedes that of an earlier result.
pub(super) struct AxisWeights {
    /// The first sample of each result.
    starts: Vec<usize>,
    /// The end of the weights of each result in `weights`.
    ends: Vec<usize>,
    weights: Vec<f64>,
}

/// The weights of one result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taps<'a> {
    /// The first sample.
    pub(super) start: usize,
    /// The weights of the samples from the first on.
    pub(super) weights: &'a [f64],
}

impl Taps<'_> {
    /// The sample after the last one.
    pub(super) fn end(self) -> usize {
        self.start + self.weights.len()
    }
}

/// The number of fractional bits of Pillow's weights, and the maximum number of torchvision's.
const MAX_BITS: i32 = 22;

impl AxisWeights {
    /// The weights from `from` samples to `to`, both above 0. `shrinks` is whether no axis of the
    /// image grows.
    pub(super) fn new(from: usize, to: usize, by: Resampling, shrinks: bool) -> Self {
        let mut weights = Self {
            starts: Vec::with_capacity(to),
            ends: Vec::with_capacity(to),
            weights: Vec::new(),
        };
        let scale = from as f64 / to as f64;
        // Pillow adds up the steps, so that a position between two samples depends on rounding.
        let mut summed = scale * 0.5;
        for index in 0..to {
            let taps = match (by.filter, by.library) {
                (ResampleFilter::Nearest, ResampleLibrary::Pillow) => {
                    vec![(summed.floor() as isize, 1.0)]
                }
                _ => taps(index, scale, from, by, shrinks),
            };
            summed += scale;
            weights.push(taps, from);
        }
        weights.round_to_fixed_point(by);
        weights
    }

    /// Rounds the weights to the fixed-point numbers with which Pillow and torchvision resize bytes.
    /// Their products with bytes, and the sums of the products, are exact in float64, so that results
    /// are rounded as theirs.
    fn round_to_fixed_point(&mut self, by: Resampling) {
        let bits = match (by.library, by.antialias) {
            (ResampleLibrary::Pillow, _) => MAX_BITS,
            // The largest weight has to fit into 16 bits.
            (ResampleLibrary::Torchvision, true) => {
                let largest = self.weights.iter().copied().fold(0.0, f64::max);
                let fits = |bits: &i32| largest * f64::from(1 << *bits) + 0.5 < 32768.0;
                (1..=MAX_BITS).take_while(fits).last().unwrap_or(0)
            }
            _ => return,
        };
        let unit = f64::from(1 << bits);
        for weight in &mut self.weights {
            *weight = (*weight * unit).round() / unit;
        }
    }

    /// Adds a result. Positions outside of the axis are replaced by the border, and the weights are
    /// divided by their sum.
    fn push(&mut self, taps: Vec<(isize, f64)>, from: usize) {
        let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
        let inside = |position: isize| position.clamp(0, from as isize - 1) as usize;
        let first = taps.first().map_or(0, |(position, _)| inside(*position));
        let (start, mut last) = (self.weights.len(), None);
        for (position, weight) in taps {
            let weight = weight / sum;
            if last == Some(inside(position))
                && let Some(total) = self.weights.last_mut()
            {
                *total += weight;
            } else {
                self.weights.push(weight);
            }
            last = Some(inside(position));
        }
        debug_assert!(first + self.weights.len() - start <= from);
        self.starts.push(first);
        self.ends.push(self.weights.len());
    }

    /// Number of samples of the result.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The weights of the result `index`.
    pub(super) fn taps(&self, index: usize) -> Taps<'_> {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Taps {
            start: self.starts[index],
            weights: &self.weights[begin..self.ends[index]],
        }
    }
}

/// The positions and weights of the result `index`.
fn taps(index: usize, scale: f64, from: usize, by: Resampling, shrinks: bool) -> Vec<(isize, f64)> {
    use ResampleFilter::{Bicubic, Bilinear, Box, Lanczos, Nearest};
    use ResampleLibrary::{Opencv, Tensorflow};
    let position = index as f64;
    let center = (position + 0.5) * scale - 0.5;
    match (by.filter, by.library) {
        (Nearest, Tensorflow) => vec![((center + 0.5).floor() as isize, 1.0)],
        (Nearest, _) => vec![((position * scale).floor() as isize, 1.0)],
        (Box, Opencv) if !shrinks => grown_area(position, scale),
        (Box, Opencv | Tensorflow) => covered(position, scale, from),
        (filter, _) if by.antialias => antialiased(filter, center + 0.5, scale, from),
        (Lanczos, Opencv) => interpolated(center, 4, |x| lanczos(x, 4.0)),
        (Lanczos, _) => inside(interpolated(center, 3, |x| lanczos(x, 3.0)), from),
        // TensorFlow leaves out positions outside of the image; the others repeat the border.
        (Bicubic, Tensorflow) => inside(interpolated(center, 2, |x| cubic(x, KEYS)), from),
        (Bicubic, _) => interpolated(center, 2, |x| cubic(x, STEEP)),
        (Bilinear | _, _) => interpolated(center, 1, |x| weight(Bilinear, x)),
    }
}

/// The filter, as wide as the reduction, over the samples that it covers. `center` counts from the
/// border of the first sample.
fn antialiased(filter: ResampleFilter, center: f64, scale: f64, from: usize) -> Vec<(isize, f64)> {
    let stretch = scale.max(1.0);
    let support = radius(filter) * stretch;
    let first = ((center - support + 0.5) as isize).max(0);
    let last = ((center + support + 0.5) as isize).min(from as isize);
    (first..last)
        .map(|at| (at, weight(filter, (at as f64 - center + 0.5) / stretch)))
        .collect()
}

/// The filter of `radius` samples to each side of `center`, which counts from the middle of the
/// first sample.
fn interpolated(center: f64, radius: isize, kernel: impl Fn(f64) -> f64) -> Vec<(isize, f64)> {
    let first = center.floor() as isize - radius + 1;
    (first..first + 2 * radius)
        .map(|at| (at, kernel(at as f64 - center)))
        .collect()
}

fn inside(taps: Vec<(isize, f64)>, from: usize) -> Vec<(isize, f64)> {
    taps.into_iter()
        .filter(|(at, _)| (0..from as isize).contains(at))
        .collect()
}

/// The samples that the area of the result covers, by the covered length.
fn covered(position: f64, scale: f64, from: usize) -> Vec<(isize, f64)> {
    let (start, end) = (position * scale, (position + 1.0) * scale);
    let last = (end.ceil() as isize).min(from as isize);
    (start.floor() as isize..last)
        .map(|at| {
            let covered = end.min(at as f64 + 1.0) - start.max(at as f64);
            (at, covered.max(0.0))
        })
        .collect()
}

/// `INTER_AREA` of OpenCV for an image that grows: linear interpolation whose samples begin with
/// the border of the result.
fn grown_area(position: f64, scale: f64) -> Vec<(isize, f64)> {
    let at = (position * scale).floor();
    let part = (position + 1.0) - (at + 1.0) / scale;
    let part = if part <= 0.0 {
        0.0
    } else {
        part - part.floor()
    };
    vec![(at as isize, 1.0 - part), (at as isize + 1, part)]
}
