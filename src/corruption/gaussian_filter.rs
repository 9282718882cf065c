//! A Gaussian filter of planes, for blur and for noise whose neighboring values depend on each other.

use crate::image::reflection::reflected;

/// Standard deviations at which the kernel ends, as in `scipy.ndimage.gaussian_filter`.
const TRUNCATE: f32 = 4.0;

/// A normalized Gaussian kernel, which is applied to rows and to columns.
pub(super) struct GaussianFilter {
    /// The weights, of which the middle one is that of the sample itself.
    kernel: Vec<f32>,
}

impl GaussianFilter {
    /// A filter of standard deviation `sigma`, in pixels. With 0, nothing changes.
    pub(super) fn new(sigma: f32) -> Self {
        let radius = (TRUNCATE * sigma + 0.5).floor() as i32;
        if radius == 0 {
            return Self { kernel: vec![1.0] };
        }
        let weight = |distance: i32| {
            let deviations = f64::from(distance) / f64::from(sigma);
            (-0.5 * deviations * deviations).exp()
        };
        let weights: Vec<f64> = (-radius..=radius).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        Self {
            kernel: weights.iter().map(|value| (value / sum) as f32).collect(),
        }
    }

    /// The distance from which samples have no weight.
    pub(super) fn radius(&self) -> usize {
        self.kernel.len() / 2
    }

    /// The factor by which the filter reduces the standard deviation of independent values: the sum
    /// of the squared weights of a row, since rows and columns have the same kernel.
    pub(super) fn reduction(&self) -> f32 {
        self.kernel.iter().map(|weight| weight * weight).sum()
    }

    /// Filters a plane of this height and width. Samples outside of it are reflected at its edges.
    pub(super) fn apply(&self, plane: &mut [f32], (height, width): (usize, usize)) {
        if self.kernel.len() == 1 || plane.is_empty() {
            return;
        }
        let mut line = Vec::new();
        for row in plane.chunks_exact_mut(width) {
            self.extend(row.len(), |x| row[x], &mut line);
            for (value, filtered) in row.iter_mut().zip(self.filtered(&line)) {
                *value = filtered;
            }
        }
        for x in 0..width {
            self.extend(height, |y| plane[y * width + x], &mut line);
            for (y, filtered) in self.filtered(&line).enumerate() {
                plane[y * width + x] = filtered;
            }
        }
    }

    /// Writes `len` samples, and those that are reflected at both ends, to `line`.
    fn extend(&self, len: usize, sample: impl Fn(usize) -> f32, line: &mut Vec<f32>) {
        let radius = self.radius() as isize;
        let positions = -radius..len as isize + radius;
        line.clear();
        line.extend(positions.map(|position| sample(reflected(position, len))));
    }

    fn filtered(&self, line: &[f32]) -> impl Iterator<Item = f32> {
        let weighted = |samples: &[f32]| {
            let products = samples.iter().zip(&self.kernel);
            products.map(|(sample, weight)| sample * weight).sum()
        };
        line.windows(self.kernel.len()).map(weighted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_equals_that_of_scipy() {
        // scipy.ndimage.gaussian_filter(a, 1.0, mode="reflect"), with a[1, 0] = 1 in 3 x 4 zeros.
        let mut plane = vec![0.0; 12];
        plane[4] = 1.0;
        GaussianFilter::new(1.0).apply(&mut plane, (3, 4));
        let expected = [
            0.189772, 0.087633, 0.017298, 0.001391, 0.261369, 0.120695, 0.023825, 0.001916,
            0.189772, 0.087633, 0.017298, 0.001391,
        ];
        for (value, weight) in plane.iter().zip(expected) {
            assert!((value - weight).abs() < 2e-6, "{plane:?}");
        }
    }

    #[test]
    fn constant_planes_stay_and_narrow_filters_change_nothing() {
        let mut plane = vec![0.25; 35];
        GaussianFilter::new(9.0).apply(&mut plane, (5, 7));
        assert!(plane.iter().all(|value| (value - 0.25).abs() < 1e-6));
        let mut varied: Vec<f32> = (0..6).map(|index| index as f32).collect();
        let before = varied.clone();
        GaussianFilter::new(0.0).apply(&mut varied, (2, 3));
        assert_eq!(varied, before);
        GaussianFilter::new(2.0).apply(&mut [], (0, 3));
    }
}
