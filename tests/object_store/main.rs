//! Tests of runs against stores over HTTP, S3-compatible and others: sources, sinks, kills and
//! errors.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod clouds;
mod fault_proxy;
mod faults;
mod gate;
mod inbox;
mod models;
mod server;
mod stand_in;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, UInt64Type};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use gate::Gate;
use server::{ACCESS_KEY, Bucket, SECRET, TOKEN};

/// A bucket of a test.
trait Store {
    /// The location of `key` in pipelines.
    fn url(&self, key: &str) -> String;
    /// The environment variables with which a process reaches the store.
    fn environment(&self) -> Vec<(&'static str, String)>;
    fn put(&self, key: &str, bytes: &[u8]);
    fn get(&self, key: &str) -> Vec<u8>;
    /// The keys that begin with `prefix`, in order.
    fn keys(&self, prefix: &str) -> Vec<String>;
    /// Whether the object may be the empty rest of an interrupted abort.
    fn is_aborted(&self, _key: &str) -> bool {
        false
    }
}

/// The binary, with the environment that it needs to reach the bucket.
fn latentflow(folder: &Path, bucket: &dyn Store, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentflow"));
    let runtime = Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime/onnxruntime");
    let library = std::fs::read_dir(runtime)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let library = library
        .filter(|path| path.to_string_lossy().contains("libonnxruntime."))
        .max()
        .unwrap();
    command
        .current_dir(folder)
        .args(arguments)
        .env("ORT_DYLIB_PATH", library)
        .env_remove("RUST_LOG");
    command.envs(bucket.environment());
    command
}

fn run(folder: &Path, bucket: &dyn Store, pipeline: &str, arguments: &[&str]) -> (Output, Value) {
    std::fs::write(folder.join("p.toml"), pipeline).unwrap();
    let arguments = [&["run", "p.toml", "--summary", "json"], arguments].concat();
    let output = latentflow(folder, bucket, &arguments).output().unwrap();
    let summary = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, summary)
}

fn start(folder: &Path, bucket: &dyn Store, pipeline: &str) -> Child {
    std::fs::write(folder.join("p.toml"), pipeline).unwrap();
    let mut command = latentflow(folder, bucket, &["run", "p.toml", "--summary", "none"]);
    // Few attempts, so that a lost store ends the run soon.
    command
        .env("AWS_MAX_ATTEMPTS", "4")
        .env("AZURE_MAX_ATTEMPTS", "4")
        .env("GOOGLE_MAX_ATTEMPTS", "4")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn assert_done(output: &Output) {
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A pipeline of `records` synthetic records of `width` numbers into the bucket.
fn numbers(bucket: &dyn Store, records: u32, width: u32, file: &str) -> String {
    format!(
        "[stages.in]\nkind = \"synthetic\"\ncontent = \"features\"\n\
         records = {records}\nwidth = {width}\n[stages.out]\nkind = \"parquet\"\n\
         inputs = [\"in\"]\npath = \"{}\"\nfile = {{ {file} }}\n",
        bucket.url("out")
    )
}

/// The records of the Parquet files whose keys begin with `prefix`; panics on a truncated file.
fn records(bucket: &dyn Store, prefix: &str) -> Option<RecordBatch> {
    let mut batches = Vec::new();
    for key in data_keys(bucket, prefix) {
        let bytes = Bytes::from(bucket.get(&key));
        assert!(
            bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"),
            "{key} is truncated"
        );
        batches.extend(
            ParquetRecordBatchReaderBuilder::try_new(bytes)
                .unwrap()
                .build()
                .unwrap()
                .map(Result::unwrap),
        );
    }
    let first = batches.first()?;
    Some(concat_batches(&first.schema(), &batches).unwrap())
}

fn data_keys(bucket: &dyn Store, prefix: &str) -> Vec<String> {
    let is_data =
        |key: &String| key.ends_with(".parquet") && !key[prefix.len()..].contains("_latentflow");
    let keys = bucket.keys(prefix).into_iter().filter(is_data);
    keys.filter(|key| !bucket.is_aborted(key)).collect()
}

fn column(records: &RecordBatch, name: &str) -> ArrayRef {
    records.column_by_name(name).unwrap().clone()
}

/// The rows in the bucket, sorted.
fn rows(bucket: &dyn Store, prefix: &str) -> Vec<u64> {
    let Some(records) = records(bucket, prefix) else {
        return Vec::new();
    };
    let mut rows = column(&records, "row")
        .as_primitive::<UInt64Type>()
        .values()
        .to_vec();
    rows.sort_unstable();
    rows
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let data = entries.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "parquet")
    });
    data.map(|path| {
        (
            path.file_name().unwrap().to_string_lossy().into_owned(),
            std::fs::read(&path).unwrap(),
        )
    })
    .collect()
}

