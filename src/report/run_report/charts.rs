//! The charts of a report about a run.

use maud::Markup;

use crate::report::chart::{ChartLabels, HistogramSeries, histogram};
use crate::report::latent_map::LatentPoints;
use crate::report::run_report::{RunReport, UNUSUAL};
use crate::report::{dataset_sample, latent_map};

/// Maximum number of distinct labels; a column with more values usually holds names.
const MAX_LABELS: usize = 128;

impl RunReport {
    pub(super) fn errors(&self) -> Vec<Markup> {
        let drawn = |(name, values): &(String, Vec<f64>)| {
            let title = name.replace('_', " ");
            let labels = ChartLabels {
                title: &title,
                x: name,
                y: "% of the records",
            };
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
            let marks = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)]
                .map(|(mark, share)| (mark.to_owned(), at(share)));
            histogram(
                labels,
                &[HistogramSeries {
                    name,
                    values: values.clone(),
                }],
                &marks,
            )
        };
        self.scan
            .errors
            .iter()
            .filter(|(_, values)| !values.is_empty())
            .map(drawn)
            .collect()
    }

    /// Draws the latents in groups: by label if there are labels, otherwise the records with the
    /// largest errors and the others.
    pub(super) fn latents(&self) -> Option<Markup> {
        let dataset_sample::SampledLatents {
            column,
            size,
            values,
            labels,
            errors,
            origins: _,
        } = self.scan.codes.as_ref()?;
        let mut groups: Vec<String> = labels.iter().flatten().cloned().collect();
        groups.sort_unstable();
        groups.dedup();
        let (group, groups) = if (2..=MAX_LABELS).contains(&groups.len()) {
            let group_index = |label: &String| groups.binary_search(label).ok();
            (
                labels
                    .iter()
                    .map(|label| label.as_ref().and_then(group_index))
                    .collect(),
                groups,
            )
        } else {
            let mut sorted: Vec<f64> = errors.iter().flatten().copied().collect();
            sorted.sort_by(f64::total_cmp);
            match sorted.get((sorted.len() as f64 * UNUSUAL) as usize) {
                None => (vec![None; errors.len()], Vec::new()),
                Some(limit) => {
                    let group = errors
                        .iter()
                        .map(|error| error.map(|error| usize::from(error >= *limit)))
                        .collect();
                    (
                        group,
                        vec![
                            "other records".to_owned(),
                            "5 % with the largest errors".to_owned(),
                        ],
                    )
                }
            }
        };
        latent_map::latent_map(
            &LatentPoints {
                size: *size,
                values,
                group,
                groups,
            },
            column,
        )
    }
}
