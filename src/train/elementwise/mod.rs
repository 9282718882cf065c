//! Element-wise operations and sums over values, in loops that are compiled for the SIMD width of
//! the processor.

use rayon::prelude::*;

use crate::model::loss::CHARBONNIER_EPSILON;
use crate::system::simd_dispatch;
use crate::train::layer_spec::{Activation, LEAK};

/// Number of values that a thread processes at a time. It does not depend on the number of threads,
/// so sums do not, either.
pub(crate) const CHUNK: usize = 8192;
/// Number of parallel sums in a loop.
const LANES: usize = 16;

/// Computes `e^x` with a relative error of at most 2e-7 and without a branch: `2^n e^r` with an
/// integer `n` and `|r| <= ln(2) / 2`, `e^r` by its Taylor series. The argument is clamped to
/// -87..88, the range of float32.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding and subtracting this number rounds to an integer, which is in the last bits of the
    /// sum.
    const ROUND: f32 = 12_582_912.0;
    /// ln(2) in two parts. The first has few bits, so that its products with integers are exact.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let r = x - whole * LN2[0] - whole * LN2[1];
    let series = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0));
    let series = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * series))));
    f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits())) * series
}

/// Computes `1 / (1 + e^-x)`.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    // Near 0, the difference would lose digits that the series keeps.
    let squared = x * x;
    let series =
        x * (1.0 + squared * (-1.0 / 3.0 + squared * (2.0 / 15.0 - squared * (17.0 / 315.0))));
    let far = 1.0 - 2.0 / (1.0 + exp(2.0 * x));
    if x.abs() < 0.1 { series } else { far }
}

/// Computes `ln(1 + e^x)`, the integral of the sigmoid, with an error of at most 2e-7.
#[inline(always)]
fn softplus(x: f32) -> f32 {
    // ln(1 + u) = 2 artanh(u / (2 + u)), u in 0..1.
    let u = exp(-x.abs());
    let s = u / (2.0 + u);
    let squared = s * s;
    let series =
        1.0 / 7.0 + squared * (1.0 / 9.0 + squared * (1.0 / 11.0 + squared * (1.0 / 13.0)));
    let series = 1.0 + squared * (1.0 / 3.0 + squared * (1.0 / 5.0 + squared * series));
    // `max` would hide a NaN.
    (if x < 0.0 { 0.0 } else { x }) + 2.0 * s * series
}

/// Computes `value = f(value)` for each value.
fn map_values(values: &mut [f32], f: impl Fn(f32) -> f32) {
    simd_dispatch(|| values.iter_mut().for_each(|value| *value = f(*value)));
}

/// Computes `gradient *= f(value)` for each value.
fn scale(gradient: &mut [f32], values: &[f32], f: impl Fn(f32) -> f32) {
    simd_dispatch(|| {
        gradient
            .iter_mut()
            .zip(values)
            .for_each(|(gradient, &value)| *gradient *= f(value))
    });
}

/// Computes `output = input factor + summand`.
pub fn affine(input: &[f32], output: &mut [f32], factor: f32, summand: f32) {
    simd_dispatch(|| {
        output
            .iter_mut()
            .zip(input)
            .for_each(|(output, &input)| *output = input * factor + summand)
    });
}

/// Computes `values = kind(values)`.
pub(crate) fn activate(kind: Activation, values: &mut [f32]) {
    match kind {
        Activation::Linear => {}
        Activation::Relu => map_values(values, |x| if x < 0.0 { 0.0 } else { x }),
        Activation::LeakyRelu => map_values(values, |x| if x < 0.0 { x * LEAK } else { x }),
        Activation::Elu => map_values(values, |x| if x > 0.0 { x } else { exp(x) - 1.0 }),
        Activation::Silu => map_values(values, |x| x * sigmoid(x)),
        Activation::Tanh => map_values(values, tanh),
        Activation::Sigmoid => map_values(values, sigmoid),
    }
}