#[test]
fn pipeline_between_buckets_equals_one_between_folders() {
    let Some(bucket) = Bucket::new("pipeline") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/photo-ae");
    let images = |out: &str| {
        format!(
            "[stages.in]\nkind = \"synthetic\"\ncontent = \"images\"\nrecords = 200\n\
             batch = {{ records = 32 }}\n\
             [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"{out}\"\n\
             file = {{ records = 64 }}\n"
        )
    };
    let latents = |from: &str, to: &str| {
        format!(
            "[models.photo]\npath = {models:?}\n[stages.photos]\nkind = \"parquet\"\n\
             path = \"{from}\"\n\
             [stages.pixels]\nkind = \"pixels\"\ninputs = [\"photos\"]\nmodel = \"photo\"\n\
             [stages.latents]\nkind = \"encode\"\ninputs = [\"pixels\"]\nmodel = \"photo\"\n\
             reconstruct = true\n\
             [stages.out]\nkind = \"parquet\"\ninputs = [\"latents\"]\npath = \"{to}\"\n\
             columns = [\"row\", \"latent\", \"reconstruction_error\"]\n"
        )
    };
    for (from, to) in [
        ("images".to_owned(), "latents".to_owned()),
        (bucket.url("images"), bucket.url("latents")),
    ] {
        assert_done(&run(folder.path(), &bucket, &images(&from), &[]).0);
        let (output, summary) = run(folder.path(), &bucket, &latents(&from, &to), &[]);
        assert_done(&output);
        assert_eq!(
            (&summary["records"], &summary["rejects"]),
            (&200.into(), &0.into())
        );
        let (rerun_output, rerun_summary) = run(folder.path(), &bucket, &latents(&from, &to), &[]);
        assert_done(&rerun_output);
        assert_eq!(
            (&rerun_summary["records"], &rerun_summary["done_before"]),
            (&0.into(), &200.into())
        );
    }
    let local = files(&folder.path().join("latents"))
        .into_values()
        .next()
        .unwrap();
    let local = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(local))
        .unwrap()
        .build()
        .unwrap();
    let local: Vec<RecordBatch> = local.map(Result::unwrap).collect();
    let local = concat_batches(&local[0].schema(), &local).unwrap();
    assert_eq!(
        records(&bucket, "latents/").unwrap().columns(),
        local.columns()
    );
    assert_eq!(data_keys(&bucket, "images/").len(), 4);
    assert!(data_keys(&bucket, "images/")[3].ends_with("part-00003-e000001.parquet"));

    let inspect = latentflow(folder.path(), &bucket, &["inspect", &bucket.url("latents")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&inspect.stdout).into_owned();
    assert!(text.contains("rows         200 in 1 file"), "{text}");
}

