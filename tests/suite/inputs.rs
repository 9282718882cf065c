//! Tests of input files that grow, change, are damaged or are skipped.
#![cfg(unix)]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::file::reader::FileReader as _;
use parquet::file::serialized_reader::SerializedFileReader;
use serde_json::{Value, json};

use crate::common::outputs::{self, data_files};
use crate::common::runs::{self, errors, latentflow};

const SIGABRT: i32 = 6;

/// A pipeline from files of `in` to `out` with small batches, each of which becomes a file.
fn pipeline(kind: &str, more: &str) -> String {
    format!(
        "workers = 2\n[stages.in]\nkind = \"{kind}\"\npath = \"in\"\nbatch.records = 10\n{more}\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\nfile.records = 10\n"
    )
}

/// Writes a file whose modification time is `clock` seconds after a fixed time.
fn write(folder: &Path, name: &str, text: &str, clock: u64) {
    let path = folder.join("in").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + clock);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

/// Numbers as CSV with long lines, so that a run reads only a few batches of the file ahead.
fn long_lines(numbers: std::ops::Range<u64>) -> String {
    numbers
        .map(|n| format!("{n},{}\n", "x".repeat(20_000)))
        .collect()
}

/// The numbers of the output, sorted.
fn numbers(folder: &Path) -> Vec<u64> {
    let records = outputs::records(&folder.join("out"), &["n"]);
    let mut numbers: Vec<u64> = outputs::ids(&records)
        .iter()
        .map(|n| n.parse().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

fn stage<'a>(summary: &'a Value, name: &str) -> &'a Value {
    summary["stages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|stage| stage["name"] == name)
        .unwrap()
}

fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", errors(output));
}

#[test]
fn records_of_a_growing_file_are_read_once_despite_kills() {
    if !cfg!(debug_assertions) {
        eprintln!("skipped: only debug builds have crash points");
        return;
    }
    for (step, passing) in [
        ("input-begun", 1),
        ("input-begun", 9),
        ("durable", 2),
        ("durable", 9),
        ("input-recorded", 1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("p.toml"), pipeline("csv", "")).unwrap();
        // The other files are read before or after the growing one.
        write(folder, "a.csv", "n,t\n1000000,x\n", 0);
        let mut end = 0;
        for generation in 1..=3 {
            end += 150;
            write(
                folder,
                "b.csv",
                &format!("n,t\n{}", long_lines(0..end)),
                generation,
            );
            write(
                folder,
                "c.csv",
                &format!("n,t\n{}\n", 1_000_000 + generation),
                0,
            );
            let killed = latentflow(folder, &["run", "p.toml"])
                .env("LATENTFLOW_CRASH_AT", format!("{step}:{passing}"))
                .output()
                .unwrap();
            assert_eq!(
                killed.status.signal(),
                Some(SIGABRT),
                "{step}:{passing}: {}",
                errors(&killed)
            );
        }
        let (output, _) = runs::run(folder, &pipeline("csv", ""), &[]);
        assert_code(&output, 0);
        let found: Vec<u64> = numbers(folder)
            .into_iter()
            .filter(|&n| n < 1_000_000)
            .collect();
        assert_eq!(found, (0..end).collect::<Vec<_>>(), "{step}:{passing}");
        let (repeated, summary) = runs::run(folder, &pipeline("csv", ""), &[]);
        assert_code(&repeated, 0);
        assert_eq!(summary["records"], 0, "{step}:{passing}");
    }
}

