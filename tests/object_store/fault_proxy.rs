//! A proxy that injects faults into chosen requests: it resets connections, drops or truncates
//! responses, stalls, or responds itself.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A fault of a request.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The connection is reset before the server sees the request.
    Reset,
    /// The server executes the request; the client receives no response.
    LostResponse,
    /// The server executes the request; the client receives an error.
    ErrorAfterEffect(u16),
    /// The server executes the request; the client receives half of the response body.
    TruncatedResponse,
    /// The proxy sends this response instead of the server.
    Response(u16, &'static str),
    /// The proxy neither reads the request nor responds.
    StalledRequest,
    /// The proxy sends half of the response body and keeps the connection open.
    StalledResponse,
    /// The proxy reads the request in steps with pauses.
    SlowRequest,
    /// The proxy sends the response in steps with pauses.
    SlowResponse,
}

/// Number of steps of a slow transfer.
pub const STEPS: usize = 8;
/// Pause after each step of a slow transfer.
pub const PAUSE: Duration = Duration::from_millis(400);

/// A fault of the first `times` requests of a method whose paths contain a text.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub method: &'static str,
    pub path: &'static str,
    pub times: usize,
    pub fault: Fault,
}

/// A rule for a method and a part of the path, such as `PUT out/_latentflow/epoch-`.
pub fn rule(request: &'static str, times: usize, fault: Fault) -> Rule {
    let (method, path) = request.split_once(' ').unwrap();
    Rule {
        method,
        path,
        times,
        fault,
    }
}

pub struct FaultProxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: u16,
    rules: Mutex<Vec<(Rule, Arc<AtomicUsize>)>>,
}

impl FaultProxy {
    /// A proxy to the server at a local port.
    pub fn to(server: u16, rules: &[Rule]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server,
            rules: Mutex::default(),
        });
        let proxy = Self {
            port,
            shared: Arc::clone(&shared),
        };
        proxy.set_rules(rules);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                // An error of a client that disconnects is ignored.
                thread::spawn(move || shared.forward(client).unwrap_or_default());
            }
        });
        proxy
    }

    /// Replaces the rules.
    pub fn set_rules(&self, rules: &[Rule]) {
        *self.shared.rules.lock().unwrap() =
            rules.iter().map(|rule| (*rule, Arc::default())).collect();
    }

    /// The number of requests to which each rule was applied.
    pub fn applied(&self) -> Vec<usize> {
        let rules = self.shared.rules.lock().unwrap();
        rules
            .iter()
            .map(|(rule, count)| count.load(SeqCst).min(rule.times))
            .collect()
    }
}

impl Shared {
    fn fault(&self, method: &str, path: &str) -> Option<Fault> {
        let rules = self.rules.lock().unwrap();
        let matching = rules
            .iter()
            .filter(|(rule, _)| rule.method == method && path.contains(rule.path));
        matching
            .into_iter()
            .find(|(rule, count)| count.fetch_add(1, SeqCst) < rule.times)
            .map(|(rule, _)| rule.fault)
    }

    /// Forwards one request; the connection ends with the response.
    fn forward(&self, mut client: TcpStream) -> std::io::Result<()> {
        client.set_nodelay(true)?;
        let (mut text, mut bytes) = (Vec::new(), [0; 1 << 14]);
        let end = loop {
            if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let length = client.read(&mut bytes)?;
            if length == 0 {
                return Ok(());
            }
            text.extend_from_slice(&bytes[..length]);
        };
        let head = String::from_utf8_lossy(&text[..end]).into_owned();
        let mut words = head.split(' ');
        let (method, path) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let fault = self.fault(method, path);
        match fault {
            Some(Fault::Reset) => return Ok(()),
            Some(Fault::StalledRequest) => return wait_for_end(&mut client),
            _ => {}
        }
        let length = header(&head, "content-length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        let step = if matches!(fault, Some(Fault::SlowRequest)) {
            length / STEPS + 1
        } else {
            bytes.len()
        };
        while text.len() < end + length {
            let read = client.read(&mut bytes[..step.min(1 << 14)])?;
            if read == 0 {
                return Ok(());
            }
            text.extend_from_slice(&bytes[..read]);
            if step < bytes.len() {
                thread::sleep(PAUSE);
            }
        }
        if let Some(Fault::Response(status, body)) = fault {
            return client.write_all(own_response(status, body).as_bytes());
        }
        let headers = head.lines().filter(|line| {
            !line.to_ascii_lowercase().starts_with("connection:") && !line.is_empty()
        });
        let forwarded: Vec<&str> = headers.chain(["Connection: close", "", ""]).collect();
        let mut server = TcpStream::connect(("127.0.0.1", self.server))?;
        server.write_all(&[forwarded.join("\r\n").as_bytes(), &text[end..]].concat())?;
        let mut response = Vec::new();
        server.read_to_end(&mut response)?;
        send_response(&mut client, &response, fault)
    }
}

fn send_response(
    client: &mut TcpStream,
    response: &[u8],
    fault: Option<Fault>,
) -> std::io::Result<()> {
    let head = response
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map_or(response.len(), |end| end + 4);
    let half = head + (response.len() - head) / 2;
    match fault {
        Some(Fault::LostResponse) => Ok(()),
        Some(Fault::ErrorAfterEffect(status)) => {
            client.write_all(own_response(status, "").as_bytes())
        }
        Some(Fault::TruncatedResponse) => client.write_all(&response[..half]),
        Some(Fault::StalledResponse) => {
            client.write_all(&response[..half])?;
            wait_for_end(client)
        }
        Some(Fault::SlowResponse) => {
            client.write_all(&response[..head])?;
            for piece in response[head..].chunks((response.len() - head) / STEPS + 1) {
                client.write_all(piece)?;
                thread::sleep(PAUSE);
            }
            Ok(())
        }
        _ => client.write_all(response),
    }
}

/// Waits until the client disconnects.
fn wait_for_end(client: &mut TcpStream) -> std::io::Result<()> {
    let mut bytes = [0; 1 << 10];
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    // The proxy reads far slower than the client sends, so the client sees no progress.
    while client.read(&mut bytes)? > 0 {
        thread::sleep(Duration::from_secs(1));
    }
    client.shutdown(Shutdown::Both)
}

fn own_response(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} Injected\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}
