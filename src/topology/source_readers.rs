//! Reads the sources: those that end one after another, in the file's order, and beside them, by
//! arrival, those that do not.

use std::sync::Arc;

use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

use crate::batch::{BatchAck, SourceBatch};
use crate::coverage::ResumeState;
use crate::error::{StageError, UnreadInputs};
use crate::metrics::{BlockingCaller, BlockingCalls, BlockingOperation};
use crate::source::{InferenceRequest, RecordCount, Source, SourceHandle};

/// A source and its place in the plan.
pub(super) struct SourceSlot {
    pub(super) stage: usize,
    pub(super) name: Arc<str>,
    pub(super) source: Box<dyn Source>,
}

/// What a source tells when it is open, beside its batches.
pub(super) struct OpenedSource {
    pub(super) total: RecordCount,
    pub(super) acks: Option<UnboundedSender<BatchAck>>,
    pub(super) inference_requests: Option<Receiver<InferenceRequest>>,
    pub(super) shutdown_complete: Option<oneshot::Receiver<()>>,
}

/// What comes from a source.
pub(super) enum SourceEvent {
    /// It is open.
    Opened {
        stage: usize,
        opened: OpenedSource,
    },
    Batch {
        stage: usize,
        batch: SourceBatch,
    },
    /// It left some of its inputs undone and read all others: nothing more will come from it.
    Incomplete {
        stage: usize,
        name: Arc<str>,
        unread: UnreadInputs,
    },
    /// It cannot go on: nothing more will come.
    Failed {
        name: Arc<str>,
        error: StageError,
    },
}

/// Sources that are being read. Dropped, it stops reading.
pub(super) struct SourceReaders {
    arrivals: Receiver<SourceEvent>,
    /// Readers that have not come to their end.
    readers: JoinSet<()>,
}

impl SourceReaders {
    pub(super) fn read(
        sources: Vec<SourceSlot>,
        resume: &ResumeState,
        calls: &BlockingCalls,
    ) -> Self {
        let (sender, arrivals) = mpsc::channel(1);
        let mut readers = JoinSet::new();
        let (endless, ending): (Vec<SourceSlot>, Vec<SourceSlot>) = sources
            .into_iter()
            .partition(|source| source.source.is_unbounded());
        for queue in endless
            .into_iter()
            .map(|source| vec![source])
            .chain([ending])
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
        Self { arrivals, readers }
    }

    /// What comes next; `None` once every source has said that it has no more.
    pub(super) async fn next(&mut self) -> Option<SourceEvent> {
        if let Some(arrival) = self.arrivals.recv().await {
            return Some(arrival);
        }
        // The channel closes when readers end, for whatever reason: one that panicked has not said
        // that it is done.
        while let Some(ended) = self.readers.join_next().await {
            if ended.is_err() {
                let error = StageError::Other("its reader panicked".to_owned());
                return Some(SourceEvent::Failed {
                    name: Arc::from("sources"),
                    error,
                });
            }
        }
        None
    }
}

/// Reads one source to its end. `false`: nothing more is to be read.
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
    let (resume, is_endless) = (resume.clone(), source.is_unbounded());
    caller.begin(BlockingOperation::Opens);
    // Opening lists folders and reads footers: not on a thread that others wait for.
    let opened = tokio::task::spawn_blocking(move || source.open(&resume)).await;
    caller.end();
    let opened = opened.unwrap_or_else(|_| {
        Err(StageError::Other(
            "it panicked when it was opened".to_owned(),
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
            let arrival = SourceEvent::Opened {
                stage,
                opened: OpenedSource {
                    total,
                    acks,
                    inference_requests,
                    shutdown_complete,
                },
            };
            if sender.send(arrival).await.is_err() {
                return false;
            }
            batches
        }
        Err(error) => {
            // Who does not listen any more has its reasons to end, and tells them.
            let _ = sender.send(SourceEvent::Failed { name, error }).await;
            return false;
        }
    };
    loop {
        // A source without an end waits for records that have yet to come, and says itself when it
        // reads some.
        if !is_endless {
            caller.begin(BlockingOperation::ReadsOn);
        }
        let Some(batch) = batches.next().await else {
            break;
        };
        caller.end();
        let (arrival, sound) = match batch {
            Ok(batch) => (SourceEvent::Batch { stage, batch }, true),
            Err(StageError::Unread(unread)) => (
                SourceEvent::Incomplete {
                    stage,
                    name: Arc::clone(&name),
                    unread,
                },
                true,
            ),
            Err(error) => (
                SourceEvent::Failed {
                    name: Arc::clone(&name),
                    error,
                },
                false,
            ),
        };
        if sender.send(arrival).await.is_err() || !sound {
            return false;
        }
    }
    caller.end();
    true
}
