//! What a commit asks of the system, as strace sees it: the file synced, then named, then its
//! folder synced, and only then is it said to be done.
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
    /// The file of the thread's trace.
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
            // A call that was cut short, by the end of its process, took no time:
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

/// Where the only call of the form `name(…what…)` stands.
fn place(calls: &[Call], name: &str, what: &str) -> usize {
    let is_it = |call: &Call| call.text.starts_with(name) && call.text.contains(what);
    let found: Vec<usize> = (0..calls.len()).filter(|&at| is_it(&calls[at])).collect();
    assert!(
        found.len() == 1,
        "{} calls of {name} with {what}",
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
        eprintln!("skipped: strace is not installed, or may not trace here");
    }
    traceable
}

#[test]
fn a_file_is_synced_named_and_its_folder_synced_before_it_is_said_to_be_done() {
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
    let watched = "trace=openat,rename,renameat,renameat2,fsync,fdatasync,unlink,write,exit_group";
    let strace = [
        "strace",
        "-ff",
        "-ttt",
        "-T",
        "-y",
        "-s",
        "256",
        "-e",
        watched,
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
    let said = &calls[place(&calls, "write(1<", "\\\"outcome\\\": \\\"finished\\\"")];
    let exit = calls
        .iter()
        .find(|call| call.text.starts_with("exit_group(0)"));
    assert!(exit.is_none_or(|exit| exit.began >= said.ended));
    let root = site.root().canonicalize().unwrap();
    let mut files = 0;
    for folder in ["out/all", "out/some", "out/rejects"] {
        for path in data_files(&root.join(folder)) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let unfinished = format!("{folder}/.latentflow-{name}.tmp");
            let created = place(
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
            // Nothing else is begun in between, least of all the next file.
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
                thread[after].ended <= said.began,
                "{folder}/{name} is said to be done before it is"
            );
            files += 1;
        }
    }
    assert!(files > 50, "{files} files");
}
