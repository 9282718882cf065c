//! Tests of both listeners: limits of connections, timeouts, checks of `Host` and of tokens.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use tempfile::TempDir;

use super::client::Client;
use super::daemon_process::Daemon;
use crate::common::runs::latentflow;

pub const NDJSON: &str = "application/x-ndjson";
pub const LINE: &[u8] = b"{\"x\": 1}\n";
const TOKEN: &str = "0123456789abcdef";

/// A pipeline with an `http` source of features and an admin listener, each with the given options.
pub fn site(source: &str, admin: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = format!(
        r#"
[admin]
{admin}

[stages.in]
kind = "http"
listen = "127.0.0.1:0"
records = "features"
columns = {{ x = "float" }}
{source}

[stages.out]
kind = "parquet"
inputs = ["in"]
path = "out"

[commit]
age = "50ms"
"#
    );
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    folder
}

/// The bytes that a connection receives until the server closes it; `None` if it stays open.
fn read_until_closed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        // A reset closes the connection, too.
        _ => Some(bytes),
    }
}

/// Opens `count` connections and sends `bytes` on each, as far as the server accepts them.
fn crowd(client: &Client, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let mut streams: Vec<TcpStream> = (0..count).map(|_| client.connect()).collect();
    for stream in &mut streams {
        // The write fails if the server has closed this connection in favor of a newer one.
        let _ = stream.write_all(bytes);
    }
    streams
}

fn gauge(daemon: &Daemon, name: &str, listener: &str) -> f64 {
    daemon.metric(&format!(
        "latentflow_listener_{name}{{listener=\"{listener}\"}}"
    ))
}

#[cfg(target_os = "linux")]
#[test]
fn idle_connections_at_the_limit_do_not_lock_out_others() {
    let site = site("", "");
    let daemon = Daemon::start_by(&["prlimit", "--nofile=160:160"], site.path(), &[]);
    let source = daemon.source();
    assert_eq!(
        [
            gauge(&daemon, "connections_limit", "in"),
            gauge(&daemon, "connections_limit", "admin")
        ],
        [60.0, 20.0]
    );
    let half =
        b"POST /v1/records HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n";
    let body = [&half[..], b"Content-Length: 100\r\n\r\n{"].concat();
    let fat = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".as_slice(),
        &vec![b'a'; 30 << 10],
    ]
    .concat();
    for bytes in [b"".as_slice(), half, &body, &fat] {
        let _idle = [crowd(&source, 100, bytes), crowd(&daemon.admin, 100, bytes)];
        assert_eq!(
            source
                .post("/v1/records?ack=committed", NDJSON, LINE)
                .status,
            200
        );
        assert!(gauge(&daemon, "connections", "in") <= 60.0);
        assert!(gauge(&daemon, "connections", "admin") <= 20.0);
    }
    assert!(
        gauge(&daemon, "evictions_total", "in") > 0.0
            && gauge(&daemon, "evictions_total", "admin") > 0.0
    );
    let log = daemon.stop();
    assert!(!log.contains("Too many open files"), "{log}");
}

/// Sends requests and reads no response until the server accepts no more bytes.
fn request_without_reading(client: &Client, path: &str) -> TcpStream {
    let mut stream = client.connect();
    stream.set_nonblocking(true).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(100);
    let mut stalls = 0;
    while stalls < 20 {
        match stream.write(request.as_bytes()) {
            Ok(_) => stalls = 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stalls += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(_) => break,
        }
    }
    stream.set_nonblocking(false).unwrap();
    stream
}

#[test]
fn client_that_reads_no_response_is_disconnected() {
    let limits = "limits = { write = \"300ms\" }";
    let site = site(limits, limits);
    let daemon = Daemon::start(site.path());
    for (client, path) in [
        (daemon.source(), "/openapi.json"),
        (daemon.admin.clone(), "/"),
    ] {
        let mut stream = request_without_reading(&client, path);
        // The write fails once the server has reset the connection.
        daemon.wait("the end of the connection", || {
            stream.write_all(b"GET / HTTP/1.1\r\n").err()
        });
    }
    daemon.stop();
}

#[test]
fn slow_readers_are_evicted_for_new_connections() {
    let site = site("limits = { connections = 8 }", "");
    let daemon = Daemon::start(site.path());
    let source = daemon.source();
    let _slow: Vec<TcpStream> = (0..8)
        .map(|_| request_without_reading(&source, "/openapi.json"))
        .collect();
    assert_eq!(source.post("/v1/records", NDJSON, LINE).status, 202);
    assert_eq!(gauge(&daemon, "evictions_total", "in"), 1.0);
    daemon.stop();
}

#[test]
fn idle_connection_is_closed() {
    let limits = "limits = { head = \"300ms\", idle = \"600ms\" }";
    let site = site(limits, limits);
    let daemon = Daemon::start(site.path());
    for client in [daemon.source(), daemon.admin.clone()] {
        for bytes in [
            "",
            "GET /healthz HT",
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
        ] {
            let mut stream = client.connect();
            stream.write_all(bytes.as_bytes()).unwrap();
            assert!(
                read_until_closed(&mut stream).is_some_and(|response| response.is_empty()),
                "{bytes:?}"
            );
        }
        let mut stream = client.connect();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let response = read_until_closed(&mut stream)
            .expect("the server closes the connection after the response");
        assert!(response.starts_with(b"HTTP/1.1 200") && response.ends_with(b"ok\n"));
    }
    daemon.stop();
}

