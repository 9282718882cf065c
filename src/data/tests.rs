//! Tests that prepare data from small files through the public functions.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::image::Channels;
use crate::model::Scaling;
use crate::model::input::scaling::ScalingKind;

fn spec(value: Value) -> DataSpec {
    crate::registry::parse_options(value).unwrap()
}

fn prepared(folder: &Path, value: Value, input: &InputSpec) -> PreparedDataset {
    prepare(&spec(value), input, &folder.join("prepared"), &mut |_| {}).unwrap()
}

fn all(records: &RecordFile) -> Vec<Record> {
    let read = |index| {
        let mut record = Record::default();
        records.read(index, &mut record).unwrap();
        record
    };
    (0..records.len()).map(read).collect()
}

fn floats(record: &Record) -> Vec<f32> {
    match &record.values {
        RecordValues::F32(values) => values.clone(),
        RecordValues::F64(values) => values.iter().map(|&value| value as f32).collect(),
        RecordValues::U8(_) => panic!("features expected"),
    }
}

/// `rows` lines of `a,b,y,day,name`: `a` is the row, `y` is 1 in every tenth.
fn write_table(path: &Path, rows: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let line = |row: usize| {
        format!(
            "{row},{},{},{},{}\n",
            row as f64 / 2.0,
            usize::from(row % 10 == 9),
            row % 7,
            ["x", "y", "z"][row % 3]
        )
    };
    let lines: String = (0..rows).map(line).collect();
    fs::write(path, format!("a,b,y,day,name\n{lines}")).unwrap();
}

fn table(folder: &Path, more: Value) -> Value {
    let mut spec = json!({ "root": folder, "sources": [{ "kind": "csv", "path": "in/t.csv" }] });
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    spec
}

/// Returns the part of each record, by the record's first value.
fn parts(prepared: &PreparedDataset) -> BTreeMap<u32, Subset> {
    let of = |part| {
        all(prepared.subset(part))
            .into_iter()
            .map(move |record| (floats(&record)[0] as u32, part))
    };
    Subset::ALL.into_iter().flat_map(of).collect()
}

#[test]
fn feature_records_keep_values_labels_and_anomaly_flags() {
    let folder = tempfile::tempdir().unwrap();
    write_table(&folder.path().join("in/t.csv"), 1000);
    let spec = table(
        folder.path(),
        json!({
            "label": "name", "normal": { "column": "y", "equals": 0 }, "without": ["day"],
            "keep": [{ "column": "a", "at_least": 100 }, { "column": "a", "below": 900 }],
            "validation": 0.2, "test": 0.3,
        }),
    );
    let prepared = prepared(folder.path(), spec, &InputSpec::default());
    assert_eq!(
        (prepared.columns.join(" "), prepared.value_names.join(" ")),
        ("a b".to_owned(), "a b".to_owned())
    );
    assert_eq!(
        (prepared.kind, prepared.shape),
        (InputKind::Features, Some([1, 1, 2]))
    );
    assert_eq!(prepared.labels, ["x", "y", "z"]);
    assert_eq!(
        (prepared.left_out, prepared.anomalies, prepared.rejects),
        (200, 80, 0)
    );
    let parts = parts(&prepared);
    assert!(parts.keys().copied().eq(100..900));
    for record in Subset::ALL
        .iter()
        .flat_map(|&part| all(prepared.subset(part)))
    {
        let [a, b] = floats(&record)[..] else {
            panic!("two values expected")
        };
        assert_eq!(
            (b, record.shape, record.label),
            (a / 2.0, [1, 1, 2], Some(a as u32 % 3))
        );
        assert_eq!(record.anomaly, a as u32 % 10 == 9);
        assert!(
            !record.anomaly || parts[&(a as u32)] == Subset::Test,
            "an anomaly is outside of the test part"
        );
    }
    // 720 normal records: the counts are within five standard deviations of the shares.
    assert!(
        prepared.training.len().abs_diff(360) < 67,
        "{}",
        prepared.training.len()
    );
    assert!(
        prepared.validation.len().abs_diff(144) < 54,
        "{}",
        prepared.validation.len()
    );
}

