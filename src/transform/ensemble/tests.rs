//! Unit tests of the module `ensemble`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use expect_test::{Expect, expect};

use super::config::EnsembleConfig;
use super::*;
use crate::batch::reject::Reject;
use crate::model::testing;
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::registry::parse_options;
use crate::transform::TransformConfig;
use crate::transform::model_columns::testing::{column, tensors};
use crate::transform::testing::reasons;

/// The card of a model of 2 features whose mean error is `mean`.
fn card(mean: &str) -> String {
    format!(
        "name = 'm'\nkind = 'deep'\n[input]\ntype = 'features'\ncolumns = ['a', 'b']\n\
         [reconstruction_error]\ncount = 9\nmean = {mean}\nstd = 0.5\nmin = 0.0\nmax = 9.0\n\
         quantiles = {{ p01 = 0.0, p05 = 0.0, p25 = 0.0, p50 = 1.0, p75 = 2.0, p95 = 3.0, p99 = 4.0 }}\n"
    )
}

/// A context with models, each with its name, its file and its card.
fn context(models: &[(&str, &str, String)]) -> (tempfile::TempDir, PlanContext) {
    let folder = tempfile::tempdir().unwrap();
    let mut opened = BTreeMap::new();
    for (name, file, card) in models {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::copy(testing::file(file), path.join("model.onnx")).unwrap();
        std::fs::write(path.join("model.toml"), card).unwrap();
        let model = testing::open(&format!("path = {path:?}"));
        let model = model.unwrap_or_else(|faults| panic!("{faults:?}"));
        opened.insert((*name).to_owned(), Some(Arc::new(model)));
    }
    (folder, PlanContext::new(opened, PipelineLimits::default()))
}

/// A plan, with the folder of its models.
type Planned = (Box<dyn TransformPlan>, tempfile::TempDir);

fn plan(
    models: &[(&str, &str, String)],
    options: &str,
    batch: &Batch,
) -> Result<Planned, Vec<String>> {
    let (folder, context) = context(models);
    let written = serde_json::from_str(options).unwrap();
    let planned = parse_options::<EnsembleConfig>(written)
        .and_then(|mut config| config.plan(&batch.records.schema(), &context));
    planned.map(|plan| (plan, folder)).map_err(|faults| {
        let lines = faults
            .into_iter()
            .map(|fault| format!("{}: {}", fault.key, fault.message));
        lines.collect()
    })
}

fn run(models: &[(&str, &str, String)], options: &str, batch: Batch) -> (Batch, Vec<Reject>) {
    let (plan, _folder) = plan(models, options, &batch).unwrap();
    let mut rejects = RejectCollector::default();
    let out = plan.build().unwrap().apply(batch, &mut rejects).unwrap();
    assert_eq!(out.records.schema(), plan.schema());
    (out, rejects.into_vec())
}

fn both() -> Vec<(&'static str, &'static str, String)> {
    vec![
        ("log", "log.onnx", card("0.5")),
        ("same", "picky.onnx", card("2.0")),
    ]
}

#[test]
fn score_is_the_mean_of_relative_errors() {
    let options = r#"{"models": ["log", "same"]}"#;
    let (out, rejects) = run(&both(), options, tensors(&[2], &[1.0, 1.0, 1.0, 3.0]));
    assert!(rejects.is_empty());
    // ln 1 = 0, so that the squared errors of the first record are 1 and 1; the second model
    // returns its input.
    let second = (1.0 + (3.0 - 3f64.ln()).powi(2)) / 2.0;
    let scores = column(&out, "anomaly_score");
    assert_eq!(scores.len(), 2);
    assert!((f64::from(scores[0]) - 1.0 / 0.5 / 2.0).abs() < 1e-6);
    assert!((f64::from(scores[1]) - second / 0.5 / 2.0).abs() < 1e-5);
}

