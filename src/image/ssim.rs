//! Structural similarity: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error
//! visibility to structural similarity", IEEE Transactions on Image Processing 13(4), 2004.

/// The side of the window, in pixels.
pub(crate) const WINDOW: usize = 11;
/// The standard deviation of the window's Gaussian weights, in pixels.
const SIGMA: f64 = 1.5;
/// The constants C1 and C2 of the paper, for levels 0..255.
const C1: f64 = (0.01 * 255.0) * (0.01 * 255.0);
const C2: f64 = (0.03 * 255.0) * (0.03 * 255.0);

/// The local first and second moments of two images: x, y, x², y², xy.
type Moments = [f64; 5];

/// Mean structural similarity of two planes of 8-bit levels over all windows within the planes. `x`
/// and `y` return the level of a pixel, counted row by row. `None` if the planes are smaller than
/// the window.
pub fn ssim(
    height: usize,
    width: usize,
    x: impl Fn(usize) -> f64,
    y: impl Fn(usize) -> f64,
) -> Option<f64> {
    if height < WINDOW || width < WINDOW {
        return None;
    }
    let weights = weights();
    let columns = width - WINDOW + 1;
    let mut line = vec![Moments::default(); width];
    // The last rows after the horizontal pass, which suffice for one row of windows at any height
    // of the image.
    let mut recent = vec![Moments::default(); WINDOW * columns];
    let mut sum = 0.0;
    for row in 0..height {
        for (column, moments) in line.iter_mut().enumerate() {
            let (x, y) = (x(row * width + column), y(row * width + column));
            *moments = [x, y, x * x, y * y, x * y];
        }
        let start = row % WINDOW * columns;
        for (blurred, window) in recent[start..start + columns]
            .iter_mut()
            .zip(line.windows(WINDOW))
        {
            *blurred = weighted(&weights, window.iter());
        }
        if row + 1 >= WINDOW {
            // The oldest row is at the position of the next row.
            let oldest = (row + 1) % WINDOW;
            let rows = || (oldest..WINDOW).chain(0..oldest);
            for column in 0..columns {
                sum += similarity(weighted(
                    &weights,
                    rows().map(|position| &recent[position * columns + column]),
                ));
            }
        }
    }
    Some(sum / (columns * (height - WINDOW + 1)) as f64)
}

fn weighted<'a>(weights: &[f64; WINDOW], moments: impl Iterator<Item = &'a Moments>) -> Moments {
    weights
        .iter()
        .zip(moments)
        .fold(Moments::default(), |mut sum, (weight, moments)| {
            sum.iter_mut()
                .zip(moments)
                .for_each(|(sum, moment)| *sum += weight * moment);
            sum
        })
}

/// Equation 13 of the paper.
fn similarity([x, y, xx, yy, xy]: Moments) -> f64 {
    let (variance_x, variance_y, covariance) = (xx - x * x, yy - y * y, xy - x * y);
    let luminance = (2.0 * x * y + C1) / (x * x + y * y + C1);
    luminance * (2.0 * covariance + C2) / (variance_x + variance_y + C2)
}

fn weights() -> [f64; WINDOW] {
    let gauss = |index: usize| (-(index as f64 - 5.0).powi(2) / (2.0 * SIGMA * SIGMA)).exp();
    let raw: [f64; WINDOW] = std::array::from_fn(gauss);
    let sum: f64 = raw.iter().sum();
    raw.map(|weight| weight / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image that can be computed exactly in any language.
    fn level(pixel: usize) -> f64 {
        ((pixel * 7919 + pixel / 20 * 104_729) % 256) as f64
    }

    #[test]
    fn image_has_similarity_1_to_itself() {
        assert!((ssim(16, 20, level, level).unwrap_or(0.0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn similarity_of_changed_image_equals_scikit_image() {
        // structural_similarity(x, y, gaussian_weights=True, sigma=1.5,
        // use_sample_covariance=False, data_range=255)
        let darker = |pixel| level(pixel) * 0.5 + 20.0;
        assert!((ssim(16, 20, level, darker).unwrap_or(0.0) - 0.7353101281100894).abs() < 1e-9);
    }

    #[test]
    fn image_smaller_than_the_window_has_no_similarity() {
        assert_eq!(ssim(10, 64, level, level), None);
    }
}