#[test]
fn changed_file_is_read_with_a_warning_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (default, refuse) = (
        pipeline("ndjson", ""),
        pipeline("ndjson", "on_change = \"refuse\"\n"),
    );
    write(folder, "a.ndjson", "{\"n\": 1}\n{\"n\": 2}\n", 0);
    assert_code(&runs::run(folder, &default, &[]).0, 0);
    write(
        folder,
        "a.ndjson",
        "{\"n\": 1}\n{\"n\": 2}\n{\"n\": 3}\n",
        1,
    );
    let (grown, grown_summary) = runs::run(folder, &refuse, &[]);
    assert_code(&grown, 0);
    assert_eq!(
        (&grown_summary["records"], &grown_summary["done_before"]),
        (&json!(1), &json!(2))
    );
    write(
        folder,
        "a.ndjson",
        "{\"n\": 1}\n{\"n\": 5}\n{\"n\": 3}\n",
        2,
    );
    for command in ["check", "run"] {
        let refused = latentflow(folder, &[command, "p.toml"]).output().unwrap();
        assert_code(&refused, 2);
        assert!(
            errors(&refused).contains("in: a.ndjson: has changed since an earlier run read it"),
            "{}",
            errors(&refused)
        );
    }
    let (output, summary) = runs::run(folder, &default, &[]);
    assert_code(&output, 0);
    assert!(
        errors(&output).contains("its earlier rows stay in the output"),
        "{}",
        errors(&output)
    );
    assert_eq!(summary["records"], 3);
    assert_eq!(numbers(folder), [1, 1, 2, 3, 3, 5]);
}

#[test]
fn reset_removes_the_file_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "a.csv", "n\n1\n2\n", 0);
    assert_code(&runs::run(folder, &pipeline("csv", ""), &[]).0, 0);
    assert!(folder.join("out/_latentflow/inputs/in.ndjson").exists());
    assert_code(
        &latentflow(folder, &["reset", "p.toml", "--yes"])
            .output()
            .unwrap(),
        0,
    );
    assert!(!folder.join("out/_latentflow/inputs/in.ndjson").exists());
    write(folder, "a.csv", "n\n1\n2\n3\n", 1);
    assert_code(&runs::run(folder, &pipeline("csv", ""), &[]).0, 0);
    assert_eq!(numbers(folder), [1, 2, 3]);
}

/// Writes a table with row groups of 1,000 rows, the second of which is damaged.
fn damaged_table(folder: &Path, rows: i64) {
    fs::create_dir_all(folder.join("in")).unwrap();
    let path = folder.join("in/a.parquet");
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(1000));
    let mut writer = ArrowWriter::try_new(
        File::create(&path).unwrap(),
        batch.schema(),
        Some(properties.build()),
    )
    .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    let (start, length) = reader.metadata().row_group(1).column(0).byte_range();
    let mut bytes = fs::read(&path).unwrap();
    bytes[start as usize..(start + length) as usize].fill(0xff);
    fs::write(&path, bytes).unwrap();
}

#[test]
fn rejected_row_group_counts_as_all_of_its_records() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    damaged_table(folder, 4000);
    let with_share =
        |share: &str| format!("rejects.max_share = {share}\n{}", pipeline("parquet", ""));
    let (output, summary) = runs::run(folder, &with_share("0.3"), &["--limit", "1500"]);
    assert_code(&output, 3);
    assert_eq!(
        (&summary["records"], &summary["rejects"]),
        (&json!(1500), &json!(500))
    );
    let (resumed_output, resumed) = runs::run(folder, &with_share("0.3"), &[]);
    assert_code(&resumed_output, 0);
    let source = stage(&resumed, "in");
    assert_eq!(
        (
            &source["records_in"],
            &source["records_out"],
            &source["rejects"]
        ),
        (&json!(2500), &json!(2000), &json!(500))
    );
    assert_eq!(source["rejects_by_reason"], json!({ "malformed": 500 }));
    let rejects = outputs::records(&folder.join("out/_latentflow/rejects"), &["row", "records"]);
    assert_eq!(outputs::ids(&rejects), ["1000 500", "1500 500"]);
    assert!(!data_files(&folder.join("out")).is_empty());
}

#[test]
fn run_ends_once_damaged_row_groups_exceed_the_share() {
    let folder = tempfile::tempdir().unwrap();
    damaged_table(folder.path(), 4000);
    let text = format!("rejects.max_share = 0.24\n{}", pipeline("parquet", ""));
    let (output, summary) = runs::run(folder.path(), &text, &[]);
    assert_code(&output, 3);
    assert_eq!(summary["rejects"], 1000);
}

