//! Tests of CSV and NDJSON with endless lines, unclosed quotes, deep nesting, or binary content.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use super::run::{RunResult, run};

fn read(folder: &Path, kind: &str, file: &str, options: &str) -> RunResult {
    let pipeline = format!(
        "[limits]\nrecord_bytes = \"1MiB\"\nmemory = \"256MiB\"\n\
         [stages.in]\nkind = \"{kind}\"\npath = \"{file}\"\n{options}\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n\
         [rejects]\npath = \"bad\"\n"
    );
    run(folder, &pipeline, &[])
}

fn rows(result: &RunResult) -> Vec<(u64, &str)> {
    result
        .rejects
        .iter()
        .map(|reject| (reject.row, reject.code.as_str()))
        .collect()
}

#[test]
fn endless_line_is_one_reject_within_bounded_memory() {
    for (kind, file, start, end) in [
        ("csv", "in.csv", "a,b\n1,x\n", "\n2,y\n"),
        ("csv", "in.csv", "a,b\n1,x\n", ""),
        ("csv", "in.csv", "a,b\n1,x\n2,\"", ""),
        (
            "ndjson",
            "in.ndjson",
            "{\"a\": 1}\n{\"a\": \"",
            "\"}\n{\"a\": 2}\n",
        ),
        ("ndjson", "in.ndjson", "{\"a\": 1}\n{\"a\": ", ""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut input = File::create(folder.path().join(file)).unwrap();
        input.write_all(start.as_bytes()).unwrap();
        (0..50).for_each(|_| input.write_all(&[b'7'; 1 << 20]).unwrap());
        input.write_all(end.as_bytes()).unwrap();
        let result = read(folder.path(), kind, file, "types = { a = \"int\" }");
        result.assert_complete();
        assert_eq!(
            rows(&result),
            [(1, "too_large")],
            "{kind} {start:?} {end:?}"
        );
        assert_eq!(result.written, 1 + u64::from(!end.is_empty()));
        result.assert_memory_within(128);
    }
}

#[test]
fn endless_header_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("in.csv"), vec![b'a'; 2 << 20]).unwrap();
    let result = read(folder.path(), "csv", "in.csv", "");
    assert_eq!(result.code, Some(2));
    assert!(
        result.log.contains(
            "invalid header: it exceeds limits.record_bytes, or the file ends inside a quoted value"
        ),
        "{}",
        result.log
    );
    fs::write(folder.path().join("in.csv"), ",".repeat(1 << 19)).unwrap();
    let wide = read(folder.path(), "csv", "in.csv", "");
    assert_eq!(wide.code, Some(2));
    assert!(wide.log.len() < 1000, "{}", wide.log.len());
    wide.assert_memory_within(512);
}

#[test]
fn malformed_csv_lines_are_rejects() {
    let folder = tempfile::tempdir().unwrap();
    let lines: [&[u8]; 9] = [
        b"1,x",
        b"2",
        b"3,y,z",
        b"4,\xff\xfe",
        b"5,\0\0",
        b"\0",
        b"99999999999999999999,x",
        b"7,\"a \"\" b\"",
        b"8,\"never closed",
    ];
    fs::write(
        folder.path().join("in.csv"),
        [b"a,b\n".as_slice(), &lines.join(&b"\n"[..])].concat(),
    )
    .unwrap();
    let result = read(
        folder.path(),
        "csv",
        "in.csv",
        "types = { a = \"int\", b = \"string\" }",
    );
    result.assert_complete();
    assert_eq!(result.records, 9);
    let expected = [1, 2, 3, 5, 6, 8].map(|row| (row, "malformed"));
    assert_eq!(rows(&result), expected, "{:?}", result.rejects);
    assert!(
        result
            .rejects
            .iter()
            .all(|reject| !reject.reason.is_empty()),
        "{:?}",
        result.rejects
    );
}