#[test]
fn runs_resume_and_reset_starts_from_the_beginning() {
    let Some(bucket) = Bucket::new("resume") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let pipeline = numbers(&bucket, 5000, 4, "records = 1000");
    for (arguments, expected) in [(&["--limit", "1500"][..], 1500), (&[], 3500), (&[], 0)] {
        let (output, summary) = run(folder.path(), &bucket, &pipeline, arguments);
        assert_done(&output);
        assert_eq!(summary["records"], expected);
    }
    assert_eq!(rows(&bucket, "out/"), (0..5000).collect::<Vec<_>>());
    assert_eq!(
        bucket.keys("out/_latentflow/epoch-"),
        ["out/_latentflow/epoch-000003"]
    );
    let other = pipeline.replace("width = 4", "width = 5");
    for (checked, expected) in [(&pipeline, Some(0)), (&other, Some(2))] {
        std::fs::write(folder.path().join("p.toml"), checked).unwrap();
        let check = latentflow(folder.path(), &bucket, &["check", "p.toml"])
            .output()
            .unwrap();
        assert_eq!(
            check.status.code(),
            expected,
            "{}",
            String::from_utf8_lossy(&check.stderr)
        );
    }
    assert_eq!(
        bucket.keys("out/_latentflow/epoch-"),
        ["out/_latentflow/epoch-000003"],
        "a check does not claim an epoch"
    );
    let (refused, _) = run(folder.path(), &bucket, &other, &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("latentflow reset"));

    std::fs::write(folder.path().join("p.toml"), &pipeline).unwrap();
    let reset = latentflow(folder.path(), &bucket, &["reset", "p.toml", "--yes"])
        .output()
        .unwrap();
    assert_done(&reset);
    assert!(rows(&bucket, "out/").is_empty());
    let (output, summary) = run(folder.path(), &bucket, &other, &[]);
    assert_done(&output);
    assert_eq!(summary["records"], 5000);
    assert!(
        data_keys(&bucket, "out/")[0].ends_with("-e000005.parquet"),
        "epochs must not be reused after a reset"
    );
}

/// The coverage snapshot holds rows that a filter drops, since no file covers them.
#[test]
fn filtered_rows_are_not_read_again() {
    let Some(bucket) = Bucket::new("markers") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let pipeline = format!(
        "[stages.in]\nkind = \"synthetic\"\ncontent = \"features\"\nrecords = 2000\n\
         [stages.few]\nkind = \"filter\"\ninputs = [\"in\"]\ncolumn = \"row\"\nbelow = 0\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"few\"]\npath = \"{}\"\n",
        bucket.url("out")
    );
    for (arguments, expected) in [(&["--limit", "600"][..], 600), (&[], 1400), (&[], 0)] {
        let (output, summary) = run(folder.path(), &bucket, &pipeline, arguments);
        assert_done(&output);
        assert_eq!(summary["records"], expected);
    }
    assert_eq!(
        bucket.keys("out/_latentflow/coverage").len(),
        1,
        "a newer coverage snapshot replaces an older one that it includes"
    );
}

#[test]
fn kills_lose_no_record_and_duplicate_none() {
    const ROWS: u32 = 600_000;
    let Some(bucket) = Bucket::new("kills") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    eprintln!("seed {seed}");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    // Files have several parts, so that kills hit uploads in all states.
    let pipeline = numbers(&bucket, ROWS, 64, "bytes = \"30MiB\"")
        + "row_group = { bytes = \"1MiB\" }\ncompression = \"none\"\n";
    let (mut kills, mut uploads) = (0, 0);
    for turn in 0..12 {
        let before = bucket.unfinished();
        let mut child = start(folder.path(), &bucket, &pipeline);
        // Every second kill waits for an upload, so that it hits one on machines of any speed.
        if turn % 2 == 0 {
            std::thread::sleep(Duration::from_millis(random.random_range(200..1500)));
        } else {
            while bucket.unfinished().is_subset(&before) && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(2));
            }
            std::thread::sleep(Duration::from_millis(random.random_range(0..100)));
        }
        kills += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        uploads += bucket.unfinished().difference(&before).count();
        let present = rows(&bucket, "out/");
        assert!(present.is_sorted_by(|a, b| a < b), "a row is duplicated");
    }
    assert!(kills > 0, "every run ended before its kill");
    assert!(uploads > 0, "no kill hit an upload");
    let (output, summary) = run(folder.path(), &bucket, &pipeline, &[]);
    assert_done(&output);
    assert_eq!(
        summary["done_before"].as_u64().unwrap() + summary["records"].as_u64().unwrap(),
        u64::from(ROWS)
    );
    assert_eq!(
        rows(&bucket, "out/"),
        (0..u64::from(ROWS)).collect::<Vec<_>>()
    );
    // An empty upload remains if its run was killed before it recorded the upload.
    assert!(
        bucket.keys("out/_latentflow/upload-").is_empty(),
        "expected recorded uploads to be aborted"
    );
}

