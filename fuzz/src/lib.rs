//! Runs a source over bytes, and checks the guarantees of every source.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use latentflow::batch::SourceBatch;
use latentflow::coverage::{Coverage, ResumeState};
use latentflow::plan_context::{PipelineLimits, PlanContext};
use latentflow::registry::find;
use latentflow::source::registry::KINDS;
use latentflow::storage::Location;
use latentflow::units::ByteSize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;

/// Small enough that inputs of a few KiB can exceed them.
const LIMITS: PipelineLimits = PipelineLimits {
    pixels: 1 << 16,
    record_bytes: ByteSize(1 << 10),
    memory: Some(ByteSize(64 << 20)),
};

/// Reads the file to its end with the default options of the source, and asserts what
/// [`read_with`] does.
pub fn read(kind: &str, file: &Path) {
    read_with(kind, json!({ "path": file }));
}

/// Reads with these options to the end, and asserts that every row is either a record or a reject,
/// and that a run that continues after some of the batches reads exactly the other rows. The plan of
/// an invalid input returns faults with messages.
pub fn read_with(kind: &str, options: Value) {
    let Some(batches) = batches(kind, options.clone(), &ResumeState::default()) else {
        return;
    };
    let committed = covered(batches.iter().step_by(2));
    let resume = ResumeState {
        sinks: Arc::new(vec![committed.clone()]),
        state: None,
    };
    let rest = self::batches(kind, options, &resume).expect("the first run read the input");
    let mut both = covered(&rest);
    both.union(&committed);
    assert_eq!(both, covered(&batches), "the second run lost or added rows");
}

/// Reads with these options and the state of earlier runs, twice. Nothing is committed, so the
/// second run must read the rows of the first.
pub fn read_twice(kind: &str, options: Value, state: &Path) {
    let resume = ResumeState {
        sinks: Arc::default(),
        state: Some(Location::Local(state.to_path_buf())),
    };
    let Some(first) = batches(kind, options.clone(), &resume) else {
        return;
    };
    let second = batches(kind, options, &resume).expect("the first run read the input");
    assert_eq!(covered(&first), covered(&second));
}

/// The rows of batches.
pub fn covered<'a>(batches: impl IntoIterator<Item = &'a SourceBatch>) -> Coverage {
    let mut coverage = Coverage::default();
    for batch in batches {
        coverage.insert(&batch.batch.provenance);
    }
    coverage
}

/// The batches of a source; `None` if its plan is invalid or it ends with an error. Asserts that
/// every row is either a record or a reject, and that no row occurs twice.
pub fn batches(kind: &str, options: Value, resume: &ResumeState) -> Option<Vec<SourceBatch>> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let context = PlanContext::new(BTreeMap::new(), LIMITS);
    let batch =
        serde_json::from_value(json!({ "records": 7, "bytes": "2KiB" })).expect("a batch size");
    let plan = find(KINDS, kind, "source").expect("a kind of source").plan;
    let source = match plan("in", options, batch, &context) {
        Ok(planned) => planned.stage,
        Err(faults) => {
            assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.message.is_empty()));
            return None;
        }
    };
    let schema = source.schema();
    let mut opened = source.open(resume).ok()?.batches;
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
    });
    runtime.block_on(async {
        let mut ends: BTreeMap<String, u64> = BTreeMap::new();
        let mut batches = Vec::new();
        while let Some(batch) = opened.next().await {
            let batch = batch.ok()?;
            for range in batch.batch.provenance.ranges() {
                let end = ends.entry(range.split.name().to_owned()).or_default();
                let is_next = range.rows.start == *end || !resume.sinks.is_empty();
                assert!(is_next || *end == 0, "rows are missing");
                assert!(range.rows.start >= *end, "rows are duplicated");
                *end = range.rows.end;
            }
            assert_eq!(batch.batch.records.schema(), schema);
            let ordinals = &batch.batch.row_ordinals;
            assert_eq!(batch.batch.records.num_rows(), ordinals.len());
            // A reject can represent several rows.
            let records = ordinals.iter().map(|&row| (u64::from(row), 1));
            let rejects = batch.rejects.iter();
            let rejects = rejects.map(|reject| (u64::from(reject.ordinal), reject.rows));
            let mut rows: Vec<(u64, u64)> = records.chain(rejects).collect();
            rows.sort_unstable();
            let mut next = 0;
            for (row, count) in rows {
                assert_eq!(row, next, "a row is neither record nor reject, or both");
                next += count;
            }
            assert_eq!(next, batch.batch.provenance.len());
            batches.push(batch);
        }
        Some(batches)
    })
}

/// A folder, on a file system in memory if one exists. Its path is constant.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        folder.expect("a folder")
    });
    folder.path()
}

/// Writes a file with these bytes below [`folder`], and returns its path, which is constant.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(&path, bytes).expect("a file");
    path
}

/// Removes everything below a folder of [`folder`], and returns its path.
pub fn empty_folder(name: &str) -> PathBuf {
    let path = folder().join(name);
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
    std::fs::create_dir_all(&path).expect("a folder");
    path
}

/// The parts of an input that a line with `--` separates, at most `count`.
pub fn parts(bytes: &[u8], count: usize) -> Vec<&[u8]> {
    const MARK: &[u8] = b"\n--\n";
    let (mut parts, mut rest) = (Vec::new(), bytes);
    while parts.len() + 1 < count {
        let Some(at) = rest.windows(MARK.len()).position(|text| text == MARK) else {
            break;
        };
        // The line end before the mark belongs to the part.
        parts.push(&rest[..=at]);
        rest = &rest[at + MARK.len()..];
    }
    parts.push(rest);
    parts
}

/// Lets the fuzzer continue after panics of libraries, which latentflow catches and turns into
/// rejects. Panics in the code of latentflow itself end the fuzzer, as the default hook of libFuzzer
/// does at every panic.
pub fn allow_caught_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let is_library = panic.location().is_some_and(|place| {
            let file = place.file();
            file.contains("/registry/src/") || file.contains("/rustc/")
        });
        if !is_library {
            eprintln!("{panic}");
            std::process::abort();
        }
    }));
}
