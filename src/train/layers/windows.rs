//! The windows of a kernel on images, gathered as the rows of a matrix and scattered back (im2col
//! and col2im), so that a convolution is a matrix product.

use std::ops::Range;

use crate::system::simd_dispatch;

/// The windows of a square kernel on images of `[height, width, channels]` with zero padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KernelWindows {
    /// Height and width of an image.
    pub image: [usize; 2],
    /// Channels of an image.
    pub channels: usize,
    /// Number of windows vertically and horizontally.
    pub count: [usize; 2],
    /// Height and width of a window.
    pub kernel: usize,
    /// Pixels between adjacent windows.
    pub stride: usize,
    /// Pixels by which the first window starts before the image.
    pub padding: usize,
}

/// One line of one window: `kernel` pixels, some of which may lie outside of the image.
struct WindowRun {
    /// Index of the first value in the matrix.
    start: usize,
    /// The values of the run that lie within the image.
    inside: Range<usize>,
    /// Index of the first of them in the images.
    from: usize,
}

impl KernelWindows {
    /// Returns the number of values of an image.
    pub(crate) fn image_values(&self) -> usize {
        self.image[0] * self.image[1] * self.channels
    }

    /// Returns the number of values of a window, which are in the order row, column, channel.
    pub fn values(&self) -> usize {
        self.kernel * self.kernel * self.channels
    }

    /// Writes the matrix `[windows, values]` (im2col). `lines` are the rows of windows, numbered
    /// consecutively through all images. Values outside of the images are 0.
    pub(crate) fn gather(&self, images: &[f32], lines: Range<usize>, rows: &mut [f32]) {
        let length = self.kernel * self.channels;
        simd_dispatch(
            #[inline(always)]
            || {
                self.for_each_run(
                    lines,
                    |WindowRun {
                         start,
                         inside,
                         from,
                     }| {
                        let run = &mut rows[start..start + length];
                        run[..inside.start].fill(0.0);
                        run[inside.end..].fill(0.0);
                        run[inside.clone()].copy_from_slice(&images[from..from + inside.len()]);
                    },
                );
            },
        );
    }

    /// Adds each value of `[windows, values]` (col2im) to the value of the images from which
    /// [`KernelWindows::gather`] reads it.
    pub(crate) fn scatter(&self, rows: &[f32], lines: Range<usize>, images: &mut [f32]) {
        simd_dispatch(
            #[inline(always)]
            || {
                self.for_each_run(
                    lines,
                    |WindowRun {
                         start,
                         inside,
                         from,
                     }| {
                        let run = &rows[start + inside.start..start + inside.end];
                        images[from..from + run.len()]
                            .iter_mut()
                            .zip(run)
                            .for_each(|(sum, value)| *sum += value);
                    },
                );
            },
        );
    }

    #[inline(always)]
    fn for_each_run(&self, lines: Range<usize>, mut visit: impl FnMut(WindowRun)) {
        let ([height, width], [down, across]) = (self.image, self.count);
        let length = self.kernel * self.channels;
        for (number, line) in lines.enumerate() {
            let (image, top) = (line / down, line % down * self.stride);
            for column in 0..across {
                let left = column * self.stride;
                // Columns and rows are counted from the first column and row of the padding.
                let first = left.max(self.padding);
                let last = (left + self.kernel).min(width + self.padding).max(first);
                let inside = (first - left) * self.channels..(last - left) * self.channels;
                let window = (number * across + column) * self.kernel;
                for row in 0..self.kernel {
                    let y = top + row;
                    let start = (window + row) * length;
                    if y < self.padding || y >= height + self.padding {
                        visit(WindowRun {
                            start,
                            inside: 0..0,
                            from: 0,
                        });
                        continue;
                    }
                    let from = ((image * height + y - self.padding) * width + first - self.padding)
                        * self.channels;
                    let from = if inside.is_empty() { 0 } else { from };
                    visit(WindowRun {
                        start,
                        inside: inside.clone(),
                        from,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(
        image: [usize; 2],
        channels: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> KernelWindows {
        let count = image.map(|side| (side + 2 * padding - kernel) / stride + 1);
        KernelWindows {
            image,
            channels,
            count,
            kernel,
            stride,
            padding,
        }
    }

    /// Returns one value of a window, computed from the definition.
    fn expected_value(windows: &KernelWindows, images: &[f32], window: usize, value: usize) -> f32 {
        let [down, across] = windows.count;
        let (image, position) = (window / (down * across), window % (down * across));
        let (pixel, channel) = (value / windows.channels, value % windows.channels);
        let y = (position / across * windows.stride + pixel / windows.kernel)
            .checked_sub(windows.padding);
        let x = (position % across * windows.stride + pixel % windows.kernel)
            .checked_sub(windows.padding);
        match (y, x) {
            (Some(y), Some(x)) if y < windows.image[0] && x < windows.image[1] => {
                images[((image * windows.image[0] + y) * windows.image[1] + x) * windows.channels
                    + channel]
            }
            _ => 0.0,
        }
    }

    #[test]
    fn gathered_windows_hold_the_pixels_that_they_cover() {
        for (image, channels, kernel, stride, padding) in [
            ([5, 6], 2, 3, 1, 1),
            ([7, 7], 3, 3, 2, 1),
            ([6, 4], 1, 2, 2, 0),
            ([1, 1], 2, 5, 1, 2),
            ([2, 9], 1, 7, 3, 3),
            ([4, 4], 5, 1, 1, 0),
        ] {
            let windows = windows(image, channels, kernel, stride, padding);
            let images: Vec<f32> = (0..2 * windows.image_values())
                .map(|i| 1.0 + i as f32)
                .collect();
            let (lines, length) = (2 * windows.count[0], windows.values());
            let mut rows = vec![f32::NAN; lines * windows.count[1] * length];
            windows.gather(&images, 0..lines, &mut rows);
            for (index, &found) in rows.iter().enumerate() {
                assert_eq!(
                    found,
                    expected_value(&windows, &images, index / length, index % length),
                    "{windows:?}: {index}"
                );
            }
            // Gathering some of the lines gives the same rows as gathering all of them.
            let per_line = windows.count[1] * length;
            let mut part = vec![f32::NAN; rows.len() - per_line];
            windows.gather(&images, 1..lines, &mut part);
            assert_eq!(part, rows[per_line..]);
        }
    }

    #[test]
    fn scattering_is_the_transpose_of_gathering() {
        for (image, channels, kernel, stride, padding) in [
            ([5, 6], 2, 3, 1, 1),
            ([7, 7], 3, 3, 2, 1),
            ([6, 4], 1, 2, 2, 0),
            ([1, 2], 1, 5, 1, 2),
        ] {
            let windows = windows(image, channels, kernel, stride, padding);
            let images: Vec<f32> = (0..2 * windows.image_values())
                .map(|i| (i * 7 % 11) as f32 - 5.0)
                .collect();
            let lines = 2 * windows.count[0];
            let len = lines * windows.count[1] * windows.values();
            let other: Vec<f32> = (0..len).map(|i| (i * 5 % 13) as f32 - 6.0).collect();
            let (mut rows, mut sums) = (vec![0.0; len], vec![0.0; images.len()]);
            windows.gather(&images, 0..lines, &mut rows);
            windows.scatter(&other, 0..lines, &mut sums);
            let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            assert_eq!(
                product(&rows, &other),
                product(&images, &sums),
                "{windows:?}"
            );
        }
    }
}
