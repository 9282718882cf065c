//! The map of codes: principal components take them to two dimensions, labels or errors give them
//! their tones.

use std::collections::BTreeMap;

use super::chart::{self, ChartLabels, ScatterSeries, TONES};
use super::html::Html;
use super::scale::figure;
use crate::eval_metrics::Pca;

/// Points that are drawn at most: more hide one another.
const MAX_POINTS: usize = 4000;

/// Codes, one after the other, and the group of each.
pub(super) struct LatentPoints<'a> {
    pub(super) size: usize,
    pub(super) values: &'a [f32],
    /// The place of its group in `groups`; `None` where it has none.
    pub(super) group: Vec<Option<usize>>,
    pub(super) groups: Vec<String>,
}

/// The map; `None` where there is nothing that has two dimensions.
pub(super) fn latent_map(codes: &LatentPoints<'_>, title: &str) -> Option<Html> {
    let rows = codes.values.len() / codes.size.max(1);
    let every = rows.div_ceil(MAX_POINTS).max(1);
    let kept: Vec<usize> = (0..rows)
        .step_by(every)
        .filter(|&row| code(codes, row).iter().all(|v| v.is_finite()))
        .collect();
    if codes.size < 2 || kept.len() < 3 {
        return None;
    }
    let pca = Pca::fit(codes.size, 2, |work| {
        kept.iter().for_each(|&row| work(code(codes, row)));
        Ok::<_, std::convert::Infallible>(())
    });
    let Ok(Some(pca)) = pca else { return None };
    let mut clouds: BTreeMap<usize, Vec<(f64, f64)>> = BTreeMap::new();
    let tones = ColorScale::of(codes);
    for row in kept {
        let point = pca.encode(code(codes, row));
        let place = (
            f64::from(point[0]),
            point.get(1).copied().map_or(0.0, f64::from),
        );
        clouds
            .entry(tones.of_row(codes, row))
            .or_default()
            .push(place);
    }
    // Tones go by place, so that a group without points keeps its own.
    let last = clouds.keys().next_back().copied().unwrap_or_default();
    let clouds: Vec<ScatterSeries> = (0..=last)
        .map(|tone| ScatterSeries {
            name: tones.names[tone].clone(),
            points: clouds.remove(&tone).unwrap_or_default(),
        })
        .collect();
    let [x, y] = axes(&pca);
    let words = ChartLabels {
        title,
        x: &x,
        y: &y,
    };
    Some(chart::scatter_plot(words, &clouds, clouds.len() > 2))
}

fn code<'a>(codes: &LatentPoints<'a>, row: usize) -> &'a [f32] {
    &codes.values[row * codes.size..(row + 1) * codes.size]
}

/// The names of the axes, with the share of the variance along each.
fn axes(pca: &Pca) -> [String; 2] {
    let explained = pca.explained();
    let all = explained.iter().sum::<f64>() / pca.explained_share().max(f64::MIN_POSITIVE);
    let share = |place: usize| {
        explained
            .get(place)
            .map_or(0.0, |value| value / all.max(f64::MIN_POSITIVE) * 100.0)
    };
    let name = |word: &str, place: usize| {
        format!("{word} principal component ({} %)", figure(share(place), 2))
    };
    [name("first", 0), name("second", 1)]
}

/// Which group has which tone: each its own where there are enough, else the largest, and one for
/// all others.
struct ColorScale {
    tone: Vec<usize>,
    names: Vec<String>,
}

impl ColorScale {
    fn of(codes: &LatentPoints<'_>) -> Self {
        let mut counts = vec![0_usize; codes.groups.len()];
        codes
            .group
            .iter()
            .flatten()
            .for_each(|&group| counts[group] += 1);
        let unknown = codes.group.iter().any(Option::is_none) && !codes.groups.is_empty();
        let mut present: Vec<usize> = (0..counts.len())
            .filter(|&group| counts[group] > 0)
            .collect();
        let room = TONES - usize::from(unknown);
        if present.len() > room {
            present.sort_by_key(|&group| std::cmp::Reverse(counts[group]));
            present.truncate(TONES - 1);
            present.sort_unstable();
        }
        let mut tone = vec![present.len(); codes.groups.len()];
        present
            .iter()
            .enumerate()
            .for_each(|(place, &group)| tone[group] = place);
        let mut names: Vec<String> = present
            .iter()
            .map(|&group| codes.groups[group].clone())
            .collect();
        names.push(if names.is_empty() { "codes" } else { "others" }.to_owned());
        Self { tone, names }
    }

    fn of_row(&self, codes: &LatentPoints<'_>, row: usize) -> usize {
        codes
            .group
            .get(row)
            .copied()
            .flatten()
            .map_or(self.names.len() - 1, |group| self.tone[group])
    }
}
