//! HTTP listeners with limits on connections, optional TLS, authorization, and a graceful shutdown.

mod auth;
#[cfg(feature = "tls")]
mod certificate;
pub mod connection;
mod connection_activity;
mod connection_limits;
mod connections;
mod credential_rotation;
mod host_check;
mod timeout_stream;
mod tls;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket};

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::metrics::Metrics;
use crate::server::connection::HttpServer;
use crate::system;

use connections::Connections;
use credential_rotation::CredentialRotation;
use tls::ReloadingTls;

pub(crate) use auth::{TokenAuth, TokenSource, check_auth};
pub use connection_limits::HEAD;
pub(crate) use connection_limits::{ConnectionLimits, IDLE, ListenerRole, WRITE};
pub(crate) use credential_rotation::RotationReport;
pub(crate) use host_check::{HostCheck, check_hosts, require_allowed_host};
pub(crate) use tls::TlsConfig;

/// Maximum number of connections that wait to be accepted.
const BACKLOG: u32 = 1024;

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
        self.sources.lock().insert(source.to_owned());
    }

    /// The role of a source among those that are registered.
    pub fn source(&self) -> ListenerRole {
        ListenerRole::Source(self.sources.lock().len())
    }

    /// Maximum number of open connections of a listener, for the number `written` in the pipeline.
    pub fn connections(&self, written: Option<NonZeroU32>, listener: ListenerRole) -> usize {
        connection_limits::connections(written, listener, system::open_file_limit())
    }

    /// Reads the token of a listener.
    ///
    /// # Errors
    /// Returns an error if the token cannot be read, or is too short.
    pub(crate) fn load_token_auth(
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
            StageError::new(ErrorCode::ListenFailed, format!(
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
    pub(crate) fn rotate(&self) -> RotationReport {
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
