//! The conversion of one raw value into inputs of a model.

use std::collections::BTreeMap;

use crate::model::input::rules::cyclic::{CalendarTime, CyclicPeriod};
use crate::model::input::rules::quantile_scale::{rank, value_at};
use crate::model::input::rules::words::{bucket, word_number};
use crate::model::input::scaling::FeatureScale;

/// The conversion of one value of a record. A missing value is NaN.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ValueEncoder {
    /// The value that takes the place of a missing one.
    pub(super) fill: Option<f64>,
    /// Whether the last input is 1 for a missing value, and otherwise 0.
    pub(super) indicator: bool,
    pub(super) steps: EncodingSteps,
}

/// The steps after the imputation.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum EncodingSteps {
    Number {
        clip: [f64; 2],
        log1p: bool,
        scale: NumberScale,
    },
    OneHot(Categories),
    Ordinal(Categories, NumberScale),
    Hashed {
        buckets: usize,
    },
    Cyclic(Vec<CyclicPeriod>),
}

/// The scaling of a number.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum NumberScale {
    Affine(FeatureScale),
    /// To the rank among these quantiles.
    Quantile(Vec<f64>),
}

impl NumberScale {
    fn scale(&self, value: f64) -> f64 {
        match self {
            Self::Affine(scale) => scale.scale(value),
            Self::Quantile(quantiles) => rank(quantiles, value),
        }
    }

    fn invert(&self, scaled: f64) -> f64 {
        match self {
            Self::Affine(scale) => scale.invert(scaled),
            Self::Quantile(quantiles) => value_at(quantiles, scaled),
        }
    }
}

/// The known categories of a column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Categories {
    words: Vec<String>,
    /// The index of each category by the bits of its word number.
    indices: BTreeMap<u64, usize>,
}

impl Categories {
    pub(super) fn new(words: &[String]) -> Self {
        let numbers = words.iter().map(|word| word_number(word).to_bits());
        Self {
            words: words.to_vec(),
            indices: numbers.zip(0..).collect(),
        }
    }

    /// The index of a word; the number of categories for an unknown word.
    fn index(&self, number: f64) -> usize {
        let known = self.indices.get(&number.to_bits());
        known.copied().unwrap_or(self.words.len())
    }

    fn name(&self, index: usize) -> &str {
        self.words.get(index).map_or("other", String::as_str)
    }
}

impl ValueEncoder {
    /// The number of inputs.
    pub(super) fn width(&self) -> usize {
        let own = match &self.steps {
            EncodingSteps::Number { .. } | EncodingSteps::Ordinal(..) => 1,
            EncodingSteps::OneHot(categories) => categories.words.len() + 1,
            EncodingSteps::Hashed { buckets } => *buckets,
            EncodingSteps::Cyclic(periods) => 2 * periods.len(),
        };
        own + usize::from(self.indicator)
    }

    /// Appends the inputs for a raw value. They are NaN for a missing value that is not imputed, and
    /// for a number that the steps are not defined for.
    pub(super) fn encode(&self, raw: f64, inputs: &mut Vec<f32>) {
        let is_missing = raw.is_nan();
        let value = match self.fill {
            Some(fill) if is_missing => fill,
            _ => raw,
        };
        let mut active = |index: usize, count: usize| {
            let of = |at| {
                if value.is_nan() {
                    f32::NAN
                } else {
                    f32::from(u8::from(at == index))
                }
            };
            inputs.extend((0..count).map(of));
        };
        match &self.steps {
            EncodingSteps::Number { scale, .. } | EncodingSteps::Ordinal(_, scale) => {
                inputs.push(scale.scale(self.unscaled(value)) as f32);
            }
            EncodingSteps::OneHot(categories) => {
                active(categories.index(value), categories.words.len() + 1);
            }
            EncodingSteps::Hashed { buckets } => active(bucket(value, *buckets), *buckets),
            EncodingSteps::Cyclic(periods) => {
                let time = CalendarTime::new(value);
                for &period in periods {
                    let both = time.as_ref().map(|time| time.sine_cosine(period));
                    inputs.extend(both.unwrap_or([f64::NAN; 2]).map(|wave| wave as f32));
                }
            }
        }
        if self.indicator {
            inputs.push(f32::from(u8::from(is_missing)));
        }
    }

    /// The number that is scaled: a number after `clip` and `log1p`, or the index of a category.
    pub(super) fn unscaled(&self, value: f64) -> f64 {
        match &self.steps {
            EncodingSteps::Number { clip, log1p, .. } => {
                let clipped = value.clamp(clip[0], clip[1]);
                if *log1p { clipped.ln_1p() } else { clipped }
            }
            EncodingSteps::Ordinal(categories, _) if !value.is_nan() => {
                categories.index(value) as f64
            }
            _ => value,
        }
    }

    /// Describes a raw value from its inputs.
    pub(super) fn describe(&self, inputs: &[f32]) -> RawDescription {
        let (own, indicator) = inputs.split_at(inputs.len() - usize::from(self.indicator));
        let largest = || {
            let found = own.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            found.map_or(0, |(index, _)| index)
        };
        if indicator.first().is_some_and(|&missing| missing >= 0.5) {
            return RawDescription::Text("missing".to_owned());
        }
        let first = own.first().copied().map_or(0.0, f64::from);
        match &self.steps {
            EncodingSteps::Number { log1p, scale, .. } => {
                let value = scale.invert(first);
                RawDescription::Number(if *log1p { value.exp_m1() } else { value })
            }
            EncodingSteps::Ordinal(categories, scale) => {
                let index = scale.invert(first).round().max(0.0) as usize;
                RawDescription::Text(categories.name(index).to_owned())
            }
            EncodingSteps::OneHot(categories) => {
                RawDescription::Text(categories.name(largest()).to_owned())
            }
            EncodingSteps::Hashed { .. } => RawDescription::Text(format!("bucket {}", largest())),
            EncodingSteps::Cyclic(periods) => {
                let pairs = own.as_chunks().0.iter();
                let each = periods.iter().zip(pairs).map(|(period, &[sine, cosine])| {
                    period.describe(f64::from(sine), f64::from(cosine))
                });
                RawDescription::Text(each.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A raw value for people.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RawDescription {
    /// A number in the unit of the column.
    Number(f64),
    /// A category or a time.
    Text(String),
}
