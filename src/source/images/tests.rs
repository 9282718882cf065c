//! Unit tests of the module `images`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use serde_json::json;
use tokio_stream::StreamExt;

use super::*;
use crate::batch::SourceBatch;
use crate::batch::reject::RejectCode;
use crate::coverage::Coverage;
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::registry::find;
use crate::source::batch_size::BatchSize;
use crate::source::discovery::listed_file::ReadFailure;
use crate::source::images::config::EXTENSIONS;
use crate::source::images::reader::GONE;
use crate::source::registry::KINDS;
use crate::units::ByteSize;

/// A black PPM image of `width` by `height` pixels.
fn image(width: usize, height: usize) -> Vec<u8> {
    let mut image = format!("P6 {width} {height} 255\n").into_bytes();
    image.resize(image.len() + width * height * 3, 0);
    image
}

fn fill(folder: &Path, names: &[&str]) {
    for name in names {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), image(2, 1)).unwrap();
    }
}

fn open(
    folder: &Path,
    batch: serde_json::Value,
    resume: &ResumeState,
) -> Result<SourceHandle, StageError> {
    let limits = PipelineLimits {
        pixels: 1000,
        record_bytes: ByteSize(10_000),
        memory: None,
    };
    let context = PlanContext::new(BTreeMap::new(), limits);
    let plan = find(KINDS, "images", "source").unwrap().plan;
    let batch = serde_json::from_value(batch).unwrap();
    plan("in", json!({ "path": folder }), batch, &context)
        .unwrap()
        .stage
        .open(resume)
}

fn read(folder: &Path, size: serde_json::Value, resume: &ResumeState) -> Vec<SourceBatch> {
    let mut opened = open(folder, size, resume).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let batches: Result<Vec<_>, _> = runtime.block_on(opened.batches.collect());
    let batches = batches.unwrap();
    let rows: u64 = batches
        .iter()
        .flat_map(|batch| resume.uncommitted_ranges(&batch.batch.provenance))
        .map(|p| p.end - p.start)
        .sum();
    assert_eq!(
        opened.total.known(),
        Some(rows),
        "the total counts the pending rows"
    );
    batches
}

fn sources(batch: &SourceBatch) -> Vec<&str> {
    batch
        .batch
        .records
        .column(0)
        .as_string::<i32>()
        .iter()
        .flatten()
        .collect()
}

fn resume(state: &Path, done: &[&SourceBatch]) -> ResumeState {
    let mut coverage = Coverage::default();
    done.iter()
        .for_each(|batch| coverage.insert(&batch.batch.provenance));
    ResumeState {
        sinks: Arc::new(vec![coverage]),
        state: Some(state.into()),
    }
}

#[test]
fn files_are_read_unchanged_in_order_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), &["c.pnm", "a.PNM", "b/x.png"]);
    let batches = read(folder.path(), json!({}), &ResumeState::default());
    let [batch] = batches.as_slice() else {
        panic!("one batch expected")
    };
    assert_eq!(sources(batch), ["a.PNM", "b/x.png", "c.pnm"]);
    assert_eq!(
        batch
            .batch
            .records
            .column(1)
            .as_primitive::<UInt64Type>()
            .values(),
        &[0, 0, 0]
    );
    assert_eq!(
        batch.batch.records.column(2).as_binary::<i32>().value(1),
        image(2, 1)
    );
    assert_eq!((batch.pixels, batch.rejects.len()), (6, 0));
    assert_eq!(
        batch.batch.provenance.ranges()[0].split.name(),
        "in/listing-0"
    );
}

#[test]
fn folder_labels_add_the_name_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    fill(
        folder.path(),
        &["a.png", "train/cat/1.png", "train/dog/1.png"],
    );
    let options = json!({ "path": folder.path(), "folder_labels": true });
    let context = PlanContext::new(BTreeMap::new(), PipelineLimits::default());
    let source = (find(KINDS, "images", "source").unwrap().plan)(
        "in",
        options,
        BatchSize::default(),
        &context,
    )
    .map(|planned| planned.stage);
    let mut batches = source
        .unwrap()
        .open(&ResumeState::default())
        .unwrap()
        .batches;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let batch = runtime.block_on(batches.next()).unwrap().unwrap();
    let labels: Vec<&str> = batch.batch.records["label"]
        .as_string::<i32>()
        .iter()
        .flatten()
        .collect();
    assert_eq!(labels, ["", "cat", "dog"]);
}

#[test]
fn batch_ends_at_limit_of_records_or_decoded_bytes() {
    let folder = tempfile::tempdir().unwrap();
    fill(
        folder.path(),
        &["a.pnm", "b.pnm", "c.pnm", "e.pnm", "f.pnm"],
    );
    fs::write(folder.path().join("d.pnm"), image(30, 30)).unwrap();
    let sizes = |size| -> Vec<usize> {
        let batches = read(folder.path(), size, &ResumeState::default());
        batches
            .iter()
            .map(|batch| batch.batch.records.num_rows())
            .collect()
    };
    assert_eq!(sizes(json!({ "records": 2 })), [2, 2, 2]);
    assert_eq!(sizes(json!({ "bytes": "2000B" })), [3, 1, 2]);
    assert_eq!(sizes(json!({ "bytes": "1B" })), [1; 6]);
}

