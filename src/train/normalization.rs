//! The kinds of normalization between layers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Normalizations of the values between layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// Each channel, or each value of a dense layer, has a mean of 0 and a deviation of 1 over the
    /// records of a batch (Ioffe and Szegedy, 2015). The model uses running averages of the mean
    /// and the variance, which each step moves by a tenth.
    Batch,
    /// All values of a record have a mean of 0 and a deviation of 1 (Ba, Kiros and Hinton, 2016;
    /// for images, Wu and He, 2018, with one group).
    Layer,
}

/// The summand of a variance that a normalization divides by.
pub(crate) const NORMALIZATION_EPSILON: f32 = 1e-5;
