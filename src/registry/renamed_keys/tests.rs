//! Unit tests of the module `renamed_keys`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde_json::json;

use super::*;

/// Options of a kind.
#[derive(JsonSchema)]
#[allow(dead_code)]
struct Options {
    #[schemars(extend("x-former-name" = "draft", "x-former-values" = ["full", "scaled"]))]
    decode: String,
    keep: bool,
    limits: Limits,
}

#[derive(JsonSchema)]
#[allow(dead_code)]
struct Limits {
    #[schemars(extend("x-former-name" = "wait"))]
    response_timeout: u32,
}

fn renamed() -> RenamedKeys {
    RenamedKeys::of_schema(|generator| generator.subschema_for::<Options>())
}

#[test]
fn names_of_renamed_keys_are_unique_in_each_table() {
    let names = |pick: fn(&(&'static str, &'static str, &'static str)) -> &'static str| {
        let keys = RENAMED_IN_TABLES.iter().map(|key| (key.0, pick(key)));
        keys.collect::<BTreeSet<_>>().len()
    };
    assert_eq!(names(|key| key.1), RENAMED_IN_TABLES.len());
    assert_eq!(names(|key| key.2), RENAMED_IN_TABLES.len());
}

#[test]
fn former_name_is_mapped_if_the_current_name_is_known() {
    let used = |key, known: &[&str]| renamed().replacement(key, known);
    assert_eq!(
        used("optimiser", &["epochs", "optimizer"]).as_deref(),
        Some("use `optimizer`")
    );
    assert_eq!(
        used("limits.wait", &["limits", "listen"]).as_deref(),
        Some("use `limits.response_timeout`")
    );
    assert_eq!(
        used("draft", &["decode"]).as_deref(),
        Some("use `decode = \"scaled\"` for true and `decode = \"full\"` for false")
    );
    assert_eq!(used("draft", &["path"]), None);
    assert_eq!(used("epoch", &["epochs", "optimizer"]), None);
}

#[test]
fn choice_is_stored_as_the_former_flag() {
    for (choice, flag) in [("full", json!(false)), ("scaled", json!(true))] {
        let current = json!({ "decode": choice, "keep": true });
        let current = current.as_object().unwrap();
        let stored = renamed().stored(current.clone());
        assert_eq!(stored["draft"], flag);
        assert_eq!(renamed().current(stored), *current);
    }
    let other = renamed().stored(Map::from_iter([("decode".into(), json!("x"))]));
    assert_eq!(other["draft"], json!("x"));
}

#[test]
fn training_file_is_converted_to_stored_names_and_back() {
    let current = json!({
        "network": { "space_to_depth": true, "standardize": false },
        "training": {
            "optimizer": "muon",
            "clip_grad_norm": 1,
            "ema_decay": 0.9,
            "patience": 2,
        },
        "data": { "license": "MIT" },
    });
    let stored = json!({
        "network": { "fold": true, "standardise": false },
        "training": { "optimiser": "muon", "clip": 1, "average": 0.9, "patience": 2 },
        "data": { "licence": "MIT" },
    });
    assert_eq!(stored_training_file(current.clone()), stored);
    assert_eq!(current_training_file(stored), current);
}

#[test]
fn options_of_sources_are_renamed_by_kind() {
    let data =
        json!({ "sources": [{ "kind": "a", "decode": "full" }, { "kind": "b", "decode": 1 }] });
    let stored = with_renamed_sources(data, |kind, options| match kind {
        "a" => renamed().stored(options),
        _ => options,
    });
    let expected =
        json!({ "sources": [{ "kind": "a", "draft": false }, { "kind": "b", "decode": 1 }] });
    assert_eq!(stored, expected);
}
