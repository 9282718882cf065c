//! The runtime on which requests to stores run, while the threads that want them wait.

use std::io;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, sync_channel};

use tokio::runtime::{Builder, Runtime};

/// Requests mostly wait; signing, TLS and copying need little more than one core.
const THREADS: usize = 2;

static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    // Without this, whoever makes the first TLS connection panics: no provider is built in.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("store")
        .enable_all()
        .build()
});

/// What has been asked for, and may have come.
#[derive(Debug)]
pub(super) struct PendingRequest<T>(Receiver<T>);

/// Begins some work, which goes on whether somebody waits or not.
pub(super) fn spawn<T, F>(work: F) -> io::Result<PendingRequest<T>>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let runtime = RUNTIME
        .as_ref()
        .map_err(|error| io::Error::other(format!("cannot start the runtime: {error}")))?;
    let (sender, receiver) = sync_channel(1);
    runtime.spawn(async move {
        // Nobody waits any more where the channel is closed.
        let _ = sender.send(work.await);
    });
    Ok(PendingRequest(receiver))
}

impl<T> PendingRequest<T> {
    /// Waits for it. Unlike a runtime's `block_on` this may be done on any thread.
    pub(super) fn wait(self) -> io::Result<T> {
        self.0
            .recv()
            .map_err(|_| io::Error::other("a request to the store panicked"))
    }
}

/// Does some work and waits for it.
pub(super) fn block_on<T, F>(work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    spawn(work)?.wait()
}
