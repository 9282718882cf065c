//! Runs a source over the bytes of one file, and checks the guarantees of every source.

use std::collections::BTreeMap;
use std::path::Path;

use latentflow::coverage::ResumeState;
use latentflow::plan_context::{PipelineLimits, PlanContext};
use latentflow::registry::find;
use latentflow::source::KINDS;
use latentflow::units::ByteSize;
use serde_json::json;
use tokio_stream::StreamExt as _;

/// Small enough that inputs of a few KiB can exceed them.
const LIMITS: PipelineLimits = PipelineLimits {
    pixels: 1 << 16,
    record_bytes: ByteSize(1 << 10),
    memory: None,
};

/// Reads the file to its end and asserts that every row is either a record or a reject, or that the
/// plan of an invalid input returns faults with messages.
pub fn read(kind: &str, file: &Path) {
    let context = PlanContext::new(BTreeMap::new(), LIMITS);
    let batch =
        serde_json::from_value(json!({ "records": 7, "bytes": "2KiB" })).expect("a batch size");
    let plan = find(KINDS, kind, "source").expect("a kind of source").plan;
    let source = match plan("in", json!({ "path": file }), batch, &context) {
        Ok(planned) => planned.stage,
        Err(faults) => {
            assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.message.is_empty()));
            return;
        }
    };
    let schema = source.schema();
    let Ok(opened) = source.open(&ResumeState::default()) else {
        return;
    };
    let mut batches = opened.batches;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut next = 0;
        while let Some(Ok(batch)) = batches.next().await {
            let rows = batch.batch.provenance.ranges()[0].rows.clone();
            assert_eq!(rows.start, next, "rows are missing or duplicated");
            next = rows.end;
            assert_eq!(batch.batch.records.schema(), schema);
            assert_eq!(
                batch.batch.records.num_rows(),
                batch.batch.row_ordinals.len()
            );
            let rejected = batch.rejects.iter().map(|reject| reject.ordinal);
            let mut ordinals: Vec<u32> = batch
                .batch
                .row_ordinals
                .iter()
                .copied()
                .chain(rejected)
                .collect();
            ordinals.sort_unstable();
            let expected: Vec<u32> = (0..).take(ordinals.len()).collect();
            assert_eq!(
                ordinals, expected,
                "a row is neither record nor reject, or both"
            );
            assert_eq!(ordinals.len() as u64, rows.end - rows.start);
        }
    });
}

/// Writes a file with these bytes, on a file system in memory if one exists, and returns its path,
/// which is constant.
pub fn file(name: &str, bytes: &[u8]) -> std::path::PathBuf {
    static FOLDER: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        folder.expect("a folder")
    });
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}

/// Lets the fuzzer continue after panics of libraries, which latentflow catches and turns into
/// rejects. The default hook of libFuzzer ends the fuzzer at every panic.
pub fn allow_caught_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if panic
            .location()
            .is_some_and(|place| place.file().contains("fuzz"))
        {
            eprintln!("{panic}");
        }
    }));
}
