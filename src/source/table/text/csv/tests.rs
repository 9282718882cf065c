//! Tests of the source `csv`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Write as _;

use arrow::array::{Array as _, AsArray};
use arrow::datatypes::{
    Date32Type, Float64Type, Int64Type, Schema, TimestampMicrosecondType, UInt64Type,
};
use serde_json::{Value, json};

use crate::coverage::ResumeState;
use crate::plan_context::PlanContext;
use crate::source::SourceConfig;
use crate::source::batch_size::BatchSize;
use crate::source::table::file_source::testing::{
    drain, plan, progress_of, read, records, rejects,
};
use crate::source::table::text::csv::config::CsvSourceConfig;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    files
        .iter()
        .for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
    folder
}

fn options(folder: &tempfile::TempDir, more: Value) -> Value {
    let mut options = json!({ "path": folder.path() });
    options
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    options
}

fn types(schema: &Schema) -> Vec<String> {
    schema
        .fields()
        .iter()
        .map(|field| format!("{}: {}", field.name(), field.data_type()))
        .collect()
}

fn fault(folder: &tempfile::TempDir, more: Value) -> Vec<String> {
    let faults = plan::<CsvSourceConfig>(options(folder, more), 10)
        .err()
        .unwrap();
    faults
        .into_iter()
        .map(|fault| format!("{}: {}", fault.key, fault.message))
        .collect()
}

/// `count` records `i,i/2`, with the records of `bad` in place of those at their rows.
fn many(count: usize, bad: &[(usize, &str)]) -> String {
    let line = |row: usize| match bad.iter().find(|(index, _)| *index == row) {
        Some((_, text)) => format!("{text}\n"),
        None => format!("{row},{}\n", row as f64 / 2.0),
    };
    std::iter::once("id,half\n".to_owned())
        .chain((0..count).map(line))
        .collect()
}

#[test]
fn types_follow_the_first_records_and_the_options() {
    let folder = folder(&[(
        "a.csv",
        "\u{feff}i,f,s,b,none,\"q,\"\"x\"\r\n1,0.5,x,true,,7\r\n\r\n2,3,\"y\n z\",false,,8",
    )]);
    let batches = read::<CsvSourceConfig>(
        options(&folder, json!({ "types": { "q,\"x": "float" } })),
        10,
    );
    let all = records(&batches);
    let expected = [
        "source: Utf8",
        "row: UInt64",
        "i: Int64",
        "f: Float64",
        "s: Utf8",
        "b: Boolean",
        "none: Utf8",
        "q,\"x: Float64",
    ];
    assert_eq!(types(&all.schema()), expected);
    assert_eq!(all["row"].as_primitive::<UInt64Type>().values(), &[0, 1]);
    assert_eq!(all["source"].as_string::<i32>().value(1), "a.csv");
    assert_eq!(all["s"].as_string::<i32>().value(1), "y\n z");
    assert_eq!(all["none"].null_count(), 2);
    assert_eq!(
        all["q,\"x"].as_primitive::<Float64Type>().values(),
        &[7.0, 8.0]
    );
}

#[test]
fn one_bad_value_among_10_000_is_one_reject() {
    let folder = folder(&[("a.csv", &many(10_000, &[(7_123, "7123,oops")]))]);
    let batches = read::<CsvSourceConfig>(options(&folder, json!({})), 4096);
    assert_eq!(
        rejects(&batches),
        [(7123, "malformed", Some("7123,oops".to_owned()))]
    );
    let reason = &batches[1].rejects[0].reason;
    assert_eq!(
        reason,
        "column `half`: `oops` does not fit float, the type inferred from a sample of the records"
    );
    let ids = records(&batches);
    let ids = ids["id"].as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(
        ids,
        (0..10_000).filter(|&row| row != 7_123).collect::<Vec<_>>()
    );
}

#[test]
fn several_bad_records_are_each_rejected() {
    let long = "x".repeat(2 << 20);
    let bad = [
        (0, "a,b,c"),
        (1500, "1"),
        (1501, ",nan?"),
        (2000, &long),
        (2999, "2999,\"never closed\n"),
    ];
    let folder = folder(&[("a.csv", &many(3000, &bad))]);
    let batches = read::<CsvSourceConfig>(
        options(&folder, json!({ "types": { "half": "float" } })),
        1000,
    );
    let found = rejects(&batches);
    let found: Vec<_> = found
        .iter()
        .map(|(row, code, text)| (*row, *code, text.as_deref()))
        .collect();
    let expected = [
        (0, "malformed", Some("a,b,c")),
        (1500, "malformed", Some("1")),
        (1501, "malformed", Some(",nan?")),
        (2000, "too_large", None),
        (2999, "malformed", Some("2999,\"never closed\n\n")),
    ];
    assert_eq!(found, expected);
    assert_eq!(records(&batches).num_rows(), 2995);
    assert_eq!(
        batches[1].rejects[0].reason,
        "incorrect number of fields, expected 2 got 1"
    );
}

