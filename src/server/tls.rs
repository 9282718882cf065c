//! TLS of a listener: its certificate and key, which are reloaded when their files change.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "tls")]
use super::credential_rotation::{Credential, LoadedCredential};

/// PEM files for TLS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct TlsConfig {
    /// The certificate, followed by its intermediate certificates. It is reloaded when it changes.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
}

/// The certificate and key of a listener.
#[cfg(feature = "tls")]
pub(super) struct ReloadingTls {
    tls: TlsConfig,
    /// `None` until the files are loaded.
    config: parking_lot::RwLock<Option<std::sync::Arc<rustls::ServerConfig>>>,
}

#[cfg(feature = "tls")]
impl ReloadingTls {
    /// Creates the TLS state without keys, which [`Credential::load`] loads.
    pub(super) fn new(tls: &TlsConfig) -> Result<Self, crate::error::StageError> {
        Ok(Self {
            tls: tls.clone(),
            config: parking_lot::RwLock::default(),
        })
    }

    /// Performs the handshake with a client.
    ///
    /// # Errors
    /// Returns an error if the client does not use TLS, or the connection fails.
    pub(super) async fn accept(
        &self,
        stream: super::timeout_stream::TimeoutStream,
    ) -> std::io::Result<tokio_rustls::server::TlsStream<super::timeout_stream::TimeoutStream>>
    {
        let config = self.config.read().clone();
        let config = config.ok_or_else(|| std::io::Error::other("the listener has no TLS key"))?;
        tokio_rustls::TlsAcceptor::from(config).accept(stream).await
    }
}

#[cfg(feature = "tls")]
impl Credential for ReloadingTls {
    fn name(&self) -> &'static str {
        "certificate"
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.tls.certificate.clone(), self.tls.key.clone()]
    }

    fn secrets(&self) -> Vec<PathBuf> {
        vec![self.tls.key.clone()]
    }

    fn load(&self, contents: &[Vec<u8>]) -> Result<LoadedCredential, String> {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let [certificate, key] = contents else {
            return Err("expected a certificate and a key".to_owned());
        };
        let pem_error = |path: &PathBuf, what: &str| {
            let (path, what) = (path.display().to_string(), what.to_owned());
            move |error: rustls::pki_types::pem::Error| {
                format!("{path}: expected {what} in PEM: {error}")
            }
        };
        let certificates =
            CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
        let certificates =
            certificates.map_err(pem_error(&self.tls.certificate, "a certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(pem_error(&self.tls.key, "a private key"))?;
        let expires = certificates
            .first()
            .and_then(|leaf| super::certificate::expiry(leaf));
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|config| {
                config
                    .with_no_client_auth()
                    .with_single_cert(certificates, key)
            });
        let config =
            config.map_err(|error| format!("{}: {error}", self.tls.certificate.display()))?;
        *self.config.write() = Some(std::sync::Arc::new(config));
        Ok(LoadedCredential { expires })
    }
}

/// Without the feature `tls`, no listener has a certificate.
#[cfg(not(feature = "tls"))]
pub(super) enum ReloadingTls {}

#[cfg(not(feature = "tls"))]
impl ReloadingTls {
    pub(super) fn new(tls: &TlsConfig) -> Result<Self, crate::error::StageError> {
        let path = tls.certificate.display();
        let message =
            format!("{path}: this build does not support TLS; build with the feature `tls`");
        Err(crate::error::StageError::new(
            crate::error::code::ErrorCode::CredentialsMissing,
            message,
        ))
    }

    pub(super) async fn accept(
        &self,
        _: super::timeout_stream::TimeoutStream,
    ) -> std::io::Result<super::timeout_stream::TimeoutStream> {
        match *self {}
    }
}

#[cfg(not(feature = "tls"))]
impl super::credential_rotation::Credential for ReloadingTls {
    fn name(&self) -> &'static str {
        match *self {}
    }

    fn files(&self) -> Vec<PathBuf> {
        match *self {}
    }

    fn secrets(&self) -> Vec<PathBuf> {
        match *self {}
    }

    fn load(&self, _: &[Vec<u8>]) -> Result<super::credential_rotation::LoadedCredential, String> {
        match *self {}
    }
}
