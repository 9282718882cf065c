//! Tests of logs that cannot be written: to a full disk, or to a pipe without a reader.

use std::fs::File;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use super::{COPY, assert_all_rows, folder_with_rows};
use crate::common::inputs;
use crate::common::runs::{errors, latentflow};

/// The capacity of a pipe.
const PIPE_BYTES: usize = 64 << 10;

#[test]
fn full_disk_of_the_log_does_not_end_a_run() {
    let folder = folder_with_rows();
    std::fs::write(folder.path().join("p.toml"), COPY).unwrap();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let mut command = latentflow(folder.path(), &["run", "p.toml"]);
    assert_eq!(command.stderr(full()).status().unwrap().code(), Some(0));
    assert_all_rows(folder.path());
    // Errors cannot be written either; the exit code reports them.
    std::fs::write(folder.path().join("p.toml"), "nonsense = 1").unwrap();
    for subcommand in ["run", "check"] {
        let status = latentflow(folder.path(), &[subcommand, "p.toml"])
            .stderr(full())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(2), "{subcommand}");
    }
}

#[test]
fn log_without_reader_does_not_stop_a_run() {
    let folder = folder_with_rows();
    std::fs::write(folder.path().join("p.toml"), COPY).unwrap();
    let (unread, mut full) = std::io::pipe().unwrap();
    full.write_all(&[b' '; PIPE_BYTES]).unwrap();
    let mut child = latentflow(folder.path(), &["run", "p.toml"])
        .stderr(full)
        .spawn()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_all_rows(folder.path());
    drop(unread);
}

#[test]
fn fatal_error_in_json_log_is_json() {
    let folder = tempfile::tempdir().unwrap();
    inputs::table(&folder.path().join("in/a.parquet"), 0..10, 10);
    std::fs::create_dir(folder.path().join("out")).unwrap();
    std::fs::write(folder.path().join("out/part-00000.parquet"), "not Parquet").unwrap();
    for (pipeline, code) in [("nonsense = 1", 2), (COPY, 1)] {
        std::fs::write(folder.path().join("p.toml"), pipeline).unwrap();
        let output = latentflow(folder.path(), &["run", "p.toml", "--log-format", "json"])
            .output()
            .unwrap();
        let text = errors(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect();
        let last = lines.last().unwrap();
        assert_eq!(last["level"], "ERROR", "{text}");
        assert!(last["timestamp"].as_str().unwrap().ends_with('Z'), "{text}");
    }
}
