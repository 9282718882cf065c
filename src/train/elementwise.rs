//! What is done to each number on its own, in loops that are compiled for the width of the
//! processor at hand.

use rayon::prelude::*;

use super::sequential::{Activation, LEAK};
use crate::system::simd_dispatch;

/// Numbers that a thread takes at a time; it does not depend on how many threads there are, nor do
/// sums over it.
pub const CHUNK: usize = 8192;
/// Sums that run side by side in a loop.
const LANES: usize = 16;

/// `e^x` within 2e-7 of itself, without a branch: `2^n e^r` with `n` whole and `|r| <= ln(2) / 2`,
/// `e^r` by its Taylor series. Beyond -87 and 88, where float32 ends, it stays what it is there.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Added and taken off, it rounds to a whole number, which stands in the last bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    /// ln(2) in two parts, the first of which has few bits: its products with whole numbers are
    /// exact.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let r = x - whole * LN2[0] - whole * LN2[1];
    let series = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0));
    let series = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * series))));
    f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits())) * series
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    // Near 0 the difference would lose the digits that the series has.
    let squared = x * x;
    let series =
        x * (1.0 + squared * (-1.0 / 3.0 + squared * (2.0 / 15.0 - squared * (17.0 / 315.0))));
    let far = 1.0 - 2.0 / (1.0 + exp(2.0 * x));
    if x.abs() < 0.1 { series } else { far }
}

/// `ln(1 + e^x)`, the integral of the sigmoid, within 2e-7.
#[inline(always)]
fn softplus(x: f32) -> f32 {
    // ln(1 + u) = 2 artanh(u / (2 + u)), u in 0..1.
    let u = exp(-x.abs());
    let s = u / (2.0 + u);
    let squared = s * s;
    let series =
        1.0 / 7.0 + squared * (1.0 / 9.0 + squared * (1.0 / 11.0 + squared * (1.0 / 13.0)));
    let series = 1.0 + squared * (1.0 / 3.0 + squared * (1.0 / 5.0 + squared * series));
    // `max` would hide what is no number.
    (if x < 0.0 { 0.0 } else { x }) + 2.0 * s * series
}

/// `value = f(value)`, number by number.
fn change(values: &mut [f32], f: impl Fn(f32) -> f32) {
    simd_dispatch(|| values.iter_mut().for_each(|value| *value = f(*value)));
}

/// `gradient *= f(value)`, number by number.
fn scale(gradient: &mut [f32], values: &[f32], f: impl Fn(f32) -> f32) {
    simd_dispatch(|| {
        gradient
            .iter_mut()
            .zip(values)
            .for_each(|(gradient, &value)| *gradient *= f(value))
    });
}

/// `output = input factor + summand`.
pub fn affine(input: &[f32], output: &mut [f32], factor: f32, summand: f32) {
    simd_dispatch(|| {
        output
            .iter_mut()
            .zip(input)
            .for_each(|(output, &input)| *output = input * factor + summand)
    });
}

/// `values = kind(values)`.
pub fn activate(kind: Activation, values: &mut [f32]) {
    match kind {
        Activation::Linear => {}
        Activation::Relu => change(values, |x| if x < 0.0 { 0.0 } else { x }),
        Activation::LeakyRelu => change(values, |x| if x < 0.0 { x * LEAK } else { x }),
        Activation::Elu => change(values, |x| if x > 0.0 { x } else { exp(x) - 1.0 }),
        Activation::Silu => change(values, |x| x * sigmoid(x)),
        Activation::Tanh => change(values, tanh),
        Activation::Sigmoid => change(values, sigmoid),
    }
}

