//! The S3-compatible server of the tests: moto in a separate virtual environment, on a free local
//! port.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use super::Store;

pub const ACCESS_KEY: &str = "AKIALATENTFLOWTESTS0";
pub const SECRET: &str = "tests/secret+that/must+not+leak/0123456789";
pub const TOKEN: &str = "token-that-must-not-leak-either";

/// The packages, pinned so that the tests run against the same server on every machine.
const PACKAGES: [&str; 3] = ["moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5"];

/// A program that prints its port, and ends with its standard input, which the end of the tests
/// closes.
const PROGRAM: &str = "\
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
";

const UNSIGNED: &str = "Authorization: AWS4-HMAC-SHA256 \
    Credential=tester/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// A running server, which is killed when the last test that uses it has ended.
struct Server {
    process: Mutex<Child>,
    port: u16,
}

impl Server {
    /// The shared server, which is started if it does not run; `None` if moto cannot be installed.
    fn get() -> Option<Arc<Self>> {
        static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let python = python()?;
        let mut shared = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let server = Arc::new(Self::start(python));
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    fn start(python: &Path) -> Self {
        let mut command = Command::new(python);
        command
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| line.trim().parse().ok());
        Self {
            process: Mutex::new(process),
            port: port.expect("moto prints its port"),
        }
    }
}

impl Server {
    fn end(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = process.kill();
        let _ = process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// The Python with moto; `None` if it cannot be installed, which is printed once.
fn python() -> Option<&'static Path> {
    static PYTHON: LazyLock<Option<PathBuf>> = LazyLock::new(|| match install() {
        Ok(python) => Some(python),
        Err(reason) => {
            eprintln!("skipped: moto cannot be installed: {reason}");
            None
        }
    });
    PYTHON.as_deref()
}

/// Creates the virtual environment, once for all runs.
fn install() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("moto");
    let python = folder.join("bin/python");
    let ready = folder.join("ready");
    let packages = PACKAGES.join(" ");
    if std::fs::read_to_string(&ready).is_ok_and(|installed| installed == packages) {
        return Ok(python);
    }
    let run = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet"])
        .args(PACKAGES))?;
    std::fs::write(&ready, packages).map_err(|error| error.to_string())?;
    Ok(python)
}

/// A bucket of one test.
pub struct Bucket {
    server: Arc<Server>,
    name: &'static str,
}

impl Bucket {
    /// A new bucket; `None` if the server is not available.
    pub fn new(name: &'static str) -> Option<Self> {
        let bucket = Self {
            server: Server::get()?,
            name,
        };
        assert_eq!(bucket.request("PUT", "", b"").0, 200);
        Some(bucket)
    }

    /// A new bucket in a separate server.
    pub fn with_own_server(name: &'static str) -> Option<Self> {
        let bucket = Self {
            server: Arc::new(Server::start(python()?)),
            name,
        };
        assert_eq!(bucket.request("PUT", "", b"").0, 200);
        Some(bucket)
    }

    /// Ends the server of a bucket with a separate server.
    pub fn stop_server(&self) {
        self.server.end();
    }

    /// The local port of the server.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    pub fn remove(&self, key: &str) {
        assert_eq!(self.request("DELETE", &format!("/{key}"), b"").0, 204);
    }

    /// The multipart uploads that are neither completed nor aborted.
    pub fn unfinished(&self) -> BTreeSet<String> {
        let (status, listing) = self.request("GET", "?uploads", b"");
        assert_eq!(status, 200);
        let listing = String::from_utf8(listing).unwrap();
        let uploads = listing.split("<UploadId>").skip(1);
        uploads
            .map(|upload| upload.split('<').next().unwrap().to_owned())
            .collect()
    }

    /// Sends a request. The server requires a signature, but does not verify it.
    fn request(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let (name, port, length) = (self.name, self.server.port, body.len());
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let head = format!(
            "{method} /{name}{path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\
             Content-Length: {length}\r\n{UNSIGNED}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        let end = response
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap();
        let status = String::from_utf8_lossy(&response[..end])
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        (status, response[end + 4..].to_vec())
    }
}

impl Store for Bucket {
    fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.name)
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("AWS_SESSION_TOKEN", TOKEN.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            (
                "AWS_ENDPOINT_URL",
                format!("http://127.0.0.1:{}", self.server.port),
            ),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        assert_eq!(self.request("PUT", &format!("/{key}"), bytes).0, 200);
    }

    fn get(&self, key: &str) -> Vec<u8> {
        let (status, bytes) = self.request("GET", &format!("/{key}"), b"");
        assert_eq!(status, 200, "{key}");
        bytes
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        let (status, listing) = self.request("GET", &format!("?list-type=2&prefix={prefix}"), b"");
        let listing = String::from_utf8(listing).unwrap();
        assert!(
            status == 200 && listing.contains("<IsTruncated>false<"),
            "{listing}"
        );
        listing
            .split("<Key>")
            .skip(1)
            .map(|rest| rest.split("</Key>").next().unwrap().to_owned())
            .collect()
    }
}