#[test]
fn skipped_files_are_counted_by_check_and_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for name in ["a.pgm", "_DSC1.PGM"] {
        write(folder, name, "P5 1 1 255\n0", 0);
    }
    for name in [
        "b.heic",
        "c.HEIC",
        "d.mov",
        ".hidden.pgm",
        "_SUCCESS",
        "_temporary/e.pgm",
    ] {
        write(folder, name, "x", 0);
    }
    symlink("a.pgm", folder.join("in/link.pgm")).unwrap();
    let expected = "2 .heic, 1 .mov, 1 hidden (a name begins with `.`), \
         2 not data by convention (a name begins with `_`), \
         1 symbolic link (follow_links = true follows it)";
    let (output, summary) = runs::run(folder, &pipeline("images", ""), &[]);
    assert_code(&output, 0);
    assert_eq!(summary["records"], 2);
    let counts = json!({
        "extensions": { ".heic": 2, ".mov": 1 },
        "hidden": 1,
        "underscore": 2,
        "links": 1,
    });
    assert_eq!(stage(&summary, "in")["passed_over"], counts);
    assert!(
        errors(&output).contains(&format!(
            "the source skips files stage=\"in\" skipped={expected}"
        )),
        "{}",
        errors(&output)
    );
    let checked = latentflow(folder, &["check", "p.toml"]).output().unwrap();
    let plan = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(plan.contains(&format!("  skips {expected}\n")), "{plan}");
    let table = latentflow(folder, &["run", "p.toml"]).output().unwrap();
    assert!(
        errors(&table).contains(&format!("skipped by in: {expected}\n")),
        "{}",
        errors(&table)
    );
}

#[test]
fn variants_of_jpeg_png_and_bmp_are_read_by_first_frame() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir_all(folder.join("in")).unwrap();
    let image = image::GrayImage::from_pixel(2, 2, image::Luma([10]));
    let jpeg = ["jpe", "jfif", "jfi", "jif", "pjpeg", "pjp"];
    for (extensions, format) in [
        (jpeg.as_slice(), image::ImageFormat::Jpeg),
        (&["dib"], image::ImageFormat::Bmp),
    ] {
        for extension in extensions {
            image
                .save_with_format(folder.join("in").join(format!("a.{extension}")), format)
                .unwrap();
        }
    }
    let mut encoder = png::Encoder::new(File::create(folder.join("in/a.apng")).unwrap(), 2, 2);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[10; 4]).unwrap();
    writer.write_image_data(&[200; 4]).unwrap();
    writer.finish().unwrap();
    let pixels = "[stages.px]\nkind = \"pixels\"\ninputs = [\"in\"]\nsize = [2, 2]\n\
                  channels = \"gray\"\nrange = [0, 255]\n";
    let text = pipeline("images", "").replace("inputs = [\"in\"]", "inputs = [\"px\"]") + pixels;
    let (output, summary) = runs::run(folder, &text, &[]);
    assert_code(&output, 0);
    assert_eq!(
        (&summary["records"], &summary["rejects"]),
        (&json!(8), &json!(0))
    );
    for file in data_files(&folder.join("out")) {
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(
            File::open(file).unwrap(),
        );
        for batch in reader.unwrap().build().unwrap().map(Result::unwrap) {
            let tensors =
                arrow::array::AsArray::as_fixed_size_list(batch.columns().last().unwrap().as_ref());
            let values = arrow::array::AsArray::as_primitive::<arrow::datatypes::Float32Type>(
                tensors.values().as_ref(),
            );
            assert!(
                values
                    .values()
                    .iter()
                    .all(|&value| (value - 10.0).abs() < 3.0),
                "{values:?}"
            );
        }
    }
}

