//! A number of a corruption: the same for every record, or drawn from a range for each.

use std::fmt;

use rand::Rng;
use schemars::JsonSchema;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::ConfigError;

/// A number, or a range `[low, high]` from which each record draws its own, all values being
/// equally likely.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Strength {
    /// The same for every record.
    Fixed(f64),
    /// From low to high.
    Range([f64; 2]),
}

impl Strength {
    /// This record's number. A fixed one draws nothing, so that it leaves the random numbers to the
    /// noise.
    pub(super) fn draw(self, rng: &mut impl Rng) -> f32 {
        match self {
            Self::Fixed(value) => value as f32,
            Self::Range([low, high]) => (low + (high - low) * rng.random::<f64>()) as f32,
        }
    }

    /// The amount, if all its numbers lie in `low..=high` and a range ascends.
    pub(super) fn within(self, key: &str, low: f64, high: f64) -> Result<Self, ConfigError> {
        let (least, greatest) = match self {
            Self::Fixed(value) => (value, value),
            Self::Range([least, greatest]) => (least, greatest),
        };
        let lies = |value: f64| value.is_finite() && (low..=high).contains(&value);
        if !(lies(least) && lies(greatest)) {
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
                format!("must ascend, as in [{greatest}, {least}]; met {self}"),
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

/// Written by hand, since an untagged enum answers a mistake with "did not match any variant".
struct StrengthVisitor;

impl<'de> Visitor<'de> for StrengthVisitor {
    type Value = Strength;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or a range of two numbers as in [0, 55]")
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
        let mut next = |place: usize| {
            seq.next_element::<f64>()?
                .ok_or_else(|| A::Error::invalid_length(place, &self))
        };
        let range = [next(0)?, next(1)?];
        match seq.next_element::<f64>()? {
            Some(_) => Err(A::Error::invalid_length(3, &self)),
            None => Ok(Strength::Range(range)),
        }
    }
}
