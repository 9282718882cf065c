//! The code of a variational autoencoder: a normal distribution for each record, of which the
//! training draws a value (Kingma and Welling, "Auto-Encoding Variational Bayes", 2013).

use rand::{Rng as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::train::layer_spec::LOGVAR_RANGE;

/// Separates the noise of the code from the other random streams of a use of a record.
const CODE: u64 = 0x636f_6465;

/// Replaces `noise` with standard normal values, `code` of them for each record. They depend only on
/// the seed of the record in `seeds`.
pub(crate) fn draw_noise(seeds: &[u64], code: usize, noise: &mut Vec<f32>) {
    noise.clear();
    for seed in seeds {
        let rng = ChaCha8Rng::seed_from_u64(seed ^ CODE);
        noise.extend(rng.sample_iter::<f32, _>(StandardNormal).take(code));
    }
}

/// The means and the clamped logarithms of the variances of one record.
fn halves(row: &[f32]) -> impl Iterator<Item = (f32, f32)> {
    let [low, high] = LOGVAR_RANGE;
    let (means, logvars) = row.split_at(row.len() / 2);
    let clamped = logvars.iter().map(move |value| value.clamp(low, high));
    means.iter().copied().zip(clamped)
}

/// Writes the codes of the distributions in `input`, `[records, 2 code]`, to `output`: their means,
/// plus `noise` times their deviations if there is noise.
pub(crate) fn sample(input: &[f32], noise: Option<&[f32]>, code: usize, output: &mut [f32]) {
    let width = code.max(1);
    let rows = input
        .chunks_exact(2 * width)
        .zip(output.chunks_exact_mut(width));
    for (record, (row, codes)) in rows.enumerate() {
        let own = noise.map(|of_records| &of_records[record * width..(record + 1) * width]);
        for (index, ((mean, logvar), value)) in halves(row).zip(codes).enumerate() {
            *value = mean + own.map_or(0.0, |drawn| (0.5 * logvar).exp() * drawn[index]);
        }
    }
}

/// Returns the sum over records of the KL divergence of their distributions from the standard normal
/// distribution, `-1/2 sum(1 + logvar - mu^2 - exp(logvar))`, in nats.
pub(crate) fn divergence(input: &[f32], code: usize) -> f64 {
    let of_value = |(mean, logvar): (f32, f32)| {
        let (mean, logvar) = (f64::from(mean), f64::from(logvar));
        0.5 * (mean * mean + logvar.exp() - 1.0 - logvar)
    };
    let rows = input.chunks_exact(2 * code.max(1));
    rows.map(|row| halves(row).map(of_value).sum::<f64>()).sum()
}

/// Writes the gradient with respect to the distributions in `input` to `out`: that of the codes,
/// `gradient`, through the sample, and that of the divergence times `weight`.
pub(crate) fn sample_back(
    [input, noise, gradient]: [&[f32]; 3],
    code: usize,
    weight: f32,
    out: &mut [f32],
) {
    let width = code.max(1);
    let [low, high] = LOGVAR_RANGE;
    let rows = input
        .chunks_exact(2 * width)
        .zip(out.chunks_exact_mut(2 * width));
    let by_code = noise.chunks_exact(width).zip(gradient.chunks_exact(width));
    for ((row, out_row), (own_noise, own_gradient)) in rows.zip(by_code) {
        let (by_mean, by_logvar) = out_row.split_at_mut(width);
        for (index, (mean, logvar)) in halves(row).enumerate() {
            let by_value = own_gradient[index];
            by_mean[index] = by_value + weight * mean;
            let is_inside = (low..=high).contains(&row[width + index]);
            let through = 0.5 * by_value * own_noise[index] * (0.5 * logvar).exp();
            by_logvar[index] = match is_inside {
                true => through + weight * 0.5 * (logvar.exp() - 1.0),
                false => 0.0,
            };
        }
    }
}
