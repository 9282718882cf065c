//! How well a linear classifier tells labels from codes: multinomial logistic regression.

use nalgebra::{DMatrix, DVector};

use super::RowMatrix;

/// Rows that go through one matrix product.
const BLOCK: usize = 1024;
/// Steps of the optimizer: a convex problem on standardized values is solved in far fewer.
const STEPS: usize = 200;
/// The largest slope at which it has arrived.
const TOLERANCE: f64 = 1e-5;
/// Steps that the optimizer remembers, to learn the curvature.
const MEMORY: usize = 10;
/// Halvings of a step that leads upwards, before it is given up.
const HALVINGS: usize = 30;

/// A fitted classifier.
#[derive(Debug)]
pub struct LinearProbe {
    labels: Vec<u32>,
    centre: Vec<f64>,
    scale: Vec<f64>,
    /// Label x (value, then intercept).
    weights: DMatrix<f64>,
}

impl LinearProbe {
    /// Minimises `mean cross-entropy + |W|² / (2 n)` over the rows, standardised, by L-BFGS; the
    /// intercept is free: what scikit-learn's `LogisticRegression` does on scaled values. `None`
    /// with fewer than two labels.
    pub fn fit(rows: RowMatrix<'_>, labels: &[u32]) -> Option<Self> {
        let mut known = labels.to_vec();
        known.sort_unstable();
        known.dedup();
        if known.len() < 2 || rows.len() != labels.len() {
            return None;
        }
        let (centre, scale) = mean_and_scale(rows);
        let weights = DMatrix::zeros(known.len(), rows.width() + 1);
        let mut probe = Self {
            labels: known,
            centre,
            scale,
            weights,
        };
        // Every label is among the known ones.
        let classes: Vec<usize> = labels
            .iter()
            .map(|label| probe.labels.binary_search(label).unwrap_or_default())
            .collect();
        let shape = probe.weights.shape();
        let found = lbfgs(DVector::zeros(probe.weights.len()), |weights| {
            let weights = DMatrix::from_column_slice(shape.0, shape.1, weights.as_slice());
            let (loss, gradient) = probe.loss(&weights, rows, &classes);
            (loss, DVector::from_column_slice(gradient.as_slice()))
        });
        probe.weights = DMatrix::from_column_slice(shape.0, shape.1, found.as_slice());
        Some(probe)
    }

    /// The share of rows whose label in `truth` it finds; `None` without rows.
    pub fn accuracy(&self, rows: RowMatrix<'_>, truth: &[u32]) -> Option<f64> {
        let mut right = 0;
        for (block, truth) in rows.blocks(BLOCK).zip(truth.chunks(BLOCK)) {
            let logits = &self.weights * self.standardized(block);
            let found = logits
                .column_iter()
                .map(|logits| self.labels[logits.argmax().0]);
            right += found
                .zip(truth)
                .filter(|(found, truth)| found == *truth)
                .count();
        }
        (!rows.is_empty()).then(|| right as f64 / rows.len() as f64)
    }

    /// The loss, and its slope along every weight.
    fn loss(
        &self,
        weights: &DMatrix<f64>,
        rows: RowMatrix<'_>,
        classes: &[usize],
    ) -> (f64, DMatrix<f64>) {
        let share = 1.0 / rows.len() as f64;
        let (mut loss, mut gradient) = (0.0, weights.clone() * share);
        gradient.column_mut(rows.width()).fill(0.0);
        loss += 0.5 * share * weights.columns(0, rows.width()).norm_squared();
        for (block, classes) in rows.blocks(BLOCK).zip(classes.chunks(BLOCK)) {
            let inputs = self.standardized(block);
            let mut logits = weights * &inputs;
            for (mut logits, &class) in logits.column_iter_mut().zip(classes) {
                let greatest = logits.max();
                let own = logits[class] - greatest;
                logits.apply(|logit| *logit = (*logit - greatest).exp());
                let sum = logits.sum();
                loss += share * (sum.ln() - own);
                logits /= sum;
                logits[class] -= 1.0;
            }
            gradient.gemm(share, &logits, &inputs.transpose(), 1.0);
        }
        (loss, gradient)
    }

    /// Rows as columns, each value with mean 0 and deviation 1 over the fitted rows, and a 1 for
    /// the intercept.
    fn standardized(&self, rows: RowMatrix<'_>) -> DMatrix<f64> {
        let width = rows.width();
        let mut inputs = DMatrix::from_element(width + 1, rows.len(), 1.0);
        for (mut column, row) in inputs.column_iter_mut().zip(rows.iter()) {
            for (place, &value) in row.iter().enumerate() {
                column[place] = (f64::from(value) - self.centre[place]) * self.scale[place];
            }
        }
        inputs
    }
}

/// Per value, its mean, and one over its deviation; 1 where it never varies.
fn mean_and_scale(rows: RowMatrix<'_>) -> (Vec<f64>, Vec<f64>) {
    let count = rows.len() as f64;
    let mean = |values: &dyn Fn(&[f32], usize) -> f64| -> Vec<f64> {
        let mut sums = vec![0.0; rows.width()];
        for row in rows.iter() {
            sums.iter_mut()
                .enumerate()
                .for_each(|(place, sum)| *sum += values(row, place));
        }
        sums.into_iter().map(|sum| sum / count).collect()
    };
    let centre = mean(&|row, place| f64::from(row[place]));
    let variance = mean(&|row, place| (f64::from(row[place]) - centre[place]).powi(2));
    let scale = variance.into_iter().map(|variance| {
        if variance > 0.0 {
            1.0 / variance.sqrt()
        } else {
            1.0
        }
    });
    let scale = scale.collect();
    (centre, scale)
}

