//! Tests of a model, a calibration and a threshold that change between runs with `on_change =
//! "continue"`: every source row is in the dataset once, also if a run is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use arrow::array::AsArray as _;
use arrow::datatypes::UInt64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::common::outputs::data_files;
use crate::common::runs::{errors, latentflow};

const SIGKILL: i32 = 9;
const ROWS: u64 = 40_000;

/// The records of `first` to `ROWS`; `x` and `y` are related by a factor.
fn write_rows(path: &Path, rows: u64, factor: f64) {
    let mut text = String::from("x,y,z\n");
    for row in 0..rows {
        let x = ((row * 7919) % 1000) as f64 / 1000.0;
        text += &format!("{x},{},{}\n", x * factor, 1.0 - x);
    }
    fs::write(path, text).unwrap();
}

fn train(folder: &Path, name: &str, seed: u32) {
    let text = format!(
        "name = '{name}'\nkind = 'deep'\ncode_size = 1\nseed = {seed}\n\
         [input]\ntype = 'features'\ncolumns = ['x', 'y', 'z']\nscaling = 'standard'\n\
         [network]\nnodes = [4]\nactivation = 'elu'\n[training]\nepochs = 2\n\
         [data]\nvalidation = 0.2\ntest = 0.1\n[[data.sources]]\nkind = 'csv'\npath = 'train.csv'\n"
    );
    fs::write(folder.join("t.toml"), text).unwrap();
    call(
        folder,
        &["train", "t.toml", "--out", name, "--threads", "1"],
    );
}

fn call(folder: &Path, arguments: &[&str]) -> String {
    let output = latentflow(folder, arguments).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn pipeline(model: &str, above: f64, on_change: &str) -> String {
    format!(
        "[models.m]\npath = '{model}'\n\
         [stages.rows]\nkind = 'csv'\npath = 'rows.csv'\nbatch = {{ records = 64 }}\n\
         [stages.f]\nkind = 'features'\ninputs = ['rows']\nmodel = 'm'\n\
         [stages.e]\nkind = 'encode'\ninputs = ['f']\nmodel = 'm'\nreconstruct = true\n\
         keep_reconstruction = true\nkeep = true\n\
         [stages.s]\nkind = 'score'\ninputs = ['e']\noriginal = 'features'\n\
         reconstruction = 'reconstruction'\nmodel = 'm'\nmetrics = []\nzscore = true\n\
         [stages.alarms]\nkind = 'filter'\ninputs = ['s']\ncolumn = 'zscore'\nabove = {above}\n\
         [stages.out]\nkind = 'parquet'\ninputs = ['alarms']\npath = 'out'\n{on_change}\n\
         file = {{ records = 512 }}\n"
    )
}

const CONTINUE: &str = "on_change = 'continue'";

/// For each row of the source, the model, the thresholds and the configuration of its record.
fn written(folder: &Path) -> BTreeMap<u64, [String; 3]> {
    let mut rows = BTreeMap::new();
    for path in data_files(&folder.join("out")) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap());
        for batch in reader.unwrap().build().unwrap().map(Result::unwrap) {
            let numbers = batch["row"].as_primitive::<UInt64Type>();
            for row in 0..batch.num_rows() {
                let columns = ["model_digest", "thresholds", "configuration"];
                let writer =
                    columns.map(|name| batch[name].as_string::<i32>().value(row).to_owned());
                let former = rows.insert(numbers.value(row), writer);
                assert!(former.is_none(), "row {} twice", numbers.value(row));
            }
        }
    }
    rows
}

/// Starts a run and kills it once it has written `files` more files.
fn kill_after(folder: &Path, pipeline: &str, files: usize) {
    fs::write(folder.join("p.toml"), pipeline).unwrap();
    let before = data_files(&folder.join("out")).len();
    let mut running = latentflow(folder, &["run", "p.toml"]);
    let mut running = running
        .stderr(File::create(folder.join("log")).unwrap())
        .spawn()
        .unwrap();
    while data_files(&folder.join("out")).len() < before + files {
        let log = || fs::read_to_string(folder.join("log")).unwrap();
        assert!(running.try_wait().unwrap().is_none(), "{}", log());
        std::thread::sleep(Duration::from_millis(1));
    }
    running.kill().unwrap();
    assert_eq!(running.wait().unwrap().signal(), Some(SIGKILL));
}

