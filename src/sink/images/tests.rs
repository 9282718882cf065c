//! Tests of the sink `images`.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::{Value, json};

use super::writer::COMMIT_FILES;
use super::*;
use crate::batch::Batch;
use crate::batch::provenance::{Provenance, Split};
use crate::batch::reject::RejectCollector;
use crate::error::config_error::ConfigError;
use crate::image::decode::decode;
use crate::image::pixel_format::{Channels, PixelFormat, TensorLayout};
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::registry::find;
use crate::sink::registry::KINDS;
use crate::sink::{BatchEncoder, CommitProgress};
use crate::source::origin::origin_fields;
use crate::tensor::{fixed_column, tensor_field, variable_column, variable_field};

fn schema(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(
        origin_fields()
            .into_iter()
            .chain(fields)
            .collect::<Vec<_>>(),
    ))
}

/// A column of RGB images with a height of 1 and a width of 2, in planar layout.
fn pixels() -> Field {
    PixelFormat::default().annotate(tensor_field("pixels", &[3, 1, 2]).unwrap())
}

fn plan(schema: &SchemaRef, options: Value) -> Result<Box<dyn Sink>, Vec<ConfigError>> {
    let context = PlanContext::new(BTreeMap::new(), PipelineLimits::default());
    (find(KINDS, "images", "sink").unwrap().plan)(options, schema, &context)
        .map(|planned| planned.stage)
}

fn identity() -> OutputIdentity {
    OutputIdentity {
        pipeline: "p".into(),
        stage: "out".into(),
        digest: "d".into(),
        ..OutputIdentity::default()
    }
}

/// The running sink with its batch encoder.
struct Opened {
    encoder: Arc<dyn BatchEncoder>,
    writer: Box<dyn SinkWriter>,
}

impl Opened {
    fn write(&mut self, batch: &Batch) -> Result<CommitProgress, StageError> {
        self.writer.write(
            &self
                .encoder
                .encode(batch.clone(), &mut RejectCollector::default())?,
        )
    }
}

fn open_sink(sink: Box<dyn Sink>) -> Opened {
    let writer = sink.open(identity()).unwrap();
    let encoder = writer.batch_encoder().unwrap();
    Opened { encoder, writer }
}

fn open(folder: &Path) -> Opened {
    open_sink(plan(&schema(vec![pixels()]), json!({ "path": folder })).unwrap())
}

/// Rows of the split from `start` on, with the brightness `value` in all pixels.
fn batch(start: u64, sources: &[&str], value: f32) -> Batch {
    let len = sources.len();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(sources.to_vec())),
        Arc::new(UInt64Array::from(vec![0; len])),
        fixed_column(6, vec![value; 6 * len]).unwrap(),
    ];
    let records = RecordBatch::try_new(schema(vec![pixels()]), columns).unwrap();
    Batch::new(
        records,
        Provenance::rows(Split::new("in/listing-0"), start..start + len as u64),
    )
}

/// The sorted files below a folder, without those of the state of the sink.
fn files(folder: &Path) -> Vec<String> {
    let files = walkdir::WalkDir::new(folder)
        .sort_by_file_name()
        .into_iter()
        .map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file());
    let names = files.map(|e| {
        e.path()
            .strip_prefix(folder)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    });
    names
        .filter(|name| !name.starts_with("_latentflow"))
        .collect()
}

fn committed(folder: &Path) -> u64 {
    let sink = plan(&schema(vec![pixels()]), json!({ "path": folder })).unwrap();
    sink.history().unwrap().coverage().len()
}

#[test]
fn committed_records_are_files_with_their_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = open(folder.path());
    sink.write(&batch(0, &["a/b.jpg", "../x.jpg"], 0.4))
        .unwrap();
    assert!(
        files(folder.path())
            .iter()
            .all(|name| name.contains(".latentflow-")),
        "no final name before the commit"
    );
    sink.writer.commit().unwrap();
    assert_eq!(files(folder.path()), ["%2E%2E/x.png", "a/b.png"]);
    let bytes = fs::read(folder.path().join("a/b.png")).unwrap();
    let image = decode(&bytes, Channels::Rgb, 100).unwrap();
    assert_eq!(
        (image.width, image.height, image.data),
        (2, 1, vec![102; 6])
    );
    let written = sink.writer.stats();
    assert_eq!(
        (written.files, written.records, written.bytes),
        (2, 2, 2 * bytes.len() as u64)
    );
}

