//! HTTP listeners with limits on connections, optional TLS, authorization, and a graceful shutdown.

mod auth;
mod connection_activity;
mod connection_limits;
#[cfg(feature = "tls")]
mod certificate;
mod connections;
mod host_check;
mod credential_rotation;
mod timeout_stream;
mod tls;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::StageError;
use crate::metrics::Metrics;
use crate::system;

use connection_activity::{ActivityService, ConnectionActivity};
use connections::{Connection, Connections};
use credential_rotation::CredentialRotation;
use timeout_stream::TimeoutStream;
use tls::ReloadingTls;

pub use auth::{TokenAuth, TokenSource, check_auth};
pub use connection_limits::{ConnectionLimits, HEAD, IDLE, ListenerRole, WRITE};
pub use credential_rotation::RotationReport;
pub use host_check::{HostCheck, check_hosts, require_allowed_host};
pub use tls::TlsConfig;

/// Maximum number of headers of a request, and maximum size of its head in bytes.
const HEADERS: usize = 64;
const HEAD_BYTES: usize = 32 << 10;
/// Maximum number of connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// Pause after the system refused a connection, such as for lack of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Time for connections to deliver their last responses after the shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// State that the listeners of a run share: the division of file descriptors, and the credentials
/// that are reloaded when they change.
#[derive(Default)]
pub struct Listeners {
    sources: Mutex<BTreeSet<String>>,
    rotation: Arc<CredentialRotation>,
}

/// Options of a listener.
pub struct ListenOptions<'a> {
    /// The name in metrics and the log: that of the stage, or `admin`.
    pub name: &'a str,
    /// The address to listen on.
    pub address: SocketAddr,
    /// Limits on its connections.
    pub bounds: ConnectionLimits,
    /// Its certificate and key; `None` for plain HTTP.
    pub tls: Option<&'a TlsConfig>,
}

impl Listeners {
    /// Registers a source that listens: the sources of a pipeline divide the file descriptors among
    /// themselves.
    pub fn plan(&self, source: &str) {
        self.sources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(source.to_owned());
    }

    /// The role of a source among those that are registered.
    pub fn source(&self) -> ListenerRole {
        ListenerRole::Source(
            self.sources
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .len(),
        )
    }

    /// Maximum number of open connections of a listener, for the number `written` in the pipeline.
    pub fn connections(&self, written: Option<NonZeroU32>, listener: ListenerRole) -> usize {
        connection_limits::connections(written, listener, system::open_file_limit())
    }

    /// Reads the token of a listener.
    ///
    /// # Errors
    /// Returns an error if the token cannot be read, or is too short.
    pub fn load_token_auth(
        &self,
        name: &str,
        source: Option<&TokenSource>,
        metrics: &Arc<Metrics>,
    ) -> Result<Arc<TokenAuth>, StageError> {
        let auth = Arc::new(TokenAuth::new(source)?);
        self.rotation
            .register(name, Arc::clone(&auth) as _, metrics)?;
        Ok(auth)
    }

    /// Binds a port, and loads its certificate and key.
    ///
    /// # Errors
    /// Returns an error if the port cannot be bound, or the certificate or key cannot be used.
    pub fn bind(
        &self,
        options: &ListenOptions<'_>,
        listener: ListenerRole,
        metrics: &Arc<Metrics>,
    ) -> Result<HttpServer, StageError> {
        let ListenOptions {
            name,
            address,
            bounds,
            tls,
        } = *options;
        let secure = tls.map(ReloadingTls::new).transpose()?.map(Arc::new);
        if let Some(secure) = &secure {
            self.rotation
                .register(name, Arc::clone(secure) as _, metrics)?;
        }
        let bound = open(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, socket) = bound.map_err(|error| {
            StageError::Other(format!(
                "cannot listen on {address}: {error}; use another address, or port 0 for any free \
                 port"
            ))
        })?;
        let limit = self.connections(bounds.connections, listener);
        if bounds
            .connections
            .is_some_and(|written| written.get() as usize > limit)
        {
            let descriptors = system::open_file_limit().unwrap_or_default();
            tracing::warn!(
                listener = name,
                connections = limit,
                descriptors,
                "limits.connections is lowered, because half of the file descriptors of the \
                 process are reserved for the pipeline; raise their limit (LimitNOFILE, ulimit -n) \
                 or lower the option"
            );
        }
        let connections = Connections::new(limit, name, metrics);
        Ok(HttpServer {
            listener: socket,
            address,
            bounds,
            connections,
            tls: secure,
        })
    }

    /// Reloads certificates, keys and tokens that have changed, without waiting for a second poll.
    pub fn rotate(&self) -> RotationReport {
        self.rotation.poll_files(true)
    }

    /// Reloads certificates, keys and tokens when they change, until it is dropped.
    pub fn watch(&self) -> impl Future<Output = ()> + Send + 'static {
        Arc::clone(&self.rotation).watch()
    }
}

/// Binds a port.
fn open(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // On other systems, the option would admit a second process to the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A listener that is bound to a port.
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    bounds: ConnectionLimits,
    connections: Arc<Connections>,
    tls: Option<Arc<ReloadingTls>>,
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
        loop {
            // Removes the tasks of closed connections.
            while open.try_join_next().is_some() {}
            let (stream, connection) = tokio::select! {
                () = shutdown_requested(&mut ends) => break,
                accepted = accept(&self.listener, &self.connections) => accepted,
            };
            let activity = Arc::clone(&connection.activity);
            let stream = TimeoutStream::new(stream, Arc::clone(&activity), self.bounds);
            let (router, ends, secure) = (router.clone(), ends.clone(), self.tls.clone());
            let idle = self.bounds.idle.0.max(self.bounds.head.0);
            open.spawn(async move {
                let _connection = connection;
                let served =
                    serve_connection(stream, secure, router, Arc::clone(&activity), idle, ends);
                tokio::select! {
                    () = activity.eviction() => {}
                    () = served => {}
                }
            });
        }
        drop(self.listener);
        // Connections that are still open after the timeout are closed.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, async {
            while open.join_next().await.is_some() {}
        })
        .await;
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
    ends: watch::Receiver<bool>,
) {
    match secure {
        None => serve_http(stream, router, activity, idle, ends).await,
        Some(secure) => match secure.accept(stream).await {
            Ok(stream) => serve_http(stream, router, activity, idle, ends).await,
            Err(error) => tracing::debug!(%error, "TLS handshake failed"),
        },
    }
}

async fn serve_http<S>(
    stream: S,
    router: Router,
    activity: Arc<ConnectionActivity>,
    idle: Duration,
    mut ends: watch::Receiver<bool>,
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
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    // A client that disconnects, or does not use HTTP, is not an error of the run.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = shutdown_requested(&mut ends) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
