//! The map of latents: their first two principal components, colored by label or error.

use std::collections::BTreeMap;

use maud::Markup;

use super::chart;
use super::chart::{ChartLabels, ScatterSeries};
use super::scale::figure;
use crate::eval_metrics::Pca;
use crate::report::chart::frame::TONES;

/// Maximum number of points; more would cover each other.
const MAX_POINTS: usize = 4000;

/// Latents in row-major order, with their groups.
pub(super) struct LatentPoints<'a> {
    pub(super) size: usize,
    pub(super) values: &'a [f32],
    /// The index in `groups` for each latent; `None` without a group.
    pub(super) group: Vec<Option<usize>>,
    pub(super) groups: Vec<String>,
}

/// Draws the map; `None` for latents of one value or fewer than three finite latents.
pub(super) fn latent_map(codes: &LatentPoints<'_>, title: &str) -> Option<Markup> {
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
    let tones = ColorScale::new(codes);
    for row in kept {
        let point = pca.encode(code(codes, row));
        let coordinates = (
            f64::from(point[0]),
            point.get(1).copied().map_or(0.0, f64::from),
        );
        clouds
            .entry(tones.of_row(codes, row))
            .or_default()
            .push(coordinates);
    }
    // Colors depend on the index, so that a group without points keeps its color.
    let last = clouds.keys().next_back().copied().unwrap_or_default();
    let mut series = Vec::new();
    for tone in 0..=last {
        series.push(ScatterSeries {
            name: tones.names[tone].clone(),
            points: clouds.remove(&tone).unwrap_or_default(),
        });
    }
    let [x, y] = axes(&pca);
    let labels = ChartLabels {
        title,
        x: &x,
        y: &y,
    };
    Some(chart::scatter_plot(labels, &series, series.len() > 2))
}

fn code<'a>(codes: &LatentPoints<'a>, row: usize) -> &'a [f32] {
    &codes.values[row * codes.size..(row + 1) * codes.size]
}

/// Returns the names of the axes with their shares of the variance.
fn axes(pca: &Pca) -> [String; 2] {
    let explained = pca.explained();
    let all = explained.iter().sum::<f64>() / pca.explained_share().max(f64::MIN_POSITIVE);
    let share = |index: usize| {
        explained
            .get(index)
            .map_or(0.0, |value| value / all.max(f64::MIN_POSITIVE) * 100.0)
    };
    let name = |ordinal: &str, index: usize| {
        format!(
            "{ordinal} principal component ({} %)",
            figure(share(index), 2)
        )
    };
    [name("first", 0), name("second", 1)]
}

/// The colors of the groups. If there are more groups than colors, the largest groups have their
/// own color, and the others share one.
struct ColorScale {
    tone: Vec<usize>,
    names: Vec<String>,
}

impl ColorScale {
    fn new(codes: &LatentPoints<'_>) -> Self {
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
            .for_each(|(index, &group)| tone[group] = index);
        let mut names: Vec<String> = present
            .iter()
            .map(|&group| codes.groups[group].clone())
            .collect();
        names.push(
            if names.is_empty() {
                "latents"
            } else {
                "others"
            }
            .to_owned(),
        );
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
