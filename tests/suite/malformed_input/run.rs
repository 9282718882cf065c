//! A runner of the binary with a timeout and a measurement of its memory, and the result of a run.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

/// Timeout of a run; the slowest takes seconds.
const HANG_TIMEOUT: Duration = Duration::from_secs(180);
/// Interval between two reads of the resident memory.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The result of a run of the binary.
pub struct RunResult {
    /// The exit code; `None` if a signal ended the run.
    pub code: Option<i32>,
    /// The text written to standard error.
    pub log: String,
    /// The number of records that the run read, by its summary.
    pub records: u64,
    /// The number of records in `out`.
    pub written: u64,
    /// The rejects in `bad`.
    pub rejects: Vec<Reject>,
    /// The maximum resident memory, in bytes; 0 if the system does not report it.
    pub peak: u64,
}

/// A line of the rejects dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    pub source: String,
    pub row: u64,
    pub code: String,
    pub reason: String,
}

impl RunResult {
    /// Asserts that the run succeeded, and that every record is in the output or among the rejects.
    #[track_caller]
    pub fn assert_complete(&self) {
        assert_eq!(self.code, Some(0), "{}", self.log);
        let rejected: u64 = self.rejects.iter().map(Reject::records).sum();
        assert_eq!(
            self.written + rejected,
            self.records,
            "{} written, {:#?}",
            self.written,
            self.rejects
        );
    }

    /// Asserts that the maximum resident memory is at most `mebibytes`.
    #[track_caller]
    pub fn assert_memory_within(&self, mebibytes: u64) {
        let peak = self.peak >> 20;
        assert!(
            peak <= mebibytes,
            "{peak} MiB resident, expected at most {mebibytes} MiB"
        );
    }

    /// The code of the reject of each source.
    pub fn codes(&self) -> BTreeMap<&str, &str> {
        self.rejects
            .iter()
            .map(|reject| (reject.source.as_str(), reject.code.as_str()))
            .collect()
    }
}

impl Reject {
    /// The number of records that the reject counts: 12 for a reason such as "..., 12 rows from 30:
    /// ...", of input that cannot be read record by record.
    fn records(&self) -> u64 {
        let rows = self
            .reason
            .split(", ")
            .find_map(|part| part.split_once(" rows from ")?.0.parse().ok());
        rows.unwrap_or(1)
    }
}

/// Runs a pipeline whose sink writes to `out` and whose rejects go to `bad`, both in `folder`.
pub fn run(folder: &Path, pipeline: &str, arguments: &[&str]) -> RunResult {
    std::fs::write(folder.join("p.toml"), pipeline).unwrap();
    let (status, log, peak) = watch(
        folder,
        &[&["run", "p.toml", "--summary", "json"], arguments].concat(),
    );
    let summary = std::fs::read_to_string(folder.join("stdout")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap_or_default();
    let bad = files(&folder.join("bad"));
    let bad = bad.iter().flat_map(|file| batches(file));
    RunResult {
        code: status.code(),
        log,
        records: summary["records"].as_u64().unwrap_or(0),
        written: files(&folder.join("out"))
            .iter()
            .flat_map(|file| batches(file))
            .map(|b| b.num_rows() as u64)
            .sum(),
        rejects: bad.flat_map(|batch| rejects(&batch)).collect(),
        peak,
    }
}

/// Runs the binary in `folder`; returns its status, its standard error and its maximum resident
/// memory in bytes.
pub fn watch(folder: &Path, arguments: &[&str]) -> (ExitStatus, String, u64) {
    let stream = |name: &str| Stdio::from(File::create(folder.join(name)).unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentflow"));
    command
        .current_dir(folder)
        .args(arguments)
        .env_remove("RUST_LOG");
    let mut child = command
        .stdout(stream("stdout"))
        .stderr(stream("stderr"))
        .spawn()
        .unwrap();
    let started = Instant::now();
    let mut peak = 0;
    let status = loop {
        peak = peak.max(resident_peak(&child));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > HANG_TIMEOUT {
            child.kill().unwrap();
            panic!("hangs: {arguments:?}");
        }
        std::thread::sleep(POLL_INTERVAL);
    };
    let log = std::fs::read(folder.join("stderr")).unwrap();
    (status, String::from_utf8_lossy(&log).into_owned(), peak)
}

/// The maximum resident memory by the kernel, of which a poll misses little, in bytes.
fn resident_peak(child: &Child) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    // Before its exec, the child shows the memory of the test process, which holds large files.
    if !status.starts_with("Name:\tlatentflow\n") {
        return 0;
    }
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .unwrap_or(0)
        << 10
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "parquet"))
        .collect();
    files.sort();
    files
}

fn batches(file: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap())
        .unwrap()
        .build()
        .unwrap();
    reader.map(Result::unwrap).collect()
}

fn rejects(batch: &RecordBatch) -> Vec<Reject> {
    let text = |name: &str, row: usize| batch[name].as_string::<i32>().value(row).to_owned();
    let of = |row: usize| Reject {
        source: text("source", row),
        row: batch["row"].as_primitive::<UInt64Type>().value(row),
        code: text("code", row),
        reason: text("reason", row),
    };
    (0..batch.num_rows()).map(of).collect()
}