#[test]
fn image_beyond_limits_is_rejected_or_counts_no_pixels() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.pnm"), image(100, 100)).unwrap();
    fs::write(folder.path().join("b.pgm"), b"P5 100000 100000 255\n").unwrap();
    fs::write(folder.path().join("c.png"), b"").unwrap();
    fs::write(folder.path().join("d.png"), b"no image").unwrap();
    let batches = read(folder.path(), json!({}), &ResumeState::default());
    assert_eq!(
        (sources(&batches[0]), batches[0].pixels),
        (vec!["b.pgm", "c.png", "d.png"], 0)
    );
    assert_eq!(batches[0].batch.row_ordinals, [1, 2, 3]);
    let reject = &batches[0].rejects[0];
    assert_eq!((reject.ordinal, reject.code), (0, RejectCode::TooLarge));
    assert!(
        reject
            .reason
            .starts_with("a.pnm: 30015 bytes, more than the limit of 10000 bytes"),
        "{}",
        reject.reason
    );
}

#[test]
fn later_run_resumes_with_the_same_batches() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(
        folder.path(),
        &["a.pnm", "b.pnm", "c.pnm", "d.pnm", "e.pnm"],
    );
    let size = || json!({ "records": 2 });
    let first = read(folder.path(), size(), &resume(state.path(), &[]));
    let second = read(folder.path(), size(), &resume(state.path(), &[&first[0]]));
    assert_eq!(
        second.iter().map(sources).collect::<Vec<_>>(),
        [vec!["c.pnm", "d.pnm"], vec!["e.pnm"]]
    );
    assert_eq!(second[0].batch.provenance, first[1].batch.provenance);
    assert!(
        read(
            folder.path(),
            size(),
            &resume(state.path(), &first.iter().collect::<Vec<_>>())
        )
        .is_empty()
    );
    let half = first[1].slice(0..1);
    let rest = read(
        folder.path(),
        size(),
        &resume(state.path(), &[&first[0], &half]),
    );
    assert_eq!(
        sources(&rest[0]),
        ["c.pnm", "d.pnm"],
        "the caller cuts out committed rows"
    );
}

#[test]
fn new_file_is_read_and_missing_uncommitted_one_is_rejected() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(folder.path(), &["a.pnm", "b.pnm", "c.pnm"]);
    let first = read(
        folder.path(),
        json!({ "records": 1 }),
        &resume(state.path(), &[]),
    );
    fs::remove_file(folder.path().join("a.pnm")).unwrap();
    fs::remove_file(folder.path().join("b.pnm")).unwrap();
    fill(folder.path(), &["0.pnm"]);
    let second = read(
        folder.path(),
        json!({ "records": 1 }),
        &resume(state.path(), &[&first[0]]),
    );
    assert_eq!(
        second.iter().map(sources).collect::<Vec<_>>(),
        [vec![], vec!["c.pnm"], vec!["0.pnm"]]
    );
    assert_eq!(second[0].rejects[0].code, RejectCode::Unreadable);
    assert_eq!(second[0].rejects[0].reason, format!("b.pnm: {GONE}"));
    assert_eq!(
        second[2].batch.provenance.ranges()[0].split.name(),
        "in/listing-1"
    );
}

#[test]
fn folder_without_images_or_emptied_too_early_is_an_error() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let error = |resume: &ResumeState| {
        open(folder.path(), json!({}), resume)
            .err()
            .map(|error| error.to_string())
    };
    fs::write(folder.path().join("notes.txt"), "x").unwrap();
    assert!(
        error(&ResumeState::default())
            .unwrap()
            .contains("; files scanned: 1; none has the extension jpg, ")
    );
    fill(folder.path(), &["a.pnm"]);
    let first = read(folder.path(), json!({}), &resume(state.path(), &[]));
    fs::remove_file(folder.path().join("a.pnm")).unwrap();
    assert!(
        error(&resume(state.path(), &[]))
            .unwrap()
            .contains("; files scanned: 1; none has the extension jpg, ")
    );
    assert_eq!(
        error(&resume(state.path(), &[&first[0]])),
        None,
        "files of committed rows may be removed"
    );
}

#[test]
fn every_broken_image_becomes_a_row() {
    let Some(folder) = crate::test_data::test_data("bad") else {
        return;
    };
    let files = FileSet::new(folder.to_str().unwrap().to_owned(), false, EXTENSIONS).unwrap();
    let batches = read(&folder, json!({}), &ResumeState::default());
    let rows: usize = batches
        .iter()
        .map(|batch| batch.batch.records.num_rows() + batch.rejects.len())
        .sum();
    assert_eq!(rows, files.list().unwrap().files.len());
}

#[cfg(unix)]
#[test]
fn pipe_is_skipped_and_rejected_in_place_of_a_listed_file() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), &["a.pnm", "b.pnm"]);
    let pipe = |name: &str| {
        let status = std::process::Command::new("mkfifo")
            .arg(folder.path().join(name))
            .status()
            .unwrap();
        assert!(status.success());
    };
    pipe("pipe.jpg");
    let batches = read(folder.path(), json!({}), &ResumeState::default());
    assert_eq!(sources(&batches[0]), ["a.pnm", "b.pnm"]);

    let files = FileSet::new(
        folder.path().to_str().unwrap().to_owned(),
        false,
        EXTENSIONS,
    )
    .unwrap();
    let listing = files.list().unwrap();
    fs::remove_file(folder.path().join("a.pnm")).unwrap();
    pipe("a.pnm");
    let failure = listing.files["a.pnm"]
        .read(&listing.root, 1000)
        .unwrap_err();
    assert!(matches!(
        failure,
        ReadFailure::Rejected(refusal) if refusal.code == RejectCode::Unreadable
    ));
}
