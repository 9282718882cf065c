//! Certificates and tokens are exchanged while a run goes on.
#![cfg(feature = "tls")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::client::Answer;
use super::listeners::{LINE, NDJSON, site};
use super::process::Daemon;
use crate::common::runs::latentflow;

const TLS: &str = "tls = { certificate = \"cert.pem\", key = \"key.pem\" }";
const FIRST: &str = "the-first-of-the-tokens";
const SECOND: &str = "the-second-of-the-tokens";

/// Puts a certificate of its own beside its key; returns it as it is sent.
fn certify(folder: &Path, year: i32) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
    let certificate = parameters.self_signed(&key).unwrap();
    replace(folder, "key.pem", key.serialize_pem().as_bytes());
    replace(folder, "cert.pem", certificate.pem().as_bytes());
    certificate.der().to_vec()
}

/// Replaces a file whole, as tools for certificates do.
fn replace(folder: &Path, name: &str, content: &[u8]) {
    fs::write(folder.join("new"), content).unwrap();
    fs::rename(folder.join("new"), folder.join(name)).unwrap();
}

/// Takes every certificate: the tests compare it.
#[derive(Debug)]
struct Anything(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anything {
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

/// Asks over TLS; returns the certificate of the other side, and its answer.
fn ask(address: &str, request: &[u8]) -> (Vec<u8>, Answer) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider));
    let config = config
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous();
    let config = config
        .with_custom_certificate_verifier(Arc::new(Anything(provider)))
        .with_no_client_auth();
    let connection =
        rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    (
        stream.conn.peer_certificates().unwrap()[0].to_vec(),
        Answer::of(&answer),
    )
}

fn post(address: &str, token: &str) -> (Vec<u8>, u16) {
    let head = format!(
        "POST /v1/records HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: {NDJSON}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        LINE.len()
    );
    let (certificate, answer) = ask(address, &[head.as_bytes(), LINE].concat());
    (certificate, answer.status)
}

#[test]
fn changed_certificate_and_token_are_exchanged() {
    let site = site(&format!("{TLS}\ntoken = {{ file = \"token\" }}"), "");
    let folder = site.path();
    let first = certify(folder, 2040);
    fs::write(folder.join("token"), FIRST).unwrap();
    let daemon = Daemon::start(folder);
    let address = daemon.wait("its listener", || daemon.address("listening on https://"));
    let expiry = "latentflow_certificate_expiry_timestamp_seconds{listener=\"in\"}";
    let refused =
        "latentflow_credential_rotation_refused{credential=\"certificate\",listener=\"in\"}";
    assert_eq!(
        (post(&address, FIRST), daemon.metric(expiry)),
        ((first, 202), 2_208_988_800.0)
    );
    // By itself.
    let second = certify(folder, 2041);
    replace(folder, "token", SECOND.as_bytes());
    daemon.wait("the second pair", || {
        (post(&address, SECOND) == (second.clone(), 202)).then_some(())
    });
    assert_eq!(
        (post(&address, FIRST).1, daemon.metric(expiry)),
        (401, 2_240_611_200.0)
    );
    // What cannot be used leaves what is there.
    let key = fs::read(folder.join("key.pem")).unwrap();
    certify(folder, 2042);
    replace(folder, "key.pem", &key);
    daemon.wait("the refusal", || {
        (daemon.metric(refused) == 1.0).then_some(())
    });
    let answer = daemon.admin.ask("POST", "/v1/reload", &[], b"");
    let told = String::from_utf8(answer.body).unwrap();
    assert!(
        answer.status == 409 && told.contains("certificate of in: "),
        "{told}"
    );
    assert_eq!(post(&address, SECOND), (second, 202));
    // On request, immediately.
    let third = certify(folder, 2043);
    replace(folder, "token", FIRST.as_bytes());
    let answer = daemon.admin.ask("POST", "/v1/reload", &[], b"");
    let told = String::from_utf8(answer.body).unwrap();
    // The look that runs beside may have been first with one of them, but not with both after the
    // answer.
    assert!(answer.status == 200, "{told}");
    assert_eq!(
        (post(&address, FIRST), daemon.metric(refused)),
        ((third, 202), 0.0)
    );
    daemon.stop();
}

#[test]
fn admin_listener_speaks_tls_where_it_has_a_certificate() {
    let site = site("", TLS);
    let certificate = certify(site.path(), 2040);
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
    let met = address.map(|address| {
        ask(
            &address,
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let (met, answer) = met.expect("the log says where it listens");
    assert_eq!((met, answer.status), (certificate, 200));
}
