//! The initial weights of a training.

use rand::Rng;

use super::sequential::Sequential;
use crate::train::parameter::{InitialValues, Parameter};

/// Returns the initial weights of a chain: uniform within `+-0.7 sqrt(6 / fan_in)`, biases 0. The
/// bound is 0.7 of He's (He, Zhang, Ren and Sun, 2015), which is derived for ReLU only, while codes
/// and outputs are linear. The last layer of a residual branch starts at 0, and a normalization as
/// the identity.
pub(crate) fn initial(chain: &Sequential, rng: &mut impl Rng) -> Vec<Vec<f32>> {
    let mut draw = |parameter: &Parameter| match parameter.initial {
        InitialValues::Zeros => vec![0.0; parameter.len()],
        InitialValues::Ones => vec![1.0; parameter.len()],
        InitialValues::Random { fan_in } => {
            let bound = 0.7 * (6.0 / fan_in as f32).sqrt();
            (0..parameter.len())
                .map(|_| rng.random_range(-bound..bound))
                .collect()
        }
    };
    chain.parameters().iter().map(&mut draw).collect()
}
