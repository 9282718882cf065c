//! Sets the gauges that nobody else does: what waits, rates and utilisation over the last seconds,
//! room on disks.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::ack_tracker::AckTracker;
use super::messages::WorkItem;
use super::stats::RunStats;
use crate::metrics::{BlockedCall, Metrics};
use crate::system;

/// How often gauges are set.
const EVERY: Duration = Duration::from_millis(250);
/// Over how many of these spans a rate is taken.
const RATE_SPANS: usize = 20;
/// How often the room on disks is looked at.
const DISKS_EVERY: Duration = Duration::from_secs(10);
/// After how many of them the errors of the time since are told.
const ERROR_SPANS: u64 = 40;

/// What has been counted at a moment.
struct StatsSample {
    at: Instant,
    /// Per stage.
    records: Vec<u64>,
    /// Nanoseconds, per stage and per worker.
    busy: Vec<u64>,
    worked: Vec<u64>,
}

impl StatsSample {
    fn of(stats: &RunStats) -> Self {
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

/// Sets gauges until it is dropped.
///
/// Its thread reads what others count and never waits for a disk, so that gauges tell the truth
/// while all others hang. The room on disks is asked for by another one.
pub(super) struct GaugeThread {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Dropped, it ends the thread that asks for the room on disks, once no disk holds it.
    _disks: Sender<()>,
}

impl GaugeThread {
    /// `folders`: sinks that write to disks of this machine, and where. Where a thread cannot be
    /// started, its gauges stay.
    pub(super) fn start(
        metrics: &Arc<Metrics>,
        stats: &Arc<RunStats>,
        acks: &Arc<AckTracker>,
        queue: &async_channel::Receiver<WorkItem>,
        folders: Vec<(Arc<str>, PathBuf)>,
    ) -> Self {
        let (end, ended) = channel();
        let (disks, unwatched) = channel();
        let measured = GaugeSampler {
            metrics: Arc::clone(metrics),
            stats: Arc::clone(stats),
            acks: Arc::clone(acks),
            queue: queue.downgrade(),
        };
        let metrics = Arc::clone(metrics);
        let thread = spawn("gauges", move || measured.run(&ended));
        spawn("disks", move || {
            sample_disk_space(&metrics, &folders, &unwatched)
        });
        Self {
            end: Some(end),
            thread,
            _disks: disks,
        }
    }
}

impl Drop for GaugeThread {
    fn drop(&mut self) {
        drop(self.end.take());
        // A panic there has been logged, and ends no run.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body);
    thread.map_err(|error| tracing::warn!(%error, "the thread `{name}` cannot be started: its gauges stay")).ok()
}

/// Whether to end, after a pause.
fn is_over(end: &Receiver<()>, pause: Duration) -> bool {
    !matches!(end.recv_timeout(pause), Err(RecvTimeoutError::Timeout))
}

struct GaugeSampler {
    metrics: Arc<Metrics>,
    stats: Arc<RunStats>,
    acks: Arc<AckTracker>,
    queue: async_channel::WeakReceiver<WorkItem>,
}

impl GaugeSampler {
    fn run(&self, end: &Receiver<()>) {
        let Self { metrics, stats, .. } = self;
        let mut past = VecDeque::from([StatsSample::of(stats)]);
        let (mut round, mut blocked) = (0_u64, Vec::new());
        loop {
            self.sample_queues();
            blocked = log_blocked(&blocked, metrics.calls.blocked_stages());
            round += 1;
            if round.is_multiple_of(ERROR_SPANS) {
                stats.end_span();
            }
            if is_over(end, EVERY) {
                return;
            }
            let now = StatsSample::of(stats);
            if let Some(then) = past.front() {
                set_rates(metrics, stats, then, &now);
            }
            past.push_back(now);
            past.drain(..past.len().saturating_sub(RATE_SPANS));
        }
    }

    fn sample_queues(&self) {
        let Self {
            metrics,
            acks,
            queue,
            ..
        } = self;
        let waiting = queue.upgrade().map_or(0, |queue| queue.len());
        metrics
            .utilization
            .queue_batches
            .with_label_values(&["work"])
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
        let oldest = acks
            .oldest_unacked()
            .into_iter()
            .chain(metrics.calls.oldest_record())
            .max();
        metrics
            .commits
            .oldest_uncommitted
            .set(oldest.map_or(0.0, |age| age.as_secs_f64()));
        metrics.calls.measure();
    }
}

/// Logs which stages are blocked and were not before, and which go on. Returns those that are
/// blocked.
fn log_blocked(before: &[BlockedCall], now: Vec<BlockedCall>) -> Vec<BlockedCall> {
    for blocked in now
        .iter()
        .filter(|now| before.iter().all(|before| before.stage != now.stage))
    {
        tracing::warn!("{blocked}");
    }
    for gone in before
        .iter()
        .filter(|before| now.iter().all(|now| before.stage != now.stage))
    {
        tracing::info!("{}: is not blocked any more", gone.stage);
    }
    now
}

fn set_rates(metrics: &Metrics, stats: &RunStats, then: &StatsSample, now: &StatsSample) {
    let seconds = (now.at - then.at).as_secs_f64().max(f64::MIN_POSITIVE);
    let share = |now: u64, then: u64, threads: usize| {
        (now - then) as f64 / 1e9 / seconds / threads.max(1) as f64
    };
    for (at, stage) in stats.stages.iter().enumerate() {
        let labels = [&*stage.name, stage.kind];
        let records = (now.records[at] - then.records[at]) as f64 / seconds;
        metrics
            .utilization
            .records_per_second
            .with_label_values(&labels)
            .set(records);
        // What reads goes by the name of its source, but is not timed.
        let threads = match stage.role {
            "source" => continue,
            "transform" => stats.workers.len(),
            _ => 1,
        };
        metrics
            .utilization
            .stage_utilization
            .with_label_values(&labels)
            .set(share(now.busy[at], then.busy[at], threads));
    }
    for (worker, (now, then)) in now.worked.iter().zip(&then.worked).enumerate() {
        metrics
            .utilization
            .worker_utilization
            .with_label_values(&[&worker.to_string()])
            .set(share(*now, *then, 1));
    }
}

/// Sets the gauges of the room on disks until the run ends. A file system that does not answer
/// holds this thread alone.
fn sample_disk_space(metrics: &Metrics, folders: &[(Arc<str>, PathBuf)], end: &Receiver<()>) {
    loop {
        for (stage, folder) in folders {
            if let Some(room) = system::disk_space(folder) {
                metrics
                    .commits
                    .free_bytes
                    .with_label_values(&[stage])
                    .set(room.free as f64);
                metrics
                    .commits
                    .size_bytes
                    .with_label_values(&[stage])
                    .set(room.size as f64);
            }
        }
        if is_over(end, DISKS_EVERY) {
            return;
        }
    }
}