/// The gradient by the output of an activation becomes that by its input. All but
/// [`Activation::Silu`] go by `output`.
pub fn activate_back(kind: Activation, input: &[f32], output: &[f32], gradient: &mut [f32]) {
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

/// The sum of the squared error; `share` of its gradient by `output` goes into `gradient`.
pub fn squared_error(output: &[f32], target: &[f32], share: f32, gradient: &mut [f32]) -> f64 {
    sum(output, target, gradient, |output, target| {
        let off = output - target;
        (off * off, 2.0 * off * share)
    })
}

/// The sum of the binary cross-entropy of logits, `(1 - t) z + ln(1 + e^-z)`; `share` of its
/// gradient by them, `sigmoid(z) - t`, goes into `gradient`.
pub fn cross_entropy(logits: &[f32], target: &[f32], share: f32, gradient: &mut [f32]) -> f64 {
    sum(logits, target, gradient, |z, t| {
        ((1.0 - t) * z + softplus(-z), (sigmoid(z) - t) * share)
    })
}

/// The sum of the first of what `f` gives of each pair; the second goes into `gradient`.
fn sum(
    output: &[f32],
    target: &[f32],
    gradient: &mut [f32],
    f: impl Fn(f32, f32) -> (f32, f32),
) -> f64 {
    // In float32 within a chunk: its sums stay small.
    let chunk = |(output, target, gradient): (&[f32], &[f32], &mut [f32])| {
        simd_dispatch(|| {
            let mut sums = [0.0_f32; LANES];
            let (wide_output, output) = output.as_chunks::<LANES>();
            let (wide_target, target) = target.as_chunks::<LANES>();
            let (wide_gradient, gradient) = gradient.as_chunks_mut::<LANES>();
            for ((output, target), gradient) in
                wide_output.iter().zip(wide_target).zip(wide_gradient)
            {
                for lane in 0..LANES {
                    let (value, slope) = f(output[lane], target[lane]);
                    sums[lane] += value;
                    gradient[lane] = slope;
                }
            }
            for ((output, target), gradient) in output.iter().zip(target).zip(gradient) {
                let (value, slope) = f(*output, *target);
                sums[0] += value;
                *gradient = slope;
            }
            sums.iter().map(|&sum| f64::from(sum)).sum::<f64>()
        })
    };
    let chunks = output
        .chunks(CHUNK)
        .zip(target.chunks(CHUNK))
        .zip(gradient.chunks_mut(CHUNK));
    chunks
        .map(|((output, target), gradient)| chunk((output, target, gradient)))
        .sum()
}

/// `values = values keep + other (1 - keep)`.
pub fn blend(values: &mut [f32], other: &[f32], keep: f32) {
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

/// The sum of the squares.
pub fn squares(values: &[f32]) -> f64 {
    let sum = |values: &[f32]| {
        simd_dispatch(|| {
            let mut sums = [0.0_f32; LANES];
            let (wide_values, rest) = values.as_chunks::<LANES>();
            for values in wide_values {
                sums.iter_mut()
                    .zip(values)
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

/// Rows that [`add_rows`] sums up before it adds their sum to the others: sums in float32 stay
/// small.
const ROWS: usize = 512;

/// Adds the rows of `[_, columns]` to `out`.
pub fn add_rows(values: &[f32], out: &mut [f32]) {
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
mod tests {
    use super::*;

    /// Numbers from small to large, of both signs.
    fn numbers() -> impl Iterator<Item = f32> {
        (-20_000..=20_000).map(|i| i as f32 / 200.0)
    }

    fn close(name: &str, found: impl Fn(f32) -> f32, expected: impl Fn(f64) -> f64) {
        for x in numbers().chain([1e-6, -1e-4, 0.03]) {
            let (found, expected) = (f64::from(found(x)), expected(f64::from(x)));
            let off = (found - expected).abs() / (expected.abs() + 1e-6);
            assert!(
                off < 1e-6 || (x < -87.0 && found.abs() < 1e-37),
                "{name}({x}) is {found}, not {expected}"
            );
        }
    }

    #[test]
    fn functions_are_those_of_the_standard_library() {
        close("exp", |x| exp(x.min(88.0)), |x| x.min(88.0).exp());
        close("sigmoid", sigmoid, |x| 1.0 / (1.0 + (-x).exp()));
        close("tanh", tanh, f64::tanh);
        close("softplus", softplus, |x| {
            if x > 50.0 { x } else { x.exp().ln_1p() }
        });
    }

    #[test]
    fn what_is_no_number_is_not_hidden() {
        for f in [exp, sigmoid, tanh, softplus] {
            assert!(f(f32::NAN).is_nan());
        }
        for kind in [
            Activation::Relu,
            Activation::LeakyRelu,
            Activation::Elu,
            Activation::Silu,
        ] {
            let mut values = [f32::NAN];
            activate(kind, &mut values);
            assert!(values[0].is_nan(), "{kind:?}");
        }
    }

    #[test]
    fn rows_are_added_column_by_column() {
        for (rows, columns) in [(1, 3), (ROWS + 7, 3), (2 * ROWS, 1)] {
            let values: Vec<f32> = (0..rows * columns).map(|i| (i % 5) as f32).collect();
            let mut out = vec![1.0; columns];
            add_rows(&values, &mut out);
            for (column, &found) in out.iter().enumerate() {
                let expected: f32 = values.iter().skip(column).step_by(columns).sum();
                assert_eq!(found, 1.0 + expected, "{rows} x {columns}, {column}");
            }
        }
    }

    #[test]
    fn losses_are_sums_over_all_numbers_whatever_their_count() {
        for len in [1, LANES, LANES + 3, CHUNK + 5, 3 * CHUNK + 17] {
            let output: Vec<f32> = (0..len).map(|i| (i % 7) as f32).collect();
            let target = vec![1.0; len];
            let mut gradient = vec![f32::NAN; len];
            let found = squared_error(&output, &target, 0.5, &mut gradient);
            let expected = output
                .iter()
                .map(|x| f64::from((x - 1.0) * (x - 1.0)))
                .sum::<f64>();
            assert!(
                (found - expected).abs() < 1e-5 * expected,
                "{len}: {found} {expected}"
            );
            assert!(gradient.iter().zip(&output).all(|(g, x)| *g == x - 1.0));
        }
    }
}
