//! Unit tests of the module `duplicates`: comparison with all pairs one by one.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::search::metric::QueryVector;
use crate::search::testing::{dataset, noise};

const WIDTH: usize = 19;

/// The groups of all pairs, compared one by one.
fn groups_of(latents: &[Vec<f32>], metric: Metric, threshold: f64) -> Vec<Vec<u64>> {
    let mut group: Vec<usize> = (0..latents.len()).collect();
    for one in 0..latents.len() {
        let Some(query) = QueryVector::new(metric, latents[one].clone()) else {
            continue;
        };
        for other in 0..one {
            let distance = query.distance(&latents[other]);
            if distance.is_some_and(|distance| distance <= threshold) {
                let (from, to) = (group[one], group[other]);
                let (from, to) = (from.max(to), from.min(to));
                group
                    .iter_mut()
                    .filter(|own| **own == from)
                    .for_each(|own| *own = to);
            }
        }
    }
    let members = |first: usize| -> Vec<u64> {
        let own = (0..latents.len()).filter(|&row| group[row] == first);
        own.map(|row| row as u64).collect()
    };
    let mut all: Vec<Vec<u64>> = (0..latents.len()).map(members).collect();
    all.retain(|rows| rows.len() > 1);
    all.sort_by_key(|rows| Reverse(rows.len()));
    all
}

/// Latents around few centers, with exact copies, a null, zeros and NaN.
fn latents() -> Vec<Vec<f32>> {
    let centers: Vec<f32> = noise(40 * WIDTH, 1).collect();
    let mut jitter = noise(700 * WIDTH, 2);
    let mut all: Vec<Vec<f32>> = (0..700)
        .map(|row| {
            let center = &centers[row % 40 * WIDTH..][..WIDTH];
            let spread = (row % 11) as f32 * 0.02;
            center
                .iter()
                .map(|&value| (value + jitter.next().unwrap() * spread) * (1.0 + (row % 3) as f32))
                .collect()
        })
        .collect();
    all[10] = vec![0.0; WIDTH];
    all[11][3] = f32::NAN;
    all[650] = all[20].clone();
    all
}

#[test]
fn groups_equal_those_of_all_pairs_one_by_one() {
    let latents = latents();
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), &latents, 90);
    for (metric, thresholds) in [
        (Metric::Cosine, [0.0, 1e-4, 0.01, 0.2]),
        (Metric::Euclidean, [0.0, 0.05, 0.4, 1.5]),
    ] {
        for threshold in thresholds {
            let expected = groups_of(&latents, metric, threshold);
            for block_rows in [1000, 300, 77] {
                let limit = PairLimit { metric, threshold };
                let found = dataset
                    .duplicates_in_blocks(limit, block_rows, &mut |done, all| assert!(done <= all))
                    .unwrap();
                let positions: Vec<Vec<u64>> = found
                    .groups
                    .iter()
                    .map(|group| group.iter().map(|row| row.position).collect())
                    .collect();
                assert_eq!(positions, expected, "{metric} {threshold} {block_rows}");
                let without = 1 + u64::from(metric == Metric::Cosine);
                assert_eq!(found.counts.without_distance, without);
                assert!(
                    found
                        .groups
                        .iter()
                        .flatten()
                        .all(|row| row.distance <= threshold)
                );
            }
        }
    }
}

#[test]
fn equal_rows_far_from_zero_and_tiny_rows_are_found() {
    let far = vec![1e19_f32; WIDTH];
    let tiny = vec![1e-30_f32; WIDTH];
    let mut other = tiny.clone();
    other[0] = -1e-30;
    let folder = tempfile::tempdir().unwrap();
    let latents = [far.clone(), tiny.clone(), other, tiny, far];
    let dataset = dataset(folder.path(), &latents, 5);
    for metric in [Metric::Cosine, Metric::Euclidean] {
        // The cosine of equal rows is exact, that of others is rounded.
        let threshold = match metric {
            Metric::Cosine => 1e-15,
            _ => 0.0,
        };
        let limit = PairLimit { metric, threshold };
        let found = dataset
            .duplicates_in_blocks(limit, 2, &mut |_, _| {})
            .unwrap();
        let positions: Vec<Vec<u64>> = found
            .groups
            .iter()
            .map(|group| group.iter().map(|row| row.position).collect())
            .collect();
        let expected: &[&[u64]] = match metric {
            // The cosine of all rows but one is 1.
            Metric::Cosine => &[&[0, 1, 3, 4]],
            _ => &[&[0, 4], &[1, 3]],
        };
        assert_eq!(positions, expected, "{metric}");
    }
}
