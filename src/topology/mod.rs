//! Runs a plan. The topology owns every thread, task, channel, clock and counter; stages own none.
//!
//! ```text
//! sources -> dispatcher -> workers (the whole graph, one batch at a time) -> reorder -> sinks
//!            numbers, permits                                                in order    commit
//! ```

mod source_readers;
mod activity;
mod inference;
mod budget;
mod dispatcher;
mod drift;
mod embedded;
mod reconstruction_error;
mod hot_reload;
mod gauge_sampler;
mod generation;
mod error_history;
mod sink_runner;
mod ack_tracker;
mod messages;
mod reject_records;
mod reorder;
mod tap;
mod stats;
mod poison_records;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::coverage::{Coverage, ResumeState};
use crate::error::StageError;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::plan::{Plan, RejectLimits, RunningConfig, StageOperator, max_in_flight_batches};
use crate::sink::{
    ChangePolicy, CommitStats, IdentityScope, OutputHistory, OutputIdentity, Sink, SinkWriter,
    output_mounts::OutputMounts,
};
use crate::source;
use crate::storage::Location;

use ack_tracker::AckTracker;
use budget::InFlightBudget;
use dispatcher::{DispatchEnd, Dispatcher};
use gauge_sampler::GaugeThread;
use generation::{Generation, TransformGraph};
use inference::InferenceQueue;
use messages::{FailureSignal, SinkMessage, WorkItem};
use poison_records::PoisonRecordTracker;
use reject_records::OriginalsPolicy;
use sink_runner::{CommitPolicy, REJECTS_EVERY, SINKS_EVERY, SinkRunner, Uncommitted};
use source_readers::SourceSlot;
use worker::{WorkQueues, WorkerShared};

pub use activity::{ActiveBatch, BatchRange, RecordPosition, WorkerActivity};
pub use embedded::EmbeddedGraph;
pub use hot_reload::{ReloadHandle, ReloadOutcome};
pub use poison_records::clear_crash_state;

pub use error_history::{ErrorSpan, ErrorSummary};
pub use reconstruction_error::{RECONSTRUCTION_ERROR, ReconstructionErrorStats};
pub use stats::{RunStats, StageStats};
pub use tap::{RecentReject, SampledImage};

/// How a run ended.
#[derive(Debug)]
pub enum RunOutcome {
    /// Every source ended, or the requested number of records was read; all of them are committed.
    Finished,
    /// Stopped on request before the end of the input. All records that were read are committed,
    /// and the next run resumes after them.
    Drained,
    /// Stopped before the end of the input because more records were rejected than the pipeline
    /// allows.
    Rejected,
    /// A stage failed. Earlier commits remain.
    Failed {
        /// The name of the stage.
        stage: Arc<str>,
        /// The cause.
        error: StageError,
    },
}

/// A plan that is ready to run: its sinks are open, and the coverage of earlier runs is loaded.
pub struct Topology {
    sources: Vec<SourceSlot>,
    reload_handle: Arc<ReloadHandle>,
    sinks: Vec<OpenSink>,
    resume: ResumeState,
    budget: InFlightBudget,
    inference_budget: InFlightBudget,
    footprint: crate::plan::Footprint,
    reject_limits: RejectLimits,
    commit_age: Option<Duration>,
    workers: usize,
    stats: Arc<RunStats>,
    metrics: Arc<Metrics>,
    /// The names and folders of the sinks that write to local disks.
    folders: Vec<(Arc<str>, PathBuf)>,
}

struct OpenSink {
    name: Arc<str>,
    stage: Option<usize>,
    writer: Box<dyn SinkWriter>,
    /// The sink skips a batch that all of these contain.
    committed: Vec<Coverage>,
    durable: bool,
    /// Whether the sink writes to this machine.
    is_local: bool,
}

impl OpenSink {
    /// The maximum age of an uncommitted record: the smaller of the pipeline's `age` and the age of
    /// the writer.
    fn commit_age(&self, age: Option<Duration>) -> Option<Duration> {
        age.into_iter().chain(self.writer.commit_age()).min()
    }
}

