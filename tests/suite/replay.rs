//! Tests of the source `rejects`: stored originals are processed again by a corrected pipeline.

use std::fs::File;
use std::path::Path;

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::UInt64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::common::outputs::data_files;
use crate::common::runs::{self, errors, latentflow};

fn run(folder: &Path, pipeline: &str) -> (Option<i32>, Value, String) {
    let (output, summary) = runs::run(folder, pipeline, &[]);
    (output.status.code(), summary, errors(&output))
}

fn sink(input: &str, path: &str) -> String {
    format!(
        "[stages.out]\nkind = \"parquet\"\ninputs = [\"{input}\"]\npath = \"{path}\"\n[rejects]\n\
         path = \"{path}-rejects\"\n"
    )
}

fn written(summary: &Value) -> &Value {
    let stages = summary["stages"].as_array().unwrap();
    &stages.iter().find(|stage| stage["name"] == "out").unwrap()["written"]["records"]
}

#[test]
fn too_large_images_are_replayed_with_a_higher_limit() {
    let folder = tempfile::tempdir().unwrap();
    let pixels = |size| {
        format!("[stages.pixels]\nkind = \"pixels\"\ninputs = [\"in\"]\nsize = [{size}, {size}]\n")
    };
    let source_images =
        "[stages.in]\nkind = \"synthetic\"\ncontent = \"images\"\nrecords = 70\nsize = [16, 16]\n";
    let photos = "[stages.out]\nkind = \"images\"\ninputs = [\"pixels\"]\npath = \"photos\"\n";
    assert_eq!(
        run(
            folder.path(),
            &format!("{source_images}{}{photos}", pixels(16))
        )
        .0,
        Some(0)
    );
    let source = "[stages.in]\nkind = \"images\"\npath = \"photos\"\n";
    let strict = format!(
        "limits.pixels = 100\n{source}{}{}",
        pixels(8),
        sink("pixels", "first")
    );
    let (strict_code, strict_summary, strict_text) = run(folder.path(), &strict);
    assert_eq!(
        (strict_code, &strict_summary["rejects"]),
        (Some(0), &70.into()),
        "{strict_text}"
    );
    let pixels = pixels(8);
    let replay = |path: &str| {
        format!(
            "[stages.in]\nkind = \"rejects\"\npath = \"first-rejects\"\n{pixels}{}",
            sink("pixels", path)
        )
    };
    let (code, summary, text) = run(folder.path(), &replay("second"));
    assert_eq!(
        (code, &summary["rejects"], written(&summary)),
        (Some(0), &0.into(), &70.into()),
        "{text}"
    );
    let (_, again, _) = run(folder.path(), &replay("second"));
    assert_eq!(again["records"], 0, "each reject is replayed once");
}

#[test]
fn replayed_records_have_all_columns() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("in.csv"),
        "a,b,name\n1.5,2,x\nNaN,3,y\n2.5,oops,z\n,4,w\ninf,5,v\n",
    )
    .unwrap();
    let source = "[stages.in]\nkind = \"csv\"\npath = \"in.csv\"\n\
                  types = { a = \"float\", b = \"int\", name = \"string\" }\n";
    let features =
        "[stages.features]\nkind = \"features\"\ninputs = [\"in\"]\ncolumns = [\"a\", \"b\"]\n";
    let (code, summary, text) = run(
        folder.path(),
        &format!("{source}{features}{}", sink("features", "first")),
    );
    assert_eq!(
        (code, &summary["rejects"], written(&summary)),
        (Some(0), &4.into(), &1.into()),
        "{text}"
    );
    let replay = "[stages.again]\nkind = \"rejects\"\npath = \"first-rejects\"\n";
    let print = "[stages.out]\nkind = \"stdout\"\ninputs = [\"again\"]\n";
    std::fs::write(folder.path().join("q.toml"), format!("{replay}{print}")).unwrap();
    let output = latentflow(folder.path(), &["run", "q.toml", "--summary", "none"])
        .output()
        .unwrap();
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = "{\"source\":\"in.csv\",\"row\":1,\"a\":null,\"b\":3,\"name\":\"y\"}\n\
                    {\"source\":\"in.csv\",\"row\":3,\"a\":null,\"b\":4,\"name\":\"w\"}\n\
                    {\"source\":\"in.csv\",\"row\":4,\"a\":null,\"b\":5,\"name\":\"v\"}\n";
    assert_eq!(lines, expected, "{}", errors(&output));
    // The line that the source could not parse stays a reject with its bytes and its source.
    let (_, replayed, replayed_text) = run(
        folder.path(),
        &format!("{replay}{}", sink("again", "second")),
    );
    assert_eq!(
        (&replayed["rejects"], written(&replayed)),
        (&1.into(), &3.into()),
        "{replayed_text}"
    );
}

