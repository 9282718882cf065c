//! How often a record's nearest neighbours have its label.

use nalgebra::DMatrix;

use super::RowMatrix;

/// Rows that are compared at a time: what is looked up, and what it is compared with. Products of
/// 128 x 2,048 float64 take 2 MiB, which stays near the processor.
const SCORED_BLOCK: usize = 128;
const FITTED_BLOCK: usize = 2048;

/// The share of `scored` rows whose label in `truth` is the one that most of their `k` nearest
/// neighbours in `fitted` have, by Euclidean distance; of labels that as many have, the one whose
/// first member is nearest. Brute force, in float64. `None` where there are no rows, or `k` is 0.
pub fn accuracy(
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
    for (block, truth) in scored.blocks(SCORED_BLOCK).zip(truth.chunks(SCORED_BLOCK)) {
        let nearest = nearest(fitted, labels, block, k);
        right += nearest
            .iter()
            .zip(truth)
            .filter(|(nearest, truth)| vote(nearest) == Some(**truth))
            .count();
    }
    Some(right as f64 / scored.len() as f64)
}

/// The `k` nearest of each row in `block`: squared distance less the row's own square, and label;
/// ascending.
fn nearest(
    fitted: RowMatrix<'_>,
    labels: &[u32],
    block: RowMatrix<'_>,
    k: usize,
) -> Vec<Vec<(f64, u32)>> {
    let sought = block.columns();
    let mut nearest = vec![Vec::with_capacity(k + 1); block.len()];
    for (fitted, labels) in fitted.blocks(FITTED_BLOCK).zip(labels.chunks(FITTED_BLOCK)) {
        let known = fitted.columns();
        let squares: Vec<f64> = known.column_iter().map(|row| row.norm_squared()).collect();
        let products: DMatrix<f64> = known.transpose() * &sought;
        for (nearest, products) in nearest.iter_mut().zip(products.column_iter()) {
            for ((product, square), &label) in products.iter().zip(&squares).zip(labels) {
                insert(nearest, (square - 2.0 * product, label), k);
            }
        }
    }
    nearest
}

/// Keeps the `k` least, in order; of equal ones the first.
fn insert(nearest: &mut Vec<(f64, u32)>, met: (f64, u32), k: usize) {
    if nearest.len() == k && nearest.last().is_some_and(|last| met.0 >= last.0) {
        return;
    }
    let place = nearest.partition_point(|known| known.0 <= met.0);
    nearest.insert(place, met);
    nearest.truncate(k);
}

fn vote(nearest: &[(f64, u32)]) -> Option<u32> {
    let votes = |label: u32| nearest.iter().filter(|known| known.1 == label).count();
    // `max_by_key` gives the last of equals: the nearest, when read backwards.
    nearest
        .iter()
        .rev()
        .map(|known| known.1)
        .max_by_key(|&label| votes(label))
}

#[cfg(test)]
mod tests {
    use super::super::testing::clouds;
    use super::*;

    #[test]
    fn the_share_is_that_of_scikit_learn() {
        // KNeighborsClassifier(algorithm="brute").fit(rows 0..300) of the same clouds: its score on
        // rows 300..500 for one neighbour, and for five the share that is right when the votes of
        // its kneighbors are counted, ties to the nearest
        let ((fitted, labels), (scored, truth)) = (clouds(300, 0), clouds(200, 300));
        for (k, expected) in [(1, 0.83), (5, 0.72)] {
            let met = accuracy(
                RowMatrix::new(&fitted, 6),
                &labels,
                RowMatrix::new(&scored, 6),
                &truth,
                k,
            );
            assert_eq!(met, Some(expected), "{k}");
        }
    }

    #[test]
    fn blocks_make_no_difference() {
        let values: Vec<f32> = (0..5000).map(|row| row as f32).collect();
        let labels: Vec<u32> = (0..5000).map(|row| row / 10).collect();
        let rows = RowMatrix::new(&values, 1);
        assert_eq!(accuracy(rows, &labels, rows, &labels, 1), Some(1.0));
        // At the edge of ten that are alike, three of five are alike still.
        assert_eq!(accuracy(rows, &labels, rows, &labels, 5), Some(1.0));
    }

    #[test]
    fn of_labels_with_as_many_votes_the_nearest_wins() {
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
        let labels = [8, 7, 7, 8, 9];
        assert_eq!(
            accuracy(
                RowMatrix::new(&fitted, 1),
                &labels,
                RowMatrix::new(&[0.0], 1),
                &[7],
                5
            ),
            Some(0.0)
        );
    }

    #[test]
    fn fewer_rows_than_neighbours_are_all_asked_and_none_answer_nothing() {
        let one = RowMatrix::new(&[1.0], 1);
        assert_eq!(accuracy(one, &[3], one, &[3], 5), Some(1.0));
        assert_eq!(accuracy(RowMatrix::new(&[], 1), &[], one, &[3], 5), None);
        assert_eq!(accuracy(one, &[3], RowMatrix::new(&[], 1), &[], 5), None);
    }
}