#[test]
fn images_of_different_sizes_are_written_in_all_formats() {
    for (format, extension) in [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")] {
        let folder = tempfile::tempdir().unwrap();
        let gray = PixelFormat {
            channels: Channels::Gray,
            layout: TensorLayout::Nhwc,
            ..PixelFormat::default()
        };
        let schema = schema(vec![gray.annotate(variable_field("pixels", 3).unwrap())]);
        let shapes = [vec![2, 3, 1], vec![1, 1, 1]];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["a.parquet", "a.parquet"])),
            Arc::new(UInt64Array::from(vec![0, 7])),
            variable_column(3, vec![1.0; 7], &shapes).unwrap(),
        ];
        let records = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let batch = Batch::new(records, Provenance::rows(Split::new("a"), 0..2));
        let sink = plan(&schema, json!({ "path": folder.path(), "format": format })).unwrap();
        let mut sink = open_sink(sink);
        sink.write(&batch).unwrap();
        sink.writer.commit().unwrap();
        let names = [0, 7].map(|row| format!("a.parquet/{row:06}.{extension}"));
        assert_eq!(files(folder.path()), names);
        let image = decode(
            &fs::read(folder.path().join(&names[0])).unwrap(),
            Channels::Gray,
            100,
        )
        .unwrap();
        assert_eq!(
            (image.height, image.width, image.data),
            (2, 3, vec![255; 6])
        );
    }
}

#[test]
fn later_run_keeps_committed_files_and_adds_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = open(folder.path());
    sink.write(&batch(0, &["a.jpg"], 0.0)).unwrap();
    sink.write(&batch(1, &[], 0.0)).unwrap();
    sink.writer.commit().unwrap();
    drop(sink);
    assert_eq!(committed(folder.path()), 1);
    sink = open(folder.path());
    let before = fs::read(folder.path().join("a.png")).unwrap();
    sink.write(&batch(1, &["b.jpg"], 1.0)).unwrap();
    sink.writer.commit().unwrap();
    assert_eq!(fs::read(folder.path().join("a.png")).unwrap(), before);
    drop(sink);
    assert_eq!(
        (committed(folder.path()), files(folder.path()).len()),
        (2, 2)
    );
}

#[test]
fn rows_of_empty_batch_are_committed() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = open(folder.path());
    let mut empty = batch(0, &["a.jpg", "b.jpg"], 0.0);
    empty.records = empty.records.slice(0, 0);
    empty.row_ordinals.clear();
    sink.write(&empty).unwrap();
    sink.writer.commit().unwrap();
    drop(sink);
    assert_eq!(
        (committed(folder.path()), files(folder.path()).len()),
        (2, 0)
    );
}

#[test]
fn uncommitted_files_are_removed_by_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = open(folder.path());
    sink.write(&batch(0, &["a/b.jpg"], 0.0)).unwrap();
    drop(sink);
    assert_eq!(
        (committed(folder.path()), files(folder.path()).len()),
        (0, 1)
    );
    drop(open(folder.path()));
    assert!(
        files(folder.path()).is_empty(),
        "the next run removes uncommitted files"
    );
}

#[test]
fn sink_commits_after_the_maximum_number_of_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = open(folder.path());
    let names: Vec<String> = (0..COMMIT_FILES).map(|n| format!("{n}.jpg")).collect();
    sink.write(&batch(
        0,
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
        0.0,
    ))
    .unwrap();
    assert_eq!(sink.writer.stats().files, COMMIT_FILES as u64);
    drop(sink);
    assert_eq!(committed(folder.path()), COMMIT_FILES as u64);
}

/// The content of each file by its name.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    files(folder)
        .into_iter()
        .map(|name| (name.clone(), fs::read(folder.join(name)).unwrap()))
        .collect()
}

