//! A proxy before the server that spoils chosen requests: it resets them, loses or cuts answers,
//! stands still, or answers itself.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What is done to a request.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The connection is reset before the server sees the request.
    Reset,
    /// The server does as asked; nobody is told.
    LostAnswer,
    /// The server does as asked; the client is told of an error.
    ErrorAfterEffect(u16),
    /// The server does as asked; half of its answer's body arrives.
    CutAnswer,
    /// This answer, in place of the server's.
    Answer(u16, &'static str),
    /// The request is not read, and not answered.
    Standstill,
    /// Half of the answer's body arrives, then nothing, while the connection stays.
    AnswerStandstill,
    /// The request is read in steps with pauses.
    SlowRequest,
    /// The answer is sent in steps with pauses.
    SlowAnswer,
}

/// Steps of a slow transfer, and the pause after each.
pub const STEPS: usize = 8;
pub const PAUSE: Duration = Duration::from_millis(400);

/// The first `times` requests of a method whose paths contain a text are spoiled.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub method: &'static str,
    pub path: &'static str,
    pub times: usize,
    pub fault: Fault,
}

/// A rule for requests that begin so, such as `PUT out/_latentflow/epoch-`.
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
    /// To the server at a port of this machine.
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
        proxy.spoil(rules);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                // A client that gives up is no failure of the proxy.
                thread::spawn(move || shared.pass(client).unwrap_or_default());
            }
        });
        proxy
    }

    /// Spoils other requests from now on.
    pub fn spoil(&self, rules: &[Rule]) {
        *self.shared.rules.lock().unwrap() =
            rules.iter().map(|rule| (*rule, Arc::default())).collect();
    }

    /// How many requests each rule has spoiled.
    pub fn spoiled(&self) -> Vec<usize> {
        let rules = self.shared.rules.lock().unwrap();
        rules
            .iter()
            .map(|(rule, met)| met.load(SeqCst).min(rule.times))
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
            .find(|(rule, met)| met.fetch_add(1, SeqCst) < rule.times)
            .map(|(rule, _)| rule.fault)
    }

    /// One request; the connection ends with its answer.
    fn pass(&self, mut client: TcpStream) -> std::io::Result<()> {
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
        let mut line = head.split(' ');
        let (method, path) = (
            line.next().unwrap_or_default(),
            line.next().unwrap_or_default(),
        );
        let fault = self.fault(method, path);
        match fault {
            Some(Fault::Reset) => return Ok(()),
            Some(Fault::Standstill) => return wait_for_end(&mut client),
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
        if let Some(Fault::Answer(status, body)) = fault {
            return client.write_all(answer(status, body).as_bytes());
        }
        let kept = head.lines().filter(|line| {
            !line.to_ascii_lowercase().starts_with("connection:") && !line.is_empty()
        });
        let head: Vec<&str> = kept.chain(["Connection: close", "", ""]).collect();
        let mut server = TcpStream::connect(("127.0.0.1", self.server))?;
        server.write_all(&[head.join("\r\n").as_bytes(), &text[end..]].concat())?;
        let mut answered = Vec::new();
        server.read_to_end(&mut answered)?;
        hand_back(&mut client, &answered, fault)
    }
}

fn hand_back(client: &mut TcpStream, answered: &[u8], fault: Option<Fault>) -> std::io::Result<()> {
    let head = answered
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map_or(answered.len(), |end| end + 4);
    let half = head + (answered.len() - head) / 2;
    match fault {
        Some(Fault::LostAnswer) => Ok(()),
        Some(Fault::ErrorAfterEffect(status)) => client.write_all(answer(status, "").as_bytes()),
        Some(Fault::CutAnswer) => client.write_all(&answered[..half]),
        Some(Fault::AnswerStandstill) => {
            client.write_all(&answered[..half])?;
            wait_for_end(client)
        }
        Some(Fault::SlowAnswer) => {
            client.write_all(&answered[..head])?;
            for piece in answered[head..].chunks((answered.len() - head) / STEPS + 1) {
                client.write_all(piece)?;
                thread::sleep(PAUSE);
            }
            Ok(())
        }
        _ => client.write_all(answered),
    }
}

/// Waits until the client gives up.
fn wait_for_end(client: &mut TcpStream) -> std::io::Result<()> {
    let mut bytes = [0; 1 << 10];
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    // What is read is little beside what is sent, so a sender sees no progress.
    while client.read(&mut bytes)? > 0 {
        thread::sleep(Duration::from_secs(1));
    }
    client.shutdown(Shutdown::Both)
}

fn answer(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} Spoiled\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}
