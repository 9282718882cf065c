//! Tests of the source `ndjson`.

#![allow(clippy::unwrap_used)]

use arrow::array::{Array as _, AsArray};
use arrow::datatypes::{Float64Type, Int64Type, UInt64Type};
use serde_json::json;

use super::*;
use crate::source::table::file_source::testing::{
    drain, plan, progress_of, read, records, rejects,
};

fn file(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.ndjson"), text).unwrap();
    folder
}

fn many(count: usize, bad: &[(usize, &str)]) -> String {
    let line = |row: usize| match bad.iter().find(|(index, _)| *index == row) {
        Some((_, text)) => format!("{text}\n"),
        None => format!("{{\"id\": {row}, \"v\": [{row}, 0.5]}}\n"),
    };
    (0..count).map(line).collect()
}

#[test]
fn objects_become_rows_with_inferred_types() {
    let text = "\u{feff}{\"a\": 1, \"v\": [1, 2], \"s\": \"x\", \"o\": {\"k\": true}, \
                \"n\": null}\r\n \n{\"v\": [0.5], \"a\": 3.0, \"extra\": []}";
    let folder = file(text);
    let more = json!({ "path": folder.path(), "types": { "late": "bool" } });
    let all = records(&read::<NdjsonSourceConfig>(more, 10));
    let types: Vec<_> = all
        .schema()
        .fields()
        .iter()
        .map(|f| format!("{} {}", f.name(), f.data_type()))
        .collect();
    assert!(types.contains(&"a Float64".to_owned()), "{types:?}");
    assert!(types.contains(&"n Utf8".to_owned()), "{types:?}");
    assert!(types.contains(&"late Boolean".to_owned()), "{types:?}");
    assert_eq!(
        all["v"]
            .as_list::<i32>()
            .values()
            .as_primitive::<Float64Type>()
            .values(),
        &[1.0, 2.0, 0.5]
    );
    assert_eq!(
        all["s"].as_string::<i32>().iter().collect::<Vec<_>>(),
        [Some("x"), None]
    );
    assert!(all["o"].as_struct().column(0).as_boolean().value(0));
}

#[test]
fn one_bad_record_among_10_000_is_one_reject() {
    let folder = file(&many(10_000, &[(7_123, "{\"id\": \"x\"}")]));
    let batches = read::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 4096);
    assert_eq!(
        rejects(&batches),
        [(7123, "malformed", Some("{\"id\": \"x\"}".to_owned()))]
    );
    assert_eq!(
        batches[1].rejects[0].reason,
        "column `id`: `x` does not fit int, the type inferred from a sample of the records"
    );
    let ids = records(&batches);
    let ids = ids["id"].as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(
        ids,
        (0..10_000).filter(|&row| row != 7_123).collect::<Vec<_>>()
    );
}

#[test]
fn lines_other_than_objects_of_the_columns_are_rejects() {
    let deep = format!("{{\"v\": {}1{}}}", "[".repeat(200), "]".repeat(200));
    let long = format!("{{\"id\": \"{}\"}}", "x".repeat(2 << 20));
    let bad = [
        (1, "[1, 2]"),
        (2, "{\"id\": 1"),
        (3, "1}"),
        (4, "{\"id\": 1} {\"id\": 2}"),
        (5, "{\"id\": tru}"),
        (6, "{\"id\": {}}"),
        (7, "{\"v\": 3}"),
        (8, &deep),
        (9, &long),
        (10, "{\"id\": [1}]"),
        (11, "{\"id\" 3}"),
    ];
    let folder = file(&many(20, &bad));
    let batches = read::<NdjsonSourceConfig>(
        json!({ "path": folder.path(), "types": { "id": "int" } }),
        8,
    );
    let found = rejects(&batches);
    assert_eq!(
        found.iter().map(|reject| reject.0).collect::<Vec<_>>(),
        (1..12).collect::<Vec<_>>()
    );
    let codes: Vec<_> = found
        .iter()
        .filter(|reject| reject.1 != "malformed")
        .map(|reject| reject.1)
        .collect();
    assert_eq!(codes, ["too_large"]);
    assert_eq!(found[0].2.as_deref(), Some("[1, 2]"));
    assert_eq!(records(&batches).num_rows(), 9);
}

#[test]
fn wide_records_are_left_out_and_wide_tables_refused() {
    let keys = |from: usize, to: usize| {
        (from..to)
            .map(|n| format!("\"k{n}\": {n}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let wide = file(&format!("{{\"k0\": 1}}\n{{{}}}\n", keys(0, 5000)));
    let batches = read::<NdjsonSourceConfig>(json!({ "path": wide.path() }), 10);
    assert_eq!(
        records(&batches)["k0"].as_primitive::<Int64Type>().values(),
        &[1, 0]
    );
    let refusal = |rows: usize, width: usize| {
        let table: String = (0..rows)
            .map(|n| format!("{{{}}}\n", keys(n * width, n * width + width)))
            .collect();
        let folder = file(&table);
        let faults = plan::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 10)
            .err()
            .unwrap();
        faults[0].message.clone()
    };
    assert_eq!(
        refusal(6, 1000),
        "no file can be read; a.ndjson: the first records have 6000 different keys; at most \
         4096 are supported; use lists"
    );
    assert_eq!(
        refusal(30, 4000),
        "no file can be read; a.ndjson: the first records have more than 65536 different keys; \
         at most 4096 are supported; use lists"
    );
}

#[test]
fn long_list_of_objects_is_inferred_up_to_its_key_limit() {
    let infer = |objects: usize| {
        let list = vec!["{\"x\":1,\"y\":2}"; objects].join(",");
        let folder = file(&format!("{{\"a\": [{list}]}}\n"));
        let files = input_file::list(
            "in",
            &folder.path().to_string_lossy(),
            NdjsonFormat::EXTENSIONS,
        )
        .unwrap();
        infer(&files, 1 << 24)
    };
    assert_eq!(infer(50_000).unwrap().0.field(0).name(), "a");
    let error = infer(140_000).unwrap_err().to_string();
    assert!(error.contains("more than 262144 keys"), "{error}");
}

#[test]
fn invalid_utf8_is_a_reject() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("a.jsonl"),
        b"{\"s\": \"a\"}\n{\"s\": \"\xff\"}\n{\"s\": \"b\"}",
    )
    .unwrap();
    let batches = read::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 10);
    assert_eq!(
        rejects(&batches),
        [(1, "malformed", Some("{\"s\": \"\u{fffd}\"}".to_owned()))]
    );
    assert_eq!(records(&batches).num_rows(), 2);
}