fn run(folder: &Path, pipeline: &str, arguments: &[&str]) {
    fs::write(folder.join("p.toml"), pipeline).unwrap();
    call(folder, &[&["run", "p.toml"], arguments].concat());
}

fn refusal(folder: &Path, pipeline: &str) -> String {
    fs::write(folder.join("p.toml"), pipeline).unwrap();
    let output = latentflow(folder, &["run", "p.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    errors(&output)
}

fn digest_of(folder: &Path, model: &str) -> String {
    let text = call(folder, &["inspect", model]);
    let digest = text.lines().find_map(|line| line.strip_prefix("digest"));
    digest.unwrap().trim()[..12].to_owned()
}

#[test]
fn changed_model_card_and_threshold_continue_after_kills() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_rows(&folder.join("train.csv"), 500, 2.0);
    write_rows(&folder.join("rows.csv"), ROWS, 2.0);
    write_rows(&folder.join("recent.csv"), 300, 2.1);
    train(folder, "one", 1);
    train(folder, "two", 2);
    let digests = ["one", "two"].map(|model| digest_of(folder, model));
    let everything = -1e6;
    // Each change is made in the middle of the data, and each run is killed.
    kill_after(folder, &pipeline("one", everything, CONTINUE), 4);
    let message = refusal(folder, &pipeline("two", everything, ""));
    assert!(message.contains("`on_change = \"continue\"`"), "{message}");
    kill_after(folder, &pipeline("two", everything, CONTINUE), 4);
    call(folder, &["calibrate", "two", "--source", "recent.csv"]);
    kill_after(folder, &pipeline("two", everything, CONTINUE), 4);
    let lower = everything * 2.0;
    kill_after(folder, &pipeline("two", lower, CONTINUE), 4);
    call(folder, &["compact", "out", "--records", "1000"]);
    run(folder, &pipeline("two", lower, CONTINUE), &[]);

    let rows = written(folder);
    assert_eq!(
        rows.keys().copied().collect::<Vec<_>>(),
        (0..ROWS).collect::<Vec<_>>()
    );
    let mut writers: Vec<[String; 3]> = rows.values().cloned().collect();
    writers.dedup();
    let expected = [
        (&digests[0], everything),
        (&digests[1], everything),
        (&digests[1], everything),
        (&digests[1], lower),
    ];
    assert_eq!(writers.len(), expected.len(), "{writers:?}");
    for (writer, (digest, above)) in writers.iter().zip(expected) {
        assert_eq!(
            writer[..2],
            [digest.clone(), format!("alarms.above={above}")]
        );
    }
    let configurations: BTreeSet<&String> = writers.iter().map(|writer| &writer[2]).collect();
    assert_eq!(configurations.len(), expected.len());
    let is_digits = |text: &str| text.len() == 12 && text.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(
        configurations.iter().all(|text| is_digits(text)),
        "{configurations:?}"
    );
    let inspected = call(folder, &["inspect", "out"]);
    for configuration in configurations {
        assert!(inspected.contains(configuration.as_str()), "{inspected}");
    }
    // Another column is refused.
    let column = pipeline("two", lower, CONTINUE).replace("'zscore'", "'reconstruction_error'");
    let other = refusal(folder, &column);
    assert!(
        other.contains("`column` of the stage `alarms` was"),
        "{other}"
    );
}

#[test]
fn option_is_added_to_the_pipeline_of_an_existing_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_rows(&folder.join("train.csv"), 300, 2.0);
    write_rows(&folder.join("rows.csv"), 640, 2.0);
    train(folder, "one", 1);
    train(folder, "two", 2);
    run(folder, &pipeline("one", -1e6, ""), &["--limit", "320"]);
    run(folder, &pipeline("two", -1e6, CONTINUE), &[]);
    let mut models = Vec::new();
    for path in data_files(&folder.join("out")) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap());
        for batch in reader.unwrap().build().unwrap().map(Result::unwrap) {
            let column = batch.column_by_name("model_digest");
            let digest = |row| column.map(|column| column.as_string::<i32>().value(row).to_owned());
            models.extend((0..batch.num_rows()).map(digest));
        }
    }
    models.sort_unstable();
    let two = digest_of(folder, "two");
    assert_eq!(models, [vec![None; 320], vec![Some(two); 320]].concat());
}
