//! Attributes the reconstruction error of a record to its features: which of them, if they had a
//! usual value, would remove most of the error. A feature is a column of the record, with all inputs
//! of the model that the column becomes.
//!
//! The largest error is often not in the feature that is wrong: a network without room for an
//! unusual value reconstructs the features that depend on it instead. So one feature at a time is
//! set to its mean, and the model is run again (occlusion; Zeiler and Fergus, 2014). Between the two
//! runs, the residual of all features is taken as linear in the value of the one, whose best value
//! then follows from least squares; for a linear model this is the reconstruction-based contribution
//! of Alcala and Qin (2009, equation 6). The value is limited to the range between the one of the
//! record and its mirror image at the mean. The feature that removes most of the squared error is
//! the first; the next one removes most of the remainder, with the first at its best value (matching
//! pursuit; Mallat and Zhang, 1993). This needs one run per feature for any number of faults.

use crate::error::StageError;
use crate::model::feature_groups::FeatureGroups;
use crate::model::files::ModelPath;
use crate::model::session::chain::SessionChain;
use crate::model::tensor_spec::element_count;
use crate::model::{Model, Scaling};

/// The method in one sentence, for the card and the report.
pub(crate) const ATTRIBUTION: &str = "The features of a record with a z-score above 3 are in the order of \
    the squared error that disappears when a feature is moved towards its mean, measured by one \
    more run of the model per feature (occlusion); those of other records are in the order of \
    their own errors.";

/// The largest step of a feature, relative to its distance from the mean: to its mirror image.
const MAX_STEP: f64 = 2.0;

/// A feature and the share of the squared error of the record that it explains, in addition to the
/// features before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ExplainedFeature {
    /// The index of the feature.
    pub feature: usize,
    /// The share, from 0 to 1.
    pub share: f64,
}

/// Ranks the features of records. It belongs to one thread.
pub(crate) struct FeatureAttributor {
    chain: SessionChain,
    shape: Vec<usize>,
    groups: FeatureGroups,
    /// The mean of each input; `None` for cards of earlier versions without means. The
    /// reconstruction of a feature then takes its place.
    means: Option<Vec<f32>>,
    /// Records with one changed feature each.
    variants: Vec<f32>,
    /// For each feature, the change of all residuals if it is set to its mean.
    changes: Vec<f32>,
}

impl FeatureAttributor {
    /// Opens the sessions for records of the shape `shape`.
    ///
    /// # Errors
    /// When the model has no decoder, or a file cannot be opened.
    pub fn new(model: &Model, shape: &[usize]) -> Result<Self, StageError> {
        let inputs = element_count(shape).unwrap_or_default();
        Ok(Self {
            chain: model.chain(ModelPath::Reconstruct)?,
            shape: shape.to_vec(),
            groups: model.feature_groups(inputs),
            means: input_means(model, inputs),
            variants: Vec::new(),
            changes: Vec::new(),
        })
    }

    /// The maximum memory for records of `inputs` values, in bytes, without that of the sessions.
    pub(crate) fn scratch_bytes(model: &Model, inputs: usize) -> u64 {
        let features = model.feature_groups(inputs).features();
        let values = (features as u64).saturating_mul(inputs as u64);
        // Changes of all residuals, and at most as many values of variants.
        let own = values.saturating_mul(2 * size_of::<f32>() as u64);
        own.saturating_add(model.scratch_bytes(ModelPath::Reconstruct, inputs))
    }

