//! Accepts and serves the connections of a listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::server::connection_activity::{ActivityService, ConnectionActivity};
use crate::server::connection_limits::ConnectionLimits;
use crate::server::connections::{Connection, Connections};
use crate::server::timeout_stream::TimeoutStream;
use crate::server::tls::ReloadingTls;

/// Maximum number of headers of a request, and maximum size of its head in bytes.
const HEADERS: usize = 64;

const HEAD_BYTES: usize = 32 << 10;

/// Pause after the system refused a connection, such as for lack of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Time for connections to deliver their last responses after the shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A listener that is bound to a port.
pub struct HttpServer {
    pub(super) listener: TcpListener,
    pub(super) address: SocketAddr,
    pub(super) bounds: ConnectionLimits,
    pub(super) connections: Arc<Connections>,
    pub(super) tls: Option<Arc<ReloadingTls>>,
}

impl HttpServer {
    /// The URL of the listener for clients, such as `https://127.0.0.1:8080`.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Maximum number of open connections.
    pub fn connections(&self) -> usize {
        self.connections.limit()
    }

    /// The address of the listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `ends` is true; then connections have 5 seconds to deliver their last
    /// responses.
    pub async fn run(self, router: Router, mut ends: watch::Receiver<bool>) {
        let mut open = JoinSet::new();
        let graceful = GracefulShutdown::new();
        loop {
            // Removes the tasks of closed connections.
            while open.try_join_next().is_some() {}
            let (stream, connection) = tokio::select! {
                () = shutdown_requested(&mut ends) => break,
                accepted = accept(&self.listener, &self.connections) => accepted,
            };
            let activity = Arc::clone(&connection.activity);
            let stream = TimeoutStream::new(stream, Arc::clone(&activity), self.bounds);
            let (router, secure) = (router.clone(), self.tls.clone());
            let (watcher, idle) = (
                graceful.watcher(),
                self.bounds.idle.0.max(self.bounds.head.0),
            );
            open.spawn(async move {
                let _connection = connection;
                let served =
                    serve_connection(stream, secure, router, Arc::clone(&activity), idle, watcher);
                tokio::select! {
                    () = activity.eviction() => {}
                    () = served => {}
                }
            });
        }
        drop(self.listener);
        // Connections that are still open after the timeout are closed, because `open` is dropped.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await;
    }
}

/// Resolves when the run is to stop.
async fn shutdown_requested(ends: &mut watch::Receiver<bool>) {
    // A dropped sender also means that the run stops.
    drop(ends.wait_for(|&ends| ends).await);
}

/// The next connection, and its slot.
async fn accept(listener: &TcpListener, connections: &Arc<Connections>) -> (TcpStream, Connection) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Responses are small: they do not wait for more data.
                let _ = stream.set_nodelay(true);
                return (stream, connections.enter().await);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Serves one connection, after a TLS handshake if the listener has a certificate.
async fn serve_connection(
    stream: TimeoutStream,
    secure: Option<Arc<ReloadingTls>>,
    router: Router,
    activity: Arc<ConnectionActivity>,
    idle: Duration,
    watcher: Watcher,
) {
    match secure {
        None => serve_http(stream, router, activity, idle, watcher).await,
        Some(secure) => match secure.accept(stream).await {
            Ok(stream) => serve_http(stream, router, activity, idle, watcher).await,
            Err(error) => tracing::debug!(%error, "TLS handshake failed"),
        },
    }
}

async fn serve_http<S>(
    stream: S,
    router: Router,
    activity: Arc<ConnectionActivity>,
    idle: Duration,
    watcher: Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = hyper::server::conn::http1::Builder::new();
    // The stream limits the time of a head; this limits the time between two requests.
    http.timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES);
    let service = ActivityService {
        router: TowerToHyperService::new(router),
        activity,
    };
    let connection = http.serve_connection(TokioIo::new(stream), service);
    // A client that disconnects, or does not use HTTP, is not an error of the run.
    let _ = watcher.watch(connection).await;
}
