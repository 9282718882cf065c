//! Tests of injected faults: the message of the failed run, with the error numbers of Linux, and
//! the recovery by the next run.
#![cfg(target_os = "linux")]

mod blocked_sink;
mod descriptors;
mod disk;
mod folders;
mod input;
mod log;
mod memory;
mod models;
mod read_sources;
mod reads;
mod restart;

use std::path::Path;
use std::process::Output;

use expect_test::Expect;

use crate::common::inputs;
use crate::common::outputs::{ids, records};
use crate::common::runs::{errors, run};

/// A pipeline from `in` into a table of several files.
const COPY: &str = r#"
[stages.in]
kind = "parquet"
path = "in"
batch = { records = 32 }

[stages.out]
kind = "parquet"
inputs = ["in"]
path = "out"
file.records = 100
"#;

/// Rows of the input of [`COPY`].
const ROWS: u64 = 1000;

fn folder_with_rows() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    inputs::table(&folder.path().join("in/a.parquet"), 0..ROWS, 300);
    folder
}

/// Asserts that `out` holds each row of the input once.
fn assert_all_rows(folder: &Path) {
    let found = records(&folder.join("out"), &["row"]);
    let mut expected: Vec<String> = (0..ROWS).map(|row| row.to_string()).collect();
    expected.sort();
    assert_eq!(ids(&found), expected);
}

/// Asserts that the run failed with this message, in which `ROOT` replaces the path of the folder.
fn assert_failed(folder: &Path, output: &Output, expected: &Expect) {
    assert_eq!(output.status.code(), Some(1), "{}", errors(output));
    let text = errors(output);
    let message: String = text
        .lines()
        .skip_while(|line| !line.starts_with("latentflow: "))
        .collect();
    let root = folder.canonicalize().unwrap();
    let message = message
        .replace(root.to_str().unwrap(), "ROOT")
        .replace(folder.to_str().unwrap(), "ROOT");
    expected.assert_eq(&message);
}

/// Asserts that another run succeeds.
fn assert_finishes(folder: &Path, pipeline: &str) {
    let (output, _) = run(folder, pipeline, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
}

/// The rejects in the default folder: stage, code and reason of each.
fn rejects(folder: &Path) -> String {
    let found = records(
        &folder.join("out/_latentflow/rejects"),
        &["stage", "code", "reason"],
    );
    ids(&found).join("\n")
}