    /// Returns `count` features in descending order of the error that they explain. Features that
    /// explain equally much, such as none, are in descending order of `scores`. `output` is the
    /// reconstruction of `record` by the model. The result depends on the record alone: it does not
    /// share a call of the model with other records.
    pub fn rank(
        &mut self,
        record: &[f32],
        output: &[f32],
        scores: &[f64],
        count: usize,
    ) -> Vec<ExplainedFeature> {
        self.run_variants(record, output);
        let residual = record.iter().zip(output);
        let mut residual: Vec<f64> = residual
            .map(|(&x, &y)| f64::from(x) - f64::from(y))
            .collect();
        let total: f64 = residual.iter().map(|value| value * value).sum();
        let mut open: Vec<usize> = (0..self.groups.features()).collect();
        open.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut ranked = Vec::with_capacity(count);
        while ranked.len() < count && !open.is_empty() {
            let mut best = (0, BestStep::default());
            for (place, &feature) in open.iter().enumerate() {
                let step = BestStep::of(self.changes_of(feature, record.len()), &residual);
                if step.removed > best.1.removed {
                    best = (place, step);
                }
            }
            let (place, step) = best;
            let feature = open.remove(place);
            let changes = self.changes_of(feature, record.len());
            for (value, &change) in residual.iter_mut().zip(changes) {
                *value += step.step * f64::from(change);
            }
            let share = if total > 0.0 {
                step.removed / total
            } else {
                0.0
            };
            ranked.push(ExplainedFeature { feature, share });
        }
        ranked
    }

    fn changes_of(&self, feature: usize, inputs: usize) -> &[f32] {
        &self.changes[feature * inputs..(feature + 1) * inputs]
    }

    /// Runs the record with each of its features at the mean, and writes the changes of the
    /// residuals. A feature without such a run, since the model fails on it, has no effect.
    fn run_variants(&mut self, record: &[f32], output: &[f32]) {
        let (features, inputs) = (self.groups.features(), record.len());
        self.changes.clear();
        let slice = self.chain.slice_rows(inputs);
        let means = self.means.as_deref().unwrap_or(output);
        for first in (0..features).step_by(slice.max(1)) {
            let last = (first + slice).min(features);
            self.variants.clear();
            for feature in first..last {
                let own = self.groups.range(feature);
                self.variants.extend_from_slice(&record[..own.start]);
                self.variants.extend_from_slice(&means[own.clone()]);
                self.variants.extend_from_slice(&record[own.end..]);
            }
            let failures =
                self.chain
                    .run_rows(&self.variants, &self.shape, inputs, &mut self.changes);
            let rows = self.changes[first * inputs..].chunks_exact_mut(inputs);
            for (row, (feature, changes)) in (first..last).zip(rows).enumerate() {
                for (change, &value) in changes.iter_mut().zip(output) {
                    *change = value - *change;
                }
                for input in self.groups.range(feature) {
                    changes[input] += means[input] - record[input];
                }
                if failures.iter().any(|failure| failure.row == row)
                    || changes.iter().any(|change| !change.is_finite())
                {
                    changes.fill(0.0);
                }
            }
        }
    }
}

/// The step of a feature that removes most of the squared error.
#[derive(Default)]
struct BestStep {
    step: f64,
    removed: f64,
}

impl BestStep {
    /// Minimizes the sum of `(residual + step * change)^2` over the allowed steps.
    fn of(changes: &[f32], residual: &[f64]) -> Self {
        let (mut product, mut square) = (0.0, 0.0);
        for (&change, value) in changes.iter().zip(residual) {
            let change = f64::from(change);
            product += change * value;
            square += change * change;
        }
        if square == 0.0 {
            return Self::default();
        }
        let step = (-product / square).clamp(0.0, MAX_STEP);
        let removed = -(2.0 * step * product + step * step * square);
        Self { step, removed }
    }
}