#[test]
fn touched_shard_is_not_read_again_but_a_changed_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir_all(folder.join("in")).unwrap();
    let shard = |values: &[u8]| {
        let mut shard = tar::Builder::new(File::create(folder.join("in/a.tar")).unwrap());
        for (number, value) in values.iter().enumerate() {
            let image = [b"P5 1 1 255\n".as_slice(), &[*value]].concat();
            let mut header = tar::Header::new_gnu();
            header.set_size(image.len() as u64);
            shard
                .append_data(&mut header, format!("{number}.pgm"), image.as_slice())
                .unwrap();
        }
        shard.finish().unwrap();
    };
    let touch = |clock: u64| {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(clock);
        File::options()
            .write(true)
            .open(folder.join("in/a.tar"))
            .unwrap()
            .set_modified(time)
            .unwrap();
    };
    let text = pipeline("tar", "");
    let assert_read = |records: u64| {
        let (output, summary) = runs::run(folder, &text, &[]);
        assert_code(&output, 0);
        assert_eq!(summary["records"], records, "{}", errors(&output));
    };
    shard(&[1, 2, 3]);
    assert_read(3);
    touch(1000);
    assert_read(0);
    shard(&[1, 2, 3, 4]);
    assert_read(4);
    let (output, _) = runs::run(folder, &pipeline("tar", "on_change = \"refuse\"\n"), &[]);
    assert_code(&output, 0);
    shard(&[5, 2, 3, 4]);
    touch(2000);
    for command in ["check", "run"] {
        assert_code(
            &latentflow(folder, &[command, "p.toml"]).output().unwrap(),
            2,
        );
    }
}

#[test]
fn missing_listed_image_is_read_once_it_returns() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("p.toml"), pipeline("images", "")).unwrap();
    for (clock, name) in ["a/1.pgm", "b/2.pgm", "b/3.pgm"].into_iter().enumerate() {
        write(folder, name, "P5 1 1 255\n0", clock as u64);
    }
    let run = |more: &[&str]| {
        let arguments = [&["run", "p.toml", "--summary", "json"], more].concat();
        let output = latentflow(folder, &arguments).output().unwrap();
        assert_code(&output, 0);
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        let source = stage(&summary, "in");
        (
            source["records_out"].as_u64().unwrap(),
            source["rejects"].as_u64().unwrap(),
        )
    };
    assert_eq!(run(&["--limit", "1"]), (1, 0));
    fs::rename(folder.join("in/b"), folder.join("away")).unwrap();
    assert_eq!(run(&[]), (0, 2));
    assert_eq!(run(&[]), (0, 0));
    fs::rename(folder.join("away"), folder.join("in/b")).unwrap();
    assert_eq!(run(&[]), (2, 0), "the restored images are read");
    assert_eq!(run(&[]), (0, 0));
    let records = outputs::records(&folder.join("out"), &["source"]);
    assert_eq!(records.len(), 3, "{records:?}");
}

#[test]
fn sink_whose_files_would_be_input_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir_all(folder.join("in/sub")).unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let records = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let file = File::create(folder.join("in/part-00007.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, records.schema(), None).unwrap();
    writer.write(&records).unwrap();
    writer.close().unwrap();
    let check = |source: &str, sink: &str, rejects: &str| {
        let text = format!(
            "[stages.in]\nkind = \"parquet\"\npath = \"{source}\"\n\
             [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"{sink}\"\n[rejects]\n\
             path = \"{rejects}\"\n"
        );
        fs::write(folder.join("p.toml"), text).unwrap();
        let output = latentflow(folder, &["check", "p.toml"]).output().unwrap();
        (output.status.code().unwrap(), errors(&output))
    };
    for (source, sink) in [
        ("in", "in"),
        ("in", "in/sub/out"),
        ("in", "./in/../in/out"),
        ("in/*.parquet", "in"),
    ] {
        let (code, text) = check(source, sink, "rejects");
        assert!(
            code == 2 && text.contains("is in the folder that the source `in` reads"),
            "{source}, {sink}: {text}"
        );
    }
    let (refused_code, refusal) = check("in", "out", "in/rejects");
    assert!(
        refused_code == 2 && refusal.contains("rejects.path"),
        "{refusal}"
    );
    for (source, sink) in [
        ("in", "out"),
        ("in", "in/_out"),
        ("in/part-00007.parquet", "in"),
        ("in/*7.parquet", "in/sub"),
    ] {
        let (code, text) = check(source, sink, "rejects");
        assert_eq!(code, 0, "{source}, {sink}: {text}");
    }
}
