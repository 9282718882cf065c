//! The inputs of a model that belong to each feature of a record: those of one column.

use std::ops::Range;

/// The inputs of each feature, which are adjacent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FeatureGroups {
    /// The first input of each feature, and the number of all inputs.
    starts: Vec<usize>,
}

impl Default for FeatureGroups {
    fn default() -> Self {
        Self::single(0)
    }
}

impl FeatureGroups {
    /// Creates features with these numbers of inputs.
    pub(crate) fn new(widths: impl Iterator<Item = usize>) -> Self {
        let ends = widths.scan(0_usize, |end, width| {
            *end = end.saturating_add(width);
            Some(*end)
        });
        Self {
            starts: std::iter::once(0).chain(ends).collect(),
        }
    }

    /// Creates features that are one input each.
    pub(crate) fn single(inputs: usize) -> Self {
        Self::new(std::iter::repeat_n(1, inputs))
    }

    /// The number of features.
    pub(crate) fn features(&self) -> usize {
        self.starts.len() - 1
    }

    /// The number of inputs.
    pub(crate) fn inputs(&self) -> usize {
        self.starts.last().copied().unwrap_or_default()
    }

    /// The inputs of a feature.
    pub(crate) fn range(&self, feature: usize) -> Range<usize> {
        self.starts[feature]..self.starts[feature + 1]
    }

    /// The feature of an input.
    pub(crate) fn feature_of(&self, input: usize) -> usize {
        self.starts
            .partition_point(|&start| start <= input)
            .saturating_sub(1)
    }

    /// The squared error of each feature, which is the sum of those of its inputs, in float64.
    pub(crate) fn squared_errors<'a>(
        &'a self,
        target: &'a [f32],
        output: &'a [f32],
    ) -> impl Iterator<Item = f64> + Clone + 'a {
        self.starts.windows(2).map(move |pair| {
            let inputs = pair[0]..pair[1];
            let both = target[inputs.clone()].iter().zip(&output[inputs]);
            both.map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2))
                .sum()
        })
    }
}
