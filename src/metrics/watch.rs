//! The metrics of watched folders.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec};

use crate::metrics::factory::MetricFactory;

/// The metrics of watched folders, by stage; absent if no folder is watched.
pub struct WatchMetrics {
    /// 1 while files are read from the folder; 0 while it is missing, unexpectedly empty, or on
    /// another disk.
    pub available: IntGaugeVec,
    /// Files that are retried because a read failed for a reason outside of the file.
    pub waiting_files: IntGaugeVec,
    /// Age of the oldest of these files in seconds.
    pub oldest_waiting: GaugeVec,
    /// Folders and files that the last full listing could not read.
    pub unread_folders: IntGaugeVec,
    /// Folders for which the operating system reports no changes.
    pub unwatched_folders: IntGaugeVec,
    /// Journaled files that were replaced by a later version before they were read.
    pub superseded: IntCounterVec,
    conditions: Mutex<BTreeMap<String, WatchCondition>>,
}

/// The condition of a watch, for readiness probes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WatchCondition {
    /// The reason why no files are read at all, as a clause.
    pub unavailable_reason: Option<String>,
    /// The files that wait and the reason, as a clause.
    pub pending_files: Option<String>,
}

impl WatchMetrics {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        let stage = &["stage"];
        Self {
            available: maker.gauge_vec(
                "watch_available",
                "1 while files are read from a watched folder; 0 while it is missing, unexpectedly \
                 empty, or its disk is not mounted",
                stage,
            ),
            waiting_files: maker.gauge_vec(
                "watch_waiting_files",
                "Number of files of a watched folder that could not be read and are retried; 0 if \
                 there are none",
                stage,
            ),
            oldest_waiting: maker.gauge_vec_f64(
                "watch_oldest_waiting_seconds",
                "Time for which the oldest file that is retried has waited, in seconds; 0 if there \
                 is none",
                stage,
            ),
            unread_folders: maker.gauge_vec(
                "watch_unread_folders",
                "Number of folders and files below a watched folder that the last full listing \
                 could not read; 0 if all were read",
                stage,
            ),
            unwatched_folders: maker.gauge_vec(
                "watch_unwatched_folders",
                "Number of folders below a watched folder for which the operating system reports \
                 no changes, so that they are listed every `rescan`; 0 if there are none",
                stage,
            ),
            superseded: maker.counter_vec(
                "watch_superseded_total",
                "Number of journaled files that were replaced by a later version before they were \
                 read",
                stage,
            ),
            conditions: Mutex::default(),
        }
    }

    /// Sets the condition of a stage's watch.
    pub fn report(
        &self,
        stage: &str,
        unavailable_reason: Option<String>,
        pending_files: Option<String>,
    ) {
        let condition = WatchCondition {
            unavailable_reason,
            pending_files,
        };
        let mut conditions = self.conditions.lock();
        if conditions.get(stage) != Some(&condition) {
            conditions.insert(stage.to_owned(), condition);
        }
    }

    /// The reason why a watch reads no files at all, if there is one.
    pub(crate) fn unavailable_reason(&self) -> Option<String> {
        let conditions = self.conditions.lock();
        conditions.iter().find_map(|(stage, condition)| {
            Some(format!(
                "{stage}: {}",
                condition.unavailable_reason.as_ref()?
            ))
        })
    }

    /// The waiting files of all stages, one line per stage.
    pub(crate) fn pending_files_by_stage(&self) -> Vec<String> {
        let conditions = self.conditions.lock();
        let pending_files = |(stage, condition): (&String, &WatchCondition)| {
            condition
                .pending_files
                .as_ref()
                .map(|pending_files| format!("{stage}: {pending_files}"))
        };
        conditions.iter().filter_map(pending_files).collect()
    }
}
