//! The accuracy of a linear classifier on latents (linear probe): multinomial logistic regression.

use nalgebra::{DMatrix, DVector};

use super::RowMatrix;

/// Number of rows per matrix product.
const BLOCK: usize = 1024;
/// Maximum number of steps of the optimizer. A convex problem on standardized values needs far
/// fewer.
const MAX_STEPS: usize = 200;
/// The largest component of the gradient at which the optimizer has converged.
const TOLERANCE: f64 = 1e-5;
/// Number of previous steps from which the optimizer estimates the curvature.
const MEMORY: usize = 10;
/// Maximum number of halvings of a step that does not decrease the loss.
const MAX_HALVINGS: usize = 30;

/// A fitted classifier.
#[derive(Debug)]
pub(crate) struct LinearProbe {
    labels: Vec<u32>,
    center: Vec<f64>,
    scale: Vec<f64>,
    /// Labels x (values, then intercept).
    weights: DMatrix<f64>,
}

impl LinearProbe {
    /// Minimizes `mean cross-entropy + |W|² / (2 n)` over the standardized rows by L-BFGS, without
    /// a penalty on the intercept, as scikit-learn's `LogisticRegression` does on scaled values.
    /// Returns `None` with fewer than two labels.
    pub fn fit(rows: RowMatrix<'_>, labels: &[u32]) -> Option<Self> {
        let mut distinct = labels.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() < 2 || rows.len() != labels.len() {
            return None;
        }
        let (center, scale) = mean_and_scale(rows);
        let zeros = DMatrix::zeros(distinct.len(), rows.width() + 1);
        let mut probe = Self {
            labels: distinct,
            center,
            scale,
            weights: zeros,
        };
        // The search finds every label.
        let classes: Vec<usize> = labels
            .iter()
            .map(|label| probe.labels.binary_search(label).unwrap_or_default())
            .collect();
        let shape = probe.weights.shape();
        let found = lbfgs(DVector::zeros(probe.weights.len()), |values| {
            let weights = DMatrix::from_column_slice(shape.0, shape.1, values.as_slice());
            let (loss, gradient) = probe.loss(&weights, rows, &classes);
            (loss, DVector::from_column_slice(gradient.as_slice()))
        });
        probe.weights = DMatrix::from_column_slice(shape.0, shape.1, found.as_slice());
        Some(probe)
    }

    /// Returns the share of rows whose label in `truth` is predicted; `None` without rows.
    pub(crate) fn accuracy(&self, rows: RowMatrix<'_>, truth: &[u32]) -> Option<f64> {
        let mut right = 0;
        for (block, block_truth) in rows.blocks(BLOCK).zip(truth.chunks(BLOCK)) {
            let logits = &self.weights * self.standardized(block);
            let found = logits
                .column_iter()
                .map(|logits| self.labels[logits.argmax().0]);
            right += found
                .zip(block_truth)
                .filter(|(found, label)| found == *label)
                .count();
        }
        (!rows.is_empty()).then(|| right as f64 / rows.len() as f64)
    }

    /// Returns the loss and its gradient.
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
        for (block, block_classes) in rows.blocks(BLOCK).zip(classes.chunks(BLOCK)) {
            let inputs = self.standardized(block);
            let mut logits = weights * &inputs;
            for (mut column, &class) in logits.column_iter_mut().zip(block_classes) {
                let greatest = column.max();
                let own = column[class] - greatest;
                column.apply(|logit| *logit = (*logit - greatest).exp());
                let sum = column.sum();
                loss += share * (sum.ln() - own);
                column /= sum;
                column[class] -= 1.0;
            }
            gradient.gemm(share, &logits, &inputs.transpose(), 1.0);
        }
        (loss, gradient)
    }

    /// Returns the rows as columns, in which each value has mean 0 and standard deviation 1 over
    /// the fitted rows, with a 1 for the intercept.
    fn standardized(&self, rows: RowMatrix<'_>) -> DMatrix<f64> {
        let width = rows.width();
        let mut inputs = DMatrix::from_element(width + 1, rows.len(), 1.0);
        for (mut column, row) in inputs.column_iter_mut().zip(rows.iter()) {
            for (index, &value) in row.iter().enumerate() {
                column[index] = (f64::from(value) - self.center[index]) * self.scale[index];
            }
        }
        inputs
    }
}

/// Returns the mean of each value and the inverse of its standard deviation, which is 1 for a
/// constant value.
fn mean_and_scale(rows: RowMatrix<'_>) -> (Vec<f64>, Vec<f64>) {
    let count = rows.len() as f64;
    let mean = |values: &dyn Fn(&[f32], usize) -> f64| -> Vec<f64> {
        let mut sums = vec![0.0; rows.width()];
        for row in rows.iter() {
            sums.iter_mut()
                .enumerate()
                .for_each(|(index, sum)| *sum += values(row, index));
        }
        sums.into_iter().map(|sum| sum / count).collect()
    };
    let center = mean(&|row, index| f64::from(row[index]));
    let variance = mean(&|row, index| (f64::from(row[index]) - center[index]).powi(2));
    let scale = variance.into_iter().map(|variance| {
        if variance > 0.0 {
            1.0 / variance.sqrt()
        } else {
            1.0
        }
    });
    let scale = scale.collect();
    (center, scale)
}

