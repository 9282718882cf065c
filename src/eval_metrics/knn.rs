//! The accuracy of a k-nearest-neighbors classifier.

use nalgebra::DMatrix;

use super::RowMatrix;
use super::nearest::Nearest;

/// Numbers of scored and of fitted rows in a block. Their products, 128 x 2,048 float64, take 2
/// MiB, which fits into the cache of a core.
const SCORED_BLOCK: usize = 128;
const FITTED_BLOCK: usize = 2048;

/// Returns the share of `scored` rows whose label in `truth` is the most frequent label of their
/// `k` nearest neighbors in `fitted` by Euclidean distance. Between equally frequent labels, the
/// one with the nearest row wins. The search is exhaustive, in float64. Returns `None` without
/// rows, or if `k` is 0.
pub(crate) fn accuracy(
    fitted: RowMatrix<'_>,
    labels: &[u32],
    scored: RowMatrix<'_>,
    truth: &[u32],
    k: usize,
) -> Option<f64> {
    if fitted.is_empty() || scored.is_empty() || k == 0 {
        return None;
    }
    let mut right = 0;
    for (block, block_truth) in scored.blocks(SCORED_BLOCK).zip(truth.chunks(SCORED_BLOCK)) {
        let nearest = nearest(fitted, block, k);
        right += nearest
            .iter()
            .zip(block_truth)
            .filter(|(nearest, label)| vote(nearest, labels) == Some(**label))
            .count();
    }
    Some(right as f64 / scored.len() as f64)
}

/// Returns the `k` nearest rows of each row in `block`: the squared distance minus the squared norm of
/// the row in `block`, and the index of the row in `fitted`.
fn nearest(fitted: RowMatrix<'_>, block: RowMatrix<'_>, k: usize) -> Vec<Nearest<usize>> {
    let scored = block.columns();
    let mut nearest = vec![Nearest::new(k); block.len()];
    for (number, fitted_block) in fitted.blocks(FITTED_BLOCK).enumerate() {
        let rows = fitted_block.columns();
        let squares: Vec<f64> = rows.column_iter().map(|row| row.norm_squared()).collect();
        let products: DMatrix<f64> = rows.transpose() * &scored;
        for (neighbors, column) in nearest.iter_mut().zip(products.column_iter()) {
            let indices = number * FITTED_BLOCK..;
            for ((product, square), index) in column.iter().zip(&squares).zip(indices) {
                neighbors.add(square - 2.0 * product, index);
            }
        }
    }
    nearest
}

fn vote(nearest: &Nearest<usize>, labels: &[u32]) -> Option<u32> {
    let nearest = || nearest.items().iter().map(|&(_, index)| labels[index]);
    let votes = |label: u32| nearest().filter(|&other| other == label).count();
    // `max_by_key` returns the last of equal items, which is the nearest in reverse order.
    nearest().rev().max_by_key(|&label| votes(label))
}

#[cfg(test)]
mod tests {
    use super::super::testing::clouds;
    use super::*;

    #[test]
    fn accuracy_matches_scikit_learn() {
        // KNeighborsClassifier(algorithm="brute").fit(rows 0..300) of the same clusters: for k = 1
        // its score on rows 300..500, for k = 5 the accuracy of a vote over its `kneighbors`, in
        // which the nearest row decides ties.
        let ((fitted, labels), (scored, truth)) = (clouds(300, 0), clouds(200, 300));
        for (k, expected) in [(1, 0.83), (5, 0.72)] {
            let found = accuracy(
                RowMatrix::new(&fitted, 6),
                &labels,
                RowMatrix::new(&scored, 6),
                &truth,
                k,
            );
            assert_eq!(found, Some(expected), "{k}");
        }
    }

    #[test]
    fn rows_in_several_blocks_are_all_compared() {
        let values: Vec<f32> = (0..5000).map(|row| row as f32).collect();
        let labels: Vec<u32> = (0..5000).map(|row| row / 10).collect();
        let rows = RowMatrix::new(&values, 1);
        assert_eq!(accuracy(rows, &labels, rows, &labels, 1), Some(1.0));
        // For the first and the last of ten rows with the same label, at least three of the five
        // nearest rows have that label.
        assert_eq!(accuracy(rows, &labels, rows, &labels, 5), Some(1.0));
    }

    #[test]
    fn nearest_row_decides_tie_of_votes() {
        let fitted = [1.0, -2.0, 3.0, -4.0, 9.0];
        let labels = [7, 8, 8, 7, 9];
        assert_eq!(
            accuracy(
                RowMatrix::new(&fitted, 1),
                &labels,
                RowMatrix::new(&[0.0], 1),
                &[7],
                5
            ),
            Some(1.0)
        );
        let swapped = [8, 7, 7, 8, 9];
        assert_eq!(
            accuracy(
                RowMatrix::new(&fitted, 1),
                &swapped,
                RowMatrix::new(&[0.0], 1),
                &[7],
                5
            ),
            Some(0.0)
        );
    }

    #[test]
    fn fewer_rows_than_k_all_vote_and_no_rows_return_none() {
        let one = RowMatrix::new(&[1.0], 1);
        assert_eq!(accuracy(one, &[3], one, &[3], 5), Some(1.0));
        assert_eq!(accuracy(RowMatrix::new(&[], 1), &[], one, &[3], 5), None);
        assert_eq!(accuracy(one, &[3], RowMatrix::new(&[], 1), &[], 5), None);
    }
}
