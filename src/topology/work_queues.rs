//! The batches that wait for a worker, of a run and of clients.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::topology::generation::Generation;
use crate::topology::messages::WorkItem;

/// The channels from which a worker receives batches.
#[derive(Clone)]
pub(super) struct WorkQueues {
    /// Inference requests, which have priority.
    pub(super) inference: async_channel::Receiver<WorkItem>,
    pub(super) work: async_channel::Receiver<WorkItem>,
}

pub(super) enum NextWork {
    Work(Box<WorkItem>),
    Generation(Arc<Generation>),
    End,
}

/// The idle time after which a worker switches to a newer generation without a batch. Batches of
/// its present generation may still be in the queue before that.
const IDLE_BEFORE_SWAP: Duration = Duration::from_secs(2);

/// Waits for the next batch, or for a newer generation while the worker is idle.
pub(super) async fn next(
    queues: &WorkQueues,
    generations: &mut watch::Receiver<Arc<Generation>>,
) -> NextWork {
    let newer = async {
        if generations.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(IDLE_BEFORE_SWAP).await;
        Arc::clone(&generations.borrow_and_update())
    };
    tokio::select! {
        biased;
        Ok(request) = queues.inference.recv() => NextWork::Work(Box::new(request)),
        work = queues.work.recv() => match work {
            Ok(work) => NextWork::Work(Box::new(work)),
            Err(_) => NextWork::End,
        },
        generation = newer => NextWork::Generation(generation),
    }
}