#[test]
fn part_of_record_does_not_depend_on_path_or_other_records() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    write_table(&folders[0].path().join("in/t.csv"), 500);
    write_table(&folders[1].path().join("in/t.csv"), 800);
    write_table(&folders[1].path().join("in/first.csv"), 3);
    let of = |folder: &Path, path: &str, validation: f64| {
        let sources = json!([{ "kind": "csv", "path": path }]);
        let spec =
            json!({ "sources": sources, "root": folder, "validation": validation, "test": 0.3 });
        parts(&prepared(folder, spec, &InputSpec::default()))
    };
    let first = of(folders[0].path(), "in/t.csv", 0.2);
    let mut moved = of(folders[1].path(), "in/t.csv", 0.2);
    moved.retain(|a, _| *a < 500);
    assert_eq!(first, moved);
    let mut among_others = of(folders[1].path(), "in", 0.2);
    among_others.retain(|a, _| (3..500).contains(a));
    assert_eq!(
        among_others,
        first.clone().into_iter().filter(|(a, _)| *a >= 3).collect()
    );
    let test = |parts: &BTreeMap<u32, Subset>| -> Vec<u32> {
        parts
            .iter()
            .filter(|(_, part)| **part == Subset::Test)
            .map(|(a, _)| *a)
            .collect()
    };
    assert_eq!(
        test(&first),
        test(&of(folders[0].path(), "in/t.csv", 0.5)),
        "the test part depends on the share of validation"
    );
}

/// Cards name the data that models were trained on. If the parts change, models are tested on
/// records of their training.
#[test]
fn parts_match_those_of_earlier_versions() {
    let folder = tempfile::tempdir().unwrap();
    write_table(&folder.path().join("in/t.csv"), 40);
    let spec = table(folder.path(), json!({ "validation": 0.25, "test": 0.25 }));
    let prepared = prepared(folder.path(), spec, &InputSpec::default());
    let letter = |part: &Subset| match part {
        Subset::Training => '.',
        Subset::Validation => 'v',
        Subset::Test => 't',
    };
    let letters: String = parts(&prepared).values().map(letter).collect();
    expect![".vtv.vt.v...vvvv.t.vtvvtvvv.v..tv.vvttv."].assert_eq(&letters);
    let first = all(&prepared.training).remove(0);
    expect!["1d9c984878988dfc"].assert_eq(&format!("{:x}", first.identity));
}

#[test]
fn prepared_files_are_reused_until_input_spec_or_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in/t.csv");
    write_table(&input, 100);
    let again = |more: Value| {
        let prepared = prepared(
            folder.path(),
            table(folder.path(), more),
            &InputSpec::default(),
        );
        (prepared.reused, prepared.digest)
    };
    let (reused, digest) = again(json!({}));
    assert!(!reused && digest.len() == 64);
    assert_eq!(
        again(json!({ "description": "does not change the data" })),
        (true, digest.clone())
    );
    let spelled =
        json!([{ "kind": "csv", "path": "./in//t.csv", "header": true, "delimiter": "," }]);
    assert_eq!(
        again(json!({ "sources": spelled, "validation": 0.1, "test": 0 })),
        (true, digest.clone())
    );
    assert!(!again(json!({ "without": ["b"] })).0);
    assert_eq!(again(json!({})), (false, digest.clone()));
    let records = folder.path().join("prepared/training.records");
    fs::write(&records, &fs::read(&records).unwrap()[1..]).unwrap();
    assert_eq!(again(json!({})), (false, digest.clone()));
    fs::remove_file(folder.path().join("prepared/manifest.json")).unwrap();
    assert_eq!(again(json!({})), (false, digest.clone()));
    fs::write(folder.path().join("prepared/manifest.json"), "{").unwrap();
    assert_eq!(again(json!({})), (false, digest.clone()));
    write_table(&input, 101);
    assert_ne!(again(json!({})), (false, digest));
}

/// Returns a binary PGM file whose pixels all have the same value.
fn image(width: usize, height: usize, value: u8) -> Vec<u8> {
    let mut image = format!("P5 {width} {height} 255\n").into_bytes();
    image.resize(image.len() + width * height, value);
    image
}

fn images(folder: &Path, files: &[(&str, Vec<u8>)], input: Value) -> PreparedDataset {
    fs::create_dir_all(folder.join("in")).unwrap();
    files
        .iter()
        .for_each(|(name, bytes)| fs::write(folder.join("in").join(name), bytes).unwrap());
    let spec = json!({
        "root": folder,
        "sources": [{ "kind": "images", "path": "in" }],
        "validation": 0.0,
    });
    prepared(
        folder,
        spec,
        &crate::registry::parse_options(input).unwrap(),
    )
}