/// Requires a debug build, which has crash points.
#[test]
fn crash_before_and_after_completion_loses_no_record() {
    let Some(bucket) = Bucket::new("crashes") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let pipeline = numbers(&bucket, 4000, 4, "records = 1000");
    std::fs::write(folder.path().join("p.toml"), &pipeline).unwrap();
    for (step, expected) in [("closed:2", 1), ("durable:1", 2), ("written:1", 2)] {
        let mut command = latentflow(
            folder.path(),
            &bucket,
            &["run", "p.toml", "--set", "stages.in.batch.records=500"],
        );
        let output = command.env("LATENTFLOW_CRASH_AT", step).output().unwrap();
        assert_eq!(
            output.status.code(),
            None,
            "{step}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(data_keys(&bucket, "out/").len(), expected, "{step}");
    }
    let (output, _) = run(
        folder.path(),
        &bucket,
        &pipeline,
        &["--set", "stages.in.batch.records=500"],
    );
    assert_done(&output);
    assert_eq!(rows(&bucket, "out/"), (0..4000).collect::<Vec<_>>());
}

#[test]
fn second_run_fences_off_the_first() {
    let Some(bucket) = Bucket::new("zombie") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let pipeline = numbers(&bucket, 10_000_000, 16, "records = 20000");
    let first = start(folder.path(), &bucket, &pipeline);
    while data_keys(&bucket, "out/").is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (second, _) = run(folder.path(), &bucket, &pipeline, &["--limit", "50000"]);
    assert_done(&second);
    let first = first.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&first.stderr).into_owned();
    assert_eq!(first.status.code(), Some(1), "{text}");
    assert!(
        text.contains("has started to write here (its epoch is 2, the epoch of this sink is 1)"),
        "{text}"
    );
    let (third, _) = run(folder.path(), &bucket, &pipeline, &["--limit", "50000"]);
    assert_done(&third);
    let rows = rows(&bucket, "out/");
    assert!(rows.len() >= 100_000);
    assert_eq!(
        rows,
        (0..rows.len() as u64).collect::<Vec<_>>(),
        "expected each row once"
    );
}