/// Four batches of one record each, with different brightness. The third record has another name
/// than the others.
fn same_names() -> Vec<Batch> {
    let sources = ["b.jpg", "b.png", "c.jpg", "b.jpg"];
    (0..4)
        .map(|row| {
            batch(
                row,
                &[sources[usize::try_from(row).unwrap()]],
                row as f32 / 4.0,
            )
        })
        .collect()
}

/// The content of a folder after the batches were written, with a commit after each index for which
/// `commits` returns `true`.
fn written(batches: &[Batch], commits: impl Fn(usize) -> bool) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = open(folder.path());
    for (index, batch) in batches.iter().enumerate() {
        sink.write(batch).unwrap();
        if commits(index) {
            sink.writer.commit().unwrap();
        }
    }
    sink.writer.commit().unwrap();
    contents(folder.path())
}

#[test]
fn records_of_one_name_have_own_files_for_any_commits() {
    let once = written(&same_names(), |_| false);
    assert_eq!(once.len(), 4);
    assert_eq!(
        once.values().collect::<BTreeSet<_>>().len(),
        4,
        "the file of a record was replaced"
    );
    let plain: Vec<&String> = once.keys().filter(|name| !name.contains('-')).collect();
    assert_eq!(plain, ["b.png", "c.png"]);
    assert_eq!(written(&same_names(), |_| true), once);
    assert_eq!(written(&same_names(), |index| index == 1), once);
    let all = ["b.jpg", "b.png", "c.jpg", "b.jpg"];
    let names: Vec<String> = written(&[batch(0, &all, 0.5)], |_| false)
        .into_keys()
        .collect();
    assert_eq!(
        names,
        once.into_keys().collect::<Vec<_>>(),
        "the names do not depend on the batches"
    );
}

#[test]
fn first_record_keeps_its_name_in_later_runs() {
    let expected = written(&same_names(), |_| false);
    let folder = tempfile::tempdir().unwrap();
    for part in same_names() {
        let mut sink = open(folder.path());
        sink.write(&part).unwrap();
        sink.writer.commit().unwrap();
    }
    assert_eq!(contents(folder.path()), expected);
}

#[test]
fn records_of_two_arms_have_own_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = open(folder.path());
    let arms = [
        batch(0, &["a.jpg", "b.jpg"], 0.0),
        batch(0, &["a.jpg", "b.jpg"], 1.0),
    ];
    sink.write(&Batch::concat(&arms).unwrap().unwrap()).unwrap();
    sink.writer.commit().unwrap();
    let found = contents(folder.path());
    assert_eq!(found.len(), 4);
    assert_eq!(
        decode(&found["a.png"], Channels::Rgb, 100).unwrap().data,
        [0; 6],
        "the first arm comes first"
    );
}

#[test]
fn records_with_null_source_have_names() {
    let fields = [
        Field::new("source", DataType::Utf8, true),
        Field::new("row", DataType::UInt64, true),
        pixels(),
    ];
    let schema: SchemaRef = Arc::new(Schema::new(fields.to_vec()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![Some("a.jpg"), None, None])),
        Arc::new(UInt64Array::from(vec![Some(0), None, Some(0)])),
        fixed_column(6, vec![0.5; 18]).unwrap(),
    ];
    let records = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut sink = open_sink(plan(&schema, json!({ "path": folder.path() })).unwrap());
    sink.write(&Batch::new(
        records,
        Provenance::rows(Split::new("a"), 0..3),
    ))
    .unwrap();
    sink.writer.commit().unwrap();
    assert_eq!(files(folder.path()).len(), 3);
}

#[test]
fn files_of_other_programs_are_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.png"), "precious").unwrap();
    fs::create_dir(folder.path().join("b.png")).unwrap();
    let mut sink = open(folder.path());
    sink.write(&batch(0, &["a.jpg", "b.jpg"], 0.0)).unwrap();
    sink.writer.commit().unwrap();
    assert_eq!(fs::read(folder.path().join("a.png")).unwrap(), b"precious");
    drop(sink);
    assert_eq!(
        (committed(folder.path()), files(folder.path()).len()),
        (2, 3)
    );
}

