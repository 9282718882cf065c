//! A test of the system calls of a commit with strace: the file is synced, then renamed, then its
//! folder is synced, and only then is the commit reported.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::outputs::data_files;
use crate::common::runs::latentflow_by;
use crate::common::scenarios::{self, Site};

/// A system call that has succeeded.
#[derive(Debug)]
struct Call {
    /// The name of the trace file of the thread.
    thread: String,
    began: f64,
    ended: f64,
    text: String,
}

/// The calls of all threads, in the order in which each thread made them.
fn calls(folder: &Path) -> Vec<Call> {
    let mut calls = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let thread = entry.file_name().to_string_lossy().into_owned();
        for line in fs::read_to_string(entry.path()).unwrap().lines() {
            // 1764111111.123456 fsync(9</a/file>) = 0 <0.000123>
            let Some((began, rest)) = line.split_once(' ') else {
                continue;
            };
            let Some((text, took)) = rest.rsplit_once(" <") else {
                continue;
            };
            // A call interrupted by the end of the process has no duration, but
            // `<unfinished ...>`.
            let (began, Ok(took)) = (
                began.parse::<f64>().unwrap(),
                took.trim_end_matches('>').parse::<f64>(),
            ) else {
                continue;
            };
            if !text.contains(" = -1 ") {
                calls.push(Call {
                    thread: thread.clone(),
                    began,
                    ended: began + took,
                    text: text.to_owned(),
                });
            }
        }
    }
    calls
}

/// The index of the only call that begins with `name` and contains `argument`.
fn only_index(calls: &[Call], name: &str, argument: &str) -> usize {
    let matches = |call: &Call| call.text.starts_with(name) && call.text.contains(argument);
    let found: Vec<usize> = (0..calls.len()).filter(|&at| matches(&calls[at])).collect();
    assert!(
        found.len() == 1,
        "{} calls of {name} with {argument}",
        found.len()
    );
    found[0]
}

fn is_traceable() -> bool {
    let traced = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status();
    let traceable = traced.is_ok_and(|status| status.success());
    if !traceable {
        eprintln!("skipped: strace is not installed, or is not allowed to trace here");
    }
    traceable
}

#[test]
fn commit_is_reported_after_file_and_folder_are_synced() {
    if !is_traceable() {
        return;
    }
    let site = Site::new(scenarios::tables());
    let traces = site.root().join("traces");
    fs::create_dir(&traces).unwrap();
    fs::write(
        site.root().join("p.toml"),
        site.scenario.pipeline.replace("OUT", "out"),
    )
    .unwrap();
    let prefix = traces.join("t");
    let traced_calls =
        "trace=openat,rename,renameat,renameat2,fsync,fdatasync,unlink,write,exit_group";
    let strace = [
        "strace",
        "-ff",
        "-ttt",
        "-T",
        "-y",
        "-s",
        "256",
        "-e",
        traced_calls,
        "-o",
        prefix.to_str().unwrap(),
    ];
    let output = latentflow_by(
        &strace,
        site.root(),
        &["run", "p.toml", "--summary", "json"],
    )
    .output()
    .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    site.finish("out");

    let calls = calls(&traces);
    let report = &calls[only_index(&calls, "write(1<", "\\\"outcome\\\": \\\"finished\\\"")];
    let exit = calls
        .iter()
        .find(|call| call.text.starts_with("exit_group(0)"));
    assert!(exit.is_none_or(|exit| exit.began >= report.ended));
    let root = site.root().canonicalize().unwrap();
    let mut files = 0;
    for folder in ["out/all", "out/some", "out/rejects"] {
        for path in data_files(&root.join(folder)) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let unfinished = format!("{folder}/.latentflow-{name}.tmp");
            let created = only_index(
                &calls,
                "openat(",
                &format!("{unfinished}\", O_WRONLY|O_CREAT|O_EXCL"),
            );
            let thread: Vec<&Call> = calls
                .iter()
                .filter(|call| call.thread == calls[created].thread)
                .collect();
            let of = |start: &str, what: &str| {
                let matches =
                    |call: &&Call| call.text.starts_with(start) && call.text.contains(what);
                thread
                    .iter()
                    .enumerate()
                    .filter(|(_, call)| matches(call))
                    .map(|(at, _)| at)
                    .collect::<Vec<_>>()
            };
            let synced = of("fsync(", &format!("/{unfinished}>)"));
            let renamed = of("rename", &format!("{unfinished}\", \"{folder}/{name}\""));
            let ([synced], [renamed]) = (synced.as_slice(), renamed.as_slice()) else {
                panic!(
                    "{folder}/{name}: {} syncs, {} renames",
                    synced.len(),
                    renamed.len()
                );
            };
            let written = of("write(", &format!("/{unfinished}>"));
            assert!(
                written.iter().all(|at| at < synced) && synced < renamed,
                "{folder}/{name}"
            );
            let after = of("fsync(", &format!("/{folder}>)"))
                .into_iter()
                .find(|at| at > renamed);
            let after =
                after.unwrap_or_else(|| panic!("{folder}/{name}: the folder is not synced"));
            // No other work begins in between, in particular not the next file.
            let between: Vec<&str> = thread[renamed + 1..after]
                .iter()
                .map(|call| call.text.as_str())
                .collect();
            assert!(
                between
                    .iter()
                    .all(|text| text.starts_with("openat(") && text.contains("O_RDONLY")),
                "{between:?}"
            );
            assert!(
                thread[after].ended <= report.began,
                "{folder}/{name} is reported before it is durable"
            );
            files += 1;
        }
    }
    assert!(files > 50, "{files} files");
}
