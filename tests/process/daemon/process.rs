//! A daemon: the binary with a pipeline, its log heard, ended at the latest with the test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::client::{Answer, Client};
use crate::common::runs::{latentflow, latentflow_by};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    /// Whether the reader of the log ends with the next line.
    deaf: Arc<AtomicBool>,
    /// The listener for operators.
    pub admin: Client,
}

impl Daemon {
    /// Starts `p.toml` in `folder`, and waits until it is ready.
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[])
    }

    /// As [`Daemon::start`], with variables.
    pub fn start_with(folder: &Path, variables: &[(&str, &str)]) -> Self {
        Self::start_by(&[], folder, variables)
    }

    /// As [`Daemon::start`]; once it is ready, nobody reads its log any more.
    pub fn start_deaf(folder: &Path) -> Self {
        let daemon = Self::start(folder);
        daemon.deaf.store(true, Relaxed);
        daemon
    }

    /// As [`Daemon::start_with`], by another program.
    pub fn start_by(wrapper: &[&str], folder: &Path, variables: &[(&str, &str)]) -> Self {
        let arguments = [
            "run",
            "p.toml",
            "--metrics",
            "127.0.0.1:0",
            "--log-format",
            "text",
            "--workers",
            "2",
        ];
        let mut command = match wrapper {
            [] => latentflow(folder, &arguments),
            _ => latentflow_by(wrapper, folder, &arguments),
        };
        command
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, heard) = (child.stderr.take().unwrap(), Arc::clone(&log));
        let deaf = Arc::new(AtomicBool::new(false));
        let is_deaf = Arc::clone(&deaf);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if is_deaf.load(Relaxed) {
                    return;
                }
                let mut log = heard.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut daemon = Self {
            child,
            log,
            deaf,
            admin: Client::new("127.0.0.1:0"),
        };
        let address = daemon.wait("its metrics", || daemon.address("metrics at http://"));
        daemon.admin = Client::new(&address);
        daemon.wait("readiness", || {
            (daemon.admin.get("/readyz").status == 200).then_some(())
        });
        daemon
    }

    /// The source that listens.
    pub fn source(&self) -> Client {
        Client::new(&self.wait("its listener", || self.address("listening on http://")))
    }

    /// What the log names behind some words.
    pub fn address(&self, words: &str) -> Option<String> {
        let log = self.log();
        let behind = &log[log.find(words)? + words.len()..];
        Some(
            behind
                .chars()
                .take_while(|c| c.is_ascii_digit() || ".:[]".contains(*c))
                .collect(),
        )
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until there is something.
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "waited in vain for {what}; the log says:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The value of a metric, by its name and labels as they are printed; 0 where it is not.
    pub fn metric(&self, name: &str) -> f64 {
        let Answer { body, .. } = self.admin.get("/metrics");
        let text = String::from_utf8(body).unwrap();
        let line = text.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        });
        line.map_or(0.0, |line| {
            line.rsplit(' ').next().unwrap().parse().unwrap()
        })
    }

    /// The most resident memory that it had, in bytes.
    pub fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Kills it at once.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end; returns what it said.
    pub fn end(mut self) -> (ExitStatus, String) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.log());
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "it does not end; the log says:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to stop, and takes exit code 0 for granted.
    pub fn stop(self) -> String {
        self.signal("-TERM");
        let (status, log) = self.end();
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon (ended: {ended:?}) said:\n{}", self.log());
        }
    }
}
