//! The conversion of a rule with explicit values into the encoder of a value.

use crate::error::config_error::ConfigError;
use crate::model::input::rules::value_encoder::{
    Categories, EncodingSteps, NumberScale, ValueEncoder,
};
use crate::model::input::rules::words::word_number;
use crate::model::input::rules::{CategoryEncoding, DEFAULT_BUCKETS, FeatureRule, RawType};
use crate::model::input::scaling::{Scaling, ScalingKind};

impl FeatureRule {
    /// One error per option that requires a value which is not stated.
    pub(super) fn inexplicit_options(&self) -> Vec<ConfigError> {
        let is_listed = self.encoding != Some(CategoryEncoding::Hashed) && self.encoding.is_some();
        let clips = self.clip_quantiles.is_some();
        let scaling = self.scaling.unwrap_or(ScalingKind::None);
        let is = |kind| scaling == kind;
        let required = [
            (
                "fill_value",
                "impute",
                self.impute.is_some() && self.fill_value.is_none(),
            ),
            (
                "clip_min",
                "clip_quantiles",
                clips && self.clip_min.is_none(),
            ),
            (
                "clip_max",
                "clip_quantiles",
                clips && self.clip_max.is_none(),
            ),
            (
                "mean",
                "scaling",
                is(ScalingKind::Standard) && self.mean.is_none(),
            ),
            (
                "std",
                "scaling",
                is(ScalingKind::Standard) && self.std.is_none(),
            ),
            (
                "min",
                "scaling",
                is(ScalingKind::MinMax) && self.min.is_none(),
            ),
            (
                "max",
                "scaling",
                is(ScalingKind::MinMax) && self.max.is_none(),
            ),
            (
                "median",
                "scaling",
                is(ScalingKind::Robust) && self.median.is_none(),
            ),
            (
                "iqr",
                "scaling",
                is(ScalingKind::Robust) && self.iqr.is_none(),
            ),
            (
                "quantiles",
                "scaling",
                is(ScalingKind::Quantile) && self.quantiles.is_none(),
            ),
            (
                "categories",
                "encoding",
                is_listed && self.categories.is_none(),
            ),
        ];
        let missing = required.into_iter().filter(|(.., is_missing)| *is_missing);
        let fault = |(key, option, _): (&str, &str, bool)| {
            let message = format!(
                "requires `{key}`, which is computed only by a training; write the value, or use \
                 the model of a training that has this rule"
            );
            ConfigError::new(option, message)
        };
        missing.map(fault).collect()
    }

    /// The scaling with its values.
    fn number_scale(&self) -> NumberScale {
        let one = |value: Option<f64>| vec![value.unwrap_or_default()];
        let scaling = match self.scaling.unwrap_or(ScalingKind::None) {
            ScalingKind::None => Scaling::None,
            ScalingKind::Standard => Scaling::Standard {
                mean: one(self.mean),
                std: one(self.std),
            },
            ScalingKind::MinMax => Scaling::MinMax {
                min: one(self.min),
                max: one(self.max),
            },
            ScalingKind::Robust => Scaling::Standard {
                mean: one(self.median),
                std: one(self.iqr),
            },
            ScalingKind::Quantile => {
                return NumberScale::Quantile(self.quantiles.clone().unwrap_or_default());
            }
        };
        NumberScale::Affine(scaling.feature(0))
    }
}

/// Returns the encoder for a rule whose values are stated.
pub(super) fn value_encoder(rule: &FeatureRule) -> ValueEncoder {
    let words = || Categories::new(rule.categories.as_deref().unwrap_or_default());
    let steps = match rule.encoding {
        Some(CategoryEncoding::OneHot) => EncodingSteps::OneHot(words()),
        Some(CategoryEncoding::Ordinal) => EncodingSteps::Ordinal(words(), rule.number_scale()),
        Some(CategoryEncoding::Hashed) => EncodingSteps::Hashed {
            buckets: rule.buckets.unwrap_or(DEFAULT_BUCKETS),
        },
        None if !rule.cyclic.is_empty() => EncodingSteps::Cyclic(rule.cyclic.clone()),
        None => EncodingSteps::Number {
            clip: [
                rule.clip_min.unwrap_or(f64::NEG_INFINITY),
                rule.clip_max.unwrap_or(f64::INFINITY),
            ],
            log1p: rule.log1p,
            scale: rule.number_scale(),
        },
    };
    let fill = rule.fill_value.as_ref();
    let fill = fill.and_then(|fill| match rule.raw().kind {
        RawType::Word => Some(word_number(&fill.word())),
        RawType::Number | RawType::Time => fill.number(),
    });
    ValueEncoder {
        fill,
        indicator: rule.indicator,
        steps,
    }
}
