//! Tests with valid and damaged archives and files that the tests write.
#![allow(clippy::unwrap_used)]

use std::io::Write;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int32Type};
use expect_test::{Expect, expect};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use proptest::prelude::*;
use rawzip::{CompressionMethod, ZipArchiveWriter};
use serde_json::{Value, json};

use crate::coverage::ResumeState;
use crate::image::{Channels, decode};
use crate::source::table::arrays::npz::config::NpzSourceConfig;
use crate::source::table::file_source::testing::{drain, plan, read, records, rejects};

fn npy(descr: &str, fortran: bool, shape: &str, values: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let length = u16::try_from(text.len()).unwrap().to_le_bytes();
    [&b"\x93NUMPY\x01\x00"[..], &length, text.as_bytes(), values].concat()
}

fn npz(method: CompressionMethod, members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = ZipArchiveWriter::new(Vec::new());
    for (name, bytes) in members {
        let (mut entry, config) = archive
            .new_file(name)
            .compression_method(method)
            .start()
            .unwrap();
        let descriptor = if method == CompressionMethod::DEFLATE {
            let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::default()));
            writer.write_all(bytes).unwrap();
            let (encoder, descriptor) = writer.finish().unwrap();
            encoder.finish().unwrap();
            descriptor
        } else {
            let mut writer = config.wrap(&mut entry);
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap().1
        };
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap()
}

fn f8(values: impl IntoIterator<Item = f64>) -> Vec<u8> {
    values.into_iter().flat_map(f64::to_le_bytes).collect()
}

/// `X` of `rows` x 3 in column-major order: row, row + 0.25, row + 0.5; and `y`, the row.
fn table(rows: u32) -> Vec<(&'static str, Vec<u8>)> {
    let columns = [0.0, 0.25, 0.5]
        .into_iter()
        .flat_map(|add| (0..rows).map(move |row| f64::from(row) + add));
    let classes: Vec<u8> = (0..rows).flat_map(u32::to_be_bytes).collect();
    vec![
        (
            "X.npy",
            npy("<f8", true, &format!("({rows}, 3)"), &f8(columns)),
        ),
        ("y.npy", npy(">i4", false, &format!("({rows},)"), &classes)),
    ]
}

fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    files
        .iter()
        .for_each(|(name, bytes)| std::fs::write(folder.path().join(name), bytes).unwrap());
    folder
}

const DEFLATE: CompressionMethod = CompressionMethod::DEFLATE;

#[test]
fn arrays_become_columns_in_any_order_and_compression() {
    for method in [CompressionMethod::STORE, DEFLATE] {
        let folder = folder(&[("t.npz", npz(method, &table(25)))]);
        let batches = read::<NpzSourceConfig>(json!({ "path": folder.path() }), 10);
        assert_eq!(
            batches
                .iter()
                .map(|batch| batch.batch.records.num_rows())
                .collect::<Vec<_>>(),
            [10, 10, 5]
        );
        let all = records(&batches);
        let names: Vec<_> = all
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        assert_eq!(names, ["source", "row", "X", "y"]);
        let last = all["X"].as_fixed_size_list().value(24);
        assert_eq!(
            last.as_primitive::<Float64Type>().values(),
            &[24.0, 24.25, 24.5]
        );
        assert_eq!(
            all["y"].as_primitive::<Int32Type>().values(),
            &(0..25).collect::<Vec<_>>()[..]
        );
        assert!(rejects(&batches).is_empty());
    }
}

