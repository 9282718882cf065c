//! Unit tests of the module `rules`.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::model::input::rules::encoder::FeatureEncoder;
use crate::model::input::rules::index::{RuleIndex, matches_pattern};
use crate::model::input::rules::value_encoder::RawDescription;
use crate::model::input::rules::words::word_number;

fn rules(value: Value) -> Vec<FeatureRule> {
    serde_json::from_value(value).unwrap()
}

fn encoder(name: &str, rule: Value) -> FeatureEncoder {
    FeatureEncoder::new(&[name.to_owned()], &rules(json!([rule]))).unwrap()
}

fn encode(encoder: &FeatureEncoder, raw: f64) -> Vec<f32> {
    let mut inputs = Vec::new();
    encoder.encode(std::iter::once(raw), &mut inputs);
    inputs
}

#[test]
fn unknown_words_take_the_last_place() {
    let one_hot =
        json!({ "columns": ["m"], "encoding": "one_hot", "categories": ["eco", "boost"] });
    let one_hot = encoder("m", one_hot);
    assert_eq!(encode(&one_hot, word_number("boost")), [0.0, 1.0, 0.0]);
    assert_eq!(encode(&one_hot, word_number("turbo")), [0.0, 0.0, 1.0]);
    let ordinal = json!({ "columns": ["m"], "encoding": "ordinal", "categories": ["low", "high"] });
    let ordinal = encoder("m", ordinal);
    assert_eq!(encode(&ordinal, word_number("high")), [1.0]);
    assert_eq!(encode(&ordinal, word_number("")), [2.0]);
    let named = |inputs: &[f32]| one_hot.describe(0, inputs);
    assert_eq!(
        named(&[0.2, 0.7, 0.1]),
        RawDescription::Text("boost".to_owned())
    );
    assert_eq!(
        named(&[0.2, 0.1, 0.9]),
        RawDescription::Text("other".to_owned())
    );
}

#[test]
fn hashes_of_words_never_change() {
    // The first 52 bits of `printf boost | sha256sum`, and the same modulo 16.
    let number = word_number("boost");
    assert_eq!(number, BOOST as f64);
    let hashed = json!({ "columns": ["m"], "encoding": "hashed", "fill_value": "boost" });
    let hashed = encoder("m", hashed);
    let inputs = encode(&hashed, number);
    assert_eq!(inputs.len(), 16);
    assert_eq!(
        inputs.iter().position(|&input| input == 1.0),
        Some((BOOST % 16) as usize)
    );
    assert_eq!(encode(&hashed, f64::NAN), inputs);
}

const BOOST: u64 = 0xca4264faf5970;

#[test]
fn missing_numbers_are_imputed_and_indicated() {
    let rule = json!({ "columns": ["p"], "impute": "median", "fill_value": 3.0, "indicator": true,
        "clip_max": 10.0, "scaling": "robust", "median": 1.0, "iqr": 2.0 });
    let encoder = encoder("p", rule);
    assert_eq!(encode(&encoder, f64::NAN), [1.0, 1.0]);
    assert_eq!(encode(&encoder, 1e9), [4.5, 0.0]);
    assert_eq!(
        encoder.describe(0, &[4.5, 0.0]),
        RawDescription::Number(10.0)
    );
    assert_eq!(
        encoder.describe(0, &[1.0, 1.0]),
        RawDescription::Text("missing".to_owned())
    );
    assert_eq!(
        (encoder.groups().features(), encoder.groups().inputs()),
        (1, 2)
    );
}

#[test]
fn rule_of_a_name_precedes_patterns() {
    let rules = rules(json!([
        { "columns": ["*"], "scaling": "none" },
        { "columns": ["p*r"], "scaling": "robust" },
        { "columns": ["power"], "scaling": "standard" },
        { "columns": ["window"], "scaling": "min_max" },
    ]));
    let index = RuleIndex::new(&rules);
    assert_eq!(index.position("power"), Some(2));
    assert_eq!(index.position("pr"), Some(0));
    assert_eq!(index.position("window[3]"), Some(3));
    assert!(matches_pattern("a*c*e", "abcde") && !matches_pattern("a*c*e", "abde"));
    assert!(!matches_pattern("ab*b", "ab") && matches_pattern("*", ""));
}

#[test]
fn rule_without_its_values_names_them() {
    let faults = |rule: Value| {
        let faults = FeatureEncoder::new(&["p".to_owned()], &rules(json!([rule]))).unwrap_err();
        let lines = faults
            .iter()
            .map(|fault| format!("{}: {}", fault.key, fault.message));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        faults(json!({ "columns": ["p"], "impute": "mean" })),
        "rules[0].impute: requires `fill_value`, which is computed only by a training; write the \
         value, or use the model of a training that has this rule"
    );
    assert_eq!(
        faults(json!({ "columns": ["p"], "fill_value": "none" })),
        "rules[0].fill_value: expected a number, found \"none\"; a word requires `encoding`"
    );
    assert_eq!(
        faults(json!({ "columns": ["p"], "encoding": "one_hot", "categories": ["a", "a"] })),
        "rules[0].categories: `a` is listed twice"
    );
}
