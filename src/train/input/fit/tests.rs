//! Unit tests of the module `fit`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::data::{self, DataError, Record};
use crate::model::input::rules::FillValue;
use crate::registry::parse_options;
use crate::train::augmentation::InputValues;
use crate::train::input::NetworkInput;

fn prepared(folder: &Path, table: &str, input: &InputSpec) -> Result<PreparedDataset, DataError> {
    let path = folder.join("t.csv");
    std::fs::write(&path, table).unwrap();
    let spec = json!({ "sources": [{ "kind": "csv", "path": path }], "validation": 0.0 });
    let spec = parse_options(spec).unwrap();
    data::prepare(&spec, input, &folder.join("prepared"), &mut |_| {})
}

/// Returns the input for a table, and the inputs of each record in the order of the rows.
fn encoded(table: &str, input: Value) -> (NetworkInput, Vec<Vec<f32>>, PreparedDataset) {
    let folder = tempfile::tempdir().unwrap();
    let input: InputSpec = parse_options(input).unwrap();
    assert!(crate::train::input::faults(&input).is_empty());
    let prepared = prepared(folder.path(), table, &input).unwrap();
    let never = AtomicBool::new(false);
    let network = NetworkInput::new(&input, &prepared, &never)
        .unwrap()
        .unwrap();
    let InputValues::Features(features) = &network.preparing else {
        panic!("features expected");
    };
    let mut rows = BTreeMap::new();
    let mut record = Record::default();
    for index in 0..prepared.training.len() {
        prepared.training.read(index, &mut record).unwrap();
        let mut inputs = Vec::new();
        record.values.append_features(features, &mut inputs);
        let origin = prepared.training.origin(index).unwrap().unwrap();
        rows.insert(origin.row, inputs);
    }
    (network, rows.into_values().collect(), prepared)
}

