//! The squared errors of single features: their distribution on validation data, and the divisors
//! of their z-scores.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::config_error::ConfigError;
use crate::model::feature_groups::FeatureGroups;

/// The distribution of each feature's squared error over records, in the order of the card's
/// `input.columns`. The squared error of a column that becomes several inputs is their sum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FeatureStats {
    /// The mean of each feature's squared error.
    pub mean: Vec<f64>,
    /// The standard deviation of each feature's squared error.
    pub std: Vec<f64>,
    /// The mean of each input of the model, over all inputs of all features. Cards of earlier
    /// versions do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_mean: Option<Vec<f64>>,
    /// How the features of a record are ranked, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranking: Option<String>,
}

impl FeatureStats {
    /// Adds errors at `reconstruction_error.features`. `columns` are the feature names of the card,
    /// which become `inputs` inputs of the model.
    pub(super) fn check(
        &self,
        columns: Option<&[String]>,
        inputs: usize,
        faults: &mut Vec<ConfigError>,
    ) {
        const KEY: &str = "reconstruction_error.features";
        let Some(columns) = columns else {
            return faults.push(ConfigError::new(
                KEY,
                "requires `input.columns`, which is missing",
            ));
        };
        let lists = [("mean", Some(&self.mean)), ("std", Some(&self.std))];
        let value_mean = ("value_mean", self.value_mean.as_ref());
        for (name, values) in lists.into_iter().chain([value_mean]) {
            let Some(values) = values else { continue };
            let (least, expected, count) = match name {
                "value_mean" => (f64::MIN, "finite", inputs),
                _ => (0.0, "0 or more", columns.len()),
            };
            let key = format!("{KEY}.{name}");
            if values.len() != count {
                let of = match count == columns.len() {
                    true => "columns in `input.columns`",
                    false => "inputs of the columns in `input.columns`",
                };
                let found = values.len();
                let message = format!("expected as many values as {of}, {count}; found {found}");
                faults.push(ConfigError::new(key, message));
            } else if let Some(index) = values
                .iter()
                .position(|value| !(value.is_finite() && *value >= least))
            {
                let found = values[index];
                let message = match columns.get(index).filter(|_| count == columns.len()) {
                    Some(column) => format!("must be {expected}; found {found} for `{column}`"),
                    None => format!("must be {expected}; found {found} for input {index}"),
                };
                faults.push(ConfigError::new(key, message));
            }
        }
    }

    /// The z-score of the squared error of each feature of a record.
    pub(crate) fn zscores(
        &self,
        groups: &FeatureGroups,
        target: &[f32],
        output: &[f32],
    ) -> Vec<f64> {
        let scales = self.mean.iter().zip(self.divisors());
        groups
            .squared_errors(target, output)
            .zip(scales)
            .map(|(error, (mean, divisor))| (error - mean) / divisor)
            .collect()
    }

    /// The divisors of the z-scores, one per feature. For a feature with a deviation of 0, this is
    /// the smallest deviation above 0, or 1 if there is none, so that z-scores stay finite.
    pub(crate) fn divisors(&self) -> Vec<f64> {
        let smallest = self
            .std
            .iter()
            .copied()
            .filter(|&std| std > 0.0)
            .min_by(f64::total_cmp)
            .unwrap_or(1.0);
        self.std
            .iter()
            .map(|&std| if std > 0.0 { std } else { smallest })
            .collect()
    }
}

/// Accumulates the errors of features record by record with the recurrence of Welford (1962), which
/// does not lose precision with large means.
#[derive(Debug, Clone)]
pub(crate) struct FeatureErrors {
    count: u64,
    mean: Vec<f64>,
    /// Sums of squared distances from the mean.
    squares: Vec<f64>,
    /// The means of the inputs.
    value_mean: Vec<f64>,
    groups: FeatureGroups,
}

impl FeatureErrors {
    /// Creates an accumulator for features with these inputs.
    pub fn new(groups: FeatureGroups) -> Self {
        Self {
            count: 0,
            mean: vec![0.0; groups.features()],
            squares: vec![0.0; groups.features()],
            value_mean: vec![0.0; groups.inputs()],
            groups,
        }
    }

    /// Adds a record and its reconstruction, each with one value per input.
    pub fn push(&mut self, target: &[f32], output: &[f32]) {
        self.count += 1;
        let count = self.count as f64;
        let sums = self.mean.iter_mut().zip(&mut self.squares);
        for (error, (mean, squares)) in self.groups.squared_errors(target, output).zip(sums) {
            let distance = error - *mean;
            *mean += distance / count;
            *squares += distance * (error - *mean);
        }
        for (mean, &value) in self.value_mean.iter_mut().zip(target) {
            *mean += (f64::from(value) - *mean) / count;
        }
    }

    /// The distribution over the records so far; `None` without records, or if an error was not
    /// finite. The variance is divided by the number of records, as NumPy does by default.
    pub fn stats(&self) -> Option<FeatureStats> {
        let count = self.count as f64;
        let std: Vec<f64> = self
            .squares
            .iter()
            .map(|squares| (squares / count).sqrt())
            .collect();
        let finite = self.count > 0 && self.mean.iter().chain(&std).all(|value| value.is_finite());
        finite.then(|| FeatureStats {
            mean: self.mean.clone(),
            std,
            value_mean: Some(self.value_mean.clone()),
            ranking: None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn incremental_statistics_equal_those_of_all_errors() {
        let mut errors = FeatureErrors::new(FeatureGroups::single(2));
        assert_eq!(errors.stats(), None);
        // Squared errors 1, 4, 16 and 1e6 twice, then 0 (numpy.mean, numpy.std).
        for (x, y) in [(1.0, 1000.0), (2.0, 1000.0), (4.0, 0.0)] {
            errors.push(&[x, y], &[0.0, 0.0]);
        }
        let stats = errors.stats().unwrap();
        let near = |value: f64, expected: f64| {
            assert!((value - expected).abs() < 1e-9 * expected, "{value}")
        };
        near(stats.mean[0], 7.0);
        near(stats.std[0], 6.480_740_698_407_86);
        near(stats.mean[1], 666_666.666_666_666_6);
        near(stats.std[1], 471_404.520_791_031_7);
        let value_mean = stats.value_mean.unwrap();
        near(value_mean[0], 7.0 / 3.0);
        near(value_mean[1], 2000.0 / 3.0);
        errors.push(&[f32::NAN, 0.0], &[0.0, 0.0]);
        assert_eq!(errors.stats(), None);
    }

    #[test]
    fn divisor_for_deviation_0_is_smallest_deviation_above_0() {
        let divisors = |std: &[f64]| {
            FeatureStats {
                mean: vec![0.0; std.len()],
                std: std.to_vec(),
                value_mean: None,
                ranking: None,
            }
            .divisors()
        };
        assert_eq!(divisors(&[0.5, 0.0, 0.25]), [0.5, 0.25, 0.25]);
        assert_eq!(divisors(&[0.0, 0.0]), [1.0, 1.0]);
    }
}