impl Topology {
    /// Opens the sinks and loads their coverage. No source is read and no thread is started yet.
    /// `changes` decides whether a sink may append to rows that were written with a different
    /// configuration.
    ///
    /// # Errors
    /// The name of the stage that failed, and the cause.
    pub fn open(
        plan: Plan,
        metrics: Arc<Metrics>,
        changes: ChangePolicy,
    ) -> Result<Self, (Arc<str>, StageError)> {
        let (stats, outline) = (
            Arc::new(RunStats::new(&plan, Arc::clone(&metrics))),
            RunningConfig::from_plan(&plan),
        );
        let mut graph = TransformGraph::new(&plan.stages, OriginalsPolicy::from_plan(&plan));
        let [budget, inference_budget] = in_flight_budgets(&plan, &metrics);
        metrics
            .utilization
            .memory_limit_bytes
            .set(i64::try_from(plan.memory.budget).unwrap_or(i64::MAX));
        let named = plan.stages.iter().zip(plan.folders());
        let folders = named.filter_map(|(stage, folder)| {
            Some((Arc::clone(&stage.name), folder?.local()?.to_path_buf()))
        });
        let folders: Vec<(Arc<str>, PathBuf)> = folders.collect();
        let opener = SinkOpener {
            changes,
            mounts: plan.output_mounts(),
        };
        let (mut sources, mut sinks, mut identities) = (Vec::new(), Vec::new(), Vec::new());
        for (at, stage) in plan.stages.into_iter().enumerate() {
            match stage.operator {
                StageOperator::Source(source, _) => sources.push(SourceSlot {
                    stage: at,
                    name: stage.name,
                    source,
                }),
                StageOperator::Transform(_) => {}
                StageOperator::Sink(sink, identity) => {
                    let (sink, history, identity) =
                        opener.open(stage.name, Some(at), sink, identity)?;
                    if let Some(encoder) = sink.writer.batch_encoder() {
                        graph.set_encoder(at, encoder);
                    }
                    let committed = history.coverage();
                    graph.already_committed[at] = committed.clone();
                    identities.push(identity);
                    sinks.push(OpenSink {
                        committed: vec![committed],
                        ..sink
                    });
                }
            }
        }
        if let Some((sink, identity)) = plan.rejects {
            let (sink, history, identity) =
                opener.open(Arc::from("rejects"), None, sink, identity)?;
            let committed = graph.rejected_before(&history, &identity);
            identities.push(identity);
            sinks.push(OpenSink { committed, ..sink });
        }
        log_opened(&plan.models);
        let resume = ResumeState {
            sinks: Arc::new(durable_coverage(&sinks)),
            state: plan.state,
        };
        for source in &sources {
            source
                .source
                .admit_inputs(&resume)
                .map_err(|error| (Arc::clone(&source.name), error))?;
        }
        let Plan {
            footprint,
            reject_limits,
            commit_age,
            workers,
            ..
        } = plan;
        let reload_handle = ReloadHandle::new(
            Generation::new(0, graph, identities),
            outline,
            workers,
            &stats,
            &metrics,
        );
        Ok(Self {
            sources,
            reload_handle: Arc::new(reload_handle),
            sinks,
            resume,
            budget,
            inference_budget,
            footprint,
            reject_limits,
            commit_age,
            workers,
            stats,
            metrics,
            folders,
        })
    }

    /// The counters, which can be read while the topology runs.
    pub fn stats(&self) -> Arc<RunStats> {
        Arc::clone(&self.stats)
    }

    /// The handle that replaces models and transform options while the topology runs.
    pub fn reload_handle(&self) -> Arc<ReloadHandle> {
        Arc::clone(&self.reload_handle)
    }

    /// The number of source rows that earlier runs have committed to every sink.
    pub fn committed(&self) -> u64 {
        self.resume
            .sinks
            .iter()
            .map(Coverage::len)
            .min()
            .unwrap_or(0)
    }