#[test]
fn foreign_host_or_origin_is_refused_without_a_token() {
    let site = site("hosts = [\"good.example\"]", "hosts = [\"good.example\"]");
    let daemon = Daemon::start(site.path());
    let source = daemon.source();
    let send = |client: &Client, method: &str, path: &str, host: &str, origin: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{origin}Content-Type: {NDJSON}\r\n\
             Connection: close\r\nContent-Length: 0\r\n\r\n"
        );
        client.send(request.as_bytes()).status
    };
    let requests = [
        (&source, "POST", "/v1/records"),
        (&source, "POST", "/v1/encode"),
        (&source, "GET", "/openapi.json"),
        (&daemon.admin, "GET", "/metrics"),
        (&daemon.admin, "GET", "/readyz"),
        (&daemon.admin, "GET", "/"),
        (&daemon.admin, "POST", "/v1/reload"),
    ];
    for (client, method, path) in requests {
        assert_eq!(
            send(client, method, path, "evil.example", ""),
            403,
            "{path}"
        );
        assert_eq!(
            send(
                client,
                method,
                path,
                "localhost",
                "Origin: http://evil.example\r\n"
            ),
            403,
            "{path}"
        );
        for host in ["localhost", "127.0.0.1:1", "good.example:80"] {
            assert!(
                ![403, 0].contains(&send(client, method, path, host, "")),
                "{path} {host}"
            );
        }
    }
    // A request without `Host` does not come from a browser.
    assert_eq!(
        daemon.admin.send(b"GET /healthz HTTP/1.0\r\n\r\n").status,
        200
    );
    assert_eq!(source.get("/healthz").body, b"ok\n");
    daemon.stop();
}

#[test]
fn admin_token_guards_all_but_health() {
    let site = site("", "token = { file = \"token\" }");
    fs::write(site.path().join("token"), TOKEN).unwrap();
    let daemon = Daemon::start(site.path());
    let send = |path: &str, authorization: &str| {
        let headers = [("Authorization", authorization)];
        daemon.admin.request(
            if path == "/v1/reload" { "POST" } else { "GET" },
            path,
            &headers,
            b"",
        )
    };
    let basic = format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("latentflow:{TOKEN}"))
    );
    for path in ["/", "/metrics", "/v1/status", "/v1/reload"] {
        let refused = send(path, "Bearer 0123456789abcdeF");
        assert!(
            refused.status == 401
                && refused
                    .head
                    .to_ascii_lowercase()
                    .contains("www-authenticate: basic"),
            "{path}"
        );
        assert_eq!(
            [
                send(path, &format!("Bearer {TOKEN}")).status,
                send(path, &basic).status
            ],
            [200, 200],
            "{path}"
        );
    }
    assert_eq!(
        [
            daemon.admin.get("/healthz").body,
            daemon.admin.get("/readyz").body
        ],
        [b"ok\n".to_vec(), b"ready\n".to_vec()]
    );
    assert_eq!(daemon.admin.get("/elsewhere").status, 401);
    daemon.stop();
}

#[test]
fn public_admin_without_authentication_is_refused() {
    let site = site("", "listen = \"0.0.0.0:0\"");
    let run_command = |arguments: &[&str]| {
        let output = latentflow(site.path(), arguments).output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    for arguments in [
        ["check", "p.toml"].as_slice(),
        &["run", "p.toml", "--metrics", "0.0.0.0:0"],
    ] {
        let (code, text) = run_command(arguments);
        assert!(
            code == Some(2) && text.contains("allow_unauthenticated = true"),
            "{arguments:?}: {text}"
        );
    }
    assert_eq!(
        run_command(&[
            "check",
            "p.toml",
            "--set",
            "admin.allow_unauthenticated=true"
        ])
        .0,
        Some(0)
    );
    assert_eq!(
        run_command(&["check", "p.toml", "--set", "admin.token.variable=TOKEN"]).0,
        Some(0)
    );
    let (code, text) = run_command(&[
        "check",
        "p.toml",
        "--set",
        "admin.listen=127.0.0.1:0",
        "--set",
        "admin.limits.idle=0s",
    ]);
    assert!(
        code == Some(2) && text.contains("admin.limits.idle"),
        "{text}"
    );
}

#[test]
fn token_file_readable_by_others_gives_warning() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = site("token = { file = \"token\" }", "");
    fs::write(site.path().join("token"), TOKEN).unwrap();
    fs::set_permissions(site.path().join("token"), fs::Permissions::from_mode(0o644)).unwrap();
    let daemon = Daemon::start(site.path());
    daemon.source();
    assert!(
        daemon
            .log()
            .contains("token readers=every user of this machine"),
        "{}",
        daemon.log()
    );
    daemon.stop();
}
