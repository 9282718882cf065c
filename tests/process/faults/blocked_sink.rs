//! A run that is held back by a sink which cannot go on: it prints, and nobody reads.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Output, Stdio};

use crate::common::runs::latentflow;

/// A run that has read a part of its input and waits.
pub struct BlockedRun {
    /// The process.
    pub child: Child,
    printed: BufReader<ChildStdout>,
}

impl BlockedRun {
    /// Images from `in` into a table in `out`; and printed at such length that the first ones fill
    /// the pipe.
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

    /// Starts a pipeline that prints, and waits for the first record.
    pub fn start(folder: &Path, pipeline: &str) -> Self {
        fs::write(folder.join("held.toml"), pipeline).unwrap();
        let mut command = latentflow(folder, &["run", "held.toml", "--summary", "none"]);
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

    /// Reads all that it prints, and gives how it ended.
    pub fn release(mut self) -> Output {
        let mut rest = String::new();
        self.printed.read_to_string(&mut rest).unwrap();
        self.child.wait_with_output().unwrap()
    }
}
