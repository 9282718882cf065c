//! Unit tests of the module `anomaly`.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float32Type;
use expect_test::{Expect, expect};

use super::super::TransformConfig;
use super::*;
use crate::batch::Batch;
use crate::batch::reject::RejectCollector;
use crate::model::testing;
use crate::plan_context::PipelineLimits;
use crate::registry::parse_options;
use crate::transform::score::config::ScoreConfig;
use crate::transform::testing::of;

/// Creates a model folder whose card contains `errors`. Its encoder maps 4 features to 2.
fn context(errors: &str) -> (tempfile::TempDir, PlanContext) {
    let folder = tempfile::tempdir().unwrap();
    for file in ["encoder.onnx", "decoder.onnx"] {
        std::fs::copy(testing::file(file), folder.path().join(file)).unwrap();
    }
    let card = format!(
        "name = \"m\"\nkind = \"deep\"\n[input]\ntype = \"features\"\n\
             columns = [\"a\", \"b\", \"c\", \"d\"]\n{errors}"
    );
    std::fs::write(folder.path().join("model.toml"), card).unwrap();
    let model = testing::open(&format!("path = {:?}", Path::new(folder.path())));
    let model = model.unwrap_or_else(|faults| panic!("{faults:?}"));
    let models = std::collections::BTreeMap::from([("m".to_owned(), Some(Arc::new(model)))]);
    (folder, PlanContext::new(models, PipelineLimits::default()))
}

const ERRORS: &str = "[reconstruction_error]\ncount = 9\nmean = 1.0\nstd = 0.5\n\
        min = 0.0\nmax = 9.0\n\
        quantiles = { p01 = 0.0, p05 = 0.0, p25 = 0.0, p50 = 1.0, p75 = 2.0, \
        p95 = 3.0, p99 = 4.0 }\n";
const FEATURES: &str = "features = { mean = [1.0, 0.0, 0.0, 0.0], std = [1.0, 2.0, 0.0, 0.25] }\n";

fn vectors(x: &[f32], y: &[f32], len: usize) -> Batch {
    let column = |values: &[f32]| fixed_column(len, values.to_vec()).unwrap();
    of([
        (vector_field("x", len), column(x)),
        (vector_field("y", len), column(y)),
    ])
}

fn score_options(options: &str) -> serde_json::Value {
    serde_json::from_str(&format!(
        r#"{{"original": "x", "reconstruction": "y", {options}}}"#
    ))
    .unwrap()
}

fn run(errors: &str, options: &str, batch: Batch) -> RecordBatch {
    let (_folder, context) = context(errors);
    let mut config: ScoreConfig = parse_options(score_options(options)).unwrap();
    let plan = config
        .plan(&batch.records.schema(), &context)
        .unwrap_or_else(|faults| panic!("{faults:?}"));
    let out = plan
        .build()
        .unwrap()
        .apply(batch, &mut RejectCollector::default())
        .unwrap();
    assert_eq!(out.records.schema(), plan.schema());
    out.records
}

fn floats(records: &RecordBatch, name: &str) -> Vec<f32> {
    let column = records.column_by_name(name).unwrap();
    let values = column
        .as_fixed_size_list_opt()
        .map_or(column, |list| list.values());
    values.as_primitive::<Float32Type>().values().to_vec()
}

#[test]
fn record_is_scored_by_the_statistics_of_the_card() {
    let batch = vectors(&[0.0; 8], &[2.0, 0.0, 0.0, 0.0, 0.0, 2.0, 1.0, 0.5], 4);
    let options = r#""metrics": [], "model": "m", "zscore": true, "feature_errors": true,
            "feature_zscores": true, "top_features": 2, "prefix": "n_""#;
    let out = run(&format!("{ERRORS}{FEATURES}"), options, batch);
    let names: Vec<String> = out
        .schema()
        .fields()
        .iter()
        .skip(2)
        .map(|field| field.name().clone())
        .collect();
    assert_eq!(
        names,
        [
            "n_zscore",
            "n_feature_errors",
            "n_feature_zscores",
            "n_top_features"
        ]
    );
    // The mean squared errors are 1 and 5.25 / 4.
    assert_eq!(floats(&out, "n_zscore"), [0.0, 0.625]);
    assert_eq!(
        floats(&out, "n_feature_errors"),
        [4.0, 0.0, 0.0, 0.0, 0.0, 4.0, 1.0, 0.25]
    );
    // The third feature has a standard deviation of 0, which is replaced by that of the fourth.
    assert_eq!(
        floats(&out, "n_feature_zscores"),
        [3.0, 0.0, 0.0, 0.0, -1.0, 2.0, 4.0, 1.0]
    );
    let top = out.column(5).as_list::<i32>();
    assert_eq!((top.value_length(0), top.value_length(1)), (2, 2));
    let top = top.values().as_struct();
    let top_names: Vec<_> = top.column(0).as_string::<i32>().iter().flatten().collect();
    assert_eq!(top_names, ["a", "b", "c", "b"]);
    assert_eq!(
        top.column(1).as_primitive::<Float32Type>().values(),
        &[3.0, 0.0, 4.0, 2.0]
    );
}