#[test]
fn text_that_does_not_fit_its_type_is_replayed_with_types() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.csv", "s;x\n'a;b';1\nb;2,5\nNA;3,25\nd;x\n");
    write("b.csv", "x;s\n4,5;e\n");
    write(
        "c.ndjson",
        "{\"x\": 1, \"s\": \"a\"}\n{\"s\": \"b\", \"x\": 2.5}\n{\"x\": {}}\n",
    );
    let csv = "[stages.in]\nkind = \"csv\"\npath = \"*.csv\"\ndelimiter = \";\"\nquote = \"'\"\n\
               decimal = \",\"\nnull_values = [\"NA\"]\ntypes = { x = \"int\" }\n";
    let ndjson = "[stages.in]\nkind = \"ndjson\"\npath = \"c.ndjson\"\ntypes = { x = \"int\" }\n";
    for (name, source, rejected, expected) in [
        (
            "csv",
            csv,
            4,
            "{\"source\":\"a.csv\",\"row\":1,\"s\":\"b\",\"x\":2.5}\n\
             {\"source\":\"a.csv\",\"row\":2,\"s\":null,\"x\":3.25}\n\
             {\"source\":\"b.csv\",\"row\":0,\"s\":\"e\",\"x\":4.5}\n",
        ),
        (
            "ndjson",
            ndjson,
            2,
            "{\"source\":\"c.ndjson\",\"row\":1,\"s\":\"b\",\"x\":2.5}\n",
        ),
    ] {
        let (code, summary, text) = run(folder.path(), &format!("{source}{}", sink("in", name)));
        assert_eq!(
            (code, &summary["rejects"]),
            (Some(0), &rejected.into()),
            "{text}"
        );
        assert!(
            text.contains("types = { x = ") && text.contains("does not hold their values"),
            "{text}"
        );
        let replay = format!(
            "[stages.again]\nkind = \"rejects\"\npath = \"{name}-rejects\"\n\
             types = {{ x = \"float\" }}\n\
             [stages.out]\nkind = \"stdout\"\ninputs = [\"again\"]\n"
        );
        std::fs::write(folder.path().join("q.toml"), replay).unwrap();
        let output = latentflow(folder.path(), &["run", "q.toml", "--summary", "none"])
            .output()
            .unwrap();
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(lines, expected, "{}", errors(&output));
    }
}

#[test]
fn rejects_of_several_sources_require_from() {
    let folder = tempfile::tempdir().unwrap();
    for (name, row) in [("a", "NaN"), ("b", "inf")] {
        std::fs::write(
            folder.path().join(format!("{name}.csv")),
            format!("x\n1\n{row}\n"),
        )
        .unwrap();
    }
    let source = |name: &str| {
        format!(
            "[stages.{name}]\nkind = \"csv\"\npath = \"{name}.csv\"\ntypes = {{ x = \"float\" }}\n"
        )
    };
    let features =
        "[stages.features]\nkind = \"features\"\ninputs = [\"a\", \"b\"]\ncolumns = [\"x\"]\n";
    let pipeline = format!(
        "{}{}{features}{}",
        source("a"),
        source("b"),
        sink("features", "first")
    );
    assert_eq!(run(folder.path(), &pipeline).1["rejects"], 2);
    let replay = |more: &str| {
        format!(
            "[stages.again]\nkind = \"rejects\"\npath = \"first-rejects\"\n{more}{}",
            sink("again", "second")
        )
    };
    let (refused_code, _, refusal) = run(folder.path(), &replay(""));
    assert_eq!(refused_code, Some(2));
    assert!(
        refusal.contains(
            "stages.again.from: is missing; the dataset contains rejects of several sources: a, b"
        ),
        "{refusal}"
    );
    let (code, summary, text) = run(folder.path(), &replay("from = \"b\"\n"));
    assert_eq!((code, written(&summary)), (Some(0), &1.into()), "{text}");
}

