//! The scaling of values to their ranks among the quantiles of the training part.

/// Interpolates between the quantiles, as scikit-learn's `QuantileTransformer` does with the
/// uniform distribution: a value that is equal to several quantiles is in their middle.
pub(super) fn rank(quantiles: &[f64], value: f64) -> f64 {
    let (Some(&first), Some(&last)) = (quantiles.first(), quantiles.last()) else {
        return 0.0;
    };
    if value.is_nan() {
        return value;
    }
    if value <= first {
        return 0.0;
    }
    if value >= last {
        return 1.0;
    }
    // The quantiles before `low` are below the value, and those from `high` on are above it.
    let low = quantiles.partition_point(|&quantile| quantile < value);
    let high = quantiles.partition_point(|&quantile| quantile <= value);
    let steps = (quantiles.len() - 1) as f64;
    if low < high {
        return (low + high - 1) as f64 / 2.0 / steps;
    }
    let (below, above) = (quantiles[low - 1], quantiles[low]);
    ((low - 1) as f64 + (value - below) / (above - below)) / steps
}

/// Reverts [`rank`] for the values that it returns.
pub(super) fn value_at(quantiles: &[f64], rank: f64) -> f64 {
    if quantiles.is_empty() {
        return 0.0;
    }
    let position = rank.clamp(0.0, 1.0) * (quantiles.len() - 1) as f64;
    let (low, high) = (
        quantiles[position.floor() as usize],
        quantiles[position.ceil() as usize],
    );
    low + (high - low) * position.fract()
}
