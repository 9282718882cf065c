//! The progress of a run: the records of each source that every sink has received.

use std::sync::atomic::Ordering::Relaxed;

use super::progress::{ProgressSample, TaskProgress};
use crate::plan::stage::StageRole;
use crate::topology::{RunStats, StageStats};

impl ProgressSample {
    /// The progress of a run. `limit` is the maximum number of its records.
    pub(super) fn of_run(stats: &RunStats, limit: Option<u64>) -> Self {
        let sources = || {
            stats
                .stages
                .iter()
                .filter(|stage| stage.role == StageRole::Source)
        };
        let totals = limited(sources().map(StageStats::total), limit);
        let tasks = sources().zip(totals).map(|(stage, total)| TaskProgress {
            name: stage.name.to_string(),
            done: stage.records_done.load(Relaxed),
            total,
            ..TaskProgress::default()
        });
        let errors: Vec<String> = stats
            .stages
            .iter()
            .filter_map(|stage| stage.error.as_ref()?.summary())
            .map(|error| format!("{:.4}", error.mean))
            .collect();
        Self {
            tasks: tasks.collect(),
            rejects: Some(stats.rejects()),
            reconstruction_error: (!errors.is_empty()).then(|| errors.join(", ")),
            step: None,
        }
    }
}

/// Bounds the numbers of records of sources, which are read one after another, by the maximum
/// number of all of them. `None` is a number that is not known.
fn limited(totals: impl Iterator<Item = Option<u64>>, limit: Option<u64>) -> Vec<Option<u64>> {
    let mut left = Some(limit.unwrap_or(u64::MAX));
    let mut numbers = Vec::new();
    for total in totals {
        let number = match limit {
            None => total,
            Some(_) => total.zip(left).map(|(all, most)| all.min(most)),
        };
        left = left.zip(number).map(|(most, taken)| most - taken);
        numbers.push(number);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_of_sources_are_bounded_by_the_limit_of_the_run() {
        let limited = |totals: &[Option<u64>], limit| limited(totals.iter().copied(), limit);
        let totals = [Some(10), Some(20), Some(5)];
        assert_eq!(limited(&totals, None), totals);
        assert_eq!(
            limited(&totals, Some(15)),
            [Some(10), Some(5), Some(0)],
            "the first sources are read first"
        );
        assert_eq!(
            limited(&[Some(3), None, Some(4)], Some(5)),
            [Some(3), None, None]
        );
    }
}