fn faults(table: &str, input: Value) -> String {
    let folder = tempfile::tempdir().unwrap();
    let input: InputSpec = parse_options(input).unwrap();
    let mut faults = crate::train::input::faults(&input);
    if faults.is_empty() {
        let prepared = prepared(folder.path(), table, &input).unwrap();
        let never = AtomicBool::new(false);
        match NetworkInput::new(&input, &prepared, &never) {
            Err(TrainError::Faults(found)) => faults = found,
            Err(other) => panic!("{other}"),
            Ok(_) => {}
        }
    }
    let lines = faults
        .into_iter()
        .map(|fault| format!("{}: {}", fault.key, fault.message));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn inputs_equal_those_of_scikit_learn() {
    let table = include_str!("../../../../tests/records/rules.csv");
    let expected = include_str!("../../../../tests/records/rules.json");
    let expected: BTreeMap<String, Vec<Vec<f64>>> = serde_json::from_str(expected).unwrap();
    let columns = [
        "temperature",
        "power",
        "flow",
        "level",
        "mode",
        "device",
        "code",
        "open",
        "time",
    ];
    let cyclic = ["hour_of_day", "day_of_week", "day_of_year"];
    let (network, rows, _) = encoded(
        table,
        json!({ "columns": columns, "rules": [
            { "columns": ["temp*"], "impute": "mean", "indicator": true },
            { "columns": ["power"], "impute": "median", "clip_quantiles": [0.05, 0.95],
              "log1p": true, "scaling": "robust" },
            { "columns": ["flow"], "fill_value": 5, "scaling": "min_max" },
            { "columns": ["level"], "impute": "most_frequent", "scaling": "quantile",
              "n_quantiles": 20 },
            { "columns": ["mode"], "impute": "most_frequent", "encoding": "one_hot",
              "max_categories": 3 },
            { "columns": ["device"], "encoding": "ordinal" },
            { "columns": ["code"], "encoding": "ordinal", "scaling": "min_max" },
            { "columns": ["time"], "cyclic": cyclic },
        ] }),
    );
    assert_eq!(rows.len(), 300);
    for (row, inputs) in rows.iter().take(60).enumerate() {
        let values = columns
            .iter()
            .flat_map(|&column| expected[column][row].clone());
        let values: Vec<f64> = values.collect();
        assert_eq!(inputs.len(), values.len());
        for (at, (&input, value)) in inputs.iter().zip(values).enumerate() {
            let difference = (f64::from(input) - value).abs();
            assert!(
                difference < 1e-6 * value.abs().max(1.0),
                "row {row}, input {at}: {input}, not {value}"
            );
        }
    }
    // The card states the values, from which pipelines compute the same inputs.
    let spec: InputSpec = parse_options(serde_json::to_value(&network.spec).unwrap()).unwrap();
    let InputValues::Features(features) = &network.preparing else {
        panic!("features expected");
    };
    assert_eq!(
        spec.encoder().unwrap().as_ref(),
        features.encoder.as_deref()
    );
    let mode = &spec.rules[4];
    assert_eq!(mode.categories.as_ref().unwrap(), &["boost", "eco"]);
    assert!(mode.counts.as_ref().unwrap().iter().sum::<u64>() > 240);
    assert!(spec.rules[0].missing.unwrap() > 10);
}

#[test]
fn null_without_rule_is_counted_and_rejected() {
    let table = "a,b,mode\n1,2,x\n,3,y\n4,,z\n,,\n7,8,x\n";
    let rules = json!({ "columns": ["a", "b", "mode"], "rules": [
        { "columns": ["b"], "impute": "median" },
        { "columns": ["mode"], "fill_value": "none", "encoding": "one_hot" },
    ] });
    let (network, rows, prepared) = encoded(table, rules);
    assert_eq!((rows.len(), prepared.rejects), (3, 2));
    assert_eq!(prepared.nulls, BTreeMap::from([("a".to_owned(), 2)]));
    // The categories are those of the records that are used.
    assert_eq!(
        network.spec.rules[2].categories.as_deref().unwrap(),
        ["x", "z"]
    );
    assert_eq!(
        network.spec.rules[1].fill_value,
        Some(FillValue::Number(5.0))
    );
    assert_eq!(rows[1][2..], [0.0, 1.0, 0.0]);
}

#[test]
fn lists_have_a_rule_per_value_and_are_imputed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    let lines = "{\"w\": [1.0, 2.0]}\n{\"w\": [3.0, null]}\n{\"w\": null}\n{\"w\": [5.0, 6.0]}\n";
    std::fs::write(&path, lines).unwrap();
    let spec = json!({ "sources": [{ "kind": "ndjson", "path": path }], "validation": 0.0 });
    let rules = json!([{ "columns": ["w"], "impute": "mean", "indicator": true }]);
    let input = json!({ "columns": ["w"], "rules": rules });
    let input: InputSpec = parse_options(input).unwrap();
    let spec = parse_options(spec).unwrap();
    let prepared = data::prepare(&spec, &input, &folder.path().join("p"), &mut |_| {}).unwrap();
    let never = AtomicBool::new(false);
    let fitted = fit_rules(&input, &prepared, &never).unwrap().unwrap();
    let means: Vec<_> = fitted
        .iter()
        .map(|rule| (rule.fill_value.clone(), rule.missing))
        .collect();
    assert_eq!(
        means,
        [
            (Some(FillValue::Number(3.0)), Some(1)),
            (Some(FillValue::Number(4.0)), Some(2))
        ]
    );
    assert_eq!(fitted[1].columns, ["w[1]"]);
}

#[test]
fn faults_name_the_rule_and_the_remedy() {
    let table = "a,b\n1,-3\n2,-2\n3,5\n";
    let with = |rule: Value| faults(table, json!({ "columns": ["a", "b"], "rules": [rule] }));
    assert_eq!(
        with(json!({ "columns": ["c*"], "impute": "mean" })),
        "input.rules[0].columns: c* matches no column of the input without another rule; correct \
         it, or remove the rule"
    );
    assert_eq!(
        with(json!({ "columns": ["a", "bb"], "impute": "mean" })),
        "input.rules[0].columns: `bb` matches no column of the input; correct or remove it"
    );
    assert_eq!(
        with(json!({ "columns": ["a"], "scaling": "standard", "mean": 1.0 })),
        "input.rules[0].mean: is computed from the training part; remove the option"
    );
    assert_eq!(
        with(json!({ "columns": ["a"], "encoding": "hashed", "impute": "median" })),
        "input.rules[0].impute: categories have no mean and no median; use most_frequent or \
         constant"
    );
    assert_eq!(
        with(json!({ "columns": ["b"], "log1p": true, "clip_quantiles": [0.1, 0.9] })),
        "input.rules: `clip_quantiles` clips b to values from -2.8, but `log1p` requires values \
         above -1; set `clip_min`"
    );
}
