//! Correlated feature records: a linear mix of a few hidden factors with a little noise, and
//! outliers that the factors do not explain.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// The factor model `x = W z + noise`. Each value has unit variance without the noise. An outlier
/// is shifted by a fixed vector that the factors do not explain.
pub(crate) struct FactorModel {
    /// The number of values of a record.
    pub(crate) width: usize,
    /// The number of hidden factors.
    pub(crate) rank: usize,
    /// The fraction of records that are outliers.
    pub(crate) outliers: f64,
    /// W, `[width, rank]`.
    mixing: Vec<f32>,
    /// The shift of outliers, `[width]`.
    shift: Vec<f32>,
}

/// The standard deviation of the noise.
const NOISE: f32 = 0.1;
/// The standard deviation of the shift of outliers, in standard deviations of a value.
const SHIFT: f32 = 3.0;

impl FactorModel {
    /// Draws the parameters of the model.
    pub(crate) fn draw(rng: &mut ChaCha8Rng, width: usize, rank: usize, outliers: f64) -> Self {
        let scale = (rank as f32).sqrt().recip();
        let mixing = (0..width * rank)
            .map(|_| scale * rng.sample::<f32, _>(StandardNormal))
            .collect();
        let shift = (0..width)
            .map(|_| SHIFT * rng.sample::<f32, _>(StandardNormal))
            .collect();
        Self {
            width,
            rank,
            outliers,
            mixing,
            shift,
        }
    }

    /// Appends the values of a record and returns whether it is an outlier.
    pub(crate) fn record(&self, rng: &mut ChaCha8Rng, values: &mut Vec<f32>) -> bool {
        // This number is drawn for every fraction of outliers, so that the fraction does not change
        // the other records.
        let outlier = rng.random::<f64>() < self.outliers;
        let factors: Vec<f32> = (0..self.rank).map(|_| rng.sample(StandardNormal)).collect();
        for column in 0..self.width {
            let weights = &self.mixing[column * self.rank..(column + 1) * self.rank];
            let mixed: f32 = weights
                .iter()
                .zip(&factors)
                .map(|(weight, factor)| weight * factor)
                .sum();
            let shift = if outlier { self.shift[column] } else { 0.0 };
            values.push(mixed + shift + NOISE * rng.sample::<f32, _>(StandardNormal));
        }
        outlier
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn records(outliers: f64, count: usize) -> (Vec<f32>, Vec<bool>) {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let factors = FactorModel::draw(&mut rng, 6, 2, outliers);
        let mut values = Vec::new();
        let labels = (0..count)
            .map(|_| factors.record(&mut rng, &mut values))
            .collect();
        (values, labels)
    }

    #[test]
    fn values_are_explained_by_the_factors() {
        let (values, _) = records(0.0, 4000);
        let covariance = |i: usize, j: usize| {
            let products = values
                .chunks_exact(6)
                .map(|record| f64::from(record[i]) * f64::from(record[j]));
            products.sum::<f64>() / 4000.0
        };
        // For three values of two factors, the determinant is due to the noise alone and far below
        // that of independent values.
        let (a, b, c) = (covariance(0, 0), covariance(1, 1), covariance(2, 2));
        let (d, e, f) = (covariance(0, 1), covariance(0, 2), covariance(1, 2));
        let determinant = a * b * c + 2.0 * d * e * f - a * f * f - b * e * e - c * d * d;
        assert!(
            determinant < 0.1 * a * b * c,
            "{determinant} of {}",
            a * b * c
        );
    }

    #[test]
    fn outliers_have_their_share_and_change_no_other_record() {
        let ((plain, _), (mixed, labels)) = (records(0.0, 4000), records(0.25, 4000));
        let share = labels.iter().filter(|&&outlier| outlier).count();
        assert!((900..1100).contains(&share), "{share}");
        for ((plain_record, mixed_record), outlier) in
            plain.chunks_exact(6).zip(mixed.chunks_exact(6)).zip(labels)
        {
            assert_eq!(plain_record != mixed_record, outlier);
        }
    }
}