/// The mean of each input of the model: that of the card, or 0 after standardization.
fn input_means(model: &Model, inputs: usize) -> Option<Vec<f32>> {
    let stats = model.card()?.reconstruction_error.as_ref()?;
    let listed = stats.features.as_ref()?.value_mean.as_ref();
    let listed = listed.map(|means| means.iter().map(|&mean| mean as f32).collect());
    listed.or_else(|| {
        let scaling = &model.feature_input()?.scaling;
        matches!(scaling, Scaling::Standard { .. }).then(|| vec![0.0; inputs])
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::model::testing::{file, open};

    /// Opens the sums of adjacent features and their halves, with a card of four features.
    fn pairs(scaling: &str, features: &str) -> (tempfile::TempDir, Model) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["encoder.onnx", "decoder.onnx"] {
            std::fs::copy(file(name), folder.path().join(name)).unwrap();
        }
        let card = format!(
            "name = 'pairs'\nkind = 'linear'\n[input]\ncolumns = ['a', 'b', 'c', 'd']\n{scaling}\n\
             [reconstruction_error]\ncount = 9\nmean = 1\nstd = 0.5\nmin = 0\nmax = 2\n\
             quantiles = {{ p01 = 0, p05 = 0, p25 = 0, p50 = 1, p75 = 1, p95 = 2, p99 = 2 }}\n\
             features = {{ mean = [1, 1, 1, 1], std = [1, 1, 1, 1]{features} }}\n"
        );
        std::fs::write(folder.path().join("model.toml"), card).unwrap();
        let model = open(&format!("path = {:?}", folder.path()));
        (folder, model.unwrap_or_else(|faults| panic!("{faults:?}")))
    }

    const STANDARD: &str = "scaling = 'standard'\nmean = [0, 0, 0, 0]\nstd = [1, 1, 1, 1]";

    fn rank(model: &Model, record: &[f32], count: usize) -> Vec<(usize, f64)> {
        let mut output = Vec::new();
        let mut chain = model.chain(ModelPath::Reconstruct).unwrap();
        chain.run(record, &[4], &mut output).unwrap();
        let mut attributor = FeatureAttributor::new(model, &[4]).unwrap();
        let ranked = attributor.rank(record, &output, &[0.0, 1.0, 2.0, 3.0], count);
        ranked.iter().map(|one| (one.feature, one.share)).collect()
    }

    #[test]
    fn wrong_feature_is_first_where_errors_are_equal() {
        let (_folder, model) = pairs(STANDARD, "");
        // The errors of `a` and `b` are both 2, but only one of them is wrong.
        assert_eq!(rank(&model, &[4.0, 0.0, 0.0, 0.0], 1), [(0, 1.0)]);
        assert_eq!(rank(&model, &[0.0, 4.0, 0.0, 0.0], 1), [(1, 1.0)]);
        // `a` is 4 above `b`, which has a usual value; the mean is not the right value of `a`.
        assert_eq!(rank(&model, &[3.0, -1.0, 0.0, 0.0], 1), [(0, 1.0)]);
    }

    #[test]
    fn second_feature_explains_the_remaining_error() {
        let (_folder, model) = pairs(STANDARD, "");
        let ranked = rank(&model, &[6.0, 0.0, 0.0, 2.0], 4);
        // The squared errors are 18 and 2. Features that explain nothing have the order of scores.
        assert_eq!(ranked, [(0, 0.9), (3, 0.1), (2, 0.0), (1, 0.0)]);
    }

    #[test]
    fn means_of_the_card_are_the_usual_values() {
        let min_max = "scaling = 'min_max'\nmin = [0, 0, 0, 0]\nmax = [1, 1, 1, 1]";
        let high = [0.5, 0.9, 0.5, 0.5];
        let (_folder, model) = pairs(min_max, ", value_mean = [0.5, 0.5, 0.5, 0.5]");
        assert_eq!(rank(&model, &high, 1)[0].0, 1);
        assert_eq!(rank(&model, &[0.1, 0.5, 0.5, 0.5], 1)[0].0, 0);
        // Without means, features are moved towards their reconstructions, which are equal here.
        let (_former_folder, former) = pairs(min_max, "");
        assert_eq!(rank(&former, &high, 2).len(), 2);
    }

    #[test]
    fn rank_does_not_depend_on_earlier_records() {
        let (_folder, model) = pairs(STANDARD, "");
        let mut attributor = FeatureAttributor::new(&model, &[4]).unwrap();
        let scores = [0.0; 4];
        let first = attributor.rank(&[1.0, 0.3, 0.0, 0.2], &[0.65, 0.65, 0.1, 0.1], &scores, 4);
        attributor.rank(&[9.0, 0.0, 7.0, 0.0], &[4.5, 4.5, 3.5, 3.5], &scores, 4);
        let again = attributor.rank(&[1.0, 0.3, 0.0, 0.2], &[0.65, 0.65, 0.1, 0.1], &scores, 4);
        assert_eq!(first, again);
    }
}
