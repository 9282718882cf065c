//! The faults of a rule that do not depend on data.

use crate::error::config_error::ConfigError;
use crate::model::input::rules::{CategoryEncoding, FeatureRule, ImputeMethod, RawType};
use crate::model::input::scaling::ScalingKind;

/// The largest number of categories of a column.
pub(crate) const MAX_CATEGORIES: usize = 65_536;
/// The largest number of quantiles of a column.
const MAX_QUANTILES: usize = 1000;

impl FeatureRule {
    /// One error per option that is invalid, or has no effect together with another option. The
    /// keys are relative to the rule.
    pub(crate) fn faults(&self) -> Vec<ConfigError> {
        let mut faults = self.options_without_effect();
        let mut fault = |key: &str, message: String| faults.push(ConfigError::new(key, message));
        if self.columns.is_empty() {
            fault(
                "columns",
                "is empty; name columns, or use the pattern `*`".to_owned(),
            );
        }
        let clip = [
            self.clip_min.unwrap_or(f64::NEG_INFINITY),
            self.clip_max.unwrap_or(f64::INFINITY),
        ];
        if clip[0] > clip[1] {
            let message = format!("the bounds must ascend; found {} and {}", clip[0], clip[1]);
            fault("clip_min", message);
        }
        let fill = self.fill_value.as_ref().and_then(|fill| fill.number());
        if self.log1p && (clip[1] <= -1.0 || fill.is_some_and(|fill| fill.max(clip[0]) <= -1.0)) {
            let message = "requires values above -1; correct `clip_max` or `fill_value`";
            fault("log1p", message.to_owned());
        }
        if let Some([low, high]) = self.clip_quantiles
            && !(0.0 <= low && low < high && high <= 1.0)
        {
            let message = format!(
                "expected two ascending shares from 0 to 1, such as [0.01, 0.99]; found [{low}, \
                 {high}]"
            );
            fault("clip_quantiles", message);
        }
        let bounds = [
            ("max_categories", self.max_categories, 2, MAX_CATEGORIES),
            ("buckets", self.buckets, 2, MAX_CATEGORIES),
            ("n_quantiles", self.n_quantiles, 2, MAX_QUANTILES),
        ];
        for (key, value, low, high) in bounds {
            if let Some(value) = value.filter(|value| !(low..=high).contains(value)) {
                fault(
                    key,
                    format!("expected a number from {low} to {high}; found {value}"),
                );
            }
        }
        if let Some(quantiles) = &self.quantiles
            && !(quantiles.len() >= 2 && quantiles.windows(2).all(|pair| pair[0] <= pair[1]))
        {
            fault(
                "quantiles",
                "expected at least two values that ascend".to_owned(),
            );
        }
        if let Some(categories) = &self.categories {
            let mut sorted: Vec<&String> = categories.iter().collect();
            sorted.sort_unstable();
            if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                fault("categories", format!("`{}` is listed twice", pair[0]));
            }
            if categories.len() >= MAX_CATEGORIES {
                fault(
                    "categories",
                    format!("lists {MAX_CATEGORIES} categories or more"),
                );
            }
        }
        let numbers = [
            ("mean", self.mean),
            ("std", self.std),
            ("min", self.min),
            ("max", self.max),
            ("median", self.median),
            ("iqr", self.iqr),
            ("clip_min", self.clip_min),
            ("clip_max", self.clip_max),
            ("fill_value", fill),
        ];
        for (key, _) in numbers
            .into_iter()
            .filter(|(_, value)| value.is_some_and(|value| !value.is_finite()))
        {
            fault(key, "is not a finite number".to_owned());
        }
        if let Some(written) = &self.fill_value
            && self.encoding.is_none()
            && fill.is_none()
        {
            let word = written.word();
            let message = match self.raw().kind {
                RawType::Time => format!("expected the seconds since 1970, found \"{word}\""),
                _ => format!("expected a number, found \"{word}\"; a word requires `encoding`"),
            };
            fault("fill_value", message);
        }
        faults
    }

    fn options_without_effect(&self) -> Vec<ConfigError> {
        let scaling = self.scaling;
        let is_listed = matches!(
            self.encoding,
            Some(CategoryEncoding::OneHot | CategoryEncoding::Ordinal)
        );
        let kind = self.raw().kind;
        let is_number = kind == RawType::Number;
        let is_scaled = is_number || self.encoding == Some(CategoryEncoding::Ordinal);
        let averages = matches!(self.impute, Some(ImputeMethod::Mean | ImputeMethod::Median));
        let clips = self.clip_min.is_some() || self.clip_max.is_some();
        let unused = [
            (
                "cyclic",
                !self.cyclic.is_empty() && self.encoding.is_some(),
                "is for times, but `encoding` is for categories; remove one of them",
            ),
            (
                "impute",
                averages && kind == RawType::Word,
                "categories have no mean and no median; use most_frequent or constant",
            ),
            (
                "impute",
                self.impute == Some(ImputeMethod::Constant) && self.fill_value.is_none(),
                "requires `fill_value`",
            ),
            (
                "indicator",
                self.indicator && !self.imputes(),
                "requires `impute`, because a null without it is a reject",
            ),
            (
                "clip_min",
                clips && !is_number,
                "applies to numbers; remove it",
            ),
            (
                "clip_quantiles",
                self.clip_quantiles.is_some() && !is_number,
                "applies to numbers; remove it",
            ),
            (
                "log1p",
                self.log1p && !is_number,
                "applies to numbers; remove it",
            ),
            (
                "scaling",
                scaling.is_some_and(|method| method != ScalingKind::None) && !is_scaled,
                "applies to numbers and to ordinal categories; remove it",
            ),
            (
                "scaling",
                self.encoding == Some(CategoryEncoding::Ordinal)
                    && matches!(scaling, Some(ScalingKind::Robust | ScalingKind::Quantile)),
                "ordinal categories take none, standard or min_max",
            ),
            (
                "n_quantiles",
                self.n_quantiles.is_some() && scaling != Some(ScalingKind::Quantile),
                "has no effect without scaling = \"quantile\"",
            ),
            (
                "max_categories",
                self.max_categories.is_some() && !is_listed,
                "has no effect without encoding = \"one_hot\" or \"ordinal\"",
            ),
            (
                "categories",
                self.categories.is_some() && !is_listed,
                "has no effect without encoding = \"one_hot\" or \"ordinal\"",
            ),
            (
                "buckets",
                self.buckets.is_some() && self.encoding != Some(CategoryEncoding::Hashed),
                "has no effect without encoding = \"hashed\"",
            ),
        ];
        unused
            .into_iter()
            .filter(|(_, is_unused, _)| *is_unused)
            .map(|(key, _, message)| ConfigError::new(key, message))
            .collect()
    }

    /// One error per value that a training computes, if a training file states it.
    #[cfg(feature = "train")]
    pub(crate) fn computed_options(&self) -> Vec<ConfigError> {
        let is_filled = self.fill_value.is_some()
            && self
                .impute
                .is_some_and(|method| method != ImputeMethod::Constant);
        let is_clipped =
            self.clip_quantiles.is_some() && (self.clip_min.is_some() || self.clip_max.is_some());
        let set = [
            ("fill_value", is_filled),
            ("clip_min", is_clipped),
            ("mean", self.mean.is_some()),
            ("std", self.std.is_some()),
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
            ("median", self.median.is_some()),
            ("iqr", self.iqr.is_some()),
            ("quantiles", self.quantiles.is_some()),
            ("counts", self.counts.is_some()),
            ("missing", self.missing.is_some()),
        ];
        let set = set.into_iter().filter(|(_, is_set)| *is_set);
        let message = "is computed from the training part; remove the option";
        set.map(|(key, _)| ConfigError::new(key, message)).collect()
    }
}