#[test]
fn later_run_reads_only_uncommitted_batches() {
    let folder = file(&many(25, &[]));
    let all = read::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 10);
    let source = plan::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 10).unwrap();
    let rest = drain(source, &progress_of(&all[..1])).unwrap();
    assert_eq!(rest.len(), 2);
    assert_eq!(rest[1].batch.records, all[2].batch.records);
}

#[test]
fn small_record_that_expands_in_memory_is_a_reject() {
    let wide: Vec<String> = (0..500).map(|index| format!("\"c{index}\": 1")).collect();
    let nulls = vec!["null"; 10_000].join(",");
    let folder = file(&format!(
        "{{\"o\": [{{{}}}]}}\n{{\"o\": [{nulls}]}}\n",
        wide.join(",")
    ));
    let batches = read::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 10);
    assert_eq!(
        rejects(&batches)
            .iter()
            .map(|reject| (reject.0, reject.1))
            .collect::<Vec<_>>(),
        [(1, "too_large")]
    );
}

#[test]
fn file_without_objects_is_a_fault() {
    let folder = file("hello\n[1]\n");
    let faults = plan::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 10)
        .err()
        .unwrap();
    assert!(
        faults[0]
            .message
            .contains("a.ndjson: does not begin with JSON objects; expected one per line"),
        "{faults:?}"
    );
}

#[test]
fn few_conflicting_records_are_rejects_and_many_a_fault() {
    let folder = file("{\"a\": 1}\n{\"a\": {\"b\": 1}}\n{\"a\": 2}\n");
    let batches = read::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 10);
    assert_eq!(
        rejects(&batches),
        [(1, "malformed", Some("{\"a\": {\"b\": 1}}".to_owned()))]
    );
    let conflicting = file(&"{\"a\": 1}\n{\"a\": {\"b\": 1}}\n".repeat(20));
    let faults = plan::<NdjsonSourceConfig>(json!({ "path": conflicting.path() }), 10)
        .err()
        .unwrap();
    assert!(
        faults[0]
            .message
            .contains("the types of the first records conflict: "),
        "{faults:?}"
    );
}

#[test]
fn numbers_keep_every_digit() {
    let text = "{\"id\": 18446744073709551615, \"big\": 9007199254740993.0, \"s\": 1.50}\n\
                {\"id\": 9007199254740993, \"big\": 3e2, \"s\": \"x\"}\n\
                {\"id\": 1, \"big\": 1e400, \"s\": true}\n\
                {\"id\": -1, \"big\": 1, \"s\": null}\n";
    let folder = file(text);
    let more = json!({ "path": folder.path(), "types": { "id": "uint", "big": "int" } });
    let batches = read::<NdjsonSourceConfig>(more, 10);
    let all = records(&batches);
    assert_eq!(
        all["id"].as_primitive::<UInt64Type>().values(),
        &[u64::MAX, 9_007_199_254_740_993]
    );
    assert_eq!(
        all["big"].as_primitive::<Int64Type>().values(),
        &[9_007_199_254_740_993, 300]
    );
    assert_eq!(
        all["s"].as_string::<i32>().iter().collect::<Vec<_>>(),
        [Some("1.50"), Some("x")]
    );
    let rows: Vec<_> = rejects(&batches)
        .into_iter()
        .map(|reject| reject.0)
        .collect();
    assert_eq!(rows, [2, 3]);
    let inferred = file("{\"id\": 18446744073709551615}\n{\"id\": 9007199254740993}\n");
    let exact = records(&read::<NdjsonSourceConfig>(
        json!({ "path": inferred.path() }),
        10,
    ));
    assert_eq!(
        exact["id"].as_primitive::<UInt64Type>().values(),
        &[u64::MAX, 9_007_199_254_740_993]
    );
}

#[test]
fn columns_and_types_hold_the_values_of_all_files() {
    let folder = file("{\"n\": 1, \"a\": null}\n");
    let later = "{\"b\": {\"k\": 1}, \"n\": 0.5, \"a\": \"x\"}\n";
    std::fs::write(
        folder.path().join("b.jsonl.zst"),
        zstd::encode_all(later.as_bytes(), 3).unwrap(),
    )
    .unwrap();
    let all = records(&read::<NdjsonSourceConfig>(
        json!({ "path": folder.path() }),
        10,
    ));
    assert_eq!(all["n"].as_primitive::<Float64Type>().values(), &[1.0, 0.5]);
    assert_eq!(
        all["a"].as_string::<i32>().iter().collect::<Vec<_>>(),
        [None, Some("x")]
    );
    assert!(all["b"].is_null(0) && all["b"].is_valid(1));
}