/// The rows of a rejects dataset: source, row, code, and whether the original is stored.
fn originals(folder: &Path) -> Vec<(String, u64, String, bool)> {
    let mut rows = Vec::new();
    for path in data_files(folder) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap())
            .unwrap()
            .build()
            .unwrap();
        for batch in reader.map(Result::unwrap) {
            let text = |name: &str, row| batch[name].as_string::<i32>().value(row).to_owned();
            for row in 0..batch.num_rows() {
                let number = batch["row"].as_primitive::<UInt64Type>().value(row);
                assert_eq!(batch["record"].is_valid(row), batch["format"].is_valid(row));
                assert!(!text("reason", row).is_empty());
                rows.push((
                    text("source", row),
                    number,
                    text("code", row),
                    batch["record"].is_valid(row),
                ));
            }
        }
    }
    rows
}

/// Writes broken images that contain their names: `private/0` to `private/19` and `public/0` to
/// `public/19`.
fn broken_images(root: &Path) {
    for folder in ["private", "public"] {
        std::fs::create_dir_all(root.join("in").join(folder)).unwrap();
        for number in 0..20 {
            let name = root.join(format!("in/{folder}/{number}.png"));
            std::fs::write(name, format!("{folder} number {number} original content")).unwrap();
        }
    }
}

fn broken_pipeline(more: &str, out: &str) -> String {
    format!(
        "[stages.in]\nkind = \"images\"\npath = \"in\"\nbatch = {{ records = 8 }}\n\
         [stages.pixels]\nkind = \"pixels\"\ninputs = [\"in\"]\nsize = [8, 8]\n{}{more}",
        sink("pixels", out)
    )
}

/// Whether any file below `folder` contains `text`.
fn contains_text(folder: &Path, text: &str) -> bool {
    let files = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap)
        .filter(|e| e.file_type().is_file());
    let all: Vec<u8> = files
        .flat_map(|entry| std::fs::read(entry.path()).unwrap())
        .collect();
    all.windows(text.len())
        .any(|window| window == text.as_bytes())
}

fn purge(root: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = latentflow(root, &[&["rejects", "purge"], arguments].concat())
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        errors(&output),
    )
}

#[test]
fn rejects_without_originals_store_no_content() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    broken_images(root);
    assert_eq!(
        run(root, &broken_pipeline("record = false\n", "out")).1["rejects"],
        40
    );
    let rows = originals(&root.join("out-rejects"));
    assert_eq!(
        (rows.len(), rows.iter().filter(|row| row.3).count()),
        (40, 0)
    );
    assert!(!contains_text(
        &root.join("out-rejects"),
        "original content"
    ));
    // The same holds for lines that the source could not parse.
    std::fs::write(root.join("in.csv"), "a\n1\nsecret\n").unwrap();
    let csv = "[stages.in]\nkind = \"csv\"\npath = \"in.csv\"\ntypes = { a = \"int\" }\n";
    assert_eq!(
        run(root, &format!("{csv}{}record = false\n", sink("in", "csv"))).1["rejects"],
        1
    );
    assert!(!originals(&root.join("csv-rejects"))[0].3);
    let replay = format!(
        "[stages.in]\nkind = \"rejects\"\npath = \"out-rejects\"\n{}",
        sink("in", "again")
    );
    let (code, _, text) = run(root, &replay);
    assert!(
        code == Some(2) && text.contains("its original is not stored, because the source had none"),
        "{text}"
    );
}