#[test]
fn file_created_during_run_stays_and_next_run_continues() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = open(folder.path());
    sink.write(&batch(0, &["a.jpg", "b.jpg"], 0.0)).unwrap();
    fs::write(folder.path().join("b.png"), "precious").unwrap();
    let error = sink.writer.commit().unwrap_err().to_string();
    assert!(
        error.contains("b.png: another program has created this file during the run"),
        "{error}"
    );
    drop(sink);
    sink = open(folder.path());
    sink.write(&batch(0, &["a.jpg", "b.jpg"], 0.0)).unwrap();
    sink.writer.commit().unwrap();
    assert_eq!(fs::read(folder.path().join("b.png")).unwrap(), b"precious");
    let found = files(folder.path());
    assert_eq!((found.len(), found[0].as_str()), (3, "a.png"), "{found:?}");
}

#[test]
fn refused_name_is_replaced_by_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("in-the-way"), "a file").unwrap();
    let mut sink = open(folder.path());
    let deep = format!("{}x.jpg", "d/".repeat(100));
    sink.write(&batch(
        0,
        &["in-the-way/x.jpg", &"long".repeat(400), &deep],
        0.0,
    ))
    .unwrap();
    sink.writer.commit().unwrap();
    let found = files(folder.path());
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(
        found
            .iter()
            .any(|name| name.starts_with("%~") && !name.contains('/')),
        "{found:?}"
    );
}

/// Creates the output of a version that did not record names: rows in the snapshot, and a file
/// whose row is not in the snapshot, as after a kill.
fn former_output(folder: &Path) {
    let image = |row: u64, source: &str, value: f32| {
        let only = tempfile::tempdir().unwrap();
        let mut sink = open(only.path());
        sink.write(&batch(row, &[source], value)).unwrap();
        sink.writer.commit().unwrap();
        fs::read(only.path().join(&files(only.path())[0])).unwrap()
    };
    fs::write(folder.join("a.jpg.png"), image(0, "a.jpg", 0.0)).unwrap();
    fs::write(folder.join("b.jpg.png"), image(1, "b.jpg", 0.5)).unwrap();
    let mut done = crate::coverage::Coverage::default();
    done.insert(&Provenance::rows(Split::new("in/listing-0"), 0..1));
    let mut snapshot = CoverageSnapshot::default();
    snapshot.history.add(&identity(), &done);
    snapshot
        .save(&coverage_snapshot::location(&folder.into(), None))
        .unwrap();
}

#[test]
fn output_of_former_scheme_keeps_its_names_and_files() {
    let folder = tempfile::tempdir().unwrap();
    former_output(folder.path());
    for run in 0..2 {
        let mut sink = open(folder.path());
        if run == 0 {
            // The existing file belongs to the first record, but not to the second one of its name.
            sink.write(&batch(1, &["b.jpg", "b.jpg"], 0.5)).unwrap();
        } else {
            sink.write(&batch(3, &["a.jpg", "c.jpg"], 1.0)).unwrap();
        }
        sink.writer.commit().unwrap();
    }
    let found = contents(folder.path());
    let plain: Vec<&String> = found.keys().filter(|name| !name.contains('-')).collect();
    assert_eq!(plain, ["a.jpg.png", "b.jpg.png", "c.jpg.png"]);
    assert_eq!((found.len(), committed(folder.path())), (5, 5));
    let black = decode(&found["a.jpg.png"], Channels::Rgb, 100).unwrap();
    assert_eq!(
        black.data, [0; 6],
        "a later record with the same name replaced the file"
    );
}

#[test]
fn output_with_lost_state_keeps_its_files() {
    let expected = written(&same_names(), |_| false);
    let folder = tempfile::tempdir().unwrap();
    for run in 0..2 {
        let mut sink = open(folder.path());
        for batch in same_names() {
            sink.write(&batch).unwrap();
        }
        sink.writer.commit().unwrap();
        drop(sink);
        assert_eq!(contents(folder.path()), expected, "run {run}");
        fs::remove_dir_all(folder.path().join("_latentflow")).unwrap();
    }
}

