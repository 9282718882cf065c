//! Starts and joins the threads of a run.

use std::sync::Arc;
use std::time::Duration;

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::sink::CommitStats;
use crate::topology::ack_tracker::AckTracker;
use crate::topology::hot_reload::ReloadHandle;
use crate::topology::messages::{FailureSignal, SinkMessage};
use crate::topology::open::OpenSink;
use crate::topology::sink_runner::{
    CommitPolicy, REJECTS_EVERY, SINKS_EVERY, SinkRunner, Uncommitted,
};
use crate::topology::telemetry::stats::RunStats;
use crate::topology::work_queues::WorkQueues;
use crate::topology::worker::WorkerShared;
use crate::topology::{messages, worker};

type Thread = std::io::Result<std::thread::JoinHandle<()>>;

pub(super) fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Thread {
    std::thread::Builder::new().name(name).spawn(body)
}

/// Waits for all threads. Stops at the first one that could not be spawned or that panicked, and
/// fails the run.
pub(super) async fn join_all(threads: Vec<Thread>, stop: &FailureSignal) {
    let ends_well = |thread: Thread| thread.is_ok_and(|thread| thread.join().is_ok());
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().all(ends_well)).await;
    if !joined.unwrap_or(false) {
        stop.fail(
            &Arc::from("threads"),
            StageError::new(
                ErrorCode::Internal,
                "a thread could not be spawned, or it panicked",
            ),
        );
    }
}

/// Starts `count` worker threads.
pub(super) fn start_workers(
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
pub(super) fn start_sink_runners(
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
