//! Unit tests of the module `optimizer`.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::train::parameter::InitialValues;

fn matrix(rows: usize, columns: usize) -> Parameter {
    Parameter {
        name: String::new(),
        shape: vec![rows, columns],
        initial: InitialValues::Random { fan_in: rows },
        role: ParameterRole::Matrix,
    }
}

fn close(found: &[f32], expected: &[f32]) {
    let close = found
        .iter()
        .zip(expected)
        .all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(
        close && found.len() == expected.len(),
        "{found:?} is not {expected:?}"
    );
}

#[test]
fn adam_steps_follow_its_paper() {
    let mut optimizer = OptimizerState::new(Optimizer::Adam, 0.0, &[matrix(1, 3)]);
    let mut weights = vec![vec![1.0, 1.0, 1.0]];
    // The first step equals the rate, regardless of the size of the gradient.
    optimizer.step(1, 0.1, &mut weights, &[vec![2.0, -50.0, 0.0]]);
    close(&weights[0], &[0.9, 1.1, 1.0]);
}

#[test]
fn second_adam_step_uses_unbiased_moments() {
    // By hand: m = 0.09 + 0.2 = 0.29, v = 0.000999 + 0.004 = 0.004999; unbiased 0.29 / 0.19,
    // 0.004999 / 0.001999.
    let mut optimizer = OptimizerState::new(Optimizer::Adam, 0.0, &[matrix(1, 1)]);
    let mut weights = vec![vec![0.0]];
    optimizer.step(1, 0.1, &mut weights, &[vec![1.0]]);
    optimizer.step(2, 0.1, &mut weights, &[vec![2.0]]);
    close(
        &weights[0],
        &[-0.1 - 0.1 * (0.29 / 0.19) / (0.004_999_f32 / 0.001_999).sqrt()],
    );
}

#[test]
fn weight_decay_applies_to_weights_and_not_to_biases() {
    let bias = Parameter {
        role: ParameterRole::Vector,
        ..matrix(1, 1)
    };
    for kind in [Optimizer::Adam, Optimizer::Sgd] {
        let mut optimizer = OptimizerState::new(kind, 0.5, &[matrix(1, 1), bias.clone()]);
        let mut weights = vec![vec![2.0], vec![2.0]];
        optimizer.step(1, 0.1, &mut weights, &[vec![0.0], vec![0.0]]);
        close(&weights[0], &[1.9]);
        close(&weights[1], &[2.0]);
    }
}

#[test]
fn sgd_momentum_accumulates_gradients() {
    let mut optimizer = OptimizerState::new(Optimizer::Sgd, 0.0, &[matrix(1, 1)]);
    let mut weights = vec![vec![0.0]];
    optimizer.step(1, 0.1, &mut weights, &[vec![1.0]]);
    optimizer.step(2, 0.1, &mut weights, &[vec![1.0]]);
    close(&weights[0], &[-0.1 - 0.19]);
}

#[test]
fn muon_update_has_similar_singular_values() {
    for [rows, columns] in [[6, 10], [10, 6]] {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let gradient: Vec<f32> = (0..60).map(|_| rng.random_range(-1.0_f32..1.0)).collect();
        // The last matrix is updated by Adam, so two are needed.
        let parameters = [matrix(rows, columns), matrix(1, 1)];
        let mut optimizer = OptimizerState::new(Optimizer::Muon, 0.0, &parameters);
        let mut weights = vec![vec![0.0; 60], vec![0.0]];
        optimizer.step(1, 1.0, &mut weights, &[gradient, vec![1.0]]);
        let change = nalgebra::DMatrix::from_row_slice(rows, columns, &weights[0])
            / muon_scale(rows, columns);
        let values = change.singular_values();
        assert!(
            values.iter().all(|value| (0.5..1.5).contains(value)),
            "{values}"
        );
        close(&weights[1], &[-1.0]);
    }
}

#[test]
fn moments_without_gradients_become_zero_instead_of_subnormal() {
    for kind in [Optimizer::Adam, Optimizer::Sgd, Optimizer::Muon] {
        let parameter = matrix(2, 3);
        let mut optimizer = OptimizerState::new(kind, 0.0, std::slice::from_ref(&parameter));
        let mut weights = vec![vec![0.5; 6]];
        let all = vec![vec![1e-6, -2e-6, 1e-6, 1e-6, 1e-6, 3e-6]];
        optimizer.step(1, 0.001, &mut weights, &all);
        // The second unit is never active again.
        let half = vec![vec![1e-6, -2e-6, 1e-6, 0.0, 0.0, 0.0]];
        for step in 2..100_000 {
            optimizer.step(step, 0.001, &mut weights, &half);
            let mut values = optimizer.state().flatten().chain(&weights[0]);
            assert!(
                values.all(|value| !value.is_subnormal()),
                "{kind:?}, step {step}"
            );
        }
        for moments in optimizer.state() {
            assert_eq!(moments[3..], [0.0; 3], "{kind:?}");
            assert_ne!(moments[0], 0.0, "{kind:?}");
        }
    }
}
