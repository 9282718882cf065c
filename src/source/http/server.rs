//! The listener: connections within bounds, over TLS where there is a certificate, until the source is to end.

use std::net::TcpListener;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::error::StageError;

/// How long a client may take for the head of a request, and between two requests on one connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to agree on keys.
#[cfg(feature = "tls")]
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers of a request, and bytes of its head.
const HEADERS: usize = 64;
const HEAD_BYTES: usize = 32 << 10;
/// How long it waits after the system refused a connection, such as for want of file descriptors.
const REFUSED: Duration = Duration::from_millis(100);
/// How long connections have to take their last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// PEM files for TLS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Tls {
    /// The certificate, and those that lead to it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What answers requests on a port.
pub(super) struct Server {
    pub(super) listener: TcpListener,
    pub(super) router: Router,
    pub(super) connections: usize,
    pub(super) secure: Option<Secure>,
}

impl Server {
    /// Serves until `ends` says so; then connections have some seconds to take their last answers.
    pub(super) async fn run(self, mut ends: watch::Receiver<bool>) {
        let listener = match tokio::net::TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the listener cannot be used"),
        };
        let room = Arc::new(Semaphore::new(self.connections));
        let secure = self.secure.map(Arc::new);
        let mut open = JoinSet::new();
        loop {
            let (accepted, room) = tokio::select! {
                () = ended(&mut ends) => break,
                accepted = accept(&listener, &room) => accepted,
                // Connections that are closed are let go of.
                Some(_) = open.join_next() => continue,
            };
            let (router, ends, secure) = (self.router.clone(), ends.clone(), secure.clone());
            open.spawn(async move {
                let _room = room;
                match secure {
                    None => answer(accepted, router, ends).await,
                    Some(secure) => secure.answer(accepted, router, ends).await,
                }
            });
        }
        drop(listener);
        // What is still open after that is cut.
        let _ = tokio::time::timeout(LAST_ANSWERS, async { while open.join_next().await.is_some() {} }).await;
    }
}

/// Resolves when the source is to end.
async fn ended(ends: &mut watch::Receiver<bool>) {
    // A sender that is gone has ended, too.
    drop(ends.wait_for(|&ends| ends).await);
}

type Accepted = (tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit);

/// The next connection, once there is room for it.
async fn accept(listener: &tokio::net::TcpListener, room: &Arc<Semaphore>) -> Accepted {
    loop {
        // Nobody closes the semaphore.
        let Ok(place) = Arc::clone(room).acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small: they need not wait for more.
                let _ = stream.set_nodelay(true);
                return (stream, place);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was refused");
                tokio::time::sleep(REFUSED).await;
            }
        }
    }
}

/// Answers the requests of one connection.
async fn answer<S>(stream: S, router: Router, mut ends: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(HEADERS).max_buf_size(HEAD_BYTES);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    // A client that goes away, or sends what is no HTTP, is none of our errors.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = ended(&mut ends) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// The keys of this server.
#[cfg(feature = "tls")]
pub(super) struct Secure(tokio_rustls::TlsAcceptor);

#[cfg(feature = "tls")]
impl Secure {
    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// When they cannot be read, or do not belong together.
    pub(super) fn open(tls: &Tls) -> Result<Self, StageError> {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let told = |path: &PathBuf, what: &str| {
            let path = path.display().to_string();
            let what = what.to_owned();
            move |error: rustls::pki_types::pem::Error| {
                StageError::Other(format!("{path}: expected {what} in PEM: {error}"))
            }
        };
        let certificates = CertificateDer::pem_file_iter(&tls.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(told(&tls.certificate, "a certificate"))?;
        let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(told(&tls.key, "a private key"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(certificates, key));
        let config = config.map_err(|error| StageError::Other(format!("{}: {error}", tls.certificate.display())))?;
        Ok(Self(tokio_rustls::TlsAcceptor::from(Arc::new(config))))
    }

    async fn answer(&self, stream: tokio::net::TcpStream, router: Router, ends: watch::Receiver<bool>) {
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.0.accept(stream)).await {
            Ok(Ok(stream)) => answer(stream, router, ends).await,
            Ok(Err(error)) => tracing::debug!(%error, "a client did not agree on keys"),
            Err(_) => tracing::debug!("a client took too long to agree on keys"),
        }
    }
}

/// No server has keys without the feature `tls`.
#[cfg(not(feature = "tls"))]
pub(super) enum Secure {}

#[cfg(not(feature = "tls"))]
impl Secure {
    pub(super) fn open(tls: &Tls) -> Result<Self, StageError> {
        let path = tls.certificate.display();
        Err(StageError::Other(format!("{path}: this build knows no TLS; build it with the feature `tls`")))
    }

    async fn answer(&self, _: tokio::net::TcpStream, _: Router, _: watch::Receiver<bool>) {
        match *self {}
    }
}
