//! A running daemon: the binary with a pipeline, a reader of its log, and its end with the test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::client::{Client, Response};
use crate::common::runs::{latentflow, latentflow_by};

/// Time after which a wait fails the test.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    /// Whether the reader of the log stops at the next line.
    stop_reading: Arc<AtomicBool>,
    /// A client of the admin listener.
    pub admin: Client,
}

impl Daemon {
    /// Starts `p.toml` in `folder`, and waits until it is ready.
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[])
    }

    /// As [`Daemon::start`], with environment variables.
    pub fn start_with(folder: &Path, variables: &[(&str, &str)]) -> Self {
        Self::start_by(&[], folder, variables)
    }

    /// As [`Daemon::start`]; once the daemon is ready, its log is not read any more.
    pub fn start_without_log_reader(folder: &Path) -> Self {
        let daemon = Self::start(folder);
        daemon.stop_reading.store(true, Relaxed);
        daemon
    }

    /// As [`Daemon::start`], for a shard.
    pub fn start_shard(folder: &Path, shard: &str) -> Self {
        Self::spawn(&[], folder, &[], &["--shard", shard])
    }

    /// As [`Daemon::start_with`], started by the command line `wrapper`.
    pub fn start_by(wrapper: &[&str], folder: &Path, variables: &[(&str, &str)]) -> Self {
        Self::spawn(wrapper, folder, variables, &[])
    }

    fn spawn(
        wrapper: &[&str],
        folder: &Path,
        variables: &[(&str, &str)],
        options: &[&str],
    ) -> Self {
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
        let arguments = [&arguments[..], options].concat();
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
        let (stderr, reader_log) = (child.stderr.take().unwrap(), Arc::clone(&log));
        let stop_reading = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stop_reading);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if is_stopped.load(Relaxed) {
                    return;
                }
                let mut text = reader_log.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
            }
        });
        let mut daemon = Self {
            child,
            log,
            stop_reading,
            admin: Client::new("127.0.0.1:0"),
        };
        let address = daemon.wait("the admin listener", || {
            daemon.address("metrics at http://")
        });
        daemon.admin = Client::new(&address);
        daemon.wait("readiness", || {
            (daemon.admin.get("/readyz").status == 200).then_some(())
        });
        daemon
    }

    /// A client of the `http` source.
    pub fn source(&self) -> Client {
        Client::new(&self.wait("the listener of the source", || {
            self.address("listening on http://")
        }))
    }

    /// The address that follows `prefix` in the log.
    pub fn address(&self, prefix: &str) -> Option<String> {
        let log = self.log();
        let rest = &log[log.find(prefix)? + prefix.len()..];
        Some(
            rest.chars()
                .take_while(|c| c.is_ascii_digit() || ".:[]".contains(*c))
                .collect(),
        )
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Calls `poll` until it returns a value; `expected` names the value in the panic message.
    pub fn wait<T>(&self, expected: &str, mut poll: impl FnMut() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = poll() {
                return found;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "timed out waiting for {expected}; log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The value of a metric by its printed name and labels; 0 if it is not printed.
    pub fn metric(&self, name: &str) -> f64 {
        let Response { body, .. } = self.admin.get("/metrics");
        let text = String::from_utf8(body).unwrap();
        let line = text.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        });
        line.map_or(0.0, |line| {
            line.rsplit(' ').next().unwrap().parse().unwrap()
        })
    }

    /// The maximum resident memory of the process, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Sends a signal to the process.
    pub fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Kills the process.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end of the process; returns its status and its log.
    pub fn end(mut self) -> (ExitStatus, String) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.log());
            }
            assert!(
                started.elapsed() < PATIENCE,
                "the daemon does not end; log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends SIGTERM and asserts exit code 0; returns the log.
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
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the daemon (ended: {ended:?}):\n{}", self.log());
        }
    }
}