/// Converts the gradient with respect to the output of an activation into the gradient with respect
/// to its input. All activations except [`Activation::Silu`] use `output`.
pub(crate) fn activate_back(kind: Activation, input: &[f32], output: &[f32], gradient: &mut [f32]) {
    match kind {
        Activation::Linear => {}
        Activation::Relu => scale(gradient, output, |y| if y > 0.0 { 1.0 } else { 0.0 }),
        Activation::LeakyRelu => scale(gradient, output, |y| if y > 0.0 { 1.0 } else { LEAK }),
        Activation::Elu => scale(gradient, output, |y| if y > 0.0 { 1.0 } else { y + 1.0 }),
        Activation::Silu => scale(gradient, input, |x| {
            let s = sigmoid(x);
            s * (1.0 + x * (1.0 - s))
        }),
        Activation::Tanh => scale(gradient, output, |y| 1.0 - y * y),
        Activation::Sigmoid => scale(gradient, output, |y| y * (1.0 - y)),
    }
}

/// Multiplies `values` by the second derivative of an activation. All activations except
/// [`Activation::Silu`] use `output`.
pub(crate) fn scale_by_curvature(
    kind: Activation,
    input: &[f32],
    output: &[f32],
    values: &mut [f32],
) {
    match kind {
        Activation::Linear | Activation::Relu | Activation::LeakyRelu => values.fill(0.0),
        Activation::Elu => scale(values, output, |y| if y > 0.0 { 0.0 } else { y + 1.0 }),
        Activation::Silu => scale(values, input, |x| {
            let s = sigmoid(x);
            s * (1.0 - s) * (2.0 + x * (1.0 - 2.0 * s))
        }),
        Activation::Tanh => scale(values, output, |y| -2.0 * y * (1.0 - y * y)),
        Activation::Sigmoid => scale(values, output, |y| y * (1.0 - y) * (1.0 - 2.0 * y)),
    }
}

/// Returns the sum of the squared error; writes `share` times its gradient with respect to
/// `output` to `gradient`.
pub(crate) fn squared_error(
    output: &[f32],
    target: &[f32],
    share: f32,
    gradient: &mut [f32],
) -> f64 {
    sum(output, target, gradient, |output, target| {
        let off = output - target;
        (off * off, 2.0 * off * share)
    })
}

/// Returns the sum of the absolute differences; writes `share` times the gradient to `gradient`, 0
/// for equal values.
pub(crate) fn absolute_error(
    output: &[f32],
    target: &[f32],
    share: f32,
    gradient: &mut [f32],
) -> f64 {
    sum(output, target, gradient, |output, target| {
        let off = output - target;
        let sign = f32::from(u8::from(off > 0.0)) - f32::from(u8::from(off < 0.0));
        // NaN stays NaN, so that the training ends.
        (off.abs(), (sign + 0.0 * off) * share)
    })
}

/// Returns the sum of the Charbonnier loss, `sqrt(d^2 + epsilon^2)` of the difference `d`; writes
/// `share` times its gradient, `d / sqrt(d^2 + epsilon^2)`, to `gradient`.
pub(crate) fn charbonnier(output: &[f32], target: &[f32], share: f32, gradient: &mut [f32]) -> f64 {
    let square = (CHARBONNIER_EPSILON * CHARBONNIER_EPSILON) as f32;
    sum(output, target, gradient, |output, target| {
        let off = output - target;
        let value = (off * off + square).sqrt();
        (value, off / value * share)
    })
}

/// Returns the sum of the binary cross-entropy of logits, `(1 - t) z + ln(1 + e^-z)`; writes
/// `share` times its gradient with respect to the logits, `sigmoid(z) - t`, to `gradient`.
pub(crate) fn cross_entropy(
    logits: &[f32],
    target: &[f32],
    share: f32,
    gradient: &mut [f32],
) -> f64 {
    sum(logits, target, gradient, |z, t| {
        ((1.0 - t) * z + softplus(-z), (sigmoid(z) - t) * share)
    })
}

