//! The clusters of the latents of a dataset, with examples, and its most unusual records.

use std::collections::BTreeMap;

use maud::Markup;

use crate::eval_metrics::{RowMatrix, kmeans};
use crate::report::dataset_sample::SampledLatents;
use crate::report::page::{all, figures, notes, scroll};
use crate::report::run_report::RunReport;
use crate::report::scale::{count, figure};
use crate::report::thumbnails::{Card, Thumbnails, cards};

/// Maximum number of clusters.
const CLUSTERS: usize = 8;
/// Number of examples of a cluster: the latents nearest to its center.
const EXAMPLES: usize = 6;
/// Number of rows per cluster below which fewer clusters are made.
const MIN_ROWS: usize = 10;

impl RunReport {
    /// The clusters of the sampled latents; `None` if there are too few latents.
    pub(super) fn clusters(&self, thumbnails: &mut Thumbnails) -> Option<Vec<Markup>> {
        let latents = self.scan.codes.as_ref()?;
        let finite = |row: &usize| {
            let start = row * latents.size;
            let values = latents.values.get(start..start + latents.size);
            values.is_some_and(|values| values.iter().all(|value| value.is_finite()))
        };
        let rows: Vec<usize> = (0..latents.errors.len()).filter(finite).collect();
        let k = CLUSTERS.min(rows.len() / MIN_ROWS);
        if k < 2 {
            return None;
        }
        let values: Vec<f32> = rows
            .iter()
            .flat_map(|row| &latents.values[row * latents.size..(row + 1) * latents.size])
            .copied()
            .collect();
        let found = kmeans::clusters(RowMatrix::new(&values, latents.size), k);
        if found.sizes.len() < 2 {
            return None;
        }
        let mut parts = vec![notes(&[format!(
            "k-means with {} clusters over {} latents, evenly spaced over the dataset. The examples are \
             those nearest to the center of their cluster.",
            found.sizes.len(),
            count(rows.len() as u64)
        )])];
        for (cluster, &size) in found.sizes.iter().enumerate() {
            let mut members: Vec<(f64, usize)> = (0..rows.len())
                .filter(|&index| found.cluster[index] == cluster)
                .map(|index| (found.distance[index], rows[index]))
                .collect();
            members.sort_by(|one, other| one.0.total_cmp(&other.0));
            let share = size as f64 / rows.len() as f64;
            let members: Vec<usize> = members.into_iter().map(|(_, row)| row).collect();
            parts.push(cluster_row(latents, share, &members, thumbnails));
        }
        Some(parts)
    }

    /// The most unusual records, as a table and as thumbnails.
    pub(super) fn anomalies(&self, thumbnails: &mut Thumbnails) -> Option<Vec<Markup>> {
        let found = &self.scan.anomalies;
        let column = found.column.as_deref()?;
        if found.records.is_empty() {
            return None;
        }
        let has_reasons = found
            .records
            .iter()
            .any(|record| !record.reasons.is_empty());
        let mut heads = vec!["source", "row", "position", column];
        heads.extend(has_reasons.then_some("reasons"));
        let rows = found.records.iter().map(|record| {
            let [source, row] = record.origin.clone().map(Option::unwrap_or_default);
            let mut cells = vec![
                source,
                row,
                record.position.to_string(),
                figure(record.value, 5),
            ];
            if has_reasons {
                cells.push(record.reasons.join(", "));
            }
            cells
        });
        let title = format!("Records with the largest {}", column.replace('_', " "));
        let table = figures(&title, &heads, rows);
        let images: Vec<Card> = found
            .records
            .iter()
            .filter_map(|record| {
                let [source, _] = &record.origin;
                let source = source.clone().unwrap_or_default();
                Some(Card {
                    title: figure(record.value, 4),
                    image: Some(thumbnails.of_name(&source)?),
                    lines: vec![source, record.reasons.join(", ")],
                })
            })
            .collect();
        let images = (!images.is_empty()).then(|| cards(images));
        Some([table].into_iter().chain(images).collect())
    }
}

/// A cluster: its share, its most frequent label, and its examples.
fn cluster_row(
    latents: &SampledLatents,
    share: f64,
    members: &[usize],
    thumbnails: &mut Thumbnails,
) -> Markup {
    let mut labels: BTreeMap<&str, usize> = BTreeMap::new();
    for label in members
        .iter()
        .filter_map(|&row| latents.labels[row].as_deref())
    {
        *labels.entry(label).or_default() += 1;
    }
    let mut labels: Vec<(&str, usize)> = labels.into_iter().collect();
    labels.sort_by_key(|&(_, rows)| std::cmp::Reverse(rows));
    let names: Vec<String> = labels
        .iter()
        .take(3)
        .map(|(label, rows)| {
            let percent = *rows as f64 / members.len() as f64 * 100.0;
            format!("{label} ({percent:.0} %)")
        })
        .collect();
    let errors: Vec<f64> = members
        .iter()
        .filter_map(|&row| latents.errors[row])
        .collect();
    let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    let error = (!errors.is_empty()).then(|| format!("mean error {}", figure(mean, 3)));
    let facts: Vec<String> = [
        Some(names.join(", ")).filter(|text| !text.is_empty()),
        error,
    ]
    .into_iter()
    .flatten()
    .collect();
    let title = format!("{:.1} % of the latents", share * 100.0);
    let examples = members.iter().take(EXAMPLES).map(|&row| {
        let [source, number] = latents.origins[row].clone();
        let source = source.unwrap_or_default();
        Card {
            title: latents.labels[row].clone().unwrap_or_default(),
            image: thumbnails.of_name(&source),
            lines: vec![
                source,
                number
                    .map(|number| format!("row {number}"))
                    .unwrap_or_default(),
            ],
        }
    });
    let examples = cards(examples);
    all([
        maud::html! { h3 { (title) } },
        notes(&facts),
        scroll(&examples),
    ])
}
