//! The strength of a corruption: one number for all records, or a range from which each record
//! draws.

use std::fmt;

use rand::Rng;
use schemars::JsonSchema;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::config_error::ConfigError;

/// A number, or a range `[low, high]` from which the number of each record is drawn uniformly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Strength {
    /// One number for all records.
    Fixed(f64),
    /// The lowest and the highest number.
    Range([f64; 2]),
}

impl Strength {
    /// Draws the number of a record. A fixed number takes nothing from `rng`, so that the noise is
    /// the same as without a range.
    pub(super) fn draw(self, rng: &mut impl Rng) -> f32 {
        match self {
            Self::Fixed(value) => value as f32,
            Self::Range([low, high]) => (low + (high - low) * rng.random::<f64>()) as f32,
        }
    }

    /// As [`draw`](Self::draw), uniformly on a logarithmic scale. All numbers are above 0.
    pub(super) fn draw_scale(self, rng: &mut impl Rng) -> f32 {
        match self {
            Self::Fixed(value) => value as f32,
            Self::Range([low, high]) => (low * (high / low).powf(rng.random::<f64>())) as f32,
        }
    }

    /// Checks that all numbers are within `low..=high` and that a range ascends; a fault refers to
    /// `key`.
    pub(super) fn within(self, key: &str, low: f64, high: f64) -> Result<Self, ConfigError> {
        let (least, greatest) = match self {
            Self::Fixed(value) => (value, value),
            Self::Range([least, greatest]) => (least, greatest),
        };
        let is_within = |value: f64| value.is_finite() && (low..=high).contains(&value);
        if !(is_within(least) && is_within(greatest)) {
            let bounds = if high.is_finite() {
                format!("lie between {low} and {high}")
            } else {
                format!("be {low} or more")
            };
            return Err(ConfigError::new(key, format!("must {bounds}; met {self}")));
        }
        if least > greatest {
            return Err(ConfigError::new(
                key,
                format!("must ascend, such as [{greatest}, {least}]; met {self}"),
            ));
        }
        Ok(self)
    }
}

impl fmt::Display for Strength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(value) => write!(f, "{value}"),
            Self::Range([low, high]) => write!(f, "[{low}, {high}]"),
        }
    }
}

impl<'de> Deserialize<'de> for Strength {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrengthVisitor)
    }
}

/// A hand-written visitor, because an untagged enum reports an error as "did not match any
/// variant".
struct StrengthVisitor;

impl<'de> Visitor<'de> for StrengthVisitor {
    type Value = Strength;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or a range of two numbers such as [0, 55]")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Strength, E> {
        Ok(Strength::Fixed(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Strength, E> {
        Ok(Strength::Fixed(value as f64))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Strength, E> {
        Ok(Strength::Fixed(value as f64))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Strength, A::Error> {
        let mut next = |index: usize| {
            seq.next_element::<f64>()?
                .ok_or_else(|| A::Error::invalid_length(index, &self))
        };
        let range = [next(0)?, next(1)?];
        match seq.next_element::<f64>()? {
            Some(_) => Err(A::Error::invalid_length(3, &self)),
            None => Ok(Strength::Range(range)),
        }
    }
}