/// Returns the sum of the first results of `f` for each pair; writes the second results to
/// `gradient`.
fn sum(
    output: &[f32],
    target: &[f32],
    gradient: &mut [f32],
    f: impl Fn(f32, f32) -> (f32, f32),
) -> f64 {
    // Sums within a chunk are in float32: they stay small.
    let chunk_sum = |((outputs, targets), derivatives): ((&[f32], &[f32]), &mut [f32])| {
        simd_dispatch(|| {
            let mut sums = [0.0_f32; LANES];
            let (wide_outputs, last_outputs) = outputs.as_chunks::<LANES>();
            let (wide_targets, last_targets) = targets.as_chunks::<LANES>();
            let (wide_derivatives, last_derivatives) = derivatives.as_chunks_mut::<LANES>();
            for ((y_lanes, t_lanes), derivative_lanes) in
                wide_outputs.iter().zip(wide_targets).zip(wide_derivatives)
            {
                for lane in 0..LANES {
                    let (value, derivative) = f(y_lanes[lane], t_lanes[lane]);
                    sums[lane] += value;
                    derivative_lanes[lane] = derivative;
                }
            }
            for ((y, t), output_derivative) in
                last_outputs.iter().zip(last_targets).zip(last_derivatives)
            {
                let (value, derivative) = f(*y, *t);
                sums[0] += value;
                *output_derivative = derivative;
            }
            sums.iter().map(|&sum| f64::from(sum)).sum::<f64>()
        })
    };
    let chunks = output
        .chunks(CHUNK)
        .zip(target.chunks(CHUNK))
        .zip(gradient.chunks_mut(CHUNK));
    chunks.map(chunk_sum).sum()
}

/// Computes `values = values keep + other (1 - keep)`.
pub(crate) fn blend(values: &mut [f32], other: &[f32], keep: f32) {
    values
        .par_chunks_mut(CHUNK)
        .zip(other.par_chunks(CHUNK))
        .for_each(|(values, other)| {
            simd_dispatch(|| {
                values
                    .iter_mut()
                    .zip(other)
                    .for_each(|(value, other)| *value = *value * keep + other * (1.0 - keep))
            });
        });
}

/// Returns the sum of the squares.
pub fn squares(values: &[f32]) -> f64 {
    let sum = |chunk: &[f32]| {
        simd_dispatch(|| {
            let mut sums = [0.0_f32; LANES];
            let (wide_values, rest) = chunk.as_chunks::<LANES>();
            for lanes in wide_values {
                sums.iter_mut()
                    .zip(lanes)
                    .for_each(|(sum, value)| *sum += value * value);
            }
            rest.iter().for_each(|value| sums[0] += value * value);
            sums.iter().map(|&sum| f64::from(sum)).sum::<f64>()
        })
    };
    values
        .par_chunks(CHUNK)
        .map(sum)
        .collect::<Vec<f64>>()
        .iter()
        .sum()
}

/// Number of rows that [`add_rows`] sums before it adds their sum to the total, so that sums in
/// float32 stay small.
const ROWS: usize = 512;

/// Adds the rows of `[_, columns]` to `out`.
pub(crate) fn add_rows(values: &[f32], out: &mut [f32]) {
    let columns = out.len().max(1);
    let mut sums = vec![0.0; out.len()];
    simd_dispatch(|| {
        for rows in values.chunks(ROWS * columns) {
            sums.fill(0.0);
            for row in rows.chunks_exact(columns) {
                sums.iter_mut()
                    .zip(row)
                    .for_each(|(sum, value)| *sum += value);
            }
            out.iter_mut().zip(&sums).for_each(|(out, sum)| *out += sum);
        }
    });
}

#[cfg(test)]
mod tests;