#[test]
fn lost_snapshot_removes_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = open(folder.path());
    sink.write(&batch(0, &["a.jpg", "a.jpg"], 0.0)).unwrap();
    sink.writer.commit().unwrap();
    drop(sink);
    let before = contents(folder.path());
    fs::remove_file(folder.path().join("_latentflow/coverage.json")).unwrap();
    sink = open(folder.path());
    assert_eq!(contents(folder.path()), before);
    sink.write(&batch(0, &["a.jpg", "a.jpg"], 0.0)).unwrap();
    sink.writer.commit().unwrap();
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn output_after_reset_has_the_same_names() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), "of the user").unwrap();
    let write = |value: f32| {
        let mut sink = open(folder.path());
        sink.write(&batch(0, &["a.jpg", "d/a.jpg", "a.png"], value))
            .unwrap();
        sink.writer.commit().unwrap();
        files(folder.path())
    };
    let before = write(0.0);
    let sink = || plan(&schema(vec![pixels()]), json!({ "path": folder.path() })).unwrap();
    let found = sink().reset(false).unwrap();
    assert_eq!(
        (found.files, found.records, files(folder.path()).len()),
        (3, 3, 4)
    );
    assert_eq!(sink().reset(true).unwrap(), found);
    assert_eq!(files(folder.path()), ["notes.txt"]);
    assert_eq!(write(1.0), before);
    assert_eq!(sink().reset(false).unwrap().records, 3);
}

#[test]
fn files_are_named_by_the_pattern() {
    let folder = tempfile::tempdir().unwrap();
    let options = json!({ "path": folder.path(), "name": "flat/{stem}_{row}.{ext}" });
    let mut sink = open_sink(plan(&schema(vec![pixels()]), options).unwrap());
    sink.write(&batch(0, &["a/b.jpg", "c/d.png"], 0.0)).unwrap();
    sink.writer.commit().unwrap();
    assert_eq!(
        files(folder.path()),
        ["flat/b_000000.png", "flat/d_000000.png"]
    );
    let outside = json!({ "path": folder.path(), "name": "../{stem}.{ext}" });
    let faults = plan(&schema(vec![pixels()]), outside).err().unwrap();
    assert_eq!((faults.len(), faults[0].key.as_str()), (1, "name"));
}

#[cfg(unix)]
#[test]
fn symbolic_links_in_the_folder_are_not_followed() {
    use std::os::unix::fs::symlink;
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let victim = outside.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(outside.path(), folder.path().join("a")).unwrap();
    symlink(&victim, folder.path().join("b.png")).unwrap();
    let mut sink = open(folder.path());
    sink.write(&batch(0, &["a/x.jpg", "b.jpg"], 0.0)).unwrap();
    sink.writer.commit().unwrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert_eq!(files(folder.path()).len(), 2);
}

#[test]
fn all_faults_of_the_options_are_reported() {
    let faults = |fields: Vec<Field>, options: Value| -> Vec<String> {
        let faults = plan(&schema(fields), options).err().unwrap_or_default();
        faults
            .into_iter()
            .map(|fault| format!("{}: {}", fault.key, fault.message))
            .collect()
    };
    let other = || PixelFormat::default().annotate(tensor_field("clean", &[3, 1, 2]).unwrap());
    let one = faults(
        vec![pixels(), other()],
        json!({ "path": "", "quality": 101 }),
    );
    assert_eq!(
        one,
        [
            "path: is empty; expected the folder for the images",
            "quality: 101 is not a JPEG quality; expected 1 to 100",
            "column: several columns hold pixels; choose one: pixels, clean",
        ]
    );
    assert_eq!(
        faults(
            vec![pixels()],
            json!({ "path": "x", "quality": 80, "column": "row" })
        ),
        [
            "quality: applies only to JPEG; remove it, or set format = \"jpeg\" or \"original\"",
            "column: `row` does not hold pixels; the columns with pixels are: pixels",
        ]
    );
    assert_eq!(
        faults(
            vec![pixels(), other()],
            json!({ "path": "x", "column": "clean" })
        ),
        [""; 0]
    );
    let bare = Arc::new(Schema::new(vec![pixels()]));
    let keys: Vec<String> = plan(&bare, json!({ "path": "x" }))
        .err()
        .unwrap()
        .into_iter()
        .map(|f| f.key)
        .collect();
    assert_eq!(keys, ["inputs", "inputs"]);
}
