//! Runs an open topology to its end.

use std::sync::Arc;
use std::time::Duration;

use crate::coverage::Coverage;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::failure::StageFailure;
use crate::metrics::Metrics;
use crate::plan::max_in_flight_batches;
use crate::plan::pipeline::Plan;
use crate::storage::Location;
use crate::topology::ack_tracker::AckTracker;
use crate::topology::budget::InFlightBudget;
use crate::topology::dispatcher::{DispatchEnd, Dispatcher};
use crate::topology::inference::InferenceQueue;
use crate::topology::messages::{FailureSignal, SinkMessage, WorkItem};
use crate::topology::model_log::log_closed;
use crate::topology::outcome::RunOutcome;
use crate::topology::poison_records::PoisonRecordTracker;
use crate::topology::telemetry::gauge_sampler::GaugeThread;
use crate::topology::threads::{join_all, start_sink_runners, start_workers};
use crate::topology::work_queues::WorkQueues;
use crate::topology::worker::WorkerShared;
use crate::topology::{Topology, reorder};

/// The divisor that gives the share of the memory budget reserved for inference requests: 1/8.
const INFERENCE_SHARE: u64 = 8;

/// Divides the memory of a plan between batches for sinks and inference requests. Each has a budget
/// of its own, so that batches for sinks cannot block inference requests.
pub(super) fn in_flight_budgets(plan: &Plan, metrics: &Arc<Metrics>) -> [InFlightBudget; 2] {
    let inference = if plan.is_unbounded() {
        plan.memory.budget / INFERENCE_SHARE
    } else {
        0
    };
    let batches = max_in_flight_batches(plan.workers);
    [plan.memory.budget - inference, inference]
        .map(|bytes| InFlightBudget::new(bytes, batches, metrics))
}

/// Waits until the sources have sent the last responses to their clients, each for at most
/// [`CLOSING`].
async fn end_sources(closing: Vec<tokio::sync::oneshot::Receiver<()>>) {
    for closed in closing {
        drop(tokio::time::timeout(CLOSING, closed).await);
    }
}

/// The time that a source has to send the last responses to its clients.
const CLOSING: Duration = Duration::from_secs(10);

/// The interval at which sinks check the age of their oldest uncommitted record.
const TICK: Duration = Duration::from_millis(250);

/// Sends a tick to each idle sink. A busy sink checks the age after each batch.
async fn tick(outboxes: Vec<async_channel::Sender<SinkMessage>>) {
    loop {
        tokio::time::sleep(TICK).await;
        for outbox in outboxes.iter().filter(|outbox| outbox.is_empty()) {
            // Sending fails only if the sink has ended, which then needs no ticks.
            let _ = outbox.send(SinkMessage::Tick).await;
        }
    }
}

impl Topology {
    /// Runs until the sources end, `limit` records have been read, `shutdown` resolves, or a stage
    /// fails. In each case all records that were read are processed and committed, unless a failure
    /// prevents it.
    pub async fn run(self, limit: Option<u64>, shutdown: impl Future<Output = ()>) -> RunOutcome {
        let stop = FailureSignal::new();
        let capacity = max_in_flight_batches(self.workers);
        self.set_limits(capacity);
        let committed = self.resume.sinks.iter().map(Coverage::len).sum();
        let poison_records = match PoisonRecordTracker::open(
            self.resume.state.as_ref().and_then(Location::local),
            committed,
            capacity,
        ) {
            Ok(poison_records) => Arc::new(poison_records),
            Err(error) => {
                return RunOutcome::Failed(StageFailure::new("state", error));
            }
        };
        let (work_sender, work) = async_channel::bounded::<WorkItem>(capacity);
        let (inference_sender, inference) = async_channel::bounded::<WorkItem>(capacity);
        let (done_sender, done) = async_channel::unbounded();
        let acks = Arc::new(AckTracker::new(self.sinks.len()));
        let is_timed = self
            .sinks
            .iter()
            .any(|sink| sink.commit_age(self.commit_age).is_some());
        let (mut threads, outboxes) =
            start_sink_runners(self.sinks, self.commit_age, &self.stats, &acks, &stop);
        let shared = WorkerShared::new(&self.stats, &poison_records, &acks, &stop);
        let queues = WorkQueues {
            inference,
            work: work.clone(),
        };
        threads.extend(start_workers(
            self.workers,
            shared,
            &self.reload_handle,
            &queues,
            &done_sender,
        ));
        drop(queues);
        let ticks = is_timed.then(|| tokio::spawn(tick(outboxes.clone())));
        let gauges = GaugeThread::start(&self.metrics, &self.stats, &acks, &work, self.folders);
        drop(work);
        let reorder = tokio::spawn(reorder::reorder(done, outboxes));
        let inference_queue = InferenceQueue {
            requests: inference_sender,
            budget: Arc::new(self.inference_budget),
            footprint: self.footprint,
            generations: self.reload_handle.generations(),
            poison_records: Arc::clone(&poison_records),
        };
        let stats = Arc::clone(&self.stats);
        let dispatcher = Dispatcher {
            caller: self.metrics.calls.caller("state", true),
            resume: self.resume,
            footprint: self.footprint,
            budget: self.budget,
            work: work_sender,
            done: done_sender,
            stats: self.stats,
            poison_records: Arc::clone(&poison_records),
            inference: inference_queue,
            closing: Vec::new(),
            acks: Arc::clone(&acks),
            generations: self.reload_handle.generations(),
            stop: stop.clone(),
            reject_limits: self.reject_limits,
            left: limit,
        };
        let (ended, closing) = dispatcher.run(self.sources, shutdown).await;
        ended.log(limit);
        if reorder.await.is_err() {
            stop.fail(
                &Arc::from("reorder"),
                StageError::new(ErrorCode::Internal, "the task panicked"),
            );
        }
        if let Some(ticks) = ticks {
            ticks.abort();
        }
        join_all(threads, &stop).await;
        drop(gauges);
        self.metrics.utilization.workers.set(0);
        drop(acks);
        end_sources(closing).await;
        log_closed(&stats.models());
        let failed = stop.take();
        poison_records.close(failed.is_none() && ended == DispatchEnd::Exhausted);
        RunOutcome::new(failed, ended)
    }
}