#[test]
fn objects_of_every_kind_are_read_and_rejects_are_written() {
    let Some(bucket) = Bucket::new("records") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    bucket.put("in/a.csv", b"a,b\n1,2\nx,3\n4,5\n");
    bucket.put("in/deep/b.csv", b"a,b\n7,8\n");
    bucket.put("in/_latentflow/c.csv", b"a,b\n9,9\n");
    bucket.put("in/d.ndjson", b"{\"a\": 10}\n{\"a\"\n{\"a\": 11}\n");
    bucket.put("in/folder/", b"");
    let batch = RecordBatch::try_from_iter([(
        "a",
        std::sync::Arc::new(arrow::array::Int64Array::from(vec![20, 21])) as ArrayRef,
    )]);
    let batch = batch.unwrap();
    let mut stream = arrow::ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    stream.write(&batch).unwrap();
    bucket.put("in/e.arrow", &stream.into_inner().unwrap());
    let read = |kind: &str, path: &str, out: &str, rows: i32, bad: i32| {
        let types = if kind == "csv" {
            "types = { a = \"float\" }\n"
        } else {
            ""
        };
        let pipeline = format!(
            "[stages.in]\nkind = \"{kind}\"\npath = \"{}\"\n{types}\
             [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"{}\"\n",
            bucket.url(path),
            bucket.url(out)
        );
        let (output, summary) = run(folder.path(), &bucket, &pipeline, &[]);
        assert_done(&output);
        assert_eq!(
            (&summary["records"], &summary["rejects"]),
            (&rows.into(), &bad.into()),
            "{path}"
        );
        let (_, rerun_summary) = run(folder.path(), &bucket, &pipeline, &[]);
        assert_eq!(rerun_summary["records"], 0, "{path}");
    };
    read("csv", "in", "csv", 4, 1);
    read("csv", "in/*.csv", "glob", 3, 1);
    read("csv", "in/**/b.c?v", "deep", 1, 0);
    read("ndjson", "in/d.ndjson", "ndjson", 3, 1);
    read("arrow", "in", "arrow", 2, 0);
    let a = column(&records(&bucket, "csv/").unwrap(), "a");
    assert_eq!(a.as_primitive::<Float64Type>().values(), &[1.0, 4.0, 7.0]);
    let rejects = records(&bucket, "csv/_latentflow/rejects/").unwrap();
    assert!(
        column(&rejects, "split")
            .as_string::<i32>()
            .value(0)
            .starts_with("in/a.csv:16:")
    );
    let original = column(&rejects, "record");
    assert!(original.as_binary::<i32>().value(0).ends_with(b"\nx,3"));
    // Of a grown object, only the new records are read; an object with changed content is a new
    // input.
    let grown = b"a,b\n7,8\n9,10\n";
    let changed = b"a,b\n7,9\n9,10\n";
    let pipeline = std::fs::read_to_string(folder.path().join("p.toml")).unwrap();
    let pipeline = pipeline.replace("arrow", "csv").replace(
        "/csv\"\n[stages",
        "/csv\"\ntypes = { a = \"float\" }\n[stages",
    );
    let pipeline = pipeline.replace(
        "path = \"s3://records/in\"\n",
        "path = \"s3://records/in\"\ntypes = { a = \"float\" }\n",
    );
    for (content, new) in [(grown, 1), (grown, 0), (changed, 2)] {
        bucket.put("in/deep/b.csv", content);
        let (output, summary) = run(folder.path(), &bucket, &pipeline, &[]);
        assert_done(&output);
        assert_eq!(summary["records"], new);
        let skipped = serde_json::json!({ "extensions": { ".arrow": 1, ".ndjson": 1 }, "own": 1 });
        assert_eq!(summary["stages"][0]["passed_over"], skipped);
    }
}

#[test]
fn missing_input_is_reported_with_its_location() {
    let Some(bucket) = Bucket::new("missing") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    bucket.put("in/a.txt", b"x");
    let assert_refused = |path: &str, expected: &str| {
        let pipeline = format!(
            "[stages.in]\nkind = \"csv\"\npath = \"{path}\"\n\
             [stages.out]\nkind = \"discard\"\ninputs = [\"in\"]\n"
        );
        let (output, _) = run(folder.path(), &bucket, &pipeline, &[]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(
            text.starts_with("p.toml:3: stages.in.path: ") && text.contains(expected),
            "{text}"
        );
    };
    assert_refused("s3://missing/none", "`s3://missing/none` does not exist");
    assert_refused(
        "s3://missing/in",
        "files scanned: 1; none has the extension csv",
    );
    assert_refused("s3://missing/in/*.csv", "files scanned: 1; none matches");
    assert_refused("s3://no-such-bucket/in", "s3://no-such-bucket/in");
    assert_refused(
        "ftp://missing/in",
        "unsupported scheme `ftp://`; expected `s3://bucket/prefix`, `gs://bucket/prefix`",
    );
}

/// Reads the bucket with a source of this kind into a folder, stops the server once the output has
/// a file, and asserts that the run fails without rejects.
fn assert_fails_without_store(kind: &str, fill: impl FnOnce(&Path, &Bucket)) {
    let Some(bucket) = Bucket::with_own_server("lost") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), &bucket);
    let batch = if kind == "parquet" || kind == "csv" {
        4096
    } else {
        16
    };
    let pipeline = format!(
        "workers = 1\n[stages.in]\nkind = \"{kind}\"\npath = \"s3://lost/in\"\n\
         batch = {{ records = {batch} }}\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n\
         file = {{ records = {batch} }}\n"
    );
    let child = start(folder.path(), &bucket, &pipeline);
    let out = folder.path().join("out");
    while !out.exists() || files(&out).is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    bucket.stop_server();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{kind}: {text}");
    assert!(
        text.contains("latentflow: error[store_unreachable]: in: s3://lost/in"),
        "{kind}: {text}"
    );
    assert_eq!(
        files(&out.join("_latentflow/rejects")).len(),
        0,
        "{kind}: expected no rejects of unread records"
    );
}

