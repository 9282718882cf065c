//! The runtime that executes requests to stores while the calling threads wait.

use std::io;
use std::sync::LazyLock;
use std::sync::mpsc::sync_channel;

use tokio::runtime::{Builder, Runtime};

use crate::storage::object_client::PendingRequest;

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

/// Starts `work`, which runs to its end even if the caller drops the result.
pub(super) fn spawn<T, F>(work: F) -> PendingRequest<T>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    // The channel is closed if the caller has dropped the request.
    let (sender, receiver) = sync_channel(1);
    match RUNTIME.as_ref() {
        Ok(runtime) => {
            runtime.spawn(async move {
                let _ = sender.send(work.await);
            });
        }
        Err(error) => {
            let error = io::Error::other(format!("cannot start the runtime: {error}"));
            let _ = sender.send(Err(error));
        }
    }
    receiver
}
