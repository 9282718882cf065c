//! Clusters of rows by k-means.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::RowMatrix;

/// Maximum number of times that the centers are improved.
const MAX_PASSES: usize = 50;
/// The seed of the first centers: equal rows give equal clusters.
const SEED: u64 = 1;

/// The clusters of a set of rows.
#[derive(Debug)]
pub(crate) struct Clusters {
    /// The cluster of each row.
    pub(crate) cluster: Vec<usize>,
    /// The squared Euclidean distance of each row to the center of its cluster.
    pub(crate) distance: Vec<f64>,
    /// The number of rows of each cluster, which is not 0.
    pub(crate) sizes: Vec<usize>,
}

/// Divides rows of finite values into at most `k` clusters, which are sorted by their sizes, largest
/// first. The first centers are those of k-means++ (Arthur and Vassilvitskii, "k-means++: the
/// advantages of careful seeding", SODA 2007), and the centers are improved by Lloyd's algorithm until
/// no row changes its cluster, or for 50 passes.
pub(crate) fn clusters(rows: RowMatrix<'_>, k: usize) -> Clusters {
    let mut centers = first_centers(rows, k);
    let mut nearest = assign(rows, &centers);
    for _ in 0..MAX_PASSES {
        centers = means(rows, &nearest, centers);
        let next = assign(rows, &centers);
        let is_stable = next
            .iter()
            .zip(&nearest)
            .all(|(one, other)| one.0 == other.0);
        nearest = next;
        if is_stable {
            break;
        }
    }
    sorted(&nearest, centers.len())
}

/// Numbers the clusters by their sizes, and leaves out empty ones.
fn sorted(nearest: &[(usize, f64)], count: usize) -> Clusters {
    let mut sizes = vec![0_usize; count];
    nearest.iter().for_each(|&(cluster, _)| sizes[cluster] += 1);
    let mut order: Vec<usize> = (0..count).filter(|&cluster| sizes[cluster] > 0).collect();
    order.sort_by_key(|&cluster| std::cmp::Reverse(sizes[cluster]));
    let mut number = vec![0; count];
    for (index, &cluster) in order.iter().enumerate() {
        number[cluster] = index;
    }
    Clusters {
        cluster: nearest
            .iter()
            .map(|&(cluster, _)| number[cluster])
            .collect(),
        distance: nearest.iter().map(|&(_, distance)| distance).collect(),
        sizes: order.iter().map(|&cluster| sizes[cluster]).collect(),
    }
}

/// Chooses rows as centers, each with a probability that is proportional to its squared distance to
/// the nearest center so far. Fewer than `k` are returned if all rows are equal to a center.
fn first_centers(rows: RowMatrix<'_>, k: usize) -> Vec<Vec<f64>> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let center = |row: usize| -> Vec<f64> {
        let values = rows.iter().nth(row).unwrap_or_default();
        values.iter().map(|&value| f64::from(value)).collect()
    };
    let mut centers = Vec::new();
    let mut distances = vec![1.0; rows.len()];
    while centers.len() < k {
        let sum: f64 = distances.iter().sum();
        if sum <= 0.0 {
            break;
        }
        let mut left = random.random::<f64>() * sum;
        let chosen = distances.iter().position(|distance| {
            left -= distance;
            left < 0.0
        });
        // Rounding may leave a rest above 0 after the last row.
        let last = || distances.iter().rposition(|&distance| distance > 0.0);
        let Some(row) = chosen.or_else(last) else {
            break;
        };
        let added = center(row);
        let is_first = centers.is_empty();
        for (distance, values) in distances.iter_mut().zip(rows.iter()) {
            let new = squared_distance(values, &added);
            *distance = if is_first { new } else { distance.min(new) };
        }
        centers.push(added);
    }
    centers
}

/// The nearest center of each row, and the squared distance to it. Of equal distances, the first
/// center counts.
fn assign(rows: RowMatrix<'_>, centers: &[Vec<f64>]) -> Vec<(usize, f64)> {
    let nearest = |row: &[f32]| {
        let distances = centers.iter().map(|center| squared_distance(row, center));
        distances
            .enumerate()
            .min_by(|one, other| one.1.total_cmp(&other.1))
            .unwrap_or((0, 0.0))
    };
    rows.iter().map(nearest).collect()
}

/// The mean of the rows of each cluster. A cluster without rows keeps its center.
fn means(
    rows: RowMatrix<'_>,
    nearest: &[(usize, f64)],
    mut centers: Vec<Vec<f64>>,
) -> Vec<Vec<f64>> {
    let mut counts = vec![0_u32; centers.len()];
    let mut sums = vec![vec![0.0; rows.width()]; centers.len()];
    for (row, &(cluster, _)) in rows.iter().zip(nearest) {
        counts[cluster] += 1;
        for (sum, &value) in sums[cluster].iter_mut().zip(row) {
            *sum += f64::from(value);
        }
    }
    for ((center, sum), count) in centers.iter_mut().zip(sums).zip(counts) {
        if count > 0 {
            *center = sum.into_iter().map(|sum| sum / f64::from(count)).collect();
        }
    }
    centers
}

fn squared_distance(row: &[f32], center: &[f64]) -> f64 {
    row.iter()
        .zip(center)
        .map(|(&value, center)| (f64::from(value) - center).powi(2))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separate_clouds_are_found_largest_first() {
        // 60, 30 and 10 rows around three corners.
        let corners = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]];
        let corner = |row: usize| match row % 10 {
            0..6 => 0,
            6..9 => 1,
            _ => 2,
        };
        let mut values = Vec::new();
        for row in 0..100 {
            let [x, y] = corners[corner(row)];
            values.extend([x + (row % 7) as f32 * 0.1, y + (row % 3) as f32 * 0.1]);
        }
        let found = clusters(RowMatrix::new(&values, 2), 3);
        assert_eq!(found.sizes, [60, 30, 10]);
        let expected: Vec<usize> = (0..100).map(corner).collect();
        assert_eq!(found.cluster, expected);
        assert!(found.distance.iter().all(|&distance| distance < 0.3));
    }

    #[test]
    fn equal_rows_are_one_cluster_and_no_rows_are_none() {
        let equal = clusters(RowMatrix::new(&[2.0; 40], 4), 5);
        assert_eq!((equal.sizes, equal.cluster), (vec![10], vec![0; 10]));
        assert_eq!(clusters(RowMatrix::new(&[], 4), 5).sizes, [0; 0]);
    }
}