#[test]
fn lost_store_ends_the_run_without_rejects() {
    let image = [b"P6 200 200 255\n".to_vec(), vec![7; 120_000]].concat();
    assert_fails_without_store("images", |_, bucket| {
        (0..800).for_each(|number| bucket.put(&format!("in/{number:03}.ppm"), &image));
    });
    assert_fails_without_store("tar", |_, bucket| {
        let mut tar = tar::Builder::new(Vec::new());
        for number in 0..800 {
            let mut header = tar::Header::new_gnu();
            header.set_size(image.len() as u64);
            tar.append_data(&mut header, format!("{number}.ppm"), image.as_slice())
                .unwrap();
        }
        bucket.put("in/a.tar", &tar.into_inner().unwrap());
    });
    assert_fails_without_store("csv", |_, bucket| {
        bucket.put(
            "in/a.csv",
            ["a,b\n", &"1.25,2.5\n".repeat(12 << 20)]
                .concat()
                .as_bytes(),
        )
    });
    assert_fails_without_store("parquet", |folder, bucket| {
        let pipeline = "[stages.in]\nkind = \"synthetic\"\ncontent = \"features\"\n\
            records = 400000\nwidth = 64\n\
            [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"made\"\n\
            compression = \"none\"\n";
        assert_done(&run(folder, bucket, pipeline, &[]).0);
        bucket.put(
            "in/a.parquet",
            files(&folder.join("made")).values().next().unwrap(),
        );
    });
}

/// A black image of one pixel.
const PIXEL: &[u8] = b"P6 1 1 255\n\0\0\0";

#[test]
fn listed_images_keep_their_rows_and_new_ones_are_read() {
    let Some(bucket) = Bucket::new("images") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for number in 0..70 {
        bucket.put(&format!("in/{number:03}.ppm"), PIXEL);
    }
    bucket.put("in/broken.png", b"not an image");
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["x.ppm", "y.ppm"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(PIXEL.len() as u64);
        tar.append_data(&mut header, name, PIXEL).unwrap();
    }
    bucket.put("in/shard.tar", &tar.into_inner().unwrap());
    let pipeline = |kind: &str, out: &str| {
        format!(
            "[stages.in]\nkind = \"{kind}\"\npath = \"{}\"\n\
             [stages.px]\nkind = \"pixels\"\ninputs = [\"in\"]\nsize = [4, 4]\n\
             [stages.out]\nkind = \"parquet\"\ninputs = [\"px\"]\npath = \"{}\"\n",
            bucket.url("in"),
            bucket.url(out)
        )
    };
    let (output, summary) = run(
        folder.path(),
        &bucket,
        &pipeline("images", "out"),
        &["--limit", "40"],
    );
    assert_done(&output);
    assert_eq!(summary["records"], 40);
    bucket.put("in/000-new.ppm", PIXEL);
    bucket.put("in/065.ppm", b"P6 1 1 255\n\x01\x02\x03");
    let (resumed_output, resumed_summary) =
        run(folder.path(), &bucket, &pipeline("images", "out"), &[]);
    assert_done(&resumed_output);
    // The changed object is a reject under its old listing entry and a record under a new one.
    assert_eq!(
        (&resumed_summary["records"], &resumed_summary["rejects"]),
        (&33.into(), &2.into())
    );
    let sources = records(&bucket, "out/").unwrap();
    let sources = column(&sources, "source");
    let mut sources: Vec<&str> = sources.as_string::<i32>().iter().flatten().collect();
    sources.sort_unstable();
    sources.dedup();
    assert_eq!(sources.len(), 71);
    assert_eq!(bucket.keys("out/_latentflow/listings/").len(), 2);

    // The rejects of missing objects have no originals, so they are rejected again.
    let replay = pipeline("rejects", "again")
        .replace(&bucket.url("in"), &bucket.url("out/_latentflow/rejects"));
    let (replay_output, replay_summary) = run(folder.path(), &bucket, &replay, &[]);
    assert_done(&replay_output);
    assert_eq!(
        (&replay_summary["records"], &replay_summary["rejects"]),
        (&2.into(), &2.into())
    );
    let codes = |out: &str| {
        let rejects = records(&bucket, &format!("{out}/_latentflow/rejects/")).unwrap();
        let mut codes: Vec<_> = column(&rejects, "code")
            .as_string::<i32>()
            .iter()
            .flatten()
            .map(str::to_owned)
            .collect();
        codes.sort();
        codes
    };
    assert_eq!(codes("again"), codes("out"));

    let (tar_output, tar_summary) = run(folder.path(), &bucket, &pipeline("tar", "tar"), &[]);
    assert_done(&tar_output);
    assert_eq!(
        (&tar_summary["records"], &tar_summary["rejects"]),
        (&2.into(), &0.into())
    );
}

