//! A run whose sink `stdout` blocks because its output is not read.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Output, Stdio};

use crate::common::runs::latentflow;

/// A run that has read a part of its input and is blocked.
pub struct BlockedRun {
    /// The process.
    pub child: Child,
    printed: BufReader<ChildStdout>,
}

impl BlockedRun {
    /// Images from `in` into a table in `out`; and into standard output, where the first records
    /// fill the pipe.
    pub const PIPELINE: &str = r#"
workers = 1

[stages.files]
kind = "images"
path = "in"
batch = { records = 4 }

[stages.pixels]
kind = "pixels"
inputs = ["files"]
size = [24, 24]

[stages.out]
kind = "parquet"
inputs = ["pixels"]
path = "out"
columns = ["source", "row"]
file.records = 8

[stages.shown]
kind = "stdout"
inputs = ["pixels"]
"#;

    /// Starts a pipeline with a sink `stdout`, and waits for its first record.
    pub fn start(folder: &Path, pipeline: &str) -> Self {
        fs::write(folder.join("blocked.toml"), pipeline).unwrap();
        let mut command = latentflow(folder, &["run", "blocked.toml", "--summary", "none"]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut printed = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        printed.read_line(&mut line).unwrap();
        assert!(line.starts_with('{'), "{line}");
        Self { child, printed }
    }

    /// Reads the output to its end, which unblocks the run; returns the result of the process.
    pub fn release(mut self) -> Output {
        let mut rest = String::new();
        self.printed.read_to_string(&mut rest).unwrap();
        self.child.wait_with_output().unwrap()
    }
}
