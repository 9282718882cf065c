//! Tests of system calls that do not return and of logs without a reader: the run continues as far
//! as it can, and reports what blocks it.
//!
//! A named pipe simulates a disk that hangs: an open for writing waits for a reader that never
//! comes.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::daemon_process::Daemon;
use super::watch::{site, wait_for_records};
use crate::common::inputs::image_name;

const REQUESTS: &str = r#"
[shutdown]
grace = "1s"

[stages.in]
kind = "http"
listen = "127.0.0.1:0"
records = "features"
columns = { x = "float" }

[stages.out]
kind = "parquet"
inputs = ["in"]
path = "out"
"#;

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn copy(site: &Path, number: usize) {
    let name = image_name(number);
    fs::copy(site.join("made").join(&name), site.join("in").join(name)).unwrap();
}

/// Waits until `/readyz` reports the run as blocked, and checks the text, the metrics and the log.
fn assert_blocked(daemon: &Daemon, clause: &str) {
    let text = daemon.wait("readiness to be lost", || {
        let response = daemon.admin.get("/readyz");
        (response.status == 503).then(|| String::from_utf8(response.body).unwrap())
    });
    assert!(
        text.starts_with("in: blocked for ") && text.trim_end().ends_with(clause),
        "{text}"
    );
    assert_eq!(daemon.metric("latentflow_ready"), 0.0);
    let blocked = daemon.metric("latentflow_stage_blocked_seconds{stage=\"in\"}");
    let oldest = daemon.metric("latentflow_oldest_uncommitted_seconds");
    assert!(blocked >= 4.0 && oldest >= 4.0, "{blocked} {oldest}");
    daemon.wait("the log line of the block", || {
        daemon.log().contains("in: blocked for ").then_some(())
    });
}

#[test]
fn watch_blocked_by_its_journal_is_not_ready() {
    let site = site();
    let daemon = Daemon::start(site.path());
    let journal = site.path().join("out/_latentflow/watched/in");
    daemon.wait("the folder of the journal", || {
        journal.is_dir().then_some(())
    });
    pipe(&journal.join("00000000000000000000.ndjson"));
    copy(site.path(), 1);
    assert_blocked(&daemon, "while it writes its journal");
    daemon.stop();
}

#[test]
fn blocked_journal_leaves_admin_and_signals_working() {
    let site = tempfile::tempdir().unwrap();
    fs::write(site.path().join("p.toml"), REQUESTS).unwrap();
    let daemon = Daemon::start(site.path());
    let source = daemon.source();
    pipe(
        &site
            .path()
            .join("out/_latentflow/requests/in/00000000000000000000.frames"),
    );
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let source = source.clone();
            std::thread::spawn(move || {
                source
                    .post("/v1/records", "application/x-ndjson", b"{\"x\": 1}\n")
                    .status
            })
        })
        .collect();
    assert_blocked(&daemon, "while it writes its journal");
    daemon.signal("-TERM");
    let (status, log) = daemon.end();
    assert!(matches!(status.code(), Some(0 | 130)), "{status}: {log}");
    clients
        .into_iter()
        .for_each(|client| assert_ne!(client.join().unwrap(), 202));
}

#[test]
fn log_lines_without_reader_are_counted_as_lost() {
    let site = site();
    let daemon = Daemon::start_without_log_reader(site.path());
    for number in 0..3 {
        copy(site.path(), number);
        wait_for_records(&daemon, site.path(), number + 1);
    }
    daemon.wait("lost lines", || {
        (daemon.metric("latentflow_log_lines_lost_total") > 0.0).then_some(())
    });
    daemon.signal("-TERM");
    let (status, _) = daemon.end();
    assert_eq!(status.code(), Some(0));
}

/// A watched folder whose pipeline has the given limit of rejects.
fn site_with(rejects: &str) -> TempDir {
    let site = site();
    let path = site.path().join("p.toml");
    let pipeline = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{rejects}\n{pipeline}")).unwrap();
    site
}

#[test]
fn rejects_above_limit_end_a_daemon() {
    let site = site_with("rejects.max = 1");
    let daemon = Daemon::start(site.path());
    // Two broken images and a valid one.
    for (number, before) in [(3, 0), (10, 1), (1, 2)] {
        wait_for_records(&daemon, site.path(), before);
        copy(site.path(), number);
    }
    let (status, log) = daemon.end();
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(
        log.contains(
            "ERROR the run ends: too many records were rejected \
             reason=2 records were rejected; the limit is rejects.max = 1"
        ),
        "{log}"
    );
}

#[test]
fn signal_that_ends_a_daemon_is_logged() {
    let site = site();
    let log = Daemon::start(site.path()).stop();
    assert!(
        log.contains("received a signal to stop")
            && log.contains("signal=\"SIGTERM\"")
            && log.contains("the run ends: a shutdown was requested"),
        "{log}"
    );
}