/// L-BFGS with halved steps (Nocedal and Wright, Numerical Optimization, 2nd edition, algorithms
/// 7.4 and 7.5), for a function that is convex and gives its value and slope.
fn lbfgs(
    start: DVector<f64>,
    mut function: impl FnMut(&DVector<f64>) -> (f64, DVector<f64>),
) -> DVector<f64> {
    let mut place = start;
    let (mut value, mut gradient) = function(&place);
    let mut memory: Vec<(DVector<f64>, DVector<f64>)> = Vec::new();
    for _ in 0..STEPS {
        if gradient.amax() <= TOLERANCE {
            break;
        }
        let direction = -search_direction(&gradient, &memory);
        let descent = direction.dot(&gradient);
        let mut step = if memory.is_empty() {
            1.0 / gradient.norm().max(1.0)
        } else {
            1.0
        };
        let mut halvings = 0..HALVINGS;
        let next = loop {
            let there = &place + &direction * step;
            let (value_there, slope_there) = function(&there);
            if value_there <= value + 1e-4 * step * descent {
                break Some((there, value_there, slope_there));
            }
            if halvings.next().is_none() {
                break None;
            }
            step *= 0.5;
        };
        // No step leads downwards: as low as the numbers allow.
        let Some((there, value_there, slope_there)) = next else {
            break;
        };
        let (moved, turned) = (&there - &place, &slope_there - &gradient);
        if moved.dot(&turned) > 1e-12 * moved.norm() * turned.norm() {
            memory.push((moved, turned));
            if memory.len() > MEMORY {
                memory.remove(0);
            }
        }
        (place, value, gradient) = (there, value_there, slope_there);
    }
    place
}

/// The slope, times an estimate of the inverse curvature.
fn search_direction(
    gradient: &DVector<f64>,
    memory: &[(DVector<f64>, DVector<f64>)],
) -> DVector<f64> {
    let mut direction = gradient.clone();
    let mut shares = Vec::with_capacity(memory.len());
    for (moved, turned) in memory.iter().rev() {
        let share = moved.dot(&direction) / moved.dot(turned);
        direction.axpy(-share, turned, 1.0);
        shares.push(share);
    }
    if let Some((moved, turned)) = memory.last() {
        direction *= moved.dot(turned) / turned.norm_squared();
    }
    for ((moved, turned), share) in memory.iter().zip(shares.into_iter().rev()) {
        let back = turned.dot(&direction) / moved.dot(turned);
        direction.axpy(share - back, moved, 1.0);
    }
    direction
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::testing::clouds;
    use super::*;

    #[test]
    fn weights_and_accuracy_are_those_of_scikit_learn() {
        // LogisticRegression(tol=1e-10, max_iter=10000) on StandardScaler().fit_transform(rows
        // 0..300) of the same clouds: its coef_[0], its intercept_, and its score on rows 300..500
        let ((fitted, labels), (scored, truth)) = (clouds(300, 0), clouds(200, 300));
        let probe = LinearProbe::fit(RowMatrix::new(&fitted, 6), &labels).unwrap();
        let expected = [
            1.459_429, -0.386_404, -0.185_937, 0.019_018, -0.008_188, -0.241_787,
        ];
        for (place, expected) in expected.iter().enumerate() {
            let met = probe.weights[(0, place)];
            assert!(
                (met - expected).abs() < 2e-3,
                "{place}: {met}, expected {expected}"
            );
        }
        for (class, expected) in [-0.269_020, 0.091_623, 0.177_398].into_iter().enumerate() {
            let met = probe.weights[(class, 6)];
            assert!(
                (met - expected).abs() < 2e-3,
                "{class}: {met}, expected {expected}"
            );
        }
        assert_eq!(
            probe.accuracy(RowMatrix::new(&scored, 6), &truth),
            Some(0.665)
        );
    }

    #[test]
    fn labels_need_not_be_consecutive_and_unknown_ones_are_missed() {
        let rows = [-2.0, -1.0, 1.0, 2.0];
        let probe = LinearProbe::fit(RowMatrix::new(&rows, 1), &[70, 70, 9, 9]).unwrap();
        assert_eq!(
            probe.accuracy(RowMatrix::new(&rows, 1), &[70, 70, 9, 8]),
            Some(0.75)
        );
    }

    #[test]
    fn a_value_that_never_varies_does_no_harm() {
        let rows = [5.0, -1.0, 5.0, 1.0];
        let probe = LinearProbe::fit(RowMatrix::new(&rows, 2), &[0, 1]).unwrap();
        assert_eq!(probe.accuracy(RowMatrix::new(&rows, 2), &[0, 1]), Some(1.0));
    }

    #[test]
    fn one_label_is_nothing_to_tell_apart() {
        assert!(LinearProbe::fit(RowMatrix::new(&[1.0, 2.0], 1), &[3, 3]).is_none());
        assert!(LinearProbe::fit(RowMatrix::new(&[], 1), &[]).is_none());
    }
}
