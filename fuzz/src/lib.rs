//! Runs a source over the bytes of one file, and checks the guarantees of every source.

use std::collections::BTreeMap;
use std::path::Path;

use latentflow::plan_context::{PipelineLimits, PlanContext};
use latentflow::coverage::ResumeState;
use latentflow::registry::find;
use latentflow::source::KINDS;
use latentflow::units::ByteSize;
use serde_json::json;
use tokio_stream::StreamExt as _;

/// Small enough that inputs of a few KiB can exceed them.
const LIMITS: PipelineLimits = PipelineLimits { pixels: 1 << 16, record_bytes: ByteSize(1 << 10), memory: None };

/// Reads the file to its end. Every row must be either a record or a reject. The planning of an
/// invalid input must return faults with messages.
pub fn read(kind: &str, file: &Path) {
    let context = PlanContext::new(BTreeMap::new(), LIMITS);
    let batch = serde_json::from_value(json!({ "records": 7, "bytes": "2KiB" })).expect("a batch size");
    let plan = find(KINDS, kind, "source").expect("a kind of source").plan;
    let source = match plan("in", json!({ "path": file }), batch, &context) {
        Ok(planned) => planned.stage,
        Err(faults) => {
            assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.message.is_empty()));
            return;
        }
    };
    let schema = source.schema();
    let Ok(opened) = source.open(&ResumeState::default()) else { return };
    let mut batches = opened.batches;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut next = 0;
        while let Some(Ok(batch)) = batches.next().await {
            let rows = batch.batch.provenance.ranges()[0].rows.clone();
            assert_eq!(rows.start, next, "rows are missing or duplicated");
            next = rows.end;
            assert_eq!(batch.batch.records.schema(), schema);
            assert_eq!(batch.batch.records.num_rows(), batch.batch.origin.len());
            let rejected = batch.rejects.iter().map(|reject| reject.ordinal);
            let mut ordinals: Vec<u32> = batch.batch.origin.iter().copied().chain(rejected).collect();
            ordinals.sort_unstable();
            let expected: Vec<u32> = (0..).take(ordinals.len()).collect();
            assert_eq!(ordinals, expected, "a row is neither record nor reject, or both");
            assert_eq!(ordinals.len() as u64, rows.end - rows.start);
        }
    });
}

/// Writes a file with these bytes, on a file system in memory if one exists. The path is always the
/// same.
pub fn file(name: &str, bytes: &[u8]) -> std::path::PathBuf {
    static FOLDER: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        made.expect("a folder")
    });
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}

/// Libraries that read hostile bytes may panic; latentflow catches these panics and returns a
/// reject. Therefore only an uncaught panic must end the fuzzer. The default hook of libFuzzer ends
/// it at every panic.
pub fn allow_caught_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if panic.location().is_some_and(|place| place.file().contains("fuzz")) {
            eprintln!("{panic}");
        }
    }));
}
