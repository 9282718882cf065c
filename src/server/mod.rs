//! Listeners: connections within bounds, over TLS where there is a certificate, from those who may
//! ask, until the run ends.

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

/// Headers of a request, and bytes of its head.
const HEADERS: usize = 64;
const HEAD_BYTES: usize = 32 << 10;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// How long it waits after the system refused a connection, such as for want of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How long connections have to take their last answers.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What the listeners of a run share: the file descriptors of the process, and credentials that are
/// exchanged when they change.
#[derive(Default)]
pub struct Listeners {
    sources: Mutex<BTreeSet<String>>,
    rotation: Arc<CredentialRotation>,
}

/// What a listener is made of.
pub struct ListenOptions<'a> {
    /// Its name, for metrics and the log: that of the stage, or `admin`.
    pub name: &'a str,
    /// Where it listens.
    pub address: SocketAddr,
    /// Bounds on its connections.
    pub bounds: ConnectionLimits,
    /// Its certificate.
    pub tls: Option<&'a TlsConfig>,
}

impl Listeners {
    /// Plans a source that listens: the sources of a pipeline divide the file descriptors among
    /// them.
    pub fn plan(&self, source: &str) {
        self.sources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(source.to_owned());
    }

    /// A source as one of those that were planned.
    pub fn source(&self) -> ListenerRole {
        ListenerRole::Source(
            self.sources
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .len(),
        )
    }

    /// How many connections a listener may have open, where the pipeline says `written`.
    pub fn connections(&self, written: Option<NonZeroU32>, listener: ListenerRole) -> usize {
        connection_limits::connections(written, listener, system::open_file_limit())
    }

    /// Reads who may ask a listener.
    ///
    /// # Errors
    /// When the token is not there, or too short to be one.
    pub fn access(
        &self,
        name: &str,
        place: Option<&TokenSource>,
        metrics: &Arc<Metrics>,
    ) -> Result<Arc<TokenAuth>, StageError> {
        let access = Arc::new(TokenAuth::of(place)?);
        self.rotation
            .hold(name, Arc::clone(&access) as _, metrics)?;
        Ok(access)
    }

    /// Binds a port, and reads the keys for it.
    ///
    /// # Errors
    /// When the port cannot be bound, or the keys cannot be used.
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
        let secure = tls.map(ReloadingTls::of).transpose()?.map(Arc::new);
        if let Some(secure) = &secure {
            self.rotation.hold(name, Arc::clone(secure) as _, metrics)?;
        }
        let bound = open(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, socket) = bound.map_err(|error| {
            StageError::Other(format!(
                "cannot listen on {address}: {error}; name another address, or port 0 for one that is free"
            ))
        })?;
        let limit = self.connections(bounds.connections, listener);
        if bounds
            .connections
            .is_some_and(|written| written.get() as usize > limit)
        {
            let descriptors = system::open_file_limit().unwrap_or_default();
            tracing::warn!(
                "{name}: limits.connections is lowered to {limit}, since the process may open {descriptors} files and half of \
                 them are kept for the pipeline; raise that limit (LimitNOFILE, ulimit -n) or lower the option"
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

    /// Takes certificates, keys and tokens that have changed now, without waiting for a second
    /// look.
    pub fn rotate(&self) -> RotationReport {
        self.rotation.poll_files(true)
    }

    /// Takes certificates, keys and tokens when they change, until it is dropped.
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
    // Elsewhere the option would admit a second process to the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A port that is bound.
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    bounds: ConnectionLimits,
    connections: Arc<Connections>,
    tls: Option<Arc<ReloadingTls>>,
}

impl HttpServer {
    /// Where it listens, as clients write it: `https://127.0.0.1:8080`.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// How many connections it may have open.
    pub fn connections(&self) -> usize {
        self.connections.limit()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `ends` says so; then connections have some seconds to take their last answers.
    pub async fn run(self, router: Router, mut ends: watch::Receiver<bool>) {
        let mut open = JoinSet::new();
        loop {
            // Connections that are closed are let go of.
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
                tokio::select! {
                    () = activity.eviction() => {}
                    () = converse(stream, secure, router, Arc::clone(&activity), idle, ends) => {}
                }
            });
        }
        drop(self.listener);
        // What is still open after that is cut.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, async {
            while open.join_next().await.is_some() {}
        })
        .await;
    }
}

/// Resolves when the run is to end.
async fn shutdown_requested(ends: &mut watch::Receiver<bool>) {
    // A sender that is gone has ended, too.
    drop(ends.wait_for(|&ends| ends).await);
}

/// The next connection, and a place for it.
async fn accept(listener: &TcpListener, connections: &Arc<Connections>) -> (TcpStream, Connection) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small: they need not wait for more.
                let _ = stream.set_nodelay(true);
                return (stream, connections.enter().await);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was refused");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Answers the requests of one connection.
async fn converse(
    stream: TimeoutStream,
    secure: Option<Arc<ReloadingTls>>,
    router: Router,
    activity: Arc<ConnectionActivity>,
    idle: Duration,
    ends: watch::Receiver<bool>,
) {
    match secure {
        None => answer(stream, router, activity, idle, ends).await,
        Some(secure) => match secure.accept(stream).await {
            Ok(stream) => answer(stream, router, activity, idle, ends).await,
            Err(error) => tracing::debug!(%error, "a client did not agree on keys"),
        },
    }
}

async fn answer<S>(
    stream: S,
    router: Router,
    activity: Arc<ConnectionActivity>,
    idle: Duration,
    mut ends: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = hyper::server::conn::http1::Builder::new();
    // The stream bounds the time of a head; this bounds the time between two requests.
    http.timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES);
    let service = ActivityService {
        router: TowerToHyperService::new(router),
        activity,
    };
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    // A client that goes away, or does not speak HTTP, is not an error of the run.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = shutdown_requested(&mut ends) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
