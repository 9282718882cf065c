//! Tests of ensembles: the scores of the stage, the models in its footers, and the ranking of
//! `evaluate`.

use std::fs;
use std::path::Path;

use arrow::array::AsArray as _;
use arrow::datatypes::Float32Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::common::outputs::data_files;
use crate::common::runs::{errors, latentflow, run};

/// Rows on a line, and every tenth one off the line.
fn write_rows(path: &Path) {
    let mut text = String::from("x,y,z,ok\n");
    for row in 0..500 {
        let x = f64::from((row * 7919) % 1000) / 1000.0;
        let (is_normal, far) = (row % 10 != 0, f64::from(row % 7) - 3.5);
        let y = if is_normal { x * 2.0 } else { far };
        text += &format!("{x},{y},{},{}\n", 1.0 - x, u32::from(is_normal));
    }
    fs::write(path, text).unwrap();
}

fn call(folder: &Path, arguments: &[&str]) -> String {
    let output = latentflow(folder, arguments).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Trains the models `m1` and `m2` of these code sizes in 300 steps each.
fn train(folder: &Path) {
    let text = "name = 'm'\nkind = 'deep'\n[input]\ntype = 'features'\n\
                columns = ['x', 'y', 'z']\nscaling = 'standard'\n\
                [network]\nnodes = [8]\nactivation = 'tanh'\n\
                [training]\nepochs = 1\nmin_steps = 300\nbatch_size = 32\n\
                [data]\nvalidation = 0.2\ntest = 0.3\nnormal = { column = 'ok', equals = 1 }\n\
                [[data.sources]]\nkind = 'csv'\npath = 'rows.csv'\n";
    fs::write(folder.join("t.toml"), text).unwrap();
    for code in ["1", "2"] {
        let (code_size, out) = (format!("code_size={code}"), format!("m{code}"));
        let arguments = ["train", "t.toml", "--threads", "1", "--set", &code_size];
        call(folder, &[&arguments[..], &["--out", &out]].concat());
    }
}

fn card(folder: &Path, model: &str) -> Value {
    let text = fs::read_to_string(folder.join(model).join("model.toml")).unwrap();
    serde_json::to_value(toml::from_str::<toml::Table>(&text).unwrap()).unwrap()
}

fn pipeline(scored: &str, out: &str) -> String {
    format!(
        "[models]\nm1 = {{ path = 'm1' }}\nm2 = {{ path = 'm2' }}\n\
         [stages.in]\nkind = 'csv'\npath = 'rows.csv'\n\
         [stages.f]\nkind = 'features'\ninputs = ['in']\nmodel = 'm1'\nkeep = true\n\
         [stages.scored]\ninputs = ['f']\n{scored}\n\
         [stages.out]\nkind = 'parquet'\ninputs = ['scored']\npath = '{out}'\n"
    )
}

/// The values of a column of an output, in the order of the rows of the input.
fn values(folder: &Path, out: &str, name: &str) -> Vec<f64> {
    let mut all = Vec::new();
    for path in data_files(&folder.join(out)) {
        let file = fs::File::open(path).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        for batch in reader.build().unwrap().map(Result::unwrap) {
            let column = batch[name].as_primitive::<Float32Type>().values();
            all.extend(column.iter().map(|value| f64::from(*value)));
        }
    }
    all
}

#[test]
fn scores_are_means_of_the_relative_errors_of_the_models() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_rows(&folder.join("rows.csv"));
    train(folder);
    let steps = card(folder, "m1")["training"]["hyperparameters"]["steps"].as_u64();
    assert!(
        (300..320).contains(&steps.unwrap()),
        "{steps:?} steps, in complete epochs"
    );

    let ensemble = "kind = 'ensemble'\nmodels = ['m1', 'm2']";
    let (output, _) = run(folder, &pipeline(ensemble, "ensemble"), &[]);
    assert!(output.status.success(), "{}", errors(&output));
    let scores = values(folder, "ensemble", "anomaly_score");
    let mut expected = vec![0.0; 500];
    for model in ["m1", "m2"] {
        let encode = format!("kind = 'encode'\nmodel = '{model}'\nreconstruct = true");
        let out = format!("out-{model}");
        let (encoded, _) = run(folder, &pipeline(&encode, &out), &[]);
        assert!(encoded.status.success(), "{}", errors(&encoded));
        let mean = card(folder, model)["reconstruction_error"]["mean"]
            .as_f64()
            .unwrap();
        let found = values(folder, &out, "reconstruction_error");
        for (sum, error) in expected.iter_mut().zip(found) {
            *sum += error / mean / 2.0;
        }
    }
    assert_eq!(scores.len(), 500);
    for (score, sum) in scores.iter().zip(&expected) {
        assert!((score - sum).abs() <= 1e-5 * sum, "{score} {sum}");
    }

    let arguments = ["evaluate", "m1", "--ensemble", "m2", "--json", "-"];
    let found: Value = serde_json::from_str(&call(folder, &arguments)).unwrap();
    let ranking = &found["anomalies"]["ensemble"];
    assert_eq!(ranking["models"], serde_json::json!(["m1", "m2"]));
    let areas = [ranking, &found["anomalies"]["model"]].map(|found| found["auc_roc"].as_f64());
    assert!(areas.iter().all(|area| area.unwrap() > 0.9), "{areas:?}");
    assert_ne!(areas[0], areas[1]);
    let refuse = |other: &str| {
        let refused = latentflow(folder, &["evaluate", "m1", "--ensemble", other]).output();
        let refused = refused.unwrap();
        assert!(!refused.status.success(), "{other}");
        errors(&refused)
    };
    assert!(refuse("m1").contains("`m1` and `m1` are the same model"));
    fs::create_dir(folder.join("codes")).unwrap();
    for file in ["model.toml", "encoder.onnx"] {
        fs::copy(
            folder.join("m2").join(file),
            folder.join("codes").join(file),
        )
        .unwrap();
    }
    let decoder = fs::read_to_string(folder.join("codes/model.toml")).unwrap();
    let listed = decoder
        .lines()
        .filter(|line| !line.contains("decoder.onnx"));
    let text: Vec<&str> = listed.collect();
    fs::write(folder.join("codes/model.toml"), text.join("\n")).unwrap();
    let error = refuse("codes");
    assert!(error.contains("`codes` has no decoder"), "{error}");
    let table = call(folder, &arguments[..4]);
    assert!(
        table.contains("anomalies") && table.contains("ensemble"),
        "{table}"
    );
}

#[test]
fn output_depends_on_each_model_and_each_card() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_rows(&folder.join("rows.csv"));
    train(folder);
    let ensemble = "kind = 'ensemble'\nmodels = ['m1', 'm2']";
    let again = || run(folder, &pipeline(ensemble, "out"), &[]).0;
    let first = again();
    assert!(first.status.success(), "{}", errors(&first));
    let inspected = call(folder, &["inspect", "out"]);
    for model in ["m1", "m2"] {
        assert!(inspected.contains(model), "{inspected}");
    }
    assert!(again().status.success(), "nothing has changed");
    let calibrate = ["calibrate", "m2", "--source", "rows.csv"];
    call(folder, &calibrate);
    let refused = again();
    assert!(!refused.status.success(), "the card of m2 has changed");
    assert!(errors(&refused).contains("out"), "{}", errors(&refused));
}
