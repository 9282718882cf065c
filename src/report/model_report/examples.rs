//! The examples of a report.

use crate::data::Subset;
use crate::evaluate::{Evaluation, RecordScore};
use crate::model::Model;
use crate::report::image_gallery::is_small;
use crate::report::scale::figure;

/// The name of an example and its score.
pub(crate) struct NamedExample<'a> {
    pub(super) name: String,
    pub(crate) score: &'a RecordScore,
}

/// Selects the records that a page shows: evenly spaced from the smallest error to the largest, and
/// the median anomaly.
pub fn examples(evaluation: &Evaluation, model: &Model) -> Vec<(Subset, usize)> {
    chosen(evaluation, model)
        .iter()
        .map(|example| (example.score.part, example.score.index))
        .collect()
}

pub(crate) fn chosen<'a>(evaluation: &'a Evaluation, model: &Model) -> Vec<NamedExample<'a>> {
    let small = model
        .image_input()
        .and_then(|image| image.size)
        .is_some_and(is_small);
    let sorted = |anomaly: bool| {
        let mut sorted: Vec<&RecordScore> = evaluation
            .records
            .iter()
            .filter(|s| s.anomaly == anomaly)
            .collect();
        sorted.sort_by(|a, b| a.error.total_cmp(&b.error));
        sorted
    };
    let (normal, anomalies) = (sorted(false), sorted(true));
    let steps: usize = if small { 8 } else { 2 };
    let named = |step: usize| {
        let name = match step {
            0 => "best".to_owned(),
            step if step == steps => "worst".to_owned(),
            step if step * 2 == steps => "median".to_owned(),
            step => format!("{} %", figure(100.0 * step as f64 / steps as f64, 3)),
        };
        (name, normal.len().saturating_sub(1) * step / steps)
    };
    let mut selected: Vec<(String, usize)> = (0..=steps).map(named).collect();
    selected.dedup_by_key(|(_, index)| *index);
    let examples = selected.into_iter().filter_map(|(name, index)| {
        Some(NamedExample {
            name,
            score: normal.get(index)?,
        })
    });
    let anomaly = anomalies
        .get(anomalies.len() / 2)
        .map(|score| NamedExample {
            name: "median anomaly".to_owned(),
            score,
        });
    examples.chain(anomaly).collect()
}