#[test]
fn invalid_utf8_is_a_reject() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), b"n,s\n1,a\n2,\xff\n3,c\n").unwrap();
    let batches = read::<CsvSourceConfig>(options(&folder, json!({})), 10);
    assert_eq!(
        rejects(&batches),
        [(1, "malformed", Some("2,\u{fffd}".to_owned()))]
    );
    assert_eq!(records(&batches).num_rows(), 2);
}

#[test]
fn files_are_read_in_name_order_and_columns_matched_by_name() {
    let folder = folder(&[
        ("b.csv", "y,more,x\n4,m,3\n"),
        ("a.csv", "x,y\n1,2\n"),
        ("empty.csv", ""),
    ]);
    let batches = read::<CsvSourceConfig>(options(&folder, json!({})), 10);
    assert_eq!(batches.len(), 2);
    let all = records(&batches);
    assert_eq!(
        all["source"]
            .as_string::<i32>()
            .iter()
            .flatten()
            .collect::<Vec<_>>(),
        ["a.csv", "b.csv"]
    );
    assert_eq!(all["x"].as_primitive::<Int64Type>().values(), &[1, 3]);
    assert_eq!(all["row"].as_primitive::<UInt64Type>().values(), &[0, 0]);
}

#[test]
fn columns_that_a_file_lacks_are_null() {
    let folder = folder(&[
        ("a.csv", "x,y\n1,2\n"),
        ("b.csv", "z,x\n1.5,3\n"),
        ("c.csv", "y,x\n,4\n"),
    ]);
    let all = records(&read::<CsvSourceConfig>(options(&folder, json!({})), 10));
    assert_eq!(
        types(&all.schema())[2..],
        ["x: Int64", "y: Int64", "z: Float64"]
    );
    let column = |name: &str| {
        let formatted = arrow::util::display::FormatOptions::new().with_null("-");
        let column = all.column_by_name(name).unwrap();
        let formatter =
            arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &formatted).unwrap();
        (0..column.len())
            .map(|row| formatter.value(row).to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        [column("x"), column("y"), column("z")],
        ["1 3 4", "2 - -", "- 1.5 -"]
    );
}

#[test]
fn file_that_shares_no_column_or_is_truncated_is_one_reject() {
    let folder = folder(&[
        ("a.csv", "x,y\n1,2\n"),
        ("b.csv", "u;v\n1;2\n3;4\n"),
        ("c.csv", "y\n"),
        ("d.csv", "y,x\n6,5\n"),
    ]);
    let batches = read::<CsvSourceConfig>(options(&folder, json!({})), 10);
    assert_eq!(
        records(&batches)["x"].as_primitive::<Int64Type>().values(),
        &[1, 5]
    );
    let rejects: Vec<_> = batches.iter().flat_map(|batch| &batch.rejects).collect();
    let found: Vec<_> = rejects
        .iter()
        .map(|reject| (reject.code.as_str(), reject.records, reject.reason.as_str()))
        .collect();
    let expected = [
        (
            "mismatch",
            2,
            "b.csv: has none of the columns of the other files; correct its header or its \
             delimiter, or read it with a separate source",
        ),
        (
            "mismatch",
            1,
            "c.csv: has no records, and its header does not have column `x`, so it may be \
             truncated",
        ),
    ];
    assert_eq!(found, expected);
    let source = plan::<CsvSourceConfig>(options(&folder, json!({})), 10).unwrap();
    assert_eq!(
        source.plan_notes(),
        [format!(
            "{}; the records of the file are rejected",
            expected[0].2
        )]
    );
    let again = drain(source, &progress_of(&batches)).unwrap();
    assert!(again.is_empty(), "the rejects are committed");
}

#[test]
fn folders_of_hive_give_their_columns() {
    let folder = folder(&[]);
    for (part, text) in [("day=2024-01-01", "x\n1\n"), ("day=2024-01-02", "x\n2\n")] {
        std::fs::create_dir(folder.path().join(part)).unwrap();
        std::fs::write(folder.path().join(part).join("a.csv"), text).unwrap();
    }
    let all = records(&read::<CsvSourceConfig>(options(&folder, json!({})), 10));
    assert_eq!(types(&all.schema())[2..], ["x: Int64", "day: Date32"]);
    assert_eq!(
        all["day"].as_primitive::<Date32Type>().values(),
        &[19_723, 19_724]
    );
}

