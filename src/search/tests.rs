//! Unit tests of the search for neighbors.
#![allow(clippy::unwrap_used)]

use crate::search::metric::{Metric, QueryVector};
use crate::search::testing::{dataset, noise};

#[test]
fn neighbors_equal_those_of_a_sorted_list_for_any_files() {
    const WIDTH: usize = 21;
    let mut values = noise(WIDTH * 500, 3);
    let mut latents: Vec<Vec<f32>> = (0..500)
        .map(|_| values.by_ref().take(WIDTH).collect())
        .collect();
    // Equal latents have equal distances.
    latents[499] = latents[7].clone();
    latents[250] = latents[7].clone();
    for rows in [500, 64] {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path(), &latents, rows);
        for metric in [Metric::Cosine, Metric::Euclidean, Metric::Dot] {
            for position in [7, 123] {
                let own = QueryVector::new(metric, latents[position].clone()).unwrap();
                let mut expected: Vec<(f64, u64)> = latents
                    .iter()
                    .zip(0..)
                    .filter(|&(_, row)| row != position as u64)
                    .map(|(latent, row)| (own.distance(latent).unwrap(), row))
                    .collect();
                expected.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
                let query = dataset.row_query(position as u64).unwrap();
                let mut last = (0, 0);
                let found = dataset
                    .neighbors(&query, metric, 20, &mut |done, all| last = (done, all))
                    .unwrap();
                assert_eq!(found.found, expected[..20], "{metric} {position} {rows}");
                assert_eq!(found.counts.compared, 499);
                assert_eq!(last, (500, 500));
            }
        }
    }
}
