//! A plan, running: owns every thread, task, channel, clock and counter, so that stages own none.
//!
//! ```text
//! sources -> dispatcher -> workers (the whole graph, one batch at a time) -> reorder -> sinks
//!            numbers, permits                                                in order    commit
//! ```

mod source_readers;
mod inference;
mod budget;
mod dispatcher;
mod drift;
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
use crate::plan::{Plan, RejectLimits, RunningConfig, StageRole, max_in_flight_batches};
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

pub use hot_reload::{ReloadHandle, ReloadOutcome};
pub use poison_records::forget;

pub use error_history::{ErrorSpan, ErrorSummary};
pub use reconstruction_error::{RECONSTRUCTION_ERROR, ReconstructionErrorStats};
pub use stats::{RunStats, StageStats};
pub use tap::{RecentReject, SampledImage};

/// How a run ended.
#[derive(Debug)]
pub enum RunOutcome {
    /// Every source gave all that it had, or as many records as were asked for; all of it is
    /// committed.
    Finished,
    /// Stopped on request before the input's end; what was read is committed, running again goes
    /// on.
    Drained,
    /// Stopped before the input's end, since more records were rejected than the pipeline allows.
    Rejected,
    /// A stage failed; what was committed before stays.
    Failed {
        /// The stage.
        stage: Arc<str>,
        /// Why.
        error: StageError,
    },
}

/// A plan whose sinks are open and whose earlier output is known: ready to go.
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
    /// Sinks that write to disks of this machine, and where.
    folders: Vec<(Arc<str>, PathBuf)>,
}

struct OpenSink {
    name: Arc<str>,
    stage: Option<usize>,
    writer: Box<dyn SinkWriter>,
    /// A batch that all of these cover is old to the sink.
    committed: Vec<Coverage>,
    durable: bool,
    /// Whether it writes to this machine.
    is_local: bool,
}

impl OpenSink {
    /// How long a record waits to be committed here, where the pipeline says `age`.
    fn commit_age(&self, age: Option<Duration>) -> Option<Duration> {
        age.into_iter().chain(self.writer.commit_age()).min()
    }
}

