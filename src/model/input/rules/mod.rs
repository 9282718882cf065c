//! Rules for the columns of feature records: missing values, outliers, scaling, categories and times.

pub(crate) mod checks;
pub(crate) mod cyclic;
pub(crate) mod encoder;
mod explicit;
pub(crate) mod index;
mod quantile_scale;
pub(crate) mod value_encoder;
pub(crate) mod words;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::input::rules::cyclic::CyclicPeriod;
use crate::model::input::scaling::ScalingKind;

/// The default of `max_categories`.
#[cfg(feature = "train")]
pub(crate) const DEFAULT_CATEGORIES: usize = 64;
/// The default of `buckets`.
pub(crate) const DEFAULT_BUCKETS: usize = 16;
/// The default of `n_quantiles`.
#[cfg(feature = "train")]
pub(crate) const DEFAULT_QUANTILES: usize = 100;

/// The conversion of some columns of feature records into inputs of a model. The order of the steps
/// is fixed: a missing value is imputed, and the value is clipped, transformed by `log1p` and
/// scaled.
///
/// In a training file, a rule states the methods, and the values are computed from the training
/// part. A model card has one rule per value of a record, with the computed values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FeatureRule {
    /// The columns: names, or patterns in which `*` matches any characters. A rule that names a
    /// column precedes patterns, and of several patterns the first one applies. A rule for a column
    /// of lists applies to each of its values.
    pub columns: Vec<String>,
    /// The value that takes the place of nulls and NaN: `mean`, `median`, `most_frequent` (the
    /// smallest of several), or `constant` (with `fill_value`). Default: records with a null are
    /// rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impute: Option<ImputeMethod>,
    /// The number or the category that takes the place of nulls and NaN. A time is the number of
    /// seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill_value: Option<FillValue>,
    /// Whether to add an input that is 1 for a missing value, and otherwise 0. Default: false.
    #[serde(skip_serializing_if = "is_false")]
    pub indicator: bool,
    /// Smaller values are set to this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_min: Option<f64>,
    /// Larger values are set to this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_max: Option<f64>,
    /// Values are clipped to these two quantiles of the training part, such as `[0.01, 0.99]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_quantiles: Option<[f64; 2]>,
    /// Whether to take the natural logarithm of 1 plus the value. Records with a value of -1 or
    /// less are rejected. Default: false.
    #[serde(skip_serializing_if = "is_false")]
    pub log1p: bool,
    /// The scaling of numbers and of `ordinal` categories. Default: `input.scaling` in a training
    /// file; otherwise none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingKind>,
    /// For `standard`: the value that becomes 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// For `standard`: the divisor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// For `min_max`: the value that becomes 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// For `min_max`: the value that becomes 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// For `robust`: the median, which becomes 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median: Option<f64>,
    /// For `robust`: the distance of the quartiles, by which values are divided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iqr: Option<f64>,
    /// For `quantile`: the number of quantiles, at most the number of records. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_quantiles: Option<usize>,
    /// For `quantile`: the evenly spaced quantiles, from the minimum to the maximum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantiles: Option<Vec<f64>>,
    /// The encoding of categories: strings, whole numbers or booleans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<CategoryEncoding>,
    /// For `one_hot` and `ordinal`: the maximum number of categories, including the place of all
    /// others. The most frequent categories are kept. Default: 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_categories: Option<usize>,
    /// For `hashed`: the number of inputs. Default: 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buckets: Option<usize>,
    /// For `one_hot` and `ordinal`: the categories in order. Default: those of the training part,
    /// sorted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub categories: Option<Vec<String>>,
    /// The number of records of the training part for each category.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<Vec<u64>>,
    /// For times: the periods, each of which becomes a sine and a cosine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cyclic: Vec<CyclicPeriod>,
    /// The number of missing values in the training part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<u64>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The value that takes the place of missing ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImputeMethod {
    /// The mean of the training part.
    Mean,
    /// The median of the training part.
    Median,
    /// The most frequent value of the training part; of several, the smallest.
    MostFrequent,
    /// The value of `fill_value`.
    Constant,
}

/// A number or a category.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number, a category or a boolean")]
pub enum FillValue {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// A category.
    Word(String),
}

impl FillValue {
    /// Returns the value as a number; `None` for a word.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Bool(value) => Some(f64::from(u8::from(*value))),
            Self::Integer(value) => Some(*value as f64),
            Self::Number(value) => Some(*value),
            Self::Word(_) => None,
        }
    }

    /// Returns the value as a category.
    pub(crate) fn word(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Word(value) => value.clone(),
        }
    }
}

/// The encodings of categories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CategoryEncoding {
    /// One input per category, and a last one for all other words: 1 for that of the record, and 0
    /// for the others.
    OneHot,
    /// The number of the category, from 0. All other words have the number after the last category.
    Ordinal,
    /// `buckets` inputs: 1 for the one at the hash of the word, and 0 for the others.
    Hashed,
}

/// The type of a raw value, before the rules are applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawType {
    /// A number or a boolean.
    #[default]
    Number,
    /// A category, which is represented by its [word number](words::word_number).
    Word,
    /// A time, which is represented by the seconds since 1970.
    Time,
}

/// The raw values that a rule accepts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct RawValue {
    /// The type of the values.
    pub(crate) kind: RawType,
    /// Whether a null or NaN is a missing value that the rule replaces.
    pub(crate) is_imputed: bool,
    /// Whether values must be above -1.
    pub(crate) is_above_minus_one: bool,
}

impl FeatureRule {
    /// The raw values that the rule accepts.
    pub(crate) fn raw(&self) -> RawValue {
        let kind = match (self.encoding, self.cyclic.is_empty()) {
            (Some(_), _) => RawType::Word,
            (None, false) => RawType::Time,
            (None, true) => RawType::Number,
        };
        let is_clipped =
            self.clip_quantiles.is_some() || self.clip_min.is_some_and(|min| min > -1.0);
        RawValue {
            kind,
            is_imputed: self.imputes(),
            is_above_minus_one: self.log1p && !is_clipped,
        }
    }

    /// Whether the rule replaces missing values.
    pub(crate) fn imputes(&self) -> bool {
        self.impute.is_some() || self.fill_value.is_some()
    }

    /// Whether the categories are counted in the training part.
    pub(crate) fn counts_categories(&self) -> bool {
        let is_listed = matches!(
            self.encoding,
            Some(CategoryEncoding::OneHot | CategoryEncoding::Ordinal)
        );
        let is_imputed = self.encoding.is_some()
            && self.impute == Some(ImputeMethod::MostFrequent)
            && self.fill_value.is_none();
        self.counts.is_none() && (is_listed || is_imputed)
    }
}

#[cfg(test)]
mod tests;
