//! The contractive penalty: the squared Frobenius norm of the Jacobian of the encoder (Rifai and
//! others, "Contractive auto-encoders", 2011), estimated without bias by one random direction.
//!
//! For a direction `v` of independent signs, the mean of `|J v|^2` is the squared norm of `J`
//! (Hutchinson, 1990). `J v` is the derivative of the code along `v`, which passes forward through
//! the encoder next to its values: `t = v`, then `t W` after a dense layer and `f'(a) t` after an
//! activation. The gradient of the estimate is exact; it passes back through both.

use rand::{RngCore as _, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::train::backprop::shard::{BatchShard, Pass};
use crate::train::elementwise;
use crate::train::gemm::{Accumulate, Matrix, multiply};
use crate::train::layer_spec::Activation;
use crate::train::layers::LayerKind;

/// Separates the directions from the other random streams of a use of a record.
const DIRECTION: u64 = 0x6469_7265;

/// The derivatives of the values of an encoder along a direction, for each of its layers.
#[derive(Default)]
pub(crate) struct Tangents {
    /// The derivative of the input of each dense layer.
    pub inputs: Vec<Vec<f32>>,
    /// The derivative of the input of each activation. The backward pass replaces it with the
    /// gradient of the penalty with respect to that input.
    before: Vec<Vec<f32>>,
    /// The gradient of the penalty with respect to the derivative of the output of each dense layer.
    pub gradients: Vec<Vec<f32>>,
    /// The sum of `|J v|^2` over the records.
    pub sum: f64,
}

impl BatchShard {
    /// Computes the penalty of the records, and its gradients times `share`.
    pub(crate) fn contract(&mut self, pass: &Pass<'_>, share: f32) {
        let layers = pass.plan.code;
        let mut tangents = std::mem::take(&mut self.tangents);
        for lists in [
            &mut tangents.inputs,
            &mut tangents.before,
            &mut tangents.gradients,
        ] {
            lists.resize_with(layers, Vec::new);
        }
        let mut tangent = self.directions(pass);
        for index in 0..layers {
            self.tangent_forward(index, pass, &mut tangents, &mut tangent);
        }
        tangents.sum = elementwise::squares(&tangent);
        tangent.iter_mut().for_each(|value| *value *= 2.0 * share);
        for index in (pass.plan.first..layers).rev() {
            self.tangent_back(index, pass, &mut tangents, &mut tangent);
        }
        self.tangents = tangents;
    }

    /// Returns a direction of signs for each record, which depends only on the seed of the record.
    fn directions(&self, pass: &Pass<'_>) -> Vec<f32> {
        let width = self.input(0, pass.batch).len() / self.records().max(1);
        let seeds = &pass.batch.seeds[self.records.clone()];
        let of_record = |seed: &u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed ^ DIRECTION);
            (0..width).map(move |_| if rng.next_u32() >> 31 == 0 { 1.0 } else { -1.0 })
        };
        seeds.iter().flat_map(of_record).collect()
    }

    /// Returns the activation of a layer with the values before and after it. Activations in place
    /// do not need the values before.
    fn activation_of<'a>(
        &'a self,
        index: usize,
        pass: &'a Pass<'_>,
    ) -> (Activation, &'a [f32], &'a [f32]) {
        let (layer, output) = (&pass.plan.layers[index], &self.outputs[index]);
        match layer.kind {
            LayerKind::Activate(kind) => (kind, self.input(index, pass.batch), output),
            _ => (layer.activation, output, output),
        }
    }

    fn tangent_forward(
        &self,
        index: usize,
        pass: &Pass<'_>,
        tangents: &mut Tangents,
        tangent: &mut Vec<f32>,
    ) {
        match pass.plan.layers[index].kind {
            LayerKind::Affine { scale, .. } => tangent.iter_mut().for_each(|value| *value *= scale),
            LayerKind::Dense {
                weight,
                inputs,
                outputs,
            } => {
                let mut product = vec![0.0; self.records() * outputs];
                multiply(
                    Matrix::new(tangent, self.records(), inputs),
                    Matrix::new(&pass.weights[weight], inputs, outputs),
                    &mut product,
                    Accumulate::Replace,
                );
                tangents.inputs[index] = std::mem::replace(tangent, product);
            }
            _ => {}
        }
        let (activation, input, output) = self.activation_of(index, pass);
        if activation != Activation::Linear {
            tangents.before[index].clone_from(tangent);
            elementwise::activate_back(activation, input, output, tangent);
        }
    }

    fn tangent_back(
        &self,
        index: usize,
        pass: &Pass<'_>,
        tangents: &mut Tangents,
        gradient: &mut Vec<f32>,
    ) {
        let (activation, input, output) = self.activation_of(index, pass);
        if activation != Activation::Linear {
            let before = &mut tangents.before[index];
            before
                .iter_mut()
                .zip(gradient.iter())
                .for_each(|(value, by_tangent)| *value *= by_tangent);
            elementwise::scale_by_curvature(activation, input, output, before);
            elementwise::activate_back(activation, input, output, gradient);
        }
        match pass.plan.layers[index].kind {
            LayerKind::Affine { scale, .. } => {
                gradient.iter_mut().for_each(|value| *value *= scale)
            }
            LayerKind::Dense {
                weight,
                inputs,
                outputs,
            } => {
                tangents.gradients[index].clone_from(gradient);
                if index > pass.plan.first {
                    let mut next = vec![0.0; self.records() * inputs];
                    multiply(
                        Matrix::new(gradient, self.records(), outputs),
                        Matrix::new(&pass.weights[weight], inputs, outputs).transposed(),
                        &mut next,
                        Accumulate::Replace,
                    );
                    *gradient = next;
                }
            }
            _ => {}
        }
    }

    /// Returns the gradient of the penalty with respect to the input of the activation of a layer.
    pub(super) fn contraction_gradient(&self, index: usize) -> Option<&[f32]> {
        let before = self.tangents.before.get(index)?;
        (!before.is_empty()).then_some(before)
    }
}
