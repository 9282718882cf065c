//! Where the values of a sample lie: mean, deviation, quantiles.

/// Mean and standard deviation (of the sample as it is: divided by its number); `None` without values.
pub fn mean_and_std(values: &[f64]) -> Option<(f64, f64)> {
    if values.is_empty() {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    Some((mean, variance.sqrt()))
}

/// The value below which a share of `q` (0 to 1) lies, interpolated linearly between the two nearest, as numpy does;
/// `sorted` ascends. `None` without values.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_are_those_of_numpy() {
        // numpy.mean, numpy.std of [1, 2, 4, 9]
        assert_eq!(mean_and_std(&[1.0, 2.0, 4.0, 9.0]), Some((4.0, 3.082_207_001_484_488)));
        assert_eq!(mean_and_std(&[]), None);
    }

    #[test]
    fn quantiles_are_interpolated_as_in_numpy() {
        // numpy.quantile([1, 2, 4, 9], [0, 0.05, 0.5, 0.99, 1])
        let sorted = [1.0, 2.0, 4.0, 9.0];
        for (q, expected) in [(0.0, 1.0), (0.05, 1.15), (0.5, 3.0), (0.99, 8.85), (1.0, 9.0)] {
            let met = quantile(&sorted, q).unwrap_or(f64::NAN);
            assert!((met - expected).abs() < 1e-12, "{q}: {met}");
        }
        assert_eq!(quantile(&[3.0], 0.7), Some(3.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