#[test]
fn images_keep_their_sizes_unless_input_has_a_size() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("a.pgm", image(3, 2, 7)),
        ("b.pgm", image(1, 4, 8)),
        ("c.pgm", image(3, 2, 9)),
    ];
    let varied = images(folder.path(), &files, json!({ "channels": "gray" }));
    assert_eq!((varied.shape, varied.training.channels()), (None, 1));
    let records = all(&varied.training);
    let shapes: Vec<_> = records.iter().map(|record| record.shape).collect();
    assert_eq!(shapes, [[2, 3, 1], [4, 1, 1], [2, 3, 1]]);
    assert_eq!(records[1].values, RecordValues::U8(vec![8; 4]));
    let fixed = images(folder.path(), &files, json!({ "size": [2, 2] }));
    assert_eq!((fixed.shape, fixed.training.len()), (Some([2, 2, 3]), 3));
    assert_eq!(
        all(&fixed.training)[2].values,
        RecordValues::U8(vec![9; 12])
    );
    assert_eq!(fixed.training.shape(), Some([2, 2, Channels::Rgb.count()]));
}

#[test]
fn unusable_images_are_counted_with_first_ten_reasons() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = vec![
        ("a.pgm", image(300, 1000, 1)),
        ("b.pgm", b"no image".to_vec()),
    ];
    let names: Vec<String> = (0..15).map(|number| format!("c{number:02}.pgm")).collect();
    files.extend(
        names
            .iter()
            .map(|name| (name.as_str(), b"P5 9 9 255\n".to_vec())),
    );
    let prepared = images(folder.path(), &files, json!({}));
    assert_eq!(
        (
            prepared.training.len(),
            prepared.rejects,
            prepared.reasons.len()
        ),
        (1, 16, 10)
    );
    assert!(
        prepared.reasons[0].starts_with("b.pgm, row 0: "),
        "{}",
        prepared.reasons[0]
    );
}

#[test]
fn records_whose_length_does_not_match_are_prepared_again() {
    for size in [None, Some([4, 4])] {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        for (name, side) in [("a", 4), ("b", 5), ("c", 6)] {
            image::GrayImage::new(side, 4)
                .save(folder.path().join(format!("in/{name}.png")))
                .unwrap();
        }
        let spec = json!({
            "root": folder.path(),
            "sources": [{ "kind": "images", "path": "in" }],
            "validation": 0.0,
        });
        let input = InputSpec {
            channels: Some(Channels::Gray),
            size,
            ..InputSpec::default()
        };
        let first = all(&prepared(folder.path(), spec.clone(), &input).training);
        assert!(prepared(folder.path(), spec.clone(), &input).reused);
        // The state after a decoder has returned one byte too many for the last record.
        let (records, manifest) = ["training.records", "manifest.json"]
            .map(|n| folder.path().join("prepared").join(n))
            .into();
        let mut bytes = fs::read(&records).unwrap();
        let length = bytes.len();
        bytes.insert(length - 24, 0);
        fs::write(&records, &bytes).unwrap();
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(
            &manifest,
            text.replace(
                &format!("\"bytes\": {length}"),
                &format!("\"bytes\": {}", length + 1),
            ),
        )
        .unwrap();
        let ends = folder.path().join("prepared/training.ends");
        if size.is_none() {
            let mut listed = fs::read(&ends).unwrap();
            let last = listed.len() - 8;
            listed.splice(last.., (length as u64 + 1).to_le_bytes());
            fs::write(&ends, listed).unwrap();
        }
        let again = prepared(folder.path(), spec, &input);
        assert!(!again.reused, "{size:?}");
        assert_eq!(all(&again.training), first);
    }
}

#[test]
fn concurrent_reads_return_the_same_records() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..60).map(|number| format!("{number:02}.pgm")).collect();
    let files: Vec<_> = names
        .iter()
        .zip(1..)
        .map(|(name, size)| (name.as_str(), image(size, 3, size as u8)))
        .collect();
    let prepared = images(folder.path(), &files, json!({ "channels": "gray" }));
    let expected = all(&prepared.training);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(all(&prepared.training), expected));
        }
    });
}

