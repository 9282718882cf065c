//! Tests of `calibrate`: the distribution of the error in a card, and the z-scores that follow from it.

use std::fs;
use std::path::Path;

use arrow::array::AsArray as _;
use arrow::datatypes::Float32Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::common::outputs::data_files;
use crate::common::runs::{errors, latentflow, run};

fn write_rows(path: &Path, rows: u32, noise: f64) {
    let mut text = String::from("x,y,z,ok\n");
    for row in 0..rows {
        let x = f64::from((row * 7919) % 1000) / 1000.0;
        let shift = noise * (f64::from((row * 104_729) % 100) / 50.0 - 1.0);
        text += &format!(
            "{x},{},{},{}\n",
            x * 2.0 + shift,
            1.0 - x,
            u32::from(row % 10 != 0)
        );
    }
    fs::write(path, text).unwrap();
}

fn call(folder: &Path, arguments: &[&str]) -> String {
    let output = latentflow(folder, arguments).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn train(folder: &Path) {
    let text = "name = 'm'\nkind = 'deep'\ncode_size = 1\n\
                [input]\ntype = 'features'\ncolumns = ['x', 'y', 'z']\nscaling = 'standard'\n\
                [network]\nnodes = [4]\nactivation = 'elu'\n[training]\nepochs = 3\n\
                [data]\nvalidation = 0.2\ntest = 0.1\n\
                [[data.sources]]\nkind = 'csv'\npath = 'train.csv'\n";
    fs::write(folder.join("t.toml"), text).unwrap();
    call(folder, &["train", "t.toml", "--out", "m", "--threads", "1"]);
}

/// The reconstruction errors and z-scores of `recent.csv`.
fn scores(folder: &Path, out: &str) -> Vec<(f64, f64)> {
    let pipeline = format!(
        "[models.m]\npath = 'm'\n[stages.in]\nkind = 'csv'\npath = 'recent.csv'\n\
         [stages.f]\nkind = 'features'\ninputs = ['in']\nmodel = 'm'\nkeep = true\n\
         [stages.e]\nkind = 'encode'\ninputs = ['f']\nmodel = 'm'\ncolumn = 'features'\n\
         reconstruct = true\nkeep_reconstruction = true\nkeep = true\n\
         [stages.s]\nkind = 'score'\ninputs = ['e']\noriginal = 'features'\n\
         reconstruction = 'reconstruction'\nmodel = 'm'\nmetrics = []\nzscore = true\n\
         [stages.normal]\nkind = 'filter'\ninputs = ['s']\ncolumn = 'ok'\nequals = 1\n\
         [stages.out]\nkind = 'parquet'\ninputs = ['normal']\npath = '{out}'\n"
    );
    let (output, _) = run(folder, &pipeline, &[]);
    assert!(output.status.success(), "{}", errors(&output));
    let mut scores = Vec::new();
    for path in data_files(&folder.join(out)) {
        let file = fs::File::open(path).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        for batch in reader.build().unwrap().map(Result::unwrap) {
            let value =
                |name: &str, row| f64::from(batch[name].as_primitive::<Float32Type>().value(row));
            let rows = 0..batch.num_rows();
            scores
                .extend(rows.map(|row| (value("reconstruction_error", row), value("zscore", row))));
        }
    }
    scores
}

fn card(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("m/model.toml")).unwrap();
    serde_json::to_value(toml::from_str::<toml::Table>(&text).unwrap()).unwrap()
}

fn near(value: &Value, expected: f64) {
    let value = value.as_f64().unwrap();
    assert!(
        (value - expected).abs() <= 1e-4 * expected.abs(),
        "{value} {expected}"
    );
}