impl Topology {
    /// Opens the sinks and reads what they have. Nothing is read or started yet. `changes` says
    /// whether a sink may go on that holds rows which were made otherwise.
    ///
    /// # Errors
    /// The name of the sink that cannot be opened, and why.
    pub fn open(
        plan: Plan,
        metrics: Arc<Metrics>,
        changes: ChangePolicy,
    ) -> Result<Self, (Arc<str>, StageError)> {
        let (stats, outline) = (
            Arc::new(RunStats::new(&plan, Arc::clone(&metrics))),
            RunningConfig::of(&plan),
        );
        let mut graph = TransformGraph::new(&plan.stages, OriginalsPolicy::of(&plan));
        let endless = plan.is_unbounded();
        // What is asked at once has a share of its own.
        let inference_budget = if endless {
            plan.memory.budget / INFERENCE_SHARE
        } else {
            0
        };
        let budget = InFlightBudget::new(
            plan.memory.budget - inference_budget,
            max_in_flight_batches(plan.workers),
            &metrics,
        );
        let inference_budget = InFlightBudget::new(
            inference_budget,
            max_in_flight_batches(plan.workers),
            &metrics,
        );
        metrics
            .utilization
            .memory_limit_bytes
            .set(i64::try_from(plan.memory.budget).unwrap_or(i64::MAX));
        let named = plan.stages.iter().zip(plan.folders());
        let folders = named.filter_map(|(stage, folder)| {
            Some((Arc::clone(&stage.name), folder?.local()?.to_path_buf()))
        });
        let folders: Vec<(Arc<str>, PathBuf)> = folders.collect();
        let mounts = plan.output_mounts();
        let (mut sources, mut sinks, mut identities) = (Vec::new(), Vec::new(), Vec::new());
        for (at, stage) in plan.stages.into_iter().enumerate() {
            match stage.role {
                StageRole::Source(source, _) => sources.push(SourceSlot {
                    stage: at,
                    name: stage.name,
                    source,
                }),
                StageRole::Transform(_) => {}
                StageRole::Sink(sink, mut identity) => {
                    let (durable, is_local) = (sink.folder().is_some(), is_local(sink.as_ref()));
                    let named = |error| (Arc::clone(&stage.name), error);
                    let history = admit(
                        sink.as_ref(),
                        &mut identity,
                        IdentityScope::Sink,
                        changes,
                        &mounts,
                    )
                    .map_err(named)?;
                    identities.push(identity.clone());
                    let writer = open_sink(sink, identity, &mounts).map_err(named)?;
                    let committed = vec![history.coverage()];
                    graph.already_committed[at] = history.coverage();
                    sinks.push(OpenSink {
                        name: stage.name,
                        stage: Some(at),
                        writer,
                        committed,
                        durable,
                        is_local,
                    });
                }
            }
        }
        if let Some((sink, mut identity)) = plan.rejects {
            let (name, durable): (Arc<str>, _) = (Arc::from("rejects"), sink.folder().is_some());
            let is_local = is_local(sink.as_ref());
            let named = |error| (Arc::clone(&name), error);
            let history = admit(
                sink.as_ref(),
                &mut identity,
                IdentityScope::Rejects,
                changes,
                &mounts,
            )
            .map_err(named)?;
            identities.push(identity.clone());
            let committed = graph.rejected_before(&history, &identity);
            let writer = open_sink(sink, identity, &mounts).map_err(named)?;
            sinks.push(OpenSink {
                name,
                stage: None,
                writer,
                committed,
                durable,
                is_local,
            });
        }
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

    /// The counters, to be read while it runs.
    pub fn stats(&self) -> Arc<RunStats> {
        Arc::clone(&self.stats)
    }

    /// By which models are exchanged while it runs.
    pub fn reload_handle(&self) -> Arc<ReloadHandle> {
        Arc::clone(&self.reload_handle)
    }

    /// Records that earlier runs have committed to every sink.
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
    /// fails. Everything read is carried through and committed in each case, as far as what failed
    /// allows.
    pub async fn run(self, limit: Option<u64>, shutdown: impl Future<Output = ()>) -> RunOutcome {
        let stop = FailureSignal::new();
        let capacity = max_in_flight_batches(self.workers);
        self.set_limits(capacity);
        let done = self.resume.sinks.iter().map(Coverage::len).sum();
        let poison_records = match PoisonRecordTracker::open(
            self.resume.state.as_ref().and_then(Location::local),
            done,
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
                StageError::Other("it panicked".to_owned()),
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
        let failed = stop.take();
        poison_records.close(failed.is_none() && ended == DispatchEnd::Exhausted);
        RunOutcome::of(failed, ended)
    }
}

impl RunOutcome {
    fn of(failed: Option<(Arc<str>, StageError)>, ended: DispatchEnd) -> Self {
        match (failed, ended) {
            (Some((stage, error)), _) => Self::Failed { stage, error },
            (None, DispatchEnd::Asked) => Self::Drained,
            (None, DispatchEnd::Rejected(_)) => Self::Rejected,
            (None, DispatchEnd::Exhausted | DispatchEnd::Limited) => Self::Finished,
            (None, DispatchEnd::Failed) => {
                let error = StageError::Other("all of them ended".to_owned());
                Self::Failed {
                    stage: Arc::from("workers"),
                    error,
                }
            }
        }
    }
}

fn is_local(sink: &dyn Sink) -> bool {
    sink.folder().is_none_or(|folder| folder.local().is_some())
}

/// The memory for batches in flight is shared with what is asked at once: one part in so many.
const INFERENCE_SHARE: u64 = 8;

/// What a sink holds, if `identity` may add to it; under which other digests the sink knows it is
/// noted there.
fn admit(
    sink: &dyn Sink,
    identity: &mut OutputIdentity,
    scope: IdentityScope,
    changes: ChangePolicy,
    mounts: &OutputMounts,
) -> Result<OutputHistory, StageError> {
    let folder = sink
        .folder()
        .unwrap_or_else(|| Location::Local(PathBuf::new()));
    sink.local_folder()
        .iter()
        .try_for_each(|folder| mounts.check(folder))?;
    let mut history = sink.history()?;
    history.recognize(identity);
    let admitted = history.check_compatible(&folder, identity, scope);
    match admitted {
        // Who is accepted under a former digest stays so under this one.
        Ok(()) if history.accepts(identity) && !history.accepted.contains(&identity.digest) => {
            sink.allow_mixing(&identity.digests())?;
        }
        Ok(()) => {}
        Err(_) if history.allows(changes, identity) => {
            sink.allow_mixing(&[history.digests(), identity.digests()].concat())?;
        }
        Err(refused) => return Err(refused),
    }
    Ok(history)
}

/// Opens a sink, and records which disk its folder lies on.
fn open_sink(
    sink: Box<dyn Sink>,
    identity: OutputIdentity,
    mounts: &OutputMounts,
) -> Result<Box<dyn SinkWriter>, StageError> {
    let folder = sink.local_folder();
    let writer = sink.open(identity)?;
    folder.iter().for_each(|folder| mounts.record(folder));
    Ok(writer)
}

/// Accepts the folders of a plan as they are: what earlier runs remembered of the disks that they
/// lay on is forgotten.
///
/// # Errors
/// When that cannot be removed.
pub fn start_over(plan: &Plan) -> Result<(), StageError> {
    let mounts = plan.output_mounts();
    let rejects = plan.rejects.as_ref().and_then(|(sink, _)| sink.folder());
    for folder in plan.folders().into_iter().flatten().chain(rejects) {
        folder
            .local()
            .map_or(Ok(()), |folder| mounts.forget(folder))?;
    }
    let sources = plan
        .stages
        .iter()
        .filter(|stage| matches!(stage.role, StageRole::Source(..)));
    let state = plan.state.as_ref();
    sources
        .zip(state.into_iter().cycle())
        .try_for_each(|(stage, state)| source::accept_folder(&stage.name, state))
}

/// What the durable sinks have. A sink that promises nothing (`stdout`) must not make a source read
/// everything again; where no other sink is there, rejects alone must not make it skip anything.
fn durable_coverage(sinks: &[OpenSink]) -> Vec<Coverage> {
    let durable = sinks.iter().filter(|sink| sink.durable);
    if durable.clone().all(|sink| sink.stage.is_none()) {
        return Vec::new();
    }
    let mut remembered: Vec<Coverage> = Vec::new();
    for coverage in durable.flat_map(|sink| &sink.committed) {
        if !remembered.contains(coverage) {
            remembered.push(coverage.clone());
        }
    }
    remembered
}

type Thread = std::io::Result<std::thread::JoinHandle<()>>;

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Thread {
    std::thread::Builder::new().name(name).spawn(body)
}

/// Waits for all threads, up to the first one that could not be started or panicked: that one fails
/// the run.
async fn join_all(threads: Vec<Thread>, stop: &FailureSignal) {
    let ends_well = |thread: Thread| thread.is_ok_and(|thread| thread.join().is_ok());
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().all(ends_well)).await;
    if !joined.unwrap_or(false) {
        stop.fail(
            &Arc::from("threads"),
            StageError::Other("a thread could not be started, or panicked".to_owned()),
        );
    }
}

/// Starts the threads of so many workers.
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

/// Starts a thread for each sink; returns them, and where each takes its messages.
fn start_sink_runners(
    sinks: Vec<OpenSink>,
    age: Option<Duration>,
    stats: &Arc<RunStats>,
    acks: &Arc<AckTracker>,
    stop: &FailureSignal,
) -> (Vec<Thread>, Vec<async_channel::Sender<SinkMessage>>) {
    let sink_runners = sinks.into_iter().enumerate().map(|(place, sink)| {
        // Bounded by the permits.
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
            place,
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

/// Sources hear that there is nothing more to come, and say the rest to their clients.
async fn end_sources(closing: Vec<tokio::sync::oneshot::Receiver<()>>) {
    for closed in closing {
        drop(tokio::time::timeout(CLOSING, closed).await);
    }
}

/// How long a source may take to say its last to its clients.
const CLOSING: Duration = Duration::from_secs(10);

/// How often sinks look whether something has waited for too long.
const TICK: Duration = Duration::from_millis(250);

/// Tells the sinks that time goes by; those that are busy see it by themselves.
async fn tick(outboxes: Vec<async_channel::Sender<SinkMessage>>) {
    loop {
        tokio::time::sleep(TICK).await;
        for outbox in outboxes.iter().filter(|outbox| outbox.is_empty()) {
            // A sink that has ended needs no ticks.
            let _ = outbox.send(SinkMessage::Tick).await;
        }
    }
}