/// The latency of requests is hidden, since later objects are requested before their turn.
#[test]
fn later_objects_are_prefetched_concurrently() {
    const OBJECTS: usize = 40;
    const CONCURRENT: usize = 16;
    let Some(bucket) = Bucket::new("ahead") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for object in 0..OBJECTS {
        bucket.put(
            &format!("in/{object:02}.csv"),
            format!("a\n{object}\n{}\n", object + 100).as_bytes(),
        );
    }
    // The plan and the run make two requests for each object, one for its metadata and one for its
    // content.
    let gate = Gate::to(bucket.port(), 2 * (CONCURRENT - 1), |line| {
        line.contains("/in/") && !line.contains("/in/00")
    });
    let pipeline = format!(
        "[stages.in]\nkind = \"csv\"\npath = \"{}\"\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n",
        bucket.url("in")
    );
    std::fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    let mut command = latentflow(folder.path(), &bucket, &["run", "p.toml"]);
    command.env(
        "AWS_ENDPOINT_URL",
        format!("http://127.0.0.1:{}", gate.port),
    );
    assert_done(&command.output().unwrap());
    assert!(gate.was_reached(), "objects are requested one by one");
    let files = files(&folder.path().join("out")).into_values();
    let batches = files.flat_map(|file| {
        ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file))
            .unwrap()
            .build()
            .unwrap()
            .map(Result::unwrap)
    });
    let values = |batch: RecordBatch| {
        column(&batch, "a")
            .as_primitive::<arrow::datatypes::Int64Type>()
            .values()
            .to_vec()
    };
    let read: Vec<i64> = batches.flat_map(values).collect();
    assert_eq!(
        read,
        (0..OBJECTS as i64)
            .flat_map(|object| [object, object + 100])
            .collect::<Vec<_>>()
    );
}

#[test]
fn image_sink_in_a_bucket_is_refused() {
    let Some(bucket) = Bucket::new("image-sink") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let pipeline = "[stages.in]\nkind = \"synthetic\"\ncontent = \"images\"\nrecords = 1\n\
        [stages.px]\nkind = \"pixels\"\ninputs = [\"in\"]\nsize = [8, 8]\n\
        [stages.out]\nkind = \"images\"\ninputs = [\"px\"]\npath = \"s3://image-sink/out\"\n";
    let (output, _) = run(folder.path(), &bucket, pipeline, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("the sink `parquet`, which writes to buckets")
    );
}