#[test]
fn arrays_of_more_dimensions_keep_their_shape() {
    let floats = |shape: &str, count: u16| npy("<f8", false, shape, &f8((0..count).map(f64::from)));
    let files = folder(&[
        ("a.npy", floats("(1, 4, 4, 3)", 48)),
        ("b.npy", floats("(1, 3, 4, 4)", 48)),
    ]);
    let batches = read::<NpzSourceConfig>(json!({ "path": files.path() }), 10);
    let all = records(&batches);
    assert_eq!(
        all.schema().field(2).extension_type_metadata(),
        Some(r#"{"shape":[4,4,3]}"#)
    );
    assert_eq!(
        (all.num_rows(), rejects(&batches)),
        (1, vec![(0, "mismatch", None)])
    );
}

#[test]
fn types_unify_and_half_floats_become_floats() {
    let half = [0x3c00_u16, 0xc000, 0x7c00].map(u16::to_le_bytes).concat();
    let files = folder(&[
        ("a.npy", npy("<f2", false, "(3,)", &half)),
        ("b.npy", npy("<f8", false, "(1,)", &f8([0.1]))),
    ]);
    let all = records(&read::<NpzSourceConfig>(
        json!({ "path": files.path() }),
        10,
    ));
    assert_eq!(
        all["array"].as_primitive::<Float64Type>().values(),
        &[1.0, -2.0, f64::INFINITY, 0.1]
    );
}

#[test]
fn row_major_and_column_major_arrays_have_equal_values() {
    let values: Vec<f64> = (0..24).map(f64::from).collect();
    let index = |row: usize, a: usize, b: usize| row * 12 + a * 4 + b;
    let scattered = (0..4)
        .flat_map(|b| (0..3).flat_map(move |a| (0..2).map(move |row| index(row, a, b) as f64)));
    let members = [
        ("c.npy", npy("<f8", false, "(2, 3, 4)", &f8(values))),
        ("f.npy", npy("<f8", true, "(2, 3, 4)", &f8(scattered))),
    ];
    let folder = folder(&[("t.npz", npz(DEFLATE, &members))]);
    let all = records(&read::<NpzSourceConfig>(
        json!({ "path": folder.path() }),
        10,
    ));
    assert_eq!(&all["c"], &all["f"]);
    assert_eq!(
        all["f"]
            .as_fixed_size_list()
            .value(1)
            .as_primitive::<Float64Type>()
            .value(0),
        12.0
    );
}

#[test]
fn npy_files_and_arrays_of_images_are_read() {
    let folder = folder(&[
        ("a.npy", npy("|u1", false, "(2, 1, 2)", &[1, 2, 3, 4])),
        (
            "b.npz",
            npz(
                DEFLATE,
                &[("x/rgb.npy", npy("|u1", false, "(1, 1, 1, 3)", &[7, 8, 9]))],
            ),
        ),
    ]);
    let images = |path: &str, channels| {
        let batches = read::<NpzSourceConfig>(json!({ "path": folder.path().join(path) }), 10);
        let all = records(&batches);
        let last = all["image"]
            .as_binary::<i32>()
            .value(all.num_rows() - 1)
            .to_vec();
        (batches[0].pixels, decode(&last, channels, 10).unwrap().data)
    };
    assert_eq!(images("a.npy", Channels::Gray), (4, vec![3, 4]));
    assert_eq!(images("b.npz", Channels::Rgb), (1, vec![7, 8, 9]));
}

/// A folder with files that a plan refuses, each for a different reason.
fn refused_files() -> tempfile::TempDir {
    let values = |count: usize| npy("<f8", false, &format!("({count},)"), &f8(vec![0.0; count]));
    let objects = npy("|O", false, "(2,)", &[]);
    let image = || npy("|u1", false, "(2, 3, 3)", &[0; 18]);
    folder(&[
        (
            "a.npz",
            npz(
                DEFLATE,
                &[
                    ("x_train.npy", values(2)),
                    ("x_test.npy", values(1)),
                    ("notes.txt", vec![]),
                ],
            ),
        ),
        ("b.npz", npz(DEFLATE, &[("meta.npy", objects)])),
        (
            "c.npz",
            npz(DEFLATE, &[("i.npy", image()), ("j.npy", image())]),
        ),
        ("d.npz", npz(DEFLATE, &[("notes.txt", vec![])])),
        (
            "e.npz",
            npz(
                DEFLATE,
                &[
                    ("source.npy", values(2)),
                    ("image.npy", values(2)),
                    ("i.npy", image()),
                ],
            ),
        ),
        ("f.npz", npz(CompressionMethod::XZ, &[("x.npy", values(2))])),
        ("g.npz", b"not an archive".to_vec()),
        ("h.npy", npy("<f8", true, "(1099511627776, 4)", &[])),
    ])
}

#[test]
fn faults_list_the_arrays_and_their_problems() {
    let folder = refused_files();
    let check = |name: &str, arrays: Option<Value>, expected: Expect| {
        let options = json!({ "path": folder.path().join(name), "arrays": arrays });
        let faults = plan::<NpzSourceConfig>(options, 10).err().unwrap();
        let fault = faults
            .into_iter()
            .map(|fault| format!("{}: {}", fault.key, fault.message))
            .collect::<Vec<_>>();
        let text = fault.join("\n");
        // The maximum depends on the memory of the machine.
        expected.assert_eq(text.split("the maximum is ").next().unwrap());
    };
    check(
        "a.npz",
        None,
        expect![
            "arrays: `x_train` has 2 records, but `x_test` has 1; list arrays with the same number \
             of records"
        ],
    );
    check(
        "a.npz",
        Some(json!(["x_trian"])),
        expect![
            "arrays: unknown array `x_trian` (did you mean `x_train`?); known: x_train, x_test"
        ],
    );
    check(
        "a.npz",
        Some(json!(["x_test", "x_test"])),
        expect!["arrays: duplicate array `x_test`; names must be unique"],
    );
    check(
        "a.npz",
        Some(json!([])),
        expect!["arrays: expected at least one array"],
    );
    check(
        "b.npz",
        None,
        expect![
            "path: no file can be read; b.npz: the array `meta` holds values of type `|O`; \
             expected booleans, integers of 8 to 64 bits, or floats of 16, 32 or 64 bits"
        ],
    );
    check(
        "c.npz",
        None,
        expect![
            "arrays: several arrays hold images, but a record has one image; list the arrays to \
             read"
        ],
    );
    check(
        "d.npz",
        None,
        expect!["path: no file can be read; d.npz: contains no arrays"],
    );
    check(
        "e.npz",
        None,
        expect!["path: duplicate column `image`; names must be unique"],
    );
    check(
        "f.npz",
        None,
        expect![
            "path: no file can be read; f.npz: the array `x` is compressed with 95 (XZ); only \
             stored and deflated arrays are supported"
        ],
    );
    check(
        "g.npz",
        None,
        expect![
            "path: no file can be read; g.npz: is neither a .npy file nor a .npz archive: Missing \
             end of central directory"
        ],
    );
    check(
        "h.npy",
        None,
        expect![
            "path: arrays of 35184372088832 bytes are in column-major order (fortran_order) and \
             must be read into memory completely; "
        ],
    );
}

#[test]
fn files_that_differ_from_the_first_file_are_rejects() {
    let other = |rows: u32, classes: u32| vec![table(rows).remove(0), table(classes).remove(1)];
    let files = folder(&[
        ("a.npz", npz(DEFLATE, &table(3))),
        ("b.npz", npz(DEFLATE, &other(4, 5))),
    ]);
    let batches = read::<NpzSourceConfig>(json!({ "path": files.path() }), 10);
    assert_eq!(
        (records(&batches).num_rows(), rejects(&batches)),
        (3, vec![(0, "mismatch", None)])
    );
    let wide = npy("<f8", false, "(1, 4)", &f8([0.0; 4]));
    let wide_files = folder(&[
        ("a.npz", npz(DEFLATE, &table(3))),
        (
            "b.npz",
            npz(DEFLATE, &[("X.npy", wide), table(1).remove(1)]),
        ),
    ]);
    let wide_batches = read::<NpzSourceConfig>(json!({ "path": wide_files.path() }), 10);
    assert_eq!(
        (records(&wide_batches).num_rows(), rejects(&wide_batches)),
        (3, vec![(0, "mismatch", None)])
    );
    let reason = &wide_batches[1].rejects[0].reason;
    assert!(
        reason.starts_with("b.npz: column `X` is FixedSizeList"),
        "{reason}"
    );
}

#[test]
fn array_of_wrong_length_has_its_records_and_one_reject() {
    for (extra, fortran, rows, code) in [
        (-1, false, 7, "truncated"),
        (-1, true, 0, "truncated"),
        (1, false, 8, "malformed"),
        (1, true, 8, "malformed"),
    ] {
        let mut values = f8((0..16).map(f64::from));
        values.resize(values.len().checked_add_signed(extra).unwrap(), 0);
        let bad = npy("<f8", fortran, "(8, 2)", &values);
        let files = folder(&[
            (
                "a.npz",
                npz(
                    DEFLATE,
                    &[("x.npy", npy("<f8", false, "(1, 2)", &f8([0.0; 2])))],
                ),
            ),
            ("b.npz", npz(DEFLATE, &[("x.npy", bad)])),
        ]);
        let batches = read::<NpzSourceConfig>(json!({ "path": files.path() }), 3);
        let refused = rejects(&batches);
        assert_eq!(
            (
                records(&batches).num_rows() - 1,
                refused.len(),
                refused[0].1
            ),
            (rows, 1, code)
        );
        assert_eq!(refused[0].0, rows as u64);
    }
}

proptest! {
    #[test]
    fn damage_does_not_panic_and_lost_records_are_rejected(
        offset in 0_usize..1000,
        byte: u8,
        cut in 0_usize..1500,
        deflated: bool,
    ) {
        let method = if deflated { DEFLATE } else { CompressionMethod::STORE };
        let mut bytes = npz(method, &table(20));
        let original = bytes.clone();
        bytes.truncate(cut);
        if let Some(damaged) = bytes.get_mut(offset) {
            *damaged = byte;
        }
        let is_intact = bytes == original;
        let files = folder(&[("a.npz", npz(DEFLATE, &table(1))), ("b.npz", bytes)]);
        let source = plan::<NpzSourceConfig>(json!({ "path": files.path() }), 8).unwrap();
        match drain(source, &ResumeState::default()) {
            Ok(batches) => {
                let (rows, refused) = (records(&batches).num_rows() - 1, rejects(&batches).len());
                prop_assert!(rows == 20 || refused == 1, "{} rows, {} rejects", rows, refused);
                prop_assert!(!is_intact || refused == 0);
            }
            Err(error) => prop_assert!(error.to_string().starts_with("b.npz: "), "{}", error),
        }
    }
}