#[test]
fn wide_records_from_list_columns_are_read_completely() {
    let folder = tempfile::tempdir().unwrap();
    let source = json!([{
        "kind": "synthetic", "content": "features",
        "records": 20, "width": 3000, "outliers": 0.5,
    }]);
    let spec = json!({ "sources": source, "label": "outlier", "validation": 0.5 });
    let prepared = prepared(folder.path(), spec, &InputSpec::default());
    let name = &prepared.columns[0];
    assert_eq!(
        (prepared.columns.len(), prepared.value_names.len()),
        (1, 3000)
    );
    assert_eq!(prepared.value_names[2999], format!("{name}[2999]"));
    assert_eq!(prepared.shape, Some([1, 1, 3000]));
    assert_eq!(prepared.labels, ["false", "true"]);
    let record = &all(&prepared.training)[0];
    assert!(floats(record).len() == 3000 && floats(record)[2999] != 0.0);
    let beyond = prepared
        .training
        .read(20, &mut Record::default())
        .unwrap_err();
    let len = prepared.training.len();
    assert!(
        beyond
            .to_string()
            .ends_with(&format!("record 20 is out of range; the file has {len}")),
        "{beyond}"
    );
}

#[test]
fn non_finite_values_are_rejects_and_no_usable_record_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    fs::write(folder.path().join("in/t.csv"), "a,b\n1,2\n3,\n4,inf\n").unwrap();
    let types = json!({
        "sources": [{
            "kind": "csv", "path": "in/t.csv", "types": { "a": "float", "b": "float" },
        }],
    });
    let prepared = prepared(
        folder.path(),
        table(folder.path(), types),
        &InputSpec::default(),
    );
    expect![[r#"
        t.csv, row 1: `b` is null
        t.csv, row 2: `b` is not a finite number (value 1 of the vector is inf)"#]]
    .assert_eq(&prepared.reasons.join("\n"));
    fs::write(folder.path().join("in/t.csv"), "a,b\n3,\n").unwrap();
    let none = table(
        folder.path(),
        json!({ "keep": [{ "column": "a", "below": 0 }] }),
    );
    let error = prepare(
        &spec(none),
        &InputSpec::default(),
        &folder.path().join("p"),
        &mut |_| {},
    )
    .unwrap_err();
    expect![[
        r#"keep[0]: leaves out all 1 records: the column `a` holds 3 (1); correct the comparison"#
    ]]
    .assert_eq(&error.to_string());
}

#[test]
fn stopped_reading_returns_nothing_and_leaves_no_files() {
    let folder = tempfile::tempdir().unwrap();
    write_table(&folder.path().join("in/t.csv"), 100);
    let (spec, place) = (
        spec(table(folder.path(), json!({}))),
        folder.path().join("p"),
    );
    let stop = AtomicBool::new(true);
    let input = InputSpec::default();
    let stopped = prepare_unless_stopped(&spec, &input, &place, &stop, &mut |_| {}).unwrap();
    assert!(stopped.is_none());
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    stop.store(false, std::sync::atomic::Ordering::Relaxed);
    let whole = prepare_unless_stopped(&spec, &input, &place, &stop, &mut |_| {}).unwrap();
    assert!(whole.is_some_and(|prepared| !prepared.reused));
}

/// Writes 30 rows whose label is "x", "y", an empty string or missing, and returns the prepared data
/// with the comparison `normal`.
fn with_missing_labels(folder: &Path, normal: Value) -> PreparedDataset {
    let row = |n: usize| match n % 5 {
        0 => json!({ "a": n, "label": "y" }),
        1 => json!({ "a": n, "label": "" }),
        2 => json!({ "a": n, "label": null }),
        _ => json!({ "a": n, "label": "x" }),
    };
    let rows: String = (0..30).map(|n| format!("{}\n", row(n))).collect();
    fs::write(folder.join("t.ndjson"), rows).unwrap();
    let spec = json!({
        "root": folder, "sources": [{ "kind": "ndjson", "path": "t.ndjson" }],
        "label": "label", "normal": normal,
    });
    prepared(folder, spec, &InputSpec::default())
}

#[test]
fn records_without_label_are_neither_normal_nor_anomalies() {
    let folder = tempfile::tempdir().unwrap();
    for normal in [
        json!({ "column": "label", "equals": "x" }),
        json!({ "column": "label", "not_equals": "y" }),
    ] {
        let prepared = with_missing_labels(folder.path(), normal.clone());
        let parts = Subset::ALL.map(|part| all(prepared.subset(part)));
        let values = |records: &[Record]| -> Vec<u32> {
            records
                .iter()
                .map(|record| floats(record)[0] as u32 % 5)
                .collect()
        };
        assert_eq!(
            (prepared.anomalies, prepared.without_label),
            (6, 12),
            "{normal}"
        );
        assert_eq!(values(&parts[Subset::Test as usize]), [0; 6], "{normal}");
        let held = [&parts[0], &parts[1]].map(|part| values(part)).concat();
        assert_eq!(held.len(), 12);
        assert!(held.iter().all(|&label| label > 2), "{normal}: {held:?}");
        assert_eq!(prepared.labels, ["x", "y"]);
        assert_eq!(prepared.normal_values, None);
    }
    let empty = json!({ "column": "label", "equals": "" });
    let prepared = with_missing_labels(folder.path(), empty);
    assert_eq!((prepared.anomalies, prepared.without_label), (18, 6));
}

#[test]
fn values_are_described_if_no_record_is_normal() {
    let folder = tempfile::tempdir().unwrap();
    let typo = json!({ "column": "label", "equals": "X" });
    let prepared = with_missing_labels(folder.path(), typo);
    assert_eq!(
        prepared.normal_values.as_deref(),
        Some(r#""" (6), "x" (12), "y" (6), no value (6)"#)
    );
    assert!(prepared.training.is_empty() && prepared.validation.is_empty());
}

#[test]
fn statistics_match_values_of_the_records() {
    let folder = tempfile::tempdir().unwrap();
    write_table(&folder.path().join("in/t.csv"), 300);
    let spec = table(folder.path(), json!({ "without": ["y", "day"] }));
    let prepared = prepared(folder.path(), spec, &InputSpec::default());
    let statistics = statistics(&prepared.training);
    let values: Vec<f64> = all(&prepared.training)
        .iter()
        .map(|record| f64::from(floats(record)[1]))
        .collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>()
        / values.len() as f64;
    assert!(
        (statistics.mean[1] - mean).abs() < 1e-9
            && (statistics.std[1] - variance.sqrt()).abs() < 1e-9
    );
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let Scaling::MinMax { min, max } = statistics.scaling(ScalingKind::MinMax) else {
        panic!("min-max scaling expected")
    };
    assert_eq!((min[1], max[0]), (least, statistics.max[0]));
    assert_eq!(
        self::statistics(&prepared.test).mean,
        [0.0, 0.0],
        "statistics without records"
    );
    let stopped = DatasetStatistics::compute(&prepared.training, &AtomicBool::new(true));
    assert_eq!(stopped.unwrap(), None);
}

fn statistics(records: &RecordFile) -> DatasetStatistics {
    let never = AtomicBool::new(false);
    DatasetStatistics::compute(records, &never)
        .unwrap()
        .unwrap()
}

/// Prepares the rows of a CSV file without validation records.
fn rows(folder: &Path, text: &str) -> PreparedDataset {
    fs::create_dir_all(folder.join("in")).unwrap();
    fs::write(folder.join("in/t.csv"), text).unwrap();
    let spec = table(folder, json!({ "validation": 0.0 }));
    prepared(folder, spec, &InputSpec::default())
}

#[test]
fn statistics_keep_their_digits_at_any_scale() {
    let folder = tempfile::tempdir().unwrap();
    let row = |n: i64| {
        let z = [-1.0, 0.0, 1.0][(n % 3) as usize];
        let (large, nanoseconds) = (1e15 + z, 1_760_000_000_000_000_000 + 256 * n);
        format!(
            "{large},{:e},{:e},0.1,{nanoseconds}\n",
            z * 1e-200,
            z * 1e200
        )
    };
    let lines: String = (0..300).map(row).collect();
    let prepared = rows(folder.path(), &format!("a,b,c,d,t\n{lines}"));
    let DatasetStatistics {
        min,
        max,
        mean,
        std,
    } = statistics(&prepared.training);
    let deviation = (2.0_f64 / 3.0).sqrt();
    assert_eq!((mean[0], min[0], max[0]), (1e15, 1e15 - 1.0, 1e15 + 1.0));
    assert!((std[0] - deviation).abs() < 1e-12, "{}", std[0]);
    assert!((std[1] / 1e-200 - deviation).abs() < 1e-12, "{}", std[1]);
    assert!((std[2] / 1e200 - deviation).abs() < 1e-12, "{}", std[2]);
    assert_eq!((mean[3], std[3]), (0.1, 0.0));
    let expected = 256.0 * ((300.0_f64 * 300.0 - 1.0) / 12.0).sqrt();
    assert!((std[4] / expected - 1.0).abs() < 1e-12, "{}", std[4]);
}

#[test]
fn features_are_stored_in_float64_unless_float32_is_exact() {
    let folder = tempfile::tempdir().unwrap();
    let prepared = rows(folder.path(), "a\n1760000000018\n1760000000164\n");
    let stored: Vec<RecordValues> = all(&prepared.training)
        .into_iter()
        .map(|record| record.values)
        .collect();
    let expected = [1_760_000_000_018.0, 1_760_000_000_164.0].map(|value| vec![value]);
    assert_eq!(stored, expected.map(RecordValues::F64));
    assert!(prepared.has_digest(&format!("sha256:{}", prepared.digest)));
    let former = prepared.former_digest.clone().unwrap();
    assert!(former != prepared.digest && prepared.has_digest(&former));
    let source = json!({ "kind": "synthetic", "content": "features", "records": 5, "width": 2 });
    let spec = json!({ "sources": [source], "validation": 0.0 });
    let floats = super::prepare(
        &self::spec(spec),
        &InputSpec::default(),
        &folder.path().join("p"),
        &mut |_| {},
    )
    .unwrap();
    assert!(matches!(
        all(&floats.training)[0].values,
        RecordValues::F32(_)
    ));
    assert_eq!(floats.former_digest, None);
}

#[test]
fn lists_without_a_fixed_length_are_windows_of_the_usual_length() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    let lines = [
        "null",
        "[1, 2, 3]",
        "[4, 5, 6.5]",
        "[7, 8]",
        "[7, 8, null]",
        "[9, 10, 11]",
    ];
    let lines = lines.map(|list| format!("{{\"window\": {list}, \"n\": 1}}\n"));
    fs::write(folder.path().join("in/t.ndjson"), lines.concat()).unwrap();
    let spec = json!({
        "root": folder.path(),
        "sources": [{ "kind": "ndjson", "path": "in/t.ndjson" }],
        "validation": 0.0,
    });
    let input = InputSpec {
        columns: Some(vec!["window".to_owned()]),
        ..InputSpec::default()
    };
    let prepared = prepared(folder.path(), spec, &input);
    assert_eq!(prepared.shape, Some([1, 1, 3]));
    assert_eq!(floats(&all(&prepared.training)[1]), [4.0, 5.0, 6.5]);
    expect![[r#"
        t.ndjson, row 0: `window` is null
        t.ndjson, row 3: `window` has 2 values, not 3
        t.ndjson, row 4: `window` holds a null"#]]
    .assert_eq(&prepared.reasons.join("\n"));
}

/// Prepares data, removes the version of the manifest, and returns whether the data is used again.
fn is_reused_without_version(folder: &Path, value: &Value, input: &InputSpec) -> bool {
    prepared(folder, value.clone(), input);
    let path = folder.join("prepared/manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest.as_object_mut().unwrap().remove("version").unwrap();
    fs::write(&path, manifest.to_string()).unwrap();
    prepared(folder, value.clone(), input).reused
}

#[test]
fn data_of_earlier_versions_is_prepared_again_if_it_differs() {
    let folder = tempfile::tempdir().unwrap();
    write_table(&folder.path().join("in/t.csv"), 20);
    let features = table(folder.path(), json!({ "without": ["y"] }));
    let input = InputSpec::default();
    assert!(!is_reused_without_version(folder.path(), &features, &input));
    fs::write(folder.path().join("in/a.png"), image(4, 4, 9)).unwrap();
    let images = json!({
        "root": folder.path(),
        "sources": [{ "kind": "images", "path": "in/*.png" }],
    });
    assert!(is_reused_without_version(folder.path(), &images, &input));
}

#[test]
fn all_faults_of_the_table_are_reported_together() {
    let folder = tempfile::tempdir().unwrap();
    write_table(&folder.path().join("in/t.csv"), 10);
    let faults = |value: Value, input: Value, expected: Expect| {
        let input = crate::registry::parse_options(input).unwrap();
        let error = prepare(
            &spec(value),
            &input,
            &folder.path().join("prepared"),
            &mut |_| {},
        )
        .unwrap_err();
        let text = error
            .to_string()
            .replace(&folder.path().display().to_string(), "FOLDER");
        expected.assert_eq(&text);
    };
    faults(
        json!({}),
        json!({}),
        expect![[
            r#"sources: no source is listed; add one, such as [{ kind = "images", path = "photos" }]"#
        ]],
    );
    faults(
        table(
            folder.path(),
            json!({
                "label": "nam", "normal": { "column": "y", "equals": "no" },
                "keep": [{ "column": "c", "above": 1 }],
                "without": ["dy"], "validation": 1.5,
                "sources": [
                    { "kind": "csv", "path": "in/t.csv" },
                    { "kind": "csv", "path": "in/u.csv", "heade": true }, 7,
                    { "path": "x" }, { "kind": "cvs" }
                ],
            }),
        ),
        json!({}),
        expect![[r#"
            validation: 1.5 is not a share; expected a number from 0 to 1
            sources[1].heade: unknown key (did you mean `header`?); known: aligned, columns, decimal, delimiter, encoding, header, null_values, on_change, path, quote, types
            sources[2]: expected a table, such as { kind = "images", path = "photos" }
            sources[3]: `kind` is missing; expected the kind of the source, one of: images, parquet, csv, ndjson, arrow, idx, npz, tar, http, embedded, rejects, synthetic
            sources[4].kind: unknown source `cvs`; known: images, parquet, csv, ndjson, arrow, idx, npz, tar, http, embedded, rejects, synthetic
            without: no column `dy`; the source has: source, row, a, b, y, day, name
            keep[0].column: no column `c`; the input has: source, row, a, b, y, day, name
            normal.equals: the column holds Int64, but `equals` is "no"; compare it with an integer
            label: no column `nam` (did you mean `name`?); the source has: source, row, a, b, y, day, name"#]],
    );
    faults(
        table(
            folder.path(),
            json!({ "label": "nam", "validation": 0.6, "test": 0.6 }),
        ),
        json!({ "columns": ["a", "c", "name"] }),
        expect![[r#"
            test: the shares of validation (0.6) and test (0.6) add up to more than 1
            label: no column `nam` (did you mean `name`?); the source has: source, row, a, b, y, day, name
            input.columns: no column `c`; the input has: source, row, a, b, y, day, name
            input.columns: column `name` holds Utf8, not numbers; add a rule with `encoding` for categories"#]],
    );
    faults(
        table(folder.path(), json!({ "without": ["a"] })),
        json!({ "size": [0, 1] }),
        expect![[r#"
        input.size: height and width must be above 0
        without: applies to columns of features, but the input is images; remove the option"#]],
    );
    faults(
        table(folder.path(), json!({})),
        json!({ "size": [2, 2], "columns": ["a"] }),
        expect![
            "input.size: `size` describes images, but `columns` describes features; remove one of them"
        ],
    );
}

#[test]
fn steps_prepare_the_records_of_images() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    let image = image::GrayImage::from_fn(4, 2, |x, y| image::Luma([(10 * x + 101 * y) as u8]));
    image.save(folder.path().join("in/a.png")).unwrap();
    let spec = json!({ "root": folder.path(), "sources": [{ "kind": "images", "path": "in" }], "validation": 0.0 });
    let values = |library: &str| {
        let step = json!([{ "op": "resize", "size": [1, 2], "library": library, "filter": "box" }]);
        let input = InputSpec {
            channels: Some(Channels::Gray),
            steps: serde_json::from_value(step).unwrap(),
            ..InputSpec::default()
        };
        let records = prepared(folder.path(), spec.clone(), &input);
        assert!(prepared(folder.path(), spec.clone(), &input).reused);
        let record = all(&records.training).remove(0);
        assert_eq!(record.shape, [1, 2, 1]);
        record.values
    };
    // The means are 55.5 and 75.5; Pillow rounds rows and columns.
    let bytes = values("pillow");
    assert!(
        matches!(&bytes, RecordValues::U8(of) if of.len() == 2),
        "{bytes:?}"
    );
    assert_eq!(values("tensorflow"), RecordValues::F32(vec![55.5, 75.5]));
    assert_eq!(values("pillow"), bytes);
}