#[test]
fn credentials_appear_neither_in_logs_nor_in_objects() {
    let Some(bucket) = Bucket::new("secrets") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    bucket.put("in/a.csv", b"a\n1\nx\n");
    let pipeline = format!(
        "[stages.in]\nkind = \"csv\"\npath = \"{}\"\ntypes = {{ a = \"int\" }}\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"{}\"\n",
        bucket.url("in"),
        bucket.url("out")
    );
    std::fs::write(folder.path().join("p.toml"), &pipeline).unwrap();
    let mut log = Vec::new();
    let broken = pipeline.replace("s3://secrets/out", "s3://no-such-bucket/out");
    std::fs::write(folder.path().join("broken.toml"), broken).unwrap();
    for (arguments, code) in [
        (["run", "p.toml"], 0),
        (["check", "p.toml"], 0),
        (["run", "broken.toml"], 1),
    ] {
        let mut command = latentflow(folder.path(), &bucket, &arguments);
        let output = command.env("RUST_LOG", "trace").output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        log.extend([output.stdout, output.stderr].concat());
    }
    assert!(log.len() > 10_000, "expected a log at level trace");
    let keys = bucket.keys("");
    assert!(keys.len() > 4, "{keys:?}");
    let written = keys
        .iter()
        .filter(|key| !key.ends_with('/'))
        .map(|key| bucket.get(key));
    for (place, bytes) in keys
        .iter()
        .map(String::as_str)
        .zip(written)
        .chain([("the log", log)])
    {
        for secret in [ACCESS_KEY, SECRET, TOKEN] {
            assert!(
                !bytes
                    .windows(secret.len())
                    .any(|window| window == secret.as_bytes()),
                "{secret} is in {place}"
            );
        }
    }
}

#[test]
fn shards_in_a_bucket_are_divided_and_exclude_other_runs() {
    let Some(bucket) = Bucket::new("shards") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let pipeline = numbers(&bucket, 5000, 4, "records = 1000");
    // A run without shards that has not committed anything is stopped by the first shard.
    std::fs::create_dir(folder.path().join("in")).unwrap();
    let image = folder.path().join("in/a.pgm");
    std::fs::write(&image, b"P5 1 1 255\n\x01").unwrap();
    // A file that has not changed for some time counts as complete.
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    let hour = Duration::from_secs(3600);
    file.set_modified(std::time::SystemTime::now() - hour)
        .unwrap();
    let watch = format!(
        "state = \"state\"\n[stages.in]\nkind = \"images\"\npath = \"in\"\nwatch = true\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"{}\"\n",
        bucket.url("out")
    );
    let mut running = start(folder.path(), &bucket, &watch);
    let journal = folder.path().join("state/watched/in");
    let is_read = |path: &Path| {
        let mut segments = std::fs::read_dir(path).into_iter().flatten();
        segments.any(|segment| segment.unwrap().metadata().unwrap().len() > 0)
    };
    while !is_read(&journal) {
        assert!(running.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    for shard in ["0/2", "1/2"] {
        let (output, summary) = run(folder.path(), &bucket, &pipeline, &["--shard", shard]);
        assert_done(&output);
        assert_eq!(summary["records"], 2500);
    }
    let process = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let mut stopped = String::new();
    let stderr = running.stderr.as_mut().unwrap();
    std::io::Read::read_to_string(stderr, &mut stopped).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(1), "{stopped}");
    assert!(
        stopped.contains("holds the output of 2 shards"),
        "{stopped}"
    );
    assert_eq!(
        rows(&bucket, "out/shard-0-of-2/"),
        (0..2500).collect::<Vec<_>>()
    );
    assert_eq!(rows(&bucket, "out/"), (0..5000).collect::<Vec<_>>());
    for shard in [&["--shard", "0/3"][..], &[]] {
        let (refused, _) = run(folder.path(), &bucket, &pipeline, shard);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{text}");
        assert!(text.contains("holds the output of 2 shards"), "{text}");
    }
    let (again, summary) = run(folder.path(), &bucket, &pipeline, &["--shard", "1/2"]);
    assert_done(&again);
    assert_eq!(
        (&summary["records"], &summary["done_before"]),
        (&0.into(), &2500.into())
    );
    // A refused shard leaves no marker in the output of a run without shards.
    let whole = pipeline.replace("/out\"", "/whole\"");
    assert_done(&run(folder.path(), &bucket, &whole, &[]).0);
    let (shard, _) = run(folder.path(), &bucket, &whole, &["--shard", "0/2"]);
    let text = String::from_utf8_lossy(&shard.stderr).into_owned();
    assert_eq!(shard.status.code(), Some(2), "{text}");
    assert!(
        text.contains("holds the output of a run without `--shard`"),
        "{text}"
    );
    assert_done(&run(folder.path(), &bucket, &whole, &[]).0);
}
