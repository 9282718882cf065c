//! Runs the binary on a pipeline, with an eye on the clock and on its memory, and adds up what came
//! of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

/// Beyond all doubt a hang: the slowest run takes seconds.
const HANG: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What a run of the binary came to.
pub struct Ran {
    /// The exit code; `None`: a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard error.
    pub log: String,
    /// Records that it read, by its summary.
    pub records: u64,
    /// Records in `out`.
    pub kept: u64,
    /// What lies in `bad`.
    pub rejects: Vec<Reject>,
    /// The most memory that it had resident, in bytes; 0 where the system does not tell.
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

impl Ran {
    /// Demands that the run went to its end, and that every record is in the output or among the
    /// rejects.
    #[track_caller]
    pub fn adds_up(&self) {
        assert_eq!(self.code, Some(0), "{}", self.log);
        let rejected: u64 = self.rejects.iter().map(Reject::records).sum();
        assert_eq!(
            self.kept + rejected,
            self.records,
            "{} kept, {:#?}",
            self.kept,
            self.rejects
        );
    }

    /// Demands that the run took no more than so many MiB.
    #[track_caller]
    pub fn took_at_most(&self, mebibytes: u64) {
        let peak = self.peak >> 20;
        assert!(peak <= mebibytes, "took {peak} MiB of at most {mebibytes}");
    }

    /// For each source its reject's code.
    pub fn codes(&self) -> BTreeMap<&str, &str> {
        self.rejects
            .iter()
            .map(|reject| (reject.source.as_str(), reject.code.as_str()))
            .collect()
    }
}

impl Reject {
    /// How many records it stands for: "..., 12 rows from 30: ..." of what cannot be read one by
    /// one.
    fn records(&self) -> u64 {
        let rows = self
            .reason
            .split(", ")
            .find_map(|part| part.split_once(" rows from ")?.0.parse().ok());
        rows.unwrap_or(1)
    }
}

/// Runs a pipeline whose sink writes to `out` and whose rejects go to `bad`, both in `folder`.
pub fn run(folder: &Path, pipeline: &str, arguments: &[&str]) -> Ran {
    std::fs::write(folder.join("p.toml"), pipeline).unwrap();
    let (status, log, peak) = watch(
        folder,
        &[&["run", "p.toml", "--summary", "json"], arguments].concat(),
    );
    let summary = std::fs::read_to_string(folder.join("stdout")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap_or_default();
    let bad = files(&folder.join("bad"));
    let bad = bad.iter().flat_map(|file| batches(file));
    Ran {
        code: status.code(),
        log,
        records: summary["records"].as_u64().unwrap_or(0),
        kept: files(&folder.join("out"))
            .iter()
            .flat_map(|file| batches(file))
            .map(|b| b.num_rows() as u64)
            .sum(),
        rejects: bad.flat_map(|batch| rejects(&batch)).collect(),
        peak,
    }
}

/// Runs the binary in `folder`: how it ended, what it wrote to standard error, and the most memory
/// it took.
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
        if started.elapsed() > HANG {
            child.kill().unwrap();
            panic!("hangs: {arguments:?}");
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let log = std::fs::read(folder.join("stderr")).unwrap();
    (status, String::from_utf8_lossy(&log).into_owned(), peak)
}

/// The kernel's own high-water mark, so that little is lost between two looks.
fn resident_peak(child: &Child) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    // Until the child has become the program it shows the memory of this process, which tests fill
    // with large files.
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
