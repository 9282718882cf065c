//! The thread on which a source reads, and the channel of its batches.

use std::sync::Arc;

use crate::batch::SourceBatch;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::metrics::BlockingCaller;
use crate::source::BatchStream;

/// Runs a blocking reader on a separate thread. It sends batches through the sender, which blocks
/// while `ahead` batches wait. An error or a panic of the reader ends the stream with an error.
pub(crate) fn spawn_reader<F>(ahead: usize, read: F) -> BatchStream
where
    F: FnOnce(&BatchSender) -> Result<(), StageError> + Send + 'static,
{
    let (sender, receiver) = tokio::sync::mpsc::channel(ahead.max(1));
    let sender = BatchSender {
        sender,
        caller: None,
    };
    let reader = std::thread::Builder::new().name("source".to_owned());
    let span = tracing::Span::current();
    let spawned = reader.spawn(move || {
        let _entered = span.enter();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(&sender)));
        let outcome = outcome
            .unwrap_or_else(|_| Err(StageError::new(ErrorCode::Internal, "the reader panicked")));
        if let Err(error) = outcome {
            // The channel is closed if the run has already ended for another reason.
            let _ = sender.sender.blocking_send(Err(error));
        }
    });
    match spawned {
        Ok(_) => Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver)),
        Err(error) => Box::pin(tokio_stream::once(Err(StageError::new(
            ErrorCode::ThreadFailed,
            format!("cannot start a thread: {error}"),
        )))),
    }
}

/// Sends the batches of a reader of [`spawn_reader`].
pub(crate) struct BatchSender {
    sender: tokio::sync::mpsc::Sender<Result<SourceBatch, StageError>>,
    /// The sending thread, if its blocking calls are monitored.
    caller: Option<Arc<BlockingCaller>>,
}

impl BatchSender {
    /// A sender for a thread whose blocking calls are monitored. A wait for room does not count as
    /// a blocking call.
    #[must_use]
    pub(crate) fn outside_of(&self, caller: Arc<BlockingCaller>) -> Self {
        Self {
            sender: self.sender.clone(),
            caller: Some(caller),
        }
    }

    /// Whether the receiver is gone.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a batch and waits for room. `false`: the receiver is gone, so the reader stops.
    #[must_use]
    pub fn send(&self, batch: SourceBatch) -> bool {
        let send = || self.sender.blocking_send(Ok(batch)).is_ok();
        match &self.caller {
            Some(caller) => caller.outside(send),
            None => send(),
        }
    }
}
