//! Sets the gauges that are sampled periodically: queue lengths, rates and utilization over the
//! last 5 seconds, and free disk space.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::metrics::{BlockedCall, Metrics};
use crate::plan::stage::StageRole;
use crate::system;
use crate::topology::ack_tracker::AckTracker;
use crate::topology::messages::WorkItem;
use crate::topology::telemetry::stats::RunStats;

/// The interval at which gauges are set.
const INTERVAL: Duration = Duration::from_millis(250);
/// The number of intervals over which a rate is computed.
const RATE_INTERVALS: usize = 20;
/// The interval at which the free disk space is sampled.
const DISK_INTERVAL: Duration = Duration::from_secs(10);
/// The number of intervals of a span of the error histories.
const ERROR_SPAN_INTERVALS: u64 = 40;

/// The values of the counters at one point in time.
struct StatsSample {
    at: Instant,
    /// Input records per stage.
    records: Vec<u64>,
    /// Busy time per stage, in nanoseconds.
    busy: Vec<u64>,
    /// Busy time per worker, in nanoseconds.
    worked: Vec<u64>,
}

impl StatsSample {
    fn from_stats(stats: &RunStats) -> Self {
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

/// The threads that set gauges, until this value is dropped.
///
/// The gauge thread reads counters and never waits for a disk, so that the gauges stay correct
/// while other threads are blocked. Another thread samples the free disk space.
pub(crate) struct GaugeThread {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// When dropped, ends the thread that samples the disk space, as soon as no disk blocks it.
    _disks: Sender<()>,
}

impl GaugeThread {
    /// Starts the threads. `folders` are the names and folders of the sinks that write to local
    /// disks. If a thread cannot be spawned, a warning is logged and its gauges do not change.
    pub(crate) fn start(
        metrics: &Arc<Metrics>,
        stats: &Arc<RunStats>,
        acks: &Arc<AckTracker>,
        queue: &async_channel::Receiver<WorkItem>,
        folders: Vec<(Arc<str>, PathBuf)>,
    ) -> Self {
        let (end, ended) = channel();
        let (disks_end, disks_ended) = channel();
        let sampler = GaugeSampler {
            metrics: Arc::clone(metrics),
            stats: Arc::clone(stats),
            acks: Arc::clone(acks),
            queue: queue.downgrade(),
        };
        let metrics = Arc::clone(metrics);
        let thread = spawn("gauges", move || sampler.run(&ended));
        spawn("disks", move || {
            sample_disk_space(&metrics, &folders, &disks_ended)
        });
        Self {
            end: Some(end),
            thread,
            _disks: disks_end,
        }
    }
}

impl Drop for GaugeThread {
    fn drop(&mut self) {
        drop(self.end.take());
        // A panic of the thread has been logged and must not end the run.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body);
    if let Err(error) = &thread {
        tracing::warn!(
            thread = name,
            %error,
            "cannot spawn a thread for gauges; they are not updated"
        );
    }
    thread.ok()
}

/// Waits for `pause`. Returns whether the thread should end.
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
        let mut past = VecDeque::from([StatsSample::from_stats(stats)]);
        let (mut round, mut blocked) = (0_u64, Vec::new());
        loop {
            self.sample_queues();
            blocked = log_blocked(&blocked, metrics.calls.blocked_stages());
            round += 1;
            if round.is_multiple_of(ERROR_SPAN_INTERVALS) {
                stats.end_span();
            }
            if is_over(end, INTERVAL) {
                return;
            }
            let now = StatsSample::from_stats(stats);
            if let Some(then) = past.front() {
                set_rates(metrics, stats, then, &now);
            }
            past.push_back(now);
            past.drain(..past.len().saturating_sub(RATE_INTERVALS));
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

/// Logs each stage that is newly blocked, and each one that no longer is. Returns the blocked
/// calls.
fn log_blocked(before: &[BlockedCall], now: Vec<BlockedCall>) -> Vec<BlockedCall> {
    for blocked in now
        .iter()
        .filter(|now| before.iter().all(|before| before.stage != now.stage))
    {
        tracing::warn!(call = %blocked, "a stage is blocked");
    }
    for gone in before
        .iter()
        .filter(|before| now.iter().all(|now| before.stage != now.stage))
    {
        tracing::info!(stage = &*gone.stage, "a stage is no longer blocked");
    }
    now
}

fn set_rates(metrics: &Metrics, stats: &RunStats, then: &StatsSample, now: &StatsSample) {
    let seconds = (now.at - then.at).as_secs_f64().max(f64::MIN_POSITIVE);
    let share = |after: u64, before: u64, threads: usize| {
        (after - before) as f64 / 1e9 / seconds / threads.max(1) as f64
    };
    for (at, stage) in stats.stages.iter().enumerate() {
        let labels = [&*stage.name, stage.kind];
        let records = (now.records[at] - then.records[at]) as f64 / seconds;
        metrics
            .utilization
            .records_per_second
            .with_label_values(&labels)
            .set(records);
        // The time that a source spends on reading is not measured.
        let threads = match stage.role {
            StageRole::Source => continue,
            StageRole::Transform => stats.workers.len(),
            StageRole::Sink => 1,
        };
        metrics
            .utilization
            .stage_utilization
            .with_label_values(&labels)
            .set(share(now.busy[at], then.busy[at], threads));
    }
    for (worker, (after, before)) in now.worked.iter().zip(&then.worked).enumerate() {
        metrics
            .utilization
            .worker_utilization
            .with_label_values(&[&worker.to_string()])
            .set(share(*after, *before, 1));
    }
}

/// Sets the gauges of the free disk space until the run ends. A file system that does not respond
/// blocks only this thread.
fn sample_disk_space(metrics: &Metrics, folders: &[(Arc<str>, PathBuf)], end: &Receiver<()>) {
    loop {
        for (stage, folder) in folders {
            if let Some(space) = system::disk_space(folder) {
                metrics
                    .commits
                    .free_bytes
                    .with_label_values(&[stage])
                    .set(space.free as f64);
                metrics
                    .commits
                    .size_bytes
                    .with_label_values(&[stage])
                    .set(space.size as f64);
            }
        }
        if is_over(end, DISK_INTERVAL) {
            return;
        }
    }
}