#[test]
fn card_has_errors_of_recent_records_and_keeps_former_ones() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_rows(&folder.join("train.csv"), 600, 0.0);
    write_rows(&folder.join("recent.csv"), 400, 3.0);
    train(folder);
    let trained = card(folder);
    let text = fs::read(folder.join("m/model.toml")).unwrap();
    let arguments = [
        "calibrate",
        "m",
        "--source",
        "recent.csv",
        "--set",
        "normal={ column = 'ok', equals = 1 }",
    ];
    let shown = call(folder, &[&arguments[..], &["--dry-run"]].concat());
    assert_eq!(fs::read(folder.join("m/model.toml")).unwrap(), text);
    assert!(
        shown.contains("  40 anomalies were left out\n")
            && shown.ends_with("model.toml: not changed\n"),
        "{shown}"
    );
    let before = scores(folder, "before");
    assert_eq!(before.len(), 360);
    call(folder, &arguments);
    let calibrated = card(folder);
    let stats = &calibrated["reconstruction_error"];
    let count = before.len() as f64;
    let mean = before.iter().map(|score| score.0).sum::<f64>() / count;
    let squares = before
        .iter()
        .map(|score| (score.0 - mean).powi(2))
        .sum::<f64>();
    assert_eq!(stats["count"], 360);
    near(&stats["mean"], mean);
    near(&stats["std"], (squares / count).sqrt());
    let mut sorted: Vec<f64> = before.iter().map(|score| score.0).collect();
    sorted.sort_by(f64::total_cmp);
    near(
        &stats["quantiles"]["p50"],
        sorted[179].midpoint(sorted[180]),
    );
    assert_eq!(stats["features"]["mean"].as_array().unwrap().len(), 3);
    assert_eq!(
        stats["measured"]["sources"],
        serde_json::json!(["recent.csv"])
    );
    let row = shown
        .lines()
        .find(|line| line.trim_start().starts_with("records"))
        .unwrap();
    let figures: Vec<&str> = row.split_whitespace().collect();
    let validated = &trained["reconstruction_error"]["count"];
    assert_eq!(figures, ["records", &validated.to_string(), "360"]);
    let former = calibrated["previous_reconstruction_error"]
        .as_array()
        .unwrap();
    assert_eq!(former, &[trained["reconstruction_error"].clone()]);

    // The z-scores of the same records follow from the distributions.
    let after = scores(folder, "after");
    for (pairs, distribution) in [(&before, &trained["reconstruction_error"]), (&after, stats)] {
        let [center, deviation] = ["mean", "std"].map(|name| distribution[name].as_f64().unwrap());
        for (error, zscore) in pairs {
            let expected = (error - center) / deviation;
            let near = (zscore - expected).abs() < 1e-3 * (1.0 + expected.abs());
            assert!(near, "{zscore} {expected}");
        }
    }
    assert!((after[0].1 - before[0].1).abs() > 0.01);
    call(folder, &arguments);
    let again = card(folder);
    let kept = again["previous_reconstruction_error"].as_array().unwrap();
    assert_eq!(
        kept[..],
        [trained["reconstruction_error"].clone(), stats.clone()]
    );
    let inspected = call(folder, &["inspect", "m"]);
    assert!(
        inspected.contains("on 360 records of recent.csv, measured 20"),
        "{inspected}"
    );
}

#[test]
fn model_that_cannot_be_calibrated_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_rows(&folder.join("train.csv"), 300, 0.0);
    train(folder);
    let refused = |arguments: &[&str]| {
        let output = latentflow(folder, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        errors(&output)
    };
    let none_normal = [
        "calibrate",
        "m",
        "--source",
        "train.csv",
        "--set",
        "normal={ column = 'ok', equals = 7 }",
    ];
    let message = refused(&none_normal);
    assert!(message.contains("normal"), "{message}");
    let text = std::fs::read_to_string(folder.join("train.csv")).unwrap();
    let first: Vec<&str> = text.lines().take(2).collect();
    std::fs::write(folder.join("one.csv"), first.join("\n")).unwrap();
    let before = std::fs::read(folder.join("m/model.toml")).unwrap();
    let one = refused(&["calibrate", "m", "--source", "one.csv"]);
    assert!(
        one.contains("the errors of all records (1) are equal"),
        "{one}"
    );
    assert_eq!(std::fs::read(folder.join("m/model.toml")).unwrap(), before);
}