    fn set_limits(&self, capacity: usize) {
        let load = &self.metrics.utilization;
        load.workers
            .set(i64::try_from(self.workers).unwrap_or(i64::MAX));
        load.queue_limit
            .with_label_values(&["work"])
            .set(i64::try_from(capacity).unwrap_or(i64::MAX));
    }

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
                return RunOutcome::Failed {
                    stage: Arc::from("state"),
                    error,
                };
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
                StageError::Other("the task panicked".to_owned()),
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

impl RunOutcome {
    fn new(failed: Option<(Arc<str>, StageError)>, ended: DispatchEnd) -> Self {
        match (failed, ended) {
            (Some((stage, error)), _) => Self::Failed { stage, error },
            (None, DispatchEnd::ShutdownRequested) => Self::Drained,
            (None, DispatchEnd::Rejected(_)) => Self::Rejected,
            (None, DispatchEnd::Exhausted | DispatchEnd::Limited) => Self::Finished,
            (None, DispatchEnd::Failed) => {
                let error = StageError::Other("all worker threads exited unexpectedly".to_owned());
                Self::Failed {
                    stage: Arc::from("workers"),
                    error,
                }
            }
        }
    }
}

/// The divisor that gives the share of the memory budget reserved for inference requests: 1/8.
const INFERENCE_SHARE: u64 = 8;

/// Divides the memory of a plan between batches for sinks and inference requests. Each has a budget
/// of its own, so that batches for sinks cannot block inference requests.
fn in_flight_budgets(plan: &Plan, metrics: &Arc<Metrics>) -> [InFlightBudget; 2] {
    let inference = if plan.is_unbounded() {
        plan.memory.budget / INFERENCE_SHARE
    } else {
        0
    };
    let batches = max_in_flight_batches(plan.workers);
    [plan.memory.budget - inference, inference]
        .map(|bytes| InFlightBudget::new(bytes, batches, metrics))
}

fn log_opened(models: &[Arc<Model>]) {
    for model in models {
        let (name, kind, digest) = (model.name(), model.kind(), model.digest());
        tracing::info!(model = name, kind, digest, "model opened");
    }
}

fn log_closed(models: &[Arc<Model>]) {
    for model in models {
        let (name, digest) = (model.name(), model.digest());
        tracing::info!(model = name, digest, "model closed");
    }
}

/// Opens the sinks of a run.
struct SinkOpener {
    changes: ChangePolicy,
    mounts: OutputMounts,
}

impl SinkOpener {
    /// Opens a sink if it may append to its output, and records the file system of its folder.
    /// `stage` is the index of the stage, `None` for the rejects dataset. Returns the sink without
    /// committed coverage, and the identity with the former digests under which the sink
    /// recognizes the stage.
    fn open(
        &self,
        name: Arc<str>,
        stage: Option<usize>,
        sink: Box<dyn Sink>,
        mut identity: OutputIdentity,
    ) -> Result<(OpenSink, OutputHistory, OutputIdentity), (Arc<str>, StageError)> {
        let scope = match stage {
            Some(_) => IdentityScope::Sink,
            None => IdentityScope::Rejects,
        };
        let is_durable = sink.folder().is_some();
        let is_local = sink.folder().is_none_or(|folder| folder.local().is_some());
        let local_folder = sink.local_folder();
        let opened = self
            .admit(sink.as_ref(), &mut identity, scope)
            .and_then(|history| Ok((history, sink.open(identity.clone())?)));
        let (history, writer) = opened.map_err(|error| (Arc::clone(&name), error))?;
        if let Some(folder) = &local_folder {
            self.mounts.record(folder);
        }
        let committed = history.coverage().len();
        tracing::info!(stage = &*name, committed, "sink opened");
        let open_sink = OpenSink {
            name,
            stage,
            writer,
            committed: Vec::new(),
            durable: is_durable,
            is_local,
        };
        Ok((open_sink, history, identity))
    }

