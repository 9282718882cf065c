//! The tasks that read the sources: bounded sources one after another in the order of the file, and
//! each unbounded source concurrently.

use std::sync::Arc;

use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

use crate::batch::{BatchAck, SourceBatch};
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::unavailable::UnreadInputs;
use crate::metrics::{BlockingCaller, BlockingCalls, BlockingOperation};
use crate::source::{BatchStream, InferenceRequest, RecordCount, Source, SourceHandle};

/// A source and its index in the plan.
pub(super) struct SourceSlot {
    pub(super) stage: usize,
    pub(super) name: Arc<str>,
    pub(super) source: Box<dyn Source>,
}

/// The parts of an open source other than its batches.
pub(super) struct OpenedSource {
    pub(super) total: RecordCount,
    pub(super) acks: Option<UnboundedSender<BatchAck>>,
    pub(super) inference_requests: Option<Receiver<InferenceRequest>>,
    pub(super) shutdown_complete: Option<oneshot::Receiver<()>>,
}

/// An event of a source.
pub(super) enum SourceEvent {
    /// The source is open.
    Opened { stage: usize, opened: OpenedSource },
    /// The source has read a batch.
    Batch { stage: usize, batch: SourceBatch },
    /// The source has ended. Some of its inputs could not be read.
    Incomplete {
        stage: usize,
        name: Arc<str>,
        unread: UnreadInputs,
    },
    /// The source has failed. The run ends.
    Failed { name: Arc<str>, error: StageError },
}

/// The sources that are being read, until this value is dropped.
pub(super) struct SourceReaders {
    events: Receiver<SourceEvent>,
    /// The tasks that have not ended.
    readers: JoinSet<()>,
}

impl SourceReaders {
    pub(super) fn read(
        sources: Vec<SourceSlot>,
        resume: &ResumeState,
        calls: &BlockingCalls,
    ) -> Self {
        let (sender, events) = mpsc::channel(1);
        let mut readers = JoinSet::new();
        let (unbounded, bounded): (Vec<SourceSlot>, Vec<SourceSlot>) = sources
            .into_iter()
            .partition(|source| source.source.is_unbounded());
        for queue in unbounded
            .into_iter()
            .map(|source| vec![source])
            .chain([bounded])
            .filter(|queue| !queue.is_empty())
        {
            let (sender, resume) = (sender.clone(), resume.clone());
            let callers = queue.iter().map(|source| calls.caller(&source.name, true));
            let queue: Vec<_> = callers.collect::<Vec<_>>().into_iter().zip(queue).collect();
            readers.spawn(async move {
                for (caller, source) in queue {
                    if !read(source, &caller, &resume, &sender).await {
                        return;
                    }
                }
            });
        }
        Self { events, readers }
    }

    /// Waits for the next event; `None` once every source has ended.
    pub(super) async fn next(&mut self) -> Option<SourceEvent> {
        if let Some(event) = self.events.recv().await {
            return Some(event);
        }
        // The channel closes when all readers have ended, which includes readers that panicked.
        while let Some(ended) = self.readers.join_next().await {
            if ended.is_err() {
                let error = StageError::new(ErrorCode::Internal, "the reader panicked");
                return Some(SourceEvent::Failed {
                    name: Arc::from("sources"),
                    error,
                });
            }
        }
        None
    }
}

/// Reads one source to its end. Returns `false` if the run ends.
async fn read(
    source: SourceSlot,
    caller: &BlockingCaller,
    resume: &ResumeState,
    sender: &Sender<SourceEvent>,
) -> bool {
    let SourceSlot {
        stage,
        name,
        source,
    } = source;
    let (resume, is_unbounded) = (resume.clone(), source.is_unbounded());
    let span = tracing::debug_span!("stage", stage = &*name);
    caller.begin(BlockingOperation::Open);
    // Opening lists folders and reads footers, which must not block the async runtime.
    let opened = tokio::task::spawn_blocking(move || span.in_scope(|| source.open(&resume))).await;
    caller.end();
    let opened = opened.unwrap_or_else(|_| {
        Err(StageError::new(
            ErrorCode::Internal,
            "the source panicked while it was opened".to_owned(),
        ))
    });
    let mut batches = match opened {
        Ok(opened) => {
            let SourceHandle {
                batches,
                total,
                acks,
                inference_requests,
                shutdown_complete,
            } = opened;
            let event = SourceEvent::Opened {
                stage,
                opened: OpenedSource {
                    total,
                    acks,
                    inference_requests,
                    shutdown_complete,
                },
            };
            tracing::info!(stage = &*name, is_unbounded, "source opened");
            if sender.send(event).await.is_err() {
                return false;
            }
            batches
        }
        Err(error) => {
            // Sending fails only if the dispatcher has ended, which then has its own reason.
            let _ = sender.send(SourceEvent::Failed { name, error }).await;
            return false;
        }
    };
    let mut reader = SourceReader {
        stage,
        name,
        is_unbounded,
        read_batches: 0,
        read_records: 0,
    };
    let is_exhausted = reader.forward(&mut batches, caller, sender).await;
    tracing::info!(
        stage = &*reader.name,
        batches = reader.read_batches,
        records = reader.read_records,
        is_exhausted,
        "source closed"
    );
    is_exhausted
}

/// Forwards the batches of one open source to the dispatcher.
struct SourceReader {
    stage: usize,
    name: Arc<str>,
    is_unbounded: bool,
    read_batches: u64,
    read_records: u64,
}

impl SourceReader {
    /// Returns whether the source has ended; `false` if it failed or the run ends before.
    async fn forward(
        &mut self,
        batches: &mut BatchStream,
        caller: &BlockingCaller,
        sender: &Sender<SourceEvent>,
    ) -> bool {
        loop {
            // An unbounded source waits for records that may arrive later. It reports the calls
            // that read records by itself.
            if !self.is_unbounded {
                caller.begin(BlockingOperation::ReadNext);
            }
            let batch = batches.next().await;
            caller.end();
            let Some(batch) = batch else { return true };
            let (event, continues) = self.event(batch);
            if sender.send(event).await.is_err() || !continues {
                return false;
            }
        }
    }

    /// Converts the next batch to an event. Returns also whether the source continues after it.
    fn event(&mut self, batch: Result<SourceBatch, StageError>) -> (SourceEvent, bool) {
        let (stage, name) = (self.stage, Arc::clone(&self.name));
        match batch {
            Ok(batch) => {
                self.read_batches += 1;
                self.read_records += batch.batch.records.num_rows() as u64;
                (SourceEvent::Batch { stage, batch }, true)
            }
            Err(StageError::Unread(unread)) => (
                SourceEvent::Incomplete {
                    stage,
                    name,
                    unread,
                },
                true,
            ),
            Err(error) => (SourceEvent::Failed { name, error }, false),
        }
    }
}