/// Minimizes a convex function, which returns its value and its gradient, by L-BFGS with a
/// backtracking line search (Nocedal and Wright, Numerical Optimization, 2nd edition, algorithms
/// 7.4 and 7.5).
fn lbfgs(
    start: DVector<f64>,
    mut function: impl FnMut(&DVector<f64>) -> (f64, DVector<f64>),
) -> DVector<f64> {
    let mut point = start;
    let (mut value, mut gradient) = function(&point);
    let mut memory: Vec<(DVector<f64>, DVector<f64>)> = Vec::new();
    for _ in 0..MAX_STEPS {
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
        let mut halvings = 0..MAX_HALVINGS;
        let next = loop {
            let next_point = &point + &direction * step;
            let (next_value, next_gradient) = function(&next_point);
            if next_value <= value + 1e-4 * step * descent {
                break Some((next_point, next_value, next_gradient));
            }
            if halvings.next().is_none() {
                break None;
            }
            step *= 0.5;
        };
        // If no step decreases the loss, the minimum is reached within floating-point precision.
        let Some((next_point, next_value, next_gradient)) = next else {
            break;
        };
        let (step_change, gradient_change) = (&next_point - &point, &next_gradient - &gradient);
        if step_change.dot(&gradient_change) > 1e-12 * step_change.norm() * gradient_change.norm() {
            memory.push((step_change, gradient_change));
            if memory.len() > MEMORY {
                memory.remove(0);
            }
        }
        (point, value, gradient) = (next_point, next_value, next_gradient);
    }
    point
}

/// Returns the gradient times an estimate of the inverse Hessian. `memory` holds pairs of a change
/// of the weights and the change of the gradient.
fn search_direction(
    gradient: &DVector<f64>,
    memory: &[(DVector<f64>, DVector<f64>)],
) -> DVector<f64> {
    let mut direction = gradient.clone();
    let mut shares = Vec::with_capacity(memory.len());
    for (s, y) in memory.iter().rev() {
        let share = s.dot(&direction) / s.dot(y);
        direction.axpy(-share, y, 1.0);
        shares.push(share);
    }
    if let Some((s, y)) = memory.last() {
        direction *= s.dot(y) / y.norm_squared();
    }
    for ((s, y), share) in memory.iter().zip(shares.into_iter().rev()) {
        let back = y.dot(&direction) / s.dot(y);
        direction.axpy(share - back, s, 1.0);
    }
    direction
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::testing::clouds;
    use super::*;

    #[test]
    fn weights_and_accuracy_match_scikit_learn() {
        // LogisticRegression(tol=1e-10, max_iter=10000) on StandardScaler().fit_transform(rows
        // 0..300) of the same clusters: its coef_[0], its intercept_, and its score on rows
        // 300..500.
        let ((fitted, labels), (scored, truth)) = (clouds(300, 0), clouds(200, 300));
        let probe = LinearProbe::fit(RowMatrix::new(&fitted, 6), &labels).unwrap();
        let weights = [
            1.459_429, -0.386_404, -0.185_937, 0.019_018, -0.008_188, -0.241_787,
        ];
        for (index, expected) in weights.iter().enumerate() {
            let weight = probe.weights[(0, index)];
            assert!(
                (weight - expected).abs() < 2e-3,
                "{index}: {weight}, expected {expected}"
            );
        }
        for (class, expected) in [-0.269_020, 0.091_623, 0.177_398].into_iter().enumerate() {
            let intercept = probe.weights[(class, 6)];
            assert!(
                (intercept - expected).abs() < 2e-3,
                "{class}: {intercept}, expected {expected}"
            );
        }
        assert_eq!(
            probe.accuracy(RowMatrix::new(&scored, 6), &truth),
            Some(0.665)
        );
    }

    #[test]
    fn unknown_label_counts_as_error() {
        let rows = [-2.0, -1.0, 1.0, 2.0];
        let probe = LinearProbe::fit(RowMatrix::new(&rows, 1), &[70, 70, 9, 9]).unwrap();
        assert_eq!(
            probe.accuracy(RowMatrix::new(&rows, 1), &[70, 70, 9, 8]),
            Some(0.75)
        );
    }

    #[test]
    fn constant_value_does_not_affect_the_fit() {
        let rows = [5.0, -1.0, 5.0, 1.0];
        let probe = LinearProbe::fit(RowMatrix::new(&rows, 2), &[0, 1]).unwrap();
        assert_eq!(probe.accuracy(RowMatrix::new(&rows, 2), &[0, 1]), Some(1.0));
    }

    #[test]
    fn fewer_than_two_labels_return_none() {
        assert!(LinearProbe::fit(RowMatrix::new(&[1.0, 2.0], 1), &[3, 3]).is_none());
        assert!(LinearProbe::fit(RowMatrix::new(&[], 1), &[]).is_none());
    }
}
