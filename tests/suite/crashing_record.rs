//! Tests of a record that ends the process: it is isolated and rejected, and the other records are
//! written. Each test starts its own executable as the process that ends.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use latentflow::metrics::Metrics;
use latentflow::plan::stage::StageOperator;
use latentflow::plan_context::{PipelineLimits, PlanContext};
use latentflow::registry::find;
use latentflow::sink::{self, ChangePolicy, OutputIdentity, StageIdentity};
use latentflow::storage::Location;
use latentflow::topology::Topology;
use latentflow::topology::outcome::RunOutcome;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::common::stages::{Map, plan, schema, source, stage, transform};

/// The variable with the folder of the child process.
const FOLDER: &str = "LATENTFLOW_TEST_FOLDER";
/// The variable with the way in which the child process ends: `abort` or `kill`.
const END: &str = "LATENTFLOW_TEST_END";

/// The row of the record that ends the process.
const POISON_ROW: u64 = 37;
const RECORDS: u64 = 200;

/// The body of the child process; does nothing if the variable is not set.
#[test]
fn child_process() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let aborts = std::env::var(END).unwrap() == "abort";
    let crashes = Map::new(move |batch, _| {
        let rows = batch
            .records
            .column(1)
            .as_primitive::<UInt64Type>()
            .values();
        if rows.contains(&POISON_ROW) && aborts {
            std::process::abort();
        } else if rows.contains(&POISON_ROW) {
            Command::new("kill")
                .args(["-9", &std::process::id().to_string()])
                .status()
                .unwrap();
            std::thread::park();
        }
        Ok(batch)
    });
    let context = PlanContext::new(BTreeMap::new(), PipelineLimits::default());
    let parquet = find(sink::registry::KINDS, "parquet", "sink").unwrap().plan;
    let out = parquet(
        serde_json::json!({ "path": folder.join("out") }),
        &schema(),
        &context,
    )
    .unwrap()
    .stage;
    let out = stage(
        "out",
        vec![1],
        StageOperator::Sink(out, OutputIdentity::default()),
    );
    let mut plan = plan(
        vec![
            source("a", RECORDS, 16),
            transform("crashes", vec![0], crashes),
            out,
        ],
        2,
    );
    let stages = ["a", "crashes"].map(|name| (name.to_owned(), StageIdentity::default()));
    let identity = OutputIdentity {
        stages: BTreeMap::from(stages),
        ..OutputIdentity::default()
    };
    plan.rejects = Some((
        sink::dataset::rejects::plan(&Location::from(folder).join("rejects")).unwrap(),
        identity,
    ));
    plan.state = Some(Location::from(folder).join("state"));
    let topology = Topology::open(plan, Arc::new(Metrics::new()), ChangePolicy::Refuse)
        .map_err(|failure| failure.error)
        .unwrap();
    let outcome = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(topology.run(None, pending()));
    assert!(matches!(outcome, RunOutcome::Finished), "{outcome:?}");
}

fn start(folder: &Path, end: &str) -> ExitStatus {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "crashing_record::child_process", "--nocapture"])
        .env(FOLDER, folder)
        .env(END, end);
    child
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap()
}

/// The rows of a dataset in ascending order, and the values of the text column `column`.
fn read(folder: &Path, column: &str) -> (Vec<u64>, Vec<String>) {
    let (mut rows, mut found) = (Vec::new(), Vec::new());
    let files = sink::dataset::data_files::data_files(&Location::from(folder)).unwrap();
    for file in files {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file.open().unwrap()).unwrap();
        for batch in reader.build().unwrap().map(Result::unwrap) {
            rows.extend_from_slice(batch.column(1).as_primitive::<UInt64Type>().values());
            let values = batch.column_by_name(column).unwrap().as_string::<i32>();
            found.extend(values.iter().flatten().map(str::to_owned));
        }
    }
    rows.sort_unstable();
    (rows, found)
}

/// The number of processes that end before the record is rejected.
fn count_crashes(end: &str) -> u32 {
    let folder = tempfile::tempdir().unwrap();
    let mut crash_count = 0;
    while !start(folder.path(), end).success() {
        crash_count += 1;
        assert!(crash_count < 30, "the record is not found");
    }
    let (rows, _) = read(&folder.path().join("out"), "source");
    assert_eq!(
        rows,
        (0..RECORDS)
            .filter(|&row| row != POISON_ROW)
            .collect::<Vec<_>>()
    );
    assert_eq!(
        read(&folder.path().join("rejects"), "code"),
        (vec![POISON_ROW], vec!["crashed".to_owned()])
    );
    assert!(
        !folder.path().join("state/attempts").exists(),
        "a successful run removes the notes of attempts"
    );
    crash_count
}

#[test]
fn record_that_aborts_the_process_is_rejected_after_3_starts() {
    assert_eq!(count_crashes("abort"), 3);
}

#[cfg(unix)]
#[test]
fn record_that_kills_the_process_is_rejected_after_20_kills() {
    assert_eq!(count_crashes("kill"), 22);
}
