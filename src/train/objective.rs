//! What training makes small: the loss on the reconstruction, and the penalty on the code.

use burn_tensor::{Tensor, activation};

use super::spec::{Penalty, Sparsity};
use crate::model::Loss;

/// The mean loss over a batch. For [`Loss::Bce`] `output` holds logits: what the last sigmoid would be given.
pub fn loss(loss: Loss, output: Tensor<2>, target: Tensor<2>) -> Tensor<1> {
    match loss {
        Loss::Mse => {
            let off = output - target;
            (off.clone() * off).mean()
        }
        // -(t ln s(z) + (1 - t) ln(1 - s(z))) = (1 - t) z - ln s(z), finite for every z.
        Loss::Bce => {
            let wrong = (target.neg().add_scalar(1.0)) * output.clone();
            (wrong - activation::log_sigmoid(output)).mean()
        }
    }
}

/// Keeps logarithms finite where a unit is never, or always, active.
pub const EPSILON: f32 = 1e-6;

/// The penalty on a batch of codes `[records, code]`, with its weight.
///
/// L1: the mean of `|a|`. KL: the mean over units of `KL(target || m)`, where `m` is a unit's mean activation over the
/// batch (Ng, "Sparse autoencoder", 2011); activations lie in 0..1.
pub fn penalty(sparsity: &Sparsity, code: Tensor<2>) -> Tensor<1> {
    let penalty = match sparsity.penalty {
        Penalty::L1 => code.abs().mean(),
        Penalty::Kl => {
            let target = sparsity.target;
            let mean = code.mean_dim(0).clamp(EPSILON, 1.0 - EPSILON);
            let active = mean.clone().log().mul_scalar(-target).add_scalar(target * target.ln());
            let idle = mean.neg().add_scalar(1.0).log().mul_scalar(target - 1.0);
            (active + idle.add_scalar((1.0 - target) * (1.0 - target).ln())).mean()
        }
    };
    penalty.mul_scalar(sparsity.weight)
}