#[test]
fn features_of_unusual_records_are_ranked_by_the_model() {
    let features = FEATURES.replace("] }", "], value_mean = [0.0, 0.0, 0.0, 0.0] }");
    // In the first record only `b` is wrong, but `a` has the same error and a larger z-score.
    // The second record has a z-score of 3 and is not unusual.
    let batch = vectors(
        &[0.0, 6.0, 0.0, 0.0, 0.0, 3.0, 0.0, 1.0],
        &[3.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        4,
    );
    let options = r#""metrics": [], "model": "m", "zscore": true, "top_features": 2"#;
    let out = run(&format!("{ERRORS}{features}"), options, batch.clone());
    assert_eq!(floats(&out, "zscore"), [7.0, 3.0]);
    let names = |records: &RecordBatch| -> Vec<String> {
        let top = records
            .column_by_name("top_features")
            .unwrap()
            .as_list::<i32>();
        let all = top.values().as_struct().column(0).as_string::<i32>().iter();
        all.map(|name| name.unwrap().to_owned()).collect()
    };
    assert_eq!(names(&out), ["b", "a", "b", "d"]);
    // A record is ranked alike in every batch.
    let alone = run(
        &format!("{ERRORS}{features}"),
        options,
        crate::transform::testing::part(&batch, 0, 1),
    );
    assert_eq!(names(&alone), names(&out)[..2]);
}

#[test]
fn feature_errors_need_no_model_and_empty_batch_stays_empty() {
    let batch = vectors(&[1.0, 2.0], &[0.0, 0.0], 2);
    let out = run(ERRORS, r#""feature_errors": true"#, batch.clone());
    assert_eq!(
        (floats(&out, "mse"), floats(&out, "feature_errors")),
        (vec![2.5], vec![1.0, 4.0])
    );
    let empty = crate::transform::testing::part(&vectors(&[0.0; 4], &[0.0; 4], 4), 0, 0);
    let options = r#""model": "m", "zscore": true, "top_features": 4"#;
    assert_eq!(
        run(&format!("{ERRORS}{FEATURES}"), options, empty).num_rows(),
        0
    );
}

#[test]
fn fingerprint_depends_on_used_statistics_of_the_card() {
    let fingerprint = |errors: &str, options: &str| {
        let (_folder, context) = context(errors);
        let mut config: ScoreConfig = parse_options(score_options(options)).unwrap();
        let batch = vectors(&[0.0; 4], &[0.0; 4], 4);
        config
            .plan(&batch.records.schema(), &context)
            .unwrap_or_else(|faults| panic!("{faults:?}"))
            .depends_on()
    };
    let zscore = r#""model": "m", "zscore": true"#;
    assert_ne!(
        fingerprint(ERRORS, zscore),
        fingerprint(&ERRORS.replace("std = 0.5", "std = 0.6"), zscore)
    );
    assert_eq!(
        fingerprint(ERRORS, zscore),
        fingerprint(&ERRORS.replace("p50 = 1.0", "p50 = 1.1"), zscore)
    );
    let top = r#""model": "m", "top_features": 1"#;
    let with_features = format!("{ERRORS}{FEATURES}");
    assert_ne!(
        fingerprint(&with_features, top),
        fingerprint(&with_features.replace("2.0, 0.0", "2.5, 0.0"), top)
    );
    assert_eq!(fingerprint(ERRORS, r#""feature_errors": true"#), None);
}

#[test]
fn faults_of_options_are_reported_by_key() {
    let check = |errors: &str, options: &str, len: usize, expected: Expect| {
        let (_folder, context) = context(errors);
        let batch = vectors(&vec![0.0; len], &vec![0.0; len], len);
        let plan = parse_options::<ScoreConfig>(score_options(options))
            .and_then(|mut config| config.plan(&batch.records.schema(), &context));
        let faults = plan.err().unwrap_or_default();
        let lines: Vec<String> = faults
            .iter()
            .map(|fault| format!("{}: {}", fault.key, fault.message))
            .collect();
        expected.assert_eq(&lines.join("\n"));
    };
    let all = r#""model": "m", "zscore": true, "feature_zscores": true, "top_features": 5"#;
    check(
        ERRORS,
        r#""zscore": true, "top_features": 1"#,
        4,
        expect![[r#"
            zscore: requires `model`, whose card states the usual errors
            top_features: requires `model`, whose card states the usual errors"#]],
    );
    check(
        ERRORS,
        r#""model": "m", "feature_errors": true"#,
        4,
        expect![
            "model: has no effect without zscore, feature_zscores or top_features; set one of \
                 them, or leave it out"
        ],
    );
    check(
        ERRORS,
        r#""model": "n", "zscore": true"#,
        4,
        expect!["model: no model `n`; declared: m"],
    );
    check(
        "",
        all,
        4,
        expect!["model: the model `tested` has no card with the section [reconstruction_error]"],
    );
    check(
        &ERRORS.replace("std = 0.5", "std = 0.0"),
        all,
        4,
        expect![
            "zscore: all errors in the card of `tested` are equal, so that the \
                 z-score is undefined\n\
                 feature_zscores: the card of `tested` does not contain \
                 reconstruction_error.features, the errors of single features; \
                 `latentflow train` writes them\n\
                 top_features: the card of `tested` does not contain \
                 reconstruction_error.features, the errors of single features; \
                 `latentflow train` writes them"
        ],
    );
    check(
        &format!("{ERRORS}{FEATURES}"),
        all,
        4,
        expect!["top_features: the model `tested` takes 4 features, fewer than 5"],
    );
    check(
        &format!("{ERRORS}{FEATURES}"),
        all,
        3,
        expect![[r#"
            feature_zscores: the original has 3 values, but the model `tested` takes 4 features
            top_features: the original has 3 values, but the model `tested` takes 4 features"#]],
    );
    check(
        ERRORS,
        r#""top_features": 0"#,
        4,
        expect!["top_features: invalid value: integer `0`, expected a nonzero usize"],
    );
}
