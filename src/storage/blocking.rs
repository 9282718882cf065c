//! The runtime that executes requests to stores while the calling threads wait.

use std::io;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, sync_channel};

use tokio::runtime::{Builder, Runtime};

/// Number of threads. Requests mostly wait; signing, TLS and copying use little more than one core.
const THREADS: usize = 2;

static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    // Without a default provider the first TLS connection panics, since none is built in.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("store")
        .enable_all()
        .build()
});

/// A request whose result may have arrived.
#[derive(Debug)]
pub(super) struct PendingRequest<T>(Receiver<T>);

/// Starts `work`, which runs to its end even if the caller drops the result.
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
        // The channel is closed if the caller has dropped the request.
        let _ = sender.send(work.await);
    });
    Ok(PendingRequest(receiver))
}

impl<T> PendingRequest<T> {
    /// Waits for the result. Unlike `block_on` of a runtime, it may be called on any thread.
    pub(super) fn wait(self) -> io::Result<T> {
        self.0
            .recv()
            .map_err(|_| io::Error::other("a request to the store panicked"))
    }
}

/// Runs `work` and waits for its result.
pub(super) fn block_on<T, F>(work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    spawn(work)?.wait()
}
