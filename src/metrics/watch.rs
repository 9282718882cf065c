//! The metrics of folders that are watched.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec};

use crate::metrics::factory::MetricFactory;

/// The metrics of folders that are watched, by stage; absent where none is.
pub struct WatchMetrics {
    /// 1 while files are taken from the folder; 0 while it is missing, empty against expectation,
    /// or on another disk.
    pub available: IntGaugeVec,
    /// Files that wait to be read, since an attempt failed for a reason that is not their own.
    pub waiting_files: IntGaugeVec,
    /// For how long the oldest of them has waited.
    pub oldest_waiting: GaugeVec,
    /// Folders and files that could not be read when all were listed last.
    pub unread_folders: IntGaugeVec,
    /// Folders of which the system reports no changes.
    pub unwatched_folders: IntGaugeVec,
    /// Journalled files that were replaced by a later version before they were read.
    pub superseded: IntCounterVec,
    conditions: Mutex<BTreeMap<String, WatchCondition>>,
}

/// How a watch is, for who asks whether the run is ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchCondition {
    /// Why no files are taken at all: a clause.
    pub trouble: Option<String>,
    /// Which files wait, and why: a clause.
    pub remark: Option<String>,
}

impl WatchMetrics {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        let stage = &["stage"];
        Self {
            available: maker.gauge_vec(
                "watch_available",
                "1 while files are taken from a watched folder; 0 while it is missing, emptied, or its disk is not mounted",
                stage,
            ),
            waiting_files: maker.gauge_vec(
                "watch_waiting_files",
                "Files of a watched folder that are tried again, since they could not be read",
                stage,
            ),
            oldest_waiting: maker.gauge_vec_f64(
                "watch_oldest_waiting_seconds",
                "For how long the oldest of the files has waited that are tried again; 0 where none waits",
                stage,
            ),
            unread_folders: maker.gauge_vec(
                "watch_unread_folders",
                "Folders and files below a watched folder that could not be looked at when all were listed last",
                stage,
            ),
            unwatched_folders: maker.gauge_vec(
                "watch_unwatched_folders",
                "Folders below a watched folder of which the system reports no changes; they are listed every `rescan`",
                stage,
            ),
            superseded: maker.counter_vec(
                "watch_superseded_total",
                "Journalled files that were replaced by a later version before they could be read",
                stage,
            ),
            conditions: Mutex::default(),
        }
    }

    fn conditions(&self) -> MutexGuard<'_, BTreeMap<String, WatchCondition>> {
        self.conditions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports how the watch of a stage is.
    pub fn report(&self, stage: &str, trouble: Option<String>, remark: Option<String>) {
        let condition = WatchCondition { trouble, remark };
        let mut conditions = self.conditions();
        if conditions.get(stage) != Some(&condition) {
            conditions.insert(stage.to_owned(), condition);
        }
    }

    /// Why a watch takes no files at all, if one does not.
    pub fn trouble(&self) -> Option<String> {
        let conditions = self.conditions();
        conditions.iter().find_map(|(stage, condition)| {
            Some(format!("{stage}: {}", condition.trouble.as_ref()?))
        })
    }

    /// Which files of which stages wait, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let conditions = self.conditions();
        let remark = |(stage, condition): (&String, &WatchCondition)| {
            condition
                .remark
                .as_ref()
                .map(|remark| format!("{stage}: {remark}"))
        };
        conditions.iter().filter_map(remark).collect()
    }
}
