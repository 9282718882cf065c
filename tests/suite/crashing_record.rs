//! A record that takes the whole process down is found and refused, and the rest goes on. The test
//! runs itself as the process that dies.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use latentflow::metrics::Metrics;
use latentflow::plan::StageRole;
use latentflow::plan_context::{PipelineLimits, PlanContext};
use latentflow::registry::find;
use latentflow::sink::{self, ChangePolicy, OutputIdentity, StageIdentity};
use latentflow::storage::Location;
use latentflow::topology::{RunOutcome, Topology};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::common::stages::{Map, plan, schema, source, stage, transform};

/// Names the folder of the process that dies, and how it dies.
const FOLDER: &str = "LATENTFLOW_TEST_FOLDER";
const DEATH: &str = "LATENTFLOW_TEST_DEATH";

/// The record that no process survives, of so many.
const CULPRIT: u64 = 37;
const RECORDS: u64 = 200;

/// What the process that dies does; nothing in the test's own process.
#[test]
fn the_process_that_dies() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let aborts = std::env::var(DEATH).unwrap() == "abort";
    let dies = Map::new(move |batch, _| {
        let rows = batch
            .records
            .column(1)
            .as_primitive::<UInt64Type>()
            .values();
        if rows.contains(&CULPRIT) && aborts {
            std::process::abort();
        } else if rows.contains(&CULPRIT) {
            Command::new("kill")
                .args(["-9", &std::process::id().to_string()])
                .status()
                .unwrap();
            std::thread::park();
        }
        Ok(batch)
    });
    let context = PlanContext::new(BTreeMap::new(), PipelineLimits::default());
    let parquet = find(sink::KINDS, "parquet", "sink").unwrap().plan;
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
        StageRole::Sink(out, OutputIdentity::default()),
    );
    let mut plan = plan(
        vec![
            source("a", RECORDS, 16),
            transform("dies", vec![0], dies),
            out,
        ],
        2,
    );
    let stages = ["a", "dies"].map(|name| (name.to_owned(), StageIdentity::default()));
    let identity = OutputIdentity {
        stages: BTreeMap::from(stages),
        ..OutputIdentity::default()
    };
    plan.rejects = Some((
        sink::rejects_dataset::plan(&Location::from(folder).join("rejects")).unwrap(),
        identity,
    ));
    plan.state = Some(Location::from(folder).join("state"));
    let topology = Topology::open(plan, Arc::new(Metrics::new()), ChangePolicy::Refuse)
        .map_err(|(_, error)| error)
        .unwrap();
    let outcome = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(topology.run(None, pending()));
    assert!(matches!(outcome, RunOutcome::Finished), "{outcome:?}");
}

fn start(folder: &Path, death: &str) -> ExitStatus {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args([
            "--exact",
            "crashing_record::the_process_that_dies",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .env(DEATH, death);
    child
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap()
}

/// Rows of a dataset, ascending, and the words in a column of it.
fn read(folder: &Path, words: &str) -> (Vec<u64>, Vec<String>) {
    let (mut rows, mut found) = (Vec::new(), Vec::new());
    let files = sink::data_files::data_files(&Location::from(folder)).unwrap();
    for file in files {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file.open().unwrap()).unwrap();
        for batch in reader.build().unwrap().map(Result::unwrap) {
            rows.extend_from_slice(batch.column(1).as_primitive::<UInt64Type>().values());
            let words = batch.column_by_name(words).unwrap().as_string::<i32>();
            found.extend(words.iter().flatten().map(str::to_owned));
        }
    }
    rows.sort_unstable();
    (rows, found)
}

/// How often a process must die before the culprit is known.
fn deaths(death: &str) -> u32 {
    let folder = tempfile::tempdir().unwrap();
    let mut deaths = 0;
    while !start(folder.path(), death).success() {
        deaths += 1;
        assert!(deaths < 30, "the culprit is never found");
    }
    let (rows, _) = read(&folder.path().join("out"), "source");
    assert_eq!(
        rows,
        (0..RECORDS)
            .filter(|&row| row != CULPRIT)
            .collect::<Vec<_>>()
    );
    assert_eq!(
        read(&folder.path().join("rejects"), "code"),
        (vec![CULPRIT], vec!["crashed".to_owned()])
    );
    assert!(
        !folder.path().join("state/attempts").exists(),
        "an orderly end clears all suspicion"
    );
    deaths
}

#[test]
fn a_record_that_aborts_the_process_is_found_after_three_starts() {
    assert_eq!(deaths("abort"), 3);
}

#[cfg(unix)]
#[test]
fn record_that_kills_the_process_is_found_after_20_kills_alone() {
    assert_eq!(deaths("kill"), 22);
}