#[test]
fn types_hold_the_values_of_all_files() {
    let seconds = "2024-01-02 03:04:05";
    let later = format!(
        "0.5,{seconds}.987654,18446744073709551615,{seconds}\n9,2024-01-03,2,{seconds}+02:00\n"
    );
    let first = format!("1,{seconds},1,{seconds}Z\n").repeat(2000);
    let header = "n,t,u,z\n";
    let folder = folder(&[
        ("0.csv", header),
        ("a.csv", &format!("{header}{first}")),
        ("b.csv", &format!("{header}{later}")),
    ]);
    let batches = read::<CsvSourceConfig>(options(&folder, json!({})), 4096);
    assert!(rejects(&batches).is_empty());
    let all = records(&batches);
    let expected = ["n: Float64", "t: Timestamp(µs)", "u: UInt64", "z: Utf8"];
    assert_eq!(types(&all.schema())[2..], expected);
    assert_eq!(all["n"].as_primitive::<Float64Type>().value(2000), 0.5);
    assert_eq!(
        all["t"]
            .as_primitive::<TimestampMicrosecondType>()
            .value(2000),
        1_704_164_645_987_654
    );
    assert_eq!(all["u"].as_primitive::<UInt64Type>().value(2000), u64::MAX);
    assert_eq!(
        all["z"].as_string::<i32>().value(2001),
        "2024-01-02 03:04:05+02:00"
    );
}

#[test]
fn null_values_and_decimal_commas_are_read() {
    let folder = folder(&[("a.csv", "x;s\n1,5;NA\nNA;b\n 2 ;\n3.5;c\n")]);
    let more = json!({
        "delimiter": ";", "decimal": ",", "null_values": ["NA"], "types": { "x": "float" },
    });
    let batches = read::<CsvSourceConfig>(options(&folder, more), 10);
    let all = records(&batches);
    assert_eq!(
        all["x"]
            .as_primitive::<Float64Type>()
            .iter()
            .collect::<Vec<_>>(),
        [Some(1.5), None, Some(2.0)]
    );
    assert_eq!(
        all["s"].as_string::<i32>().iter().collect::<Vec<_>>(),
        [None, Some("b"), None]
    );
    assert_eq!(
        rejects(&batches),
        [(3, "malformed", Some("3.5;c".to_owned()))]
    );
}

#[test]
fn compressed_and_encoded_files_are_read_as_their_text() {
    let text = "x,s\n1,é\n2,€\n";
    let utf_16: Vec<u8> = std::iter::once(0xfeff)
        .chain(text.encode_utf16())
        .flat_map(u16::to_be_bytes)
        .collect();
    let folder = folder(&[("a.csv", text)]);
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("b.csv"), utf_16).unwrap();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let (header, rest) = text.split_at(6);
    let members = [gzip(header.as_bytes()), gzip(rest.as_bytes())].concat();
    std::fs::write(path("c.csv.gz"), &members).unwrap();
    std::fs::write(
        path("d.csv.zst"),
        zstd::encode_all(text.as_bytes(), 3).unwrap(),
    )
    .unwrap();
    std::fs::write(path("e.csv.gz"), &members[..members.len() - 9]).unwrap();
    let batches = read::<CsvSourceConfig>(options(&folder, json!({})), 10);
    let all = records(&batches);
    let values: Vec<_> = all["s"].as_string::<i32>().iter().flatten().collect();
    assert_eq!(values[..8], ["é", "€"].repeat(4));
    let last = batches.last().unwrap().rejects.last().unwrap();
    assert!(
        last.reason.contains(
            "the rest of the file is lost: the compressed content is damaged or truncated"
        ),
        "{}",
        last.reason
    );
    let windows = tempfile::tempdir().unwrap();
    std::fs::write(windows.path().join("a.csv"), b"x,s\n1,\xe9\n2,\x80\n").unwrap();
    let more = json!({ "encoding": "windows-1252" });
    let decoded = records(&read::<CsvSourceConfig>(options(&windows, more), 10));
    assert_eq!(
        decoded["s"]
            .as_string::<i32>()
            .iter()
            .flatten()
            .collect::<Vec<_>>(),
        ["é", "€"]
    );
}