    /// Returns the history of a sink if `identity` may append to it. Adds the former digests under
    /// which the sink recognizes the stage to `identity`.
    fn admit(
        &self,
        sink: &dyn Sink,
        identity: &mut OutputIdentity,
        scope: IdentityScope,
    ) -> Result<OutputHistory, StageError> {
        let folder = sink
            .folder()
            .unwrap_or_else(|| Location::Local(PathBuf::new()));
        if let Some(local) = sink.local_folder() {
            self.mounts.check(&local)?;
        }
        let mut history = sink.history()?;
        history.recognize(identity);
        let admitted = history.check_compatible(&folder, identity, scope);
        if admitted.is_ok() || history.allows(self.changes, identity) {
            sink.check_columns()?;
        }
        match admitted {
            // An identity that is accepted under a former digest is also accepted under this one.
            Ok(()) if history.accepts(identity) && !history.accepted.contains(&identity.digest) => {
                sink.allow_mixing(&identity.digests())?;
            }
            Ok(()) => {}
            Err(_) if history.allows(self.changes, identity) => {
                sink.allow_mixing(&[history.digests(), identity.digests()].concat())?;
            }
            Err(refused) => return Err(refused),
        }
        Ok(history)
    }
}

/// Accepts the folders of a plan in their present state: deletes the records of earlier runs about
/// the file systems of these folders.
///
/// # Errors
/// When a record cannot be deleted.
pub fn start_over(plan: &Plan) -> Result<(), StageError> {
    let mounts = plan.output_mounts();
    let rejects = plan.rejects.as_ref().and_then(|(sink, _)| sink.folder());
    for folder in plan.folders().into_iter().flatten().chain(rejects) {
        folder
            .local()
            .map_or(Ok(()), |folder| mounts.remove_record(folder))?;
    }
    let sources = plan
        .stages
        .iter()
        .filter(|stage| matches!(stage.operator, StageOperator::Source(..)));
    let state = plan.state.as_ref();
    sources
        .zip(state.into_iter().cycle())
        .try_for_each(|(stage, state)| source::accept_folder(&stage.name, state))
}

/// The distinct coverages of the durable sinks. A sink without durability (`stdout`) is left out,
/// so that it does not make a source read all records again. If no other sink is durable, the
/// rejects dataset alone must not make a source skip records; the list is then empty.
fn durable_coverage(sinks: &[OpenSink]) -> Vec<Coverage> {
    let durable = sinks.iter().filter(|sink| sink.durable);
    if durable.clone().all(|sink| sink.stage.is_none()) {
        return Vec::new();
    }
    let mut coverages: Vec<Coverage> = Vec::new();
    for coverage in durable.flat_map(|sink| &sink.committed) {
        if !coverages.contains(coverage) {
            coverages.push(coverage.clone());
        }
    }
    coverages
}

type Thread = std::io::Result<std::thread::JoinHandle<()>>;

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Thread {
    std::thread::Builder::new().name(name).spawn(body)
}

/// Waits for all threads. Stops at the first one that could not be spawned or that panicked, and
/// fails the run.
async fn join_all(threads: Vec<Thread>, stop: &FailureSignal) {
    let ends_well = |thread: Thread| thread.is_ok_and(|thread| thread.join().is_ok());
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().all(ends_well)).await;
    if !joined.unwrap_or(false) {
        stop.fail(
            &Arc::from("threads"),
            StageError::Other("a thread could not be spawned, or it panicked".to_owned()),
        );
    }
}

/// Starts `count` worker threads.
fn start_workers(
    count: usize,
    shared: WorkerShared,
    reload_handle: &ReloadHandle,
    queues: &WorkQueues,
    done: &async_channel::Sender<messages::WorkerMessage>,
) -> Vec<Thread> {
    let shared = Arc::new(shared);
    let worker = |number| {
        let (shared, generations) = (Arc::clone(&shared), reload_handle.generations());
        let (queues, done, runtime) = (
            queues.clone(),
            done.clone(),
            tokio::runtime::Handle::current(),
        );
        let work = move || worker::work(number, &shared, generations, &queues, &done, &runtime);
        spawn(format!("worker-{number}"), work)
    };
    (0..count).map(worker).collect()
}

/// Starts one thread per sink. Returns the threads and the senders of their messages.
fn start_sink_runners(
    sinks: Vec<OpenSink>,
    age: Option<Duration>,
    stats: &Arc<RunStats>,
    acks: &Arc<AckTracker>,
    stop: &FailureSignal,
) -> (Vec<Thread>, Vec<async_channel::Sender<SinkMessage>>) {
    let sink_runners = sinks.into_iter().enumerate().map(|(index, sink)| {
        // The permits bound the number of messages.
        let (outbox, inbox) = async_channel::unbounded();
        let own_age = sink.commit_age(age);
        let OpenSink {
            name,
            stage,
            writer,
            committed,
            is_local,
            ..
        } = sink;
        let caller = stats.calls().caller(&name, is_local);
        let batches = if stage.is_some() {
            SINKS_EVERY
        } else {
            REJECTS_EVERY
        };
        let (stats, acks, stop) = (Arc::clone(stats), Arc::clone(acks), stop.clone());
        let policy = CommitPolicy {
            batches,
            age: own_age,
            logged: age.is_some(),
        };
        let (uncommitted, thread) = (Uncommitted::default(), format!("sink-{name}"));
        let sink_runner = SinkRunner {
            name,
            stage,
            index,
            writer,
            committed,
            inbox,
            policy,
            generation: 0,
            uncommitted,
            reported: CommitStats::default(),
            caller,
        };
        (
            spawn(thread, move || sink_runner.run(&stats, &acks, &stop)),
            outbox,
        )
    });
    sink_runners.unzip()
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
