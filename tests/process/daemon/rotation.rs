//! Tests of the rotation of certificates and tokens in a running daemon.
#![cfg(feature = "tls")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::client::Response;
use super::daemon_process::Daemon;
use super::listeners::{LINE, NDJSON, site};
use crate::common::runs::latentflow;

const TLS: &str = "tls = { certificate = \"cert.pem\", key = \"key.pem\" }";
const FIRST: &str = "the-first-of-the-tokens";
const SECOND: &str = "the-second-of-the-tokens";

/// Writes a new self-signed certificate and its key; returns the certificate in DER form.
fn write_certificate(folder: &Path, year: i32) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
    let certificate = parameters.self_signed(&key).unwrap();
    replace(folder, "key.pem", key.serialize_pem().as_bytes());
    replace(folder, "cert.pem", certificate.pem().as_bytes());
    certificate.der().to_vec()
}

/// Replaces a file by a rename, as certificate tools do.
fn replace(folder: &Path, name: &str, content: &[u8]) {
    fs::write(folder.join("new"), content).unwrap();
    fs::rename(folder.join("new"), folder.join(name)).unwrap();
}

/// A verifier that accepts every certificate, since the tests compare it.
#[derive(Debug)]
struct AcceptAny(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Sends a request over TLS; returns the certificate of the server and the response.
fn request_over_tls(address: &str, request: &[u8]) -> (Vec<u8>, Response) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider));
    let config = config
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous();
    let config = config
        .with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
        .with_no_client_auth();
    let connection =
        rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    stream.write_all(request).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    (
        stream.conn.peer_certificates().unwrap()[0].to_vec(),
        Response::parse(&bytes),
    )
}

fn post(address: &str, token: &str) -> (Vec<u8>, u16) {
    let head = format!(
        "POST /v1/records HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: {NDJSON}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        LINE.len()
    );
    let (certificate, response) = request_over_tls(address, &[head.as_bytes(), LINE].concat());
    (certificate, response.status)
}

#[test]
fn changed_certificate_and_token_are_replaced() {
    let site = site(&format!("{TLS}\ntoken = {{ file = \"token\" }}"), "");
    let folder = site.path();
    let first = write_certificate(folder, 2040);
    fs::write(folder.join("token"), FIRST).unwrap();
    let daemon = Daemon::start(folder);
    let address = daemon.wait("the listener of the source", || {
        daemon.address("listening on https://")
    });
    let expiry = "latentflow_certificate_expiry_timestamp_seconds{listener=\"in\"}";
    let refused =
        "latentflow_credential_rotation_refused{credential=\"certificate\",listener=\"in\"}";
    assert_eq!(
        (post(&address, FIRST), daemon.metric(expiry)),
        ((first, 202), 2_208_988_800.0)
    );
    // Rotation without a request.
    let second = write_certificate(folder, 2041);
    replace(folder, "token", SECOND.as_bytes());
    daemon.wait("the second pair", || {
        (post(&address, SECOND) == (second.clone(), 202)).then_some(())
    });
    assert_eq!(
        (post(&address, FIRST).1, daemon.metric(expiry)),
        (401, 2_240_611_200.0)
    );
    // A certificate that does not match its key is refused; the previous pair stays in use.
    let key = fs::read(folder.join("key.pem")).unwrap();
    write_certificate(folder, 2042);
    replace(folder, "key.pem", &key);
    daemon.wait("the refusal", || {
        (daemon.metric(refused) == 1.0).then_some(())
    });
    let refusal = daemon.admin.request("POST", "/v1/reload", &[], b"");
    let reason = String::from_utf8(refusal.body).unwrap();
    assert!(
        refusal.status == 409 && reason.contains("certificate of in: "),
        "{reason}"
    );
    assert_eq!(post(&address, SECOND), (second, 202));
    // Rotation on request takes effect before the response.
    let third = write_certificate(folder, 2043);
    replace(folder, "token", FIRST.as_bytes());
    let response = daemon.admin.request("POST", "/v1/reload", &[], b"");
    let text = String::from_utf8(response.body).unwrap();
    // The periodic check may already have loaded one of the two files.
    assert!(response.status == 200, "{text}");
    assert_eq!(
        (post(&address, FIRST), daemon.metric(refused)),
        ((third, 202), 0.0)
    );
    daemon.stop();
}

#[test]
fn admin_listener_with_certificate_uses_tls() {
    let site = site("", TLS);
    let certificate = write_certificate(site.path(), 2040);
    let mut run = latentflow(
        site.path(),
        &[
            "run",
            "p.toml",
            "--metrics",
            "127.0.0.1:0",
            "--log-format",
            "text",
        ],
    );
    let mut child = run
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let address = lines.filter_map(|line| {
        Some(
            line.split_once("metrics at https://")?
                .1
                .split('/')
                .next()?
                .to_owned(),
        )
    });
    let address = address.into_iter().next();
    let response = address.map(|address| {
        request_over_tls(
            &address,
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let (received, response) = response.expect("the log names the address of the listener");
    assert_eq!((received, response.status), (certificate, 200));
}
