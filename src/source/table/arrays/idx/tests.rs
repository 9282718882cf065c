//! Unit tests of the module `idx`.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int16Type, UInt8Type};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::coverage::ResumeState;
use crate::image::{Channels, decode};
use crate::source::table::arrays::idx::config::IdxSourceConfig;
use crate::source::table::file_source::testing::{
    drain, plan, progress_of, read, records, rejects,
};

fn idx(kind: u8, sides: &[u32], values: &[u8]) -> Vec<u8> {
    let sides: Vec<u8> = sides.iter().flat_map(|side| side.to_be_bytes()).collect();
    [
        &[0, 0, kind, u8::try_from(sides.len() / 4).unwrap()][..],
        &sides,
        values,
    ]
    .concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// `count` images of 2 x 3 pixels; the value of all pixels is the number of the image.
fn images(count: u8) -> Vec<u8> {
    let values: Vec<u8> = (0..count).flat_map(|number| [number; 6]).collect();
    idx(8, &[u32::from(count), 2, 3], &values)
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    files
        .iter()
        .for_each(|(name, bytes)| std::fs::write(folder.path().join(name), bytes).unwrap());
    folder
}

fn fault(options: Value) -> String {
    let fault = plan::<IdxSourceConfig>(options, 10)
        .err()
        .unwrap()
        .remove(0);
    format!("{}: {}", fault.key, fault.message)
}

fn pixels(records: &RecordBatch, row: usize) -> (usize, usize, Vec<u8>) {
    let image = decode(
        records["image"].as_binary::<i32>().value(row),
        Channels::Gray,
        100,
    )
    .unwrap();
    (image.height, image.width, image.data)
}

#[test]
fn images_and_labels_are_read_plain_and_compressed() {
    let labels = idx(8, &[25], &(0..25).map(|row| row % 10).collect::<Vec<u8>>());
    let (packed_images, packed_labels) = (gzip(&images(25)), gzip(&labels));
    let folder = folder(&[
        ("i", &images(25)),
        ("l", &labels),
        ("i.gz", &packed_images),
        ("l.gz", &packed_labels),
    ]);
    let of = |images_name: &str, labels_name: &str| {
        let path = |name: &str| folder.path().join(name);
        let options = json!({ "path": path(images_name), "labels": path(labels_name) });
        read::<IdxSourceConfig>(options, 10)
    };
    let batches = of("i", "l.gz");
    let sizes: Vec<_> = batches
        .iter()
        .map(|batch| (batch.batch.records.num_rows(), batch.pixels))
        .collect();
    assert_eq!(sizes, [(10, 60), (10, 60), (5, 30)]);
    let all = records(&batches);
    assert_eq!(pixels(&all, 24), (2, 3, vec![24; 6]));
    assert_eq!(all["label"].as_primitive::<UInt8Type>().value(24), 4);
    let packed = records(&of("i.gz", "l"));
    assert_eq!(
        (&packed["image"], &packed["label"]),
        (&all["image"], &all["label"])
    );
    assert!(rejects(&batches).is_empty());
}

#[test]
fn color_images_and_features_keep_their_values() {
    let floats: Vec<u8> = [1.5_f32, -2.0, 0.0, 4.0]
        .iter()
        .flat_map(|value| value.to_be_bytes())
        .collect();
    let (colors, vectors) = (
        idx(8, &[1, 1, 2, 3], &[9, 0, 0, 9, 0, 0]),
        idx(0x0d, &[2, 2], &floats),
    );
    let folder = folder(&[
        ("c", &colors),
        ("v", &vectors),
        ("n", &idx(0x0b, &[2], &[0, 7, 0xff, 0xff])),
    ]);
    let of = |name: &str| {
        records(&read::<IdxSourceConfig>(
            json!({ "path": folder.path().join(name) }),
            10,
        ))
    };
    let red = of("c");
    let red = decode(red["image"].as_binary::<i32>().value(0), Channels::Rgb, 100).unwrap();
    assert_eq!(red.data, [9, 0, 0, 9, 0, 0]);
    let features = of("v");
    let second = features["features"].as_fixed_size_list().value(1);
    assert_eq!(second.as_primitive::<Float32Type>().values(), &[0.0, 4.0]);
    assert_eq!(
        of("n")["features"].as_primitive::<Int16Type>().values(),
        &[7, -1]
    );
}

#[test]
fn invalid_headers_are_faults() {
    let check = |bytes: &[u8], expected: &str| {
        let folder = folder(&[("x", bytes)]);
        let message = fault(json!({ "path": folder.path().join("x") }));
        assert!(message.contains(expected), "{message}");
    };
    check(
        b"P5 2 2 255\n",
        "x: is not an IDX file; it begins with the bytes [50, 35, 20, 32]",
    );
    check(b"", "ends in its header");
    check(&idx(8, &[5, 2], &[])[..9], "ends in its header");
    check(&idx(8, &[], &[]), "is a single value");
    check(
        &idx(8, &[u32::MAX, 0], &[]),
        "has the shape [4294967295, 0]; expected at least one value per record",
    );
    check(
        &idx(8, &[1, u32::MAX, u32::MAX, u32::MAX, 9], &[]),
        "a record of it exceeds the maximum of 2147483647 bytes",
    );
    check(
        &idx(8, &[1, 2000, 1000], &[]),
        "a record takes 1.9 MiB, more than 1.0 MiB; increase limits.record_bytes to read it",
    );
    check(&gzip(&images(2))[..12], "ends in its header");
}

#[test]
fn labels_that_do_not_match_the_images_are_faults() {
    let folder = folder(&[
        ("a.idx", &images(3)),
        ("b.idx", &images(3)),
        ("l", &idx(8, &[4], &[0; 4])),
    ]);
    let path = |name: &str| folder.path().join(name);
    let counts = fault(json!({ "path": path("a.idx"), "labels": path("l") }));
    assert_eq!(
        counts,
        "labels: l: the number of labels is 4, but the number of records is 3"
    );
    let shape = fault(json!({ "path": path("a.idx"), "labels": path("b.idx") }));
    assert_eq!(shape, "labels: b.idx: holds more than one value per record");
    let several = fault(json!({ "path": folder.path(), "labels": path("l") }));
    assert_eq!(
        several,
        "labels: `path` matches 2 files; `labels` requires a single file"
    );
    assert_eq!(
        read::<IdxSourceConfig>(json!({ "path": folder.path() }), 10).len(),
        2
    );
}

#[test]
fn files_and_labels_that_do_not_fit_are_rejects() {
    let wide = idx(8, &[4, 5, 5], &[0; 100]);
    let vectors = idx(0x0b, &[2, 3], &[0; 12]);
    let files = folder(&[
        ("a.idx", &images(3)),
        ("b.idx", &vectors),
        ("c.idx", &wide),
        ("d.idx", &images(2)),
    ]);
    let batches = read::<IdxSourceConfig>(json!({ "path": files.path() }), 10);
    assert_eq!(
        (records(&batches).num_rows(), rejects(&batches)),
        (9, vec![(0, "mismatch", None)])
    );
    assert_eq!(batches[1].batch.provenance.len(), 2);
    assert_eq!((batches[0].pixels, batches[2].pixels), (18, 100));

    let labeled = folder(&[("i", &images(3)), ("l", &idx(8, &[3], &[1; 3]))]);
    let options = json!({ "path": labeled.path().join("i"), "labels": labeled.path().join("l") });
    let source = plan::<IdxSourceConfig>(options, 10).unwrap();
    std::fs::write(labeled.path().join("l"), idx(8, &[4], &[1; 4])).unwrap();
    let labeled_batches = drain(source, &ResumeState::default()).unwrap();
    assert_eq!(
        (
            rejects(&labeled_batches),
            labeled_batches[0].batch.provenance.len()
        ),
        (vec![(0, "mismatch", None)], 3)
    );
    let reason = &labeled_batches[0].rejects[0].reason;
    assert_eq!(
        reason,
        "i: l: the number of labels is 4, but the number of records is 3"
    );
}

#[test]
fn data_after_the_last_record_is_a_reject() {
    let folder = folder(&[("a", &[images(3), vec![0]].concat())]);
    let batches = read::<IdxSourceConfig>(json!({ "path": folder.path().join("a") }), 10);
    assert_eq!(
        (records(&batches).num_rows(), rejects(&batches)),
        (3, vec![(3, "malformed", None)])
    );
    let reason = &batches[1].rejects[0].reason;
    assert_eq!(
        reason,
        "a, row 3: the records: data follows the 3 records that the header declares"
    );
}

#[test]
fn truncated_file_has_its_complete_records_and_one_reject() {
    for bytes in [images(20), gzip(&images(20))] {
        for end in 16..bytes.len() {
            let folder = folder(&[("a", &images(1)), ("b", &bytes[..end])]);
            let batches = read::<IdxSourceConfig>(json!({ "path": folder.path().join("*") }), 8);
            let (rows, refused) = (records(&batches).num_rows() - 1, rejects(&batches));
            assert!(
                rows <= 20 && refused.len() == 1,
                "{end}: {rows}, {refused:?}"
            );
            // If only the checksum is missing, all records are read.
            assert!(
                refused[0].0 == rows as u64 || refused[0].0 == 20,
                "{end}: {refused:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn errors_of_damaged_files_name_the_file(
        offset in 0_usize..200,
        byte: u8,
        packed: bool,
    ) {
        let mut bytes = if packed { gzip(&images(20)) } else { images(20) };
        if let Some(damaged) = bytes.get_mut(offset) {
            *damaged = byte;
        }
        let folder = folder(&[("a", &images(1)), ("b", &bytes)]);
        let options = json!({ "path": folder.path().join("*") });
        let source = plan::<IdxSourceConfig>(options, 8).unwrap();
        match drain(source, &ResumeState::default()) {
            Ok(batches) => prop_assert!(records(&batches).num_rows() >= 1),
            Err(error) => prop_assert!(error.to_string().starts_with("b: "), "{}", error),
        }
    }
}

#[test]
fn later_run_reads_uncommitted_batches_and_changed_labels() {
    let folder = folder(&[
        ("i.gz", &gzip(&images(25))),
        ("l", &idx(8, &[25], &[1; 25])),
    ]);
    let options =
        || json!({ "path": folder.path().join("i.gz"), "labels": folder.path().join("l") });
    let all = read::<IdxSourceConfig>(options(), 10);
    let rest = |resume: &ResumeState| {
        drain(plan::<IdxSourceConfig>(options(), 10).unwrap(), resume).unwrap()
    };
    let later = rest(&progress_of(&all[..1]));
    assert_eq!(later.len(), 2);
    assert_eq!(later[0].batch.records, all[1].batch.records);
    write_later(&folder.path().join("l"), &idx(8, &[25], &[2; 25]));
    assert_eq!(rest(&progress_of(&all)).len(), 3);
}

/// Writes a file and sets a later modification time.
fn write_later(path: &Path, bytes: &[u8]) {
    let before = std::fs::metadata(path).unwrap().modified().unwrap();
    std::fs::write(path, bytes).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(before + std::time::Duration::from_secs(2))
        .unwrap();
}