#[test]
fn purge_removes_originals_and_keeps_the_other_rejects() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    broken_images(root);
    let pipeline = broken_pipeline("", "out");
    assert_eq!(run(root, &pipeline).1["rejects"], 40);
    let before = originals(&root.join("out-rejects"));
    let (refused_code, _, refusal) = purge(root, &["p.toml", "--source", "private/*"]);
    assert!(
        refused_code == Some(1) && refusal.contains("pass --yes"),
        "{refusal}"
    );
    assert_eq!(originals(&root.join("out-rejects")), before);
    let (code, stdout, text) = purge(root, &["p.toml", "--source", "private/*", "--yes"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(stdout.contains("removed: 20 originals"), "{stdout}");
    assert!(
        !contains_text(&root.join("out-rejects"), "private number"),
        "a purged original is still stored"
    );
    let expected = |row: &(String, u64, String, bool)| {
        (
            row.0.clone(),
            row.1,
            row.2.clone(),
            row.0.starts_with("public"),
        )
    };
    assert_eq!(
        originals(&root.join("out-rejects")),
        before.iter().map(expected).collect::<Vec<_>>()
    );
    let (rerun_code, rerun, rerun_text) = run(root, &pipeline);
    assert_eq!(
        (rerun_code, &rerun["records"], &rerun["rejects"]),
        (Some(0), &0.into(), &0.into()),
        "{rerun_text}"
    );
    let replay = format!(
        "[stages.again]\nkind = \"rejects\"\npath = \"out-rejects\"\n{}",
        sink("again", "second")
    );
    let (_, replayed, replayed_text) = run(root, &replay);
    assert_eq!(
        (&replayed["rejects"], written(&replayed)),
        (&20.into(), &20.into()),
        "{replayed_text}"
    );
    let (rest_code, rest_stdout, rest_text) =
        purge(root, &["out-rejects", "--before", "0s", "--yes"]);
    assert!(
        rest_code == Some(0) && rest_stdout.contains("removed: 20 originals"),
        "{rest_stdout} {rest_text}"
    );
    assert!(!contains_text(
        &root.join("out-rejects"),
        "original content"
    ));
    assert_eq!(run(root, &pipeline).1["records"], 0);
    for (arguments, exit, reason) in [
        (&["p.toml"][..], 2, "--before"),
        (&["p.toml", "--before", "soon"], 2, "`soon` is not a date"),
        (
            &["s3://bucket/rejects", "--before", "1d"],
            1,
            "s3://bucket/rejects: rejects in a bucket cannot be purged",
        ),
        (&["out", "--before", "1d", "--yes"], 0, ""),
        (&["nowhere", "--before", "1d"], 2, "nowhere"),
    ] {
        let (found, _, message) = purge(root, arguments);
        assert!(
            found == Some(exit) && message.contains(reason),
            "{arguments:?}: {found:?} {message}"
        );
    }
}

#[cfg(unix)]
#[test]
fn purge_that_crashes_at_any_step_is_completed() {
    use std::os::unix::process::ExitStatusExt as _;
    if !cfg!(debug_assertions) {
        eprintln!("skipped: only debug builds have crash points");
        return;
    }
    for step in [
        "written",
        "renamed",
        "atomic-renamed",
        "exchange-noted",
        "exchange-renamed",
        "exchange-cleared",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        broken_images(root);
        let pipeline = broken_pipeline("", "out");
        run(root, &pipeline);
        let before = originals(&root.join("out-rejects"));
        let mut command = latentflow(
            root,
            &[
                "rejects",
                "purge",
                "out-rejects",
                "--source",
                "private/*",
                "--yes",
            ],
        );
        let output = command
            .env("LATENTFLOW_CRASH_AT", format!("{step}:1"))
            .output()
            .unwrap();
        assert_eq!(
            output.status.signal(),
            Some(6),
            "the crash point `{step}` is not reached: {}",
            errors(&output)
        );
        // For half of the steps, a run comes before the next purge.
        if step.len() % 2 == 0 {
            assert_eq!(run(root, &pipeline).1["records"], 0, "{step}");
        }
        assert_eq!(
            purge(root, &["out-rejects", "--source", "private/*", "--yes"]).0,
            Some(0)
        );
        assert!(
            !contains_text(&root.join("out-rejects"), "private number"),
            "{step}"
        );
        let rows = originals(&root.join("out-rejects"));
        assert_eq!(
            (rows.len(), rows.iter().filter(|row| row.3).count()),
            (before.len(), 20),
            "{step}"
        );
        assert_eq!(run(root, &pipeline).1["records"], 0, "{step}");
    }
}
