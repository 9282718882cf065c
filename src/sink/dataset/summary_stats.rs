//! Statistics of the distribution of a column of numbers, computed in bounded memory.

use sketches_ddsketch::{Config, DDSketch};

/// Maximum number of values that are stored (8 MiB). For more values, quantiles are estimated.
const MAX_EXACT_VALUES: usize = 1 << 20;

/// A distribution to which values are added one at a time.
#[derive(Default)]
pub(crate) struct Distribution {
    values: Vec<f64>,
    /// All values, if there are too many to store.
    sketch: Option<DDSketch>,
    count: u64,
    not_finite: u64,
    mean: f64,
    /// Sum of squared distances from the mean (Welford 1962).
    squares: f64,
    min: f64,
    max: f64,
}

/// The statistics of a distribution. Values that are not finite are only counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SummaryStats {
    /// Number of finite values.
    pub count: u64,
    /// Number of values that are infinite or NaN.
    pub not_finite: u64,
    /// The mean of the finite values.
    pub mean: f64,
    /// The population standard deviation of the finite values.
    pub std: f64,
    /// The minimum.
    pub min: f64,
    /// The median: the value at index `floor(0.5 * (count - 1))` in ascending order.
    pub p50: f64,
    /// The 99th percentile: the value at index `floor(0.99 * (count - 1))` in ascending order.
    pub p99: f64,
    /// The maximum.
    pub max: f64,
    /// Whether the quantiles are exact; otherwise they are within 1 % of their value.
    pub exact: bool,
}

impl Distribution {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            self.not_finite += 1;
            return;
        }
        self.count += 1;
        (self.min, self.max) = match self.count {
            1 => (value, value),
            _ => (self.min.min(value), self.max.max(value)),
        };
        let distance = value - self.mean;
        self.mean += distance / self.count as f64;
        self.squares += distance * (value - self.mean);
        if let Some(sketch) = &mut self.sketch {
            sketch.add(value);
        } else {
            self.values.push(value);
            if self.values.len() > MAX_EXACT_VALUES {
                let sketch = self.sketch.insert(DDSketch::new(Config::defaults()));
                std::mem::take(&mut self.values)
                    .into_iter()
                    .for_each(|exact| sketch.add(exact));
            }
        }
    }

    /// The statistics; `None` if no value is finite.
    pub fn summary(mut self) -> Option<SummaryStats> {
        let (p50, p99) = match &self.sketch {
            Some(sketch) => (sketch.quantile(0.5).ok()??, sketch.quantile(0.99).ok()??),
            None => {
                self.values.sort_unstable_by(f64::total_cmp);
                let at = |q: f64| {
                    self.values
                        .get((q * self.count.checked_sub(1)? as f64) as usize)
                        .copied()
                };
                (at(0.5)?, at(0.99)?)
            }
        };
        Some(SummaryStats {
            count: self.count,
            not_finite: self.not_finite,
            mean: self.mean,
            std: (self.squares / self.count as f64).sqrt(),
            min: self.min,
            p50,
            p99,
            max: self.max,
            exact: self.sketch.is_none(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn summary(values: impl Iterator<Item = f64>) -> Option<SummaryStats> {
        let mut distribution = Distribution::default();
        values.for_each(|value| distribution.add(value));
        distribution.summary()
    }

    #[test]
    fn statistics_of_few_values_are_exact() {
        let summary = summary(
            [
                4.0,
                2.0,
                f64::NAN,
                4.0,
                5.0,
                7.0,
                5.0,
                9.0,
                f64::INFINITY,
                4.0,
            ]
            .into_iter(),
        )
        .unwrap();
        assert!((summary.std - 2.0).abs() < 1e-12);
        let expected = SummaryStats {
            count: 8,
            not_finite: 2,
            mean: 5.0,
            std: summary.std,
            min: 2.0,
            p50: 4.0,
            p99: 7.0,
            max: 9.0,
            exact: true,
        };
        assert_eq!(summary, expected);
    }

    #[test]
    fn quantiles_of_many_values_are_within_one_percent() {
        let count = MAX_EXACT_VALUES + 1000;
        let summary = summary((0..count).map(|index| index as f64 / count as f64)).unwrap();
        assert!(!summary.exact);
        assert_eq!((summary.count, summary.min), (count as u64, 0.0));
        assert!((summary.p50 / 0.5 - 1.0).abs() < 0.011, "{summary:?}");
        assert!((summary.p99 / 0.99 - 1.0).abs() < 0.011, "{summary:?}");
        assert!(
            (summary.mean - 0.5).abs() < 1e-5
                && (summary.std - (1.0_f64 / 12.0).sqrt()).abs() < 1e-5
        );
    }

    #[test]
    fn distribution_without_finite_values_has_no_summary() {
        assert_eq!(summary(std::iter::empty()), None);
        assert_eq!(summary([f64::NAN].into_iter()), None);
    }
}
