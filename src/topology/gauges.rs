//! Sets the gauges that nobody else does: what waits, rates and utilisation over the last seconds, room on disks.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::ledger::Ledger;
use super::messages::Work;
use super::stats::Stats;
use crate::machine;
use crate::metrics::Metrics;

/// How often gauges are set.
const EVERY: Duration = Duration::from_millis(250);
/// Over how many of these spans a rate is taken.
const RATE_SPANS: usize = 20;
/// After how many of them the room on disks is looked at.
const DISK_SPANS: u64 = 40;

/// After how many of them the errors of the time since are told.
const ERROR_SPANS: u64 = 40;

/// What has been counted at a moment.
struct Moment {
    at: Instant,
    /// Per stage.
    records: Vec<u64>,
    /// Nanoseconds, per stage and per worker.
    busy: Vec<u64>,
    worked: Vec<u64>,
}

impl Moment {
    fn of(stats: &Stats) -> Self {
        let stages = || stats.stages.iter();
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        Self {
            at: Instant::now(),
            records: stages().map(|stage| load(&stage.records_in)).collect(),
            busy: stages().map(|stage| load(&stage.busy)).collect(),
            worked: stats.workers.iter().map(load).collect(),
        }
    }
}

/// Sets gauges until it is aborted, or the queue is gone. `folders`: sinks that write to disks of this machine, and where.
pub(super) fn start(
    metrics: &Arc<Metrics>,
    stats: &Arc<Stats>,
    ledger: &Arc<Ledger>,
    queue: async_channel::Receiver<Work>,
    folders: Vec<(Arc<str>, PathBuf)>,
) -> tokio::task::JoinHandle<()> {
    let (metrics, stats, ledger) = (Arc::clone(metrics), Arc::clone(stats), Arc::clone(ledger));
    let queue = queue.downgrade();
    tokio::spawn(async move {
        let waiting = metrics.load.queue_batches.with_label_values(&["work"]);
        let mut past = VecDeque::from([Moment::of(&stats)]);
        let mut round = 0_u64;
        while let Some(queue) = queue.upgrade() {
            waiting.set(i64::try_from(queue.len()).unwrap_or(i64::MAX));
            drop(queue);
            metrics.commits.oldest_uncommitted.set(ledger.oldest().map_or(0.0, |age| age.as_secs_f64()));
            if round.is_multiple_of(DISK_SPANS) {
                set_room(&metrics, &folders).await;
            }
            round += 1;
            if round.is_multiple_of(ERROR_SPANS) {
                stats.end_span();
            }
            tokio::time::sleep(EVERY).await;
            let now = Moment::of(&stats);
            if let Some(then) = past.front() {
                set_rates(&metrics, &stats, then, &now);
            }
            past.push_back(now);
            past.drain(..past.len().saturating_sub(RATE_SPANS));
        }
    })
}

fn set_rates(metrics: &Metrics, stats: &Stats, then: &Moment, now: &Moment) {
    let seconds = (now.at - then.at).as_secs_f64().max(f64::MIN_POSITIVE);
    let share = |now: u64, then: u64, threads: usize| (now - then) as f64 / 1e9 / seconds / threads.max(1) as f64;
    for (at, stage) in stats.stages.iter().enumerate() {
        let labels = [&*stage.name, stage.kind];
        let records = (now.records[at] - then.records[at]) as f64 / seconds;
        metrics.load.records_per_second.with_label_values(&labels).set(records);
        // What reads goes by the name of its source, but is not timed.
        let threads = match stage.role {
            "source" => continue,
            "transform" => stats.workers.len(),
            _ => 1,
        };
        metrics.load.stage_utilization.with_label_values(&labels).set(share(now.busy[at], then.busy[at], threads));
    }
    for (worker, (now, then)) in now.worked.iter().zip(&then.worked).enumerate() {
        metrics.load.worker_utilization.with_label_values(&[&worker.to_string()]).set(share(*now, *then, 1));
    }
}

/// A network file system may take its time to answer.
async fn set_room(metrics: &Arc<Metrics>, folders: &[(Arc<str>, PathBuf)]) {
    let (metrics, folders) = (Arc::clone(metrics), folders.to_vec());
    let asked = tokio::task::spawn_blocking(move || {
        for (stage, folder) in &folders {
            if let Some(room) = machine::room(folder) {
                metrics.commits.free_bytes.with_label_values(&[stage]).set(room.free as f64);
                metrics.commits.size_bytes.with_label_values(&[stage]).set(room.size as f64);
            }
        }
    });
    // What panics there is no reason to end here.
    let _ = asked.await;
}