#[test]
fn later_run_reads_only_uncommitted_batches() {
    let folder = folder(&[
        ("a.csv", &many(50, &[(13, "x,y")])),
        ("b.csv", &many(5, &[])),
    ]);
    let options = || {
        options(
            &folder,
            json!({ "types": { "id": "int", "half": "float" } }),
        )
    };
    let all = read::<CsvSourceConfig>(options(), 10);
    assert_eq!(all.len(), 6);
    let rest = drain(
        plan::<CsvSourceConfig>(options(), 10).unwrap(),
        &progress_of(&all[1..3]),
    )
    .unwrap();
    let names = |batches: &[crate::batch::SourceBatch]| -> Vec<String> {
        batches
            .iter()
            .map(|batch| format!("{:?}", batch.batch.provenance.ranges()[0].rows))
            .collect()
    };
    assert_eq!(names(&rest), ["0..10", "30..40", "40..50", "0..5"]);
    assert_eq!(rest[1].batch.records, all[3].batch.records);
}

#[test]
fn columns_without_a_header_have_given_or_numbered_names() {
    let folder = folder(&[("a.csv", "1;'a;b'\n2;c\n")]);
    let more = json!({ "header": false, "delimiter": ";", "quote": "'", "columns": ["n", "s"] });
    let given = records(&read::<CsvSourceConfig>(options(&folder, more), 10));
    assert_eq!(types(&given.schema())[2..], ["n: Int64", "s: Utf8"]);
    assert_eq!(given["s"].as_string::<i32>().value(0), "a;b");
    let numbered = records(&read::<CsvSourceConfig>(
        options(
            &folder,
            json!({ "header": false, "delimiter": ";", "quote": "'" }),
        ),
        10,
    ));
    assert_eq!(
        types(&numbered.schema())[2..],
        ["column_1: Int64", "column_2: Utf8"]
    );
}

#[test]
fn columns_aligned_with_spaces_are_read() {
    let folder = folder(&[("a.txt", "   1.0e+00  -1.5e-01\n  2.0e+00   3\n  x  4\n")]);
    let more = json!({
        "path": folder.path().join("a.txt"), "header": false, "delimiter": " ", "aligned": true,
        "types": { "column_1": "float" },
    });
    let batches = read::<CsvSourceConfig>(options(&folder, more), 10);
    let all = records(&batches);
    assert_eq!(
        all["column_1"].as_primitive::<Float64Type>().values(),
        &[1.0, 2.0]
    );
    assert_eq!(
        all["column_2"].as_primitive::<Float64Type>().values(),
        &[-0.15, 3.0]
    );
    assert_eq!(
        rejects(&batches),
        [(2, "malformed", Some("x 4".to_owned()))]
    );
}

#[test]
fn batches_are_limited_by_bytes() {
    let folder = folder(&[("a.csv", &many(100, &[]))]);
    let mut written = options(&folder, json!({}));
    let mut config: CsvSourceConfig = serde_json::from_value(written.take()).unwrap();
    let size = BatchSize {
        bytes: Some(crate::units::ByteSize(200)),
        ..BatchSize::default()
    };
    let context = PlanContext::new(
        BTreeMap::new(),
        crate::plan_context::PipelineLimits::default(),
    );
    let batches = drain(
        config.plan("in", size, &context).unwrap(),
        &ResumeState::default(),
    )
    .unwrap();
    assert!(batches.len() > 9, "{}", batches.len());
    assert_eq!(records(&batches).num_rows(), 100);
}

#[test]
fn faults_name_their_keys() {
    let folder = folder(&[("a.csv", "x,y\n1,2\n"), ("twice.txt", "x,x\n")]);
    assert_eq!(
        fault(&folder, json!({ "types": { "z": "int" } })),
        ["types.z: unknown column; known: x, y"]
    );
    let more = json!({
        "delimiter": "\n", "quote": "é", "columns": ["a"], "decimal": "x", "encoding": "utf-7",
    });
    assert_eq!(
        fault(&folder, more),
        [
            "delimiter: '\\n' is not supported; expected one ASCII character other than a \
             line end",
            "quote: 'é' is not supported; expected one ASCII character other than a line end",
            "columns: the header names the columns; remove `columns`, or set `header = false`",
            "decimal: 'x' is not supported; expected \".\" or \",\"",
            "encoding: `utf-7` is not a known encoding; expected utf-8, utf-16le, utf-16be, \
             latin1, windows-1252, or another label of the WHATWG Encoding Standard, such as \
             shift_jis",
        ]
    );
    let twice = json!({ "path": folder.path().join("twice.txt") });
    assert_eq!(
        fault(&folder, twice),
        ["path: no file can be read; twice.txt: duplicate column `x`; names must be unique"]
    );
    let none = json!({ "path": folder.path().join("*.nothing") });
    let none = fault(&folder, none).remove(0);
    assert!(
        none.starts_with("path: ") && none.contains("files scanned: 2; none matches"),
        "{none}"
    );
}