#[test]
fn unclosed_quote_rejects_the_rest_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let rest = "2,y\n".repeat(1 << 19);
    fs::write(
        folder.path().join("in.csv"),
        format!("a,b\n1,x\n2,\"y\n{rest}"),
    )
    .unwrap();
    let result = read(folder.path(), "csv", "in.csv", "");
    result.assert_complete();
    assert_eq!(rows(&result), [(1, "too_large")]);
    assert!(
        result.rejects[0]
            .reason
            .contains("the rest of the file is lost"),
        "{}",
        result.rejects[0].reason
    );
    result.assert_memory_within(256);
}

#[test]
fn lines_in_a_long_quoted_value_are_not_records() {
    let folder = tempfile::tempdir().unwrap();
    let mut input = File::create(folder.path().join("in.csv")).unwrap();
    input.write_all(b"a,b\n1,x\n2,\"").unwrap();
    (0..20).for_each(|_| {
        input
            .write_all(&[[b'7'; 1 << 20].as_slice(), b"\n"].concat())
            .unwrap()
    });
    input.write_all(b"8,evil\n9,evil\n\"\n3,y\n").unwrap();
    let result = read(folder.path(), "csv", "in.csv", "types = { a = \"int\" }");
    result.assert_complete();
    assert_eq!((rows(&result), result.written), (vec![(1, "too_large")], 2));
    result.assert_memory_within(128);
}

#[test]
fn malformed_ndjson_lines_are_rejects() {
    let folder = tempfile::tempdir().unwrap();
    let deep = format!("{{\"a\": {}", "[".repeat(100_000));
    let closed = format!(
        "{{\"a\": {}{}}}",
        "{\"a\":".repeat(100_000),
        "}".repeat(100_000)
    );
    let digits = format!("{{\"a\": {}}}", "9".repeat(100_000));
    let exponent = "{\"a\": 1e999999999}";
    let keys = format!(
        "{{{}}}",
        (0..50_000)
            .map(|n| format!("\"k{n}\":1"))
            .collect::<Vec<_>>()
            .join(",")
    );
    let valid = "{\"a\": 1}";
    let lines = [
        valid,
        &deep,
        &closed,
        &digits,
        exponent,
        "[1]",
        "null",
        "7",
        "{\"a\": 1",
        "{\"a\": \u{0}}",
        "{}{}",
        &keys,
        "{\"a\": 1, \"a\": 2}",
        valid,
    ];
    fs::write(folder.path().join("in.ndjson"), lines.join("\n")).unwrap();
    let result = read(
        folder.path(),
        "ndjson",
        "in.ndjson",
        "types = { a = \"int\" }",
    );
    result.assert_complete();
    assert_eq!(result.records, 14);
    let expected = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12].map(|row| (row, "malformed"));
    // A duplicate key counts once, as in common JSON parsers; keys without a column are skipped.
    assert_eq!(rows(&result), expected, "{:?}", result.rejects);
    assert!(
        result
            .rejects
            .iter()
            .all(|reject| reject.reason.len() < 1000)
    );
    result.assert_memory_within(256);
}

#[test]
fn binary_content_is_refused_or_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(1 << 20)
    .collect();
    for (kind, file) in [("csv", "in.csv"), ("ndjson", "in.ndjson")] {
        for bytes in [
            noise.as_slice(),
            &[0; 1 << 20],
            b"",
            b"\xef\xbb\xbf",
            b"\n\n\n",
            b"\"",
            b"{",
        ] {
            fs::write(folder.path().join(file), bytes).unwrap();
            let _ = fs::remove_dir_all(folder.path().join("out"));
            let _ = fs::remove_dir_all(folder.path().join("bad"));
            let result = read(folder.path(), kind, file, "");
            match result.code {
                Some(2) => assert!(result.log.contains("stages.in.path"), "{}", result.log),
                _ => result.assert_complete(),
            }
            result.assert_memory_within(256);
        }
    }
}
