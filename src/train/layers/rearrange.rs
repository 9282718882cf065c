//! Layers that reorder the values of a record: between planes and pixels, and space to depth.

/// A reordering of the values of each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rearrange {
    /// `[channels, pixels] -> [pixels, channels]`.
    ToPixels {
        /// Channels of a record.
        channels: usize,
        /// Pixels of a record.
        pixels: usize,
    },
    /// `[pixels, channels] -> [channels, pixels]`.
    ToPlanes {
        /// Channels of a record.
        channels: usize,
        /// Pixels of a record.
        pixels: usize,
    },
    /// `[height, width, channels] -> [height / 2, width / 2, 2 * 2 * channels]`: space to depth.
    Fold {
        /// Number of values of a line of pixels. The number of lines is even.
        line: usize,
        /// Channels of a pixel.
        channels: usize,
    },
    /// The inverse of [`Rearrange::Fold`]; `line` and `channels` are those of the larger image.
    Unfold {
        /// Number of values of a line of pixels.
        line: usize,
        /// Channels of a pixel.
        channels: usize,
    },
}

/// Number of pixels that are moved before the next channel, so that they stay in the cache.
const TILE: usize = 64;

impl Rearrange {
    /// Returns the inverse.
    pub(crate) fn inverse(self) -> Self {
        match self {
            Self::ToPixels { channels, pixels } => Self::ToPlanes { channels, pixels },
            Self::ToPlanes { channels, pixels } => Self::ToPixels { channels, pixels },
            Self::Fold { line, channels } => Self::Unfold { line, channels },
            Self::Unfold { line, channels } => Self::Fold { line, channels },
        }
    }

    /// Writes the records in `from` to `to` in the new order.
    pub fn apply(self, from: &[f32], to: &mut [f32]) {
        match self {
            Self::ToPixels { channels, pixels } => transpose(from, to, channels, pixels),
            Self::ToPlanes { channels, pixels } => transpose(from, to, pixels, channels),
            Self::Fold { line, channels } => {
                for (lines, folded) in from
                    .chunks_exact(2 * line)
                    .zip(to.chunks_exact_mut(2 * line))
                {
                    let (upper, lower) = lines.split_at(line);
                    let pairs = upper
                        .chunks_exact(2 * channels)
                        .zip(lower.chunks_exact(2 * channels));
                    for (square, (upper_pair, lower_pair)) in
                        folded.chunks_exact_mut(4 * channels).zip(pairs)
                    {
                        square[..2 * channels].copy_from_slice(upper_pair);
                        square[2 * channels..].copy_from_slice(lower_pair);
                    }
                }
            }
            Self::Unfold { line, channels } => {
                for (folded, lines) in from
                    .chunks_exact(2 * line)
                    .zip(to.chunks_exact_mut(2 * line))
                {
                    let (upper, lower) = lines.split_at_mut(line);
                    let pairs = upper
                        .chunks_exact_mut(2 * channels)
                        .zip(lower.chunks_exact_mut(2 * channels));
                    for (square, (upper_pair, lower_pair)) in
                        folded.chunks_exact(4 * channels).zip(pairs)
                    {
                        upper_pair.copy_from_slice(&square[..2 * channels]);
                        lower_pair.copy_from_slice(&square[2 * channels..]);
                    }
                }
            }
        }
    }
}

/// Transposes each `[rows, columns]` in `from` to `[columns, rows]` in `to`.
fn transpose(from: &[f32], to: &mut [f32], rows: usize, columns: usize) {
    let len = (rows * columns).max(1);
    for (matrix, transposed) in from.chunks_exact(len).zip(to.chunks_exact_mut(len)) {
        for (tile, out) in transposed.chunks_mut(TILE * rows).enumerate() {
            for row in 0..rows {
                let start = row * columns + tile * TILE;
                let line = &matrix[start..start + out.len() / rows];
                out[row..]
                    .iter_mut()
                    .step_by(rows)
                    .zip(line)
                    .for_each(|(target, value)| *target = *value);
            }
        }
    }
}

/// Returns the transpose of a matrix in row-major order.
pub(crate) fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut turned = vec![0.0; matrix.len()];
    Rearrange::ToPixels {
        channels: rows,
        pixels: columns,
    }
    .apply(matrix, &mut turned);
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_pixels_in_each_record() {
        let from = [
            1.0, 2.0, 3.0, 10.0, 20.0, 30.0, 4.0, 5.0, 6.0, 40.0, 50.0, 60.0,
        ];
        let mut to = [0.0; 12];
        Rearrange::ToPixels {
            channels: 2,
            pixels: 3,
        }
        .apply(&from, &mut to);
        assert_eq!(
            to,
            [
                1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0, 5.0, 50.0, 6.0, 60.0
            ]
        );
    }

    #[test]
    fn fold_puts_each_square_into_one_pixel() {
        // Two lines of four pixels of one channel.
        let from = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let mut to = [0.0; 8];
        Rearrange::Fold {
            line: 4,
            channels: 1,
        }
        .apply(&from, &mut to);
        assert_eq!(to, [1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0]);
    }

    #[test]
    fn inverse_restores_the_order() {
        let rearranges = [
            Rearrange::ToPixels {
                channels: 3,
                pixels: 2 * TILE + 12,
            },
            Rearrange::ToPlanes {
                channels: 70,
                pixels: 2,
            },
            Rearrange::Fold {
                line: 70,
                channels: 5,
            },
            Rearrange::Unfold {
                line: 42,
                channels: 7,
            },
        ];
        for rearrange in rearranges {
            let from: Vec<f32> = (0..2 * 420).map(|i| i as f32).collect();
            let (mut to, mut back) = (vec![-1.0; from.len()], vec![-1.0; from.len()]);
            rearrange.apply(&from, &mut to);
            rearrange.inverse().apply(&to, &mut back);
            assert_ne!(to, from, "{rearrange:?}");
            assert_eq!(back, from, "{rearrange:?}");
        }
    }
}