#[test]
fn each_error_has_the_unit_of_its_card() {
    let twice = vec![
        ("one", "log.onnx", card("0.5")),
        ("two", "log.onnx", card("2.0")),
    ];
    let options = r#"{"models": ["one", "two"], "to": "score"}"#;
    let (out, _) = run(&twice, options, tensors(&[2], &[1.0, 1.0]));
    assert_eq!(column(&out, "score"), [1.25]);
    assert!(column(&out, "x") == [1.0, 1.0], "the tensors are kept");
}

#[test]
fn records_on_which_a_model_fails_are_rejected() {
    let options = r#"{"models": ["log", "same"]}"#;
    let batch = tensors(&[2], &[1.0, 1.0, 1.0, 9.0, -1.0, 1.0, f32::NAN, 1.0]);
    let (out, rejects) = run(&both(), options, batch);
    assert_eq!(column(&out, "anomaly_score").len(), 1);
    expect![[r#"
        3: not_finite: `x` holds a value that is not finite
        1: model: Non-zero status code returned while running Gather node. Name:'' Status Message: indices element out of data bounds, idx=9 must be within the inclusive range [-6,5]
        2: not_finite: the anomaly score is not finite"#]].assert_eq(&reasons(&rejects));
}

#[test]
fn empty_batch_has_the_planned_schema() {
    let (out, rejects) = run(
        &both(),
        r#"{"models": ["log", "same"]}"#,
        tensors(&[2], &[]),
    );
    assert_eq!((out.records.num_rows(), rejects.len()), (0, 0));
}

#[test]
fn score_depends_on_the_errors_in_the_cards() {
    let depends_on = |mean: &str| {
        let models = [
            ("log", "log.onnx", card("0.5")),
            ("same", "picky.onnx", card(mean)),
        ];
        let batch = tensors(&[2], &[1.0, 1.0]);
        let planned = plan(&models, r#"{"models": ["log", "same"]}"#, &batch);
        planned.unwrap().0.depends_on()
    };
    assert_ne!(depends_on("2.0"), depends_on("3.0"));
    assert_eq!(depends_on("2.0"), depends_on("2.0"));
}

#[test]
fn faults_of_options_are_reported_by_key() {
    let batch = tensors(&[2], &[1.0, 1.0]);
    let check = |models: &[(&str, &str, String)], options: &str, expected: Expect| {
        let found = plan(models, options, &batch).err().unwrap_or_default();
        expected.assert_eq(&found.join("\n"));
    };
    check(
        &both(),
        r#"{"models": ["log"]}"#,
        expect!["models: requires 2 or more models; met 1"],
    );
    check(
        &both(),
        r#"{"models": ["log", "log", "sane"]}"#,
        expect![[r#"
            models: names the model `log` twice; remove one of them
            models: no model `sane` (did you mean `same`?); declared: log, same"#]],
    );
    check(
        &both(),
        r#"{"models": ["log", "same"], "to": "x"}"#,
        expect!["to: the input already has a column `x`; choose another name"],
    );
    let cards = |second: String| {
        vec![
            ("log", "log.onnx", card("0.5")),
            ("same", "picky.onnx", second),
        ]
    };
    let options = r#"{"models": ["log", "same"]}"#;
    check(
        &cards(card("0.0")),
        options,
        expect![
            "models: the model `tested` has a mean error of 0 in its card, by which an error cannot \
             be divided"
        ],
    );
    let (without_errors, _) = card("1.0")
        .split_once("[reconstruction_error]")
        .map(|(head, rest)| (head.to_owned(), rest.to_owned()))
        .unwrap();
    check(
        &cards(without_errors),
        options,
        expect![
            "models: the model `tested` has no card with the section [reconstruction_error]; \
             `latentflow calibrate` measures it on normal records"
        ],
    );
    check(
        &cards(card("1.0").replace("['a', 'b']", "['a', 'c']")),
        options,
        expect![
            "models: the model `tested` prepares its input in another way than `tested`: columns, \
             scaling or pixels differ; train both on the same data with the same [input]"
        ],
    );
}
