//! Tests of the names of records in an evaluation.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field};
use image::{ImageFormat, Rgb, RgbImage};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::common::runs::{errors, latentflow};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/photo-denoise-gray");
/// The number of images of the table.
const IMAGES: u32 = 20;
/// The image that consists of noise.
const NOISE: u32 = 13;

fn png(number: u32) -> Vec<u8> {
    let color = |x: u32, y: u32| match number {
        NOISE => {
            let mixed = (x * 64 + y).wrapping_mul(2_654_435_761);
            Rgb([mixed >> 24, mixed >> 16, mixed >> 8].map(|value| (value & 255) as u8))
        }
        plain => Rgb([100 + plain as u8; 3]),
    };
    let mut bytes = std::io::Cursor::new(Vec::new());
    RgbImage::from_fn(64, 64, color)
        .write_to(&mut bytes, ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

/// Writes a table with the column `photo` of Hugging Face images.
fn write_table(path: &Path, images: &[Vec<u8>]) {
    let names: Vec<String> = (0..images.len())
        .map(|number| format!("{number}.png"))
        .collect();
    let columns: [(Arc<Field>, ArrayRef); 2] = [
        (
            Arc::new(Field::new("bytes", DataType::Binary, true)),
            Arc::new(BinaryArray::from_iter_values(images)),
        ),
        (
            Arc::new(Field::new("path", DataType::Utf8, true)),
            Arc::new(StringArray::from(names)),
        ),
    ];
    let photo: ArrayRef = Arc::new(StructArray::from(columns.to_vec()));
    let records = RecordBatch::try_from_iter([("photo", photo)]).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, records.schema(), None).unwrap();
    writer.write(&records).unwrap();
    writer.close().unwrap();
}

#[test]
fn images_of_tables_are_named_by_source_and_row() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    let images: Vec<Vec<u8>> = (0..IMAGES).map(png).collect();
    write_table(&folder.path().join("in/all.parquet"), &images);
    let evaluate = |more: &[&str]| {
        let arguments = ["evaluate", MODEL, "--source", "in"];
        let mut command = latentflow(folder.path(), &arguments);
        let output = command.args(["--part", "all"]).args(more).output().unwrap();
        assert!(output.status.success(), "{}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let found: Value = serde_json::from_str(&evaluate(&["--json", "-"])).unwrap();
    assert_eq!(found["data"]["scored"], IMAGES);
    let reconstruction = &found["reconstruction"];
    for record in [
        &reconstruction["worst"],
        &reconstruction["largest_errors"][0],
    ] {
        let place = json!([record["source"], record["row"]]);
        assert_eq!(place, json!(["all.parquet/13.png", NOISE]));
    }
    assert_eq!(
        reconstruction["largest_errors"].as_array().map(Vec::len),
        Some(10)
    );
    let table = evaluate(&[]);
    let worst = table
        .lines()
        .find(|line| line.starts_with("  worst"))
        .unwrap();
    assert!(worst.ends_with("  all.parquet/13.png, row 13"), "{table}");
}

#[cfg(unix)]
#[test]
fn terminated_evaluation_removes_its_temporary_folder() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join("tmp");
    for new in ["in", "tmp"] {
        fs::create_dir(folder.path().join(new)).unwrap();
    }
    write_table(&folder.path().join("in/all.parquet"), &vec![png(0); 5000]);
    let mut command = latentflow(folder.path(), &["evaluate", MODEL, "--source", "in"]);
    let mut running = command.env("TMPDIR", &temporary).spawn().unwrap();
    let entries = || fs::read_dir(&temporary).unwrap().flatten();
    let records = |entry: fs::DirEntry| fs::read_dir(entry.path()).unwrap().count();
    // The first file is the lock of the folder.
    while entries().map(records).sum::<usize>() <= 1 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let signaled = std::process::Command::new("kill")
        .args(["-TERM", &running.id().to_string()])
        .status();
    assert!(signaled.unwrap().success());
    assert_eq!(running.wait().unwrap().code(), Some(130));
    assert_eq!(entries().count(), 0);
}

/// A JPEG of 320 x 260 pixels with waves of several lengths.
fn jpeg(number: u32) -> Vec<u8> {
    let wave = |x: u32, length: f64| (f64::from(x) / length).sin() * 40.0 + 128.0;
    let color = |x: u32, y: u32| {
        let (first, second) = (f64::from(number) + 3.0, 40.0 + f64::from(number));
        Rgb([
            wave(x + y, first) as u8,
            wave(y, second) as u8,
            wave(x, second) as u8,
        ])
    };
    let mut bytes = std::io::Cursor::new(Vec::new());
    RgbImage::from_fn(320, 260, color)
        .write_to(&mut bytes, ImageFormat::Jpeg)
        .unwrap();
    bytes.into_inner()
}

#[test]
fn decoding_in_full_and_at_a_fraction_of_the_size_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos");
    fs::create_dir(&photos).unwrap();
    for number in 0..6 {
        fs::write(photos.join(format!("{number}.jpg")), jpeg(number)).unwrap();
    }
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/photo-ae");
    let evaluate = |evaluated: &str, more: &[&str]| {
        let arguments = ["evaluate", evaluated, "--source", "photos", "--part", "all"];
        let mut command = latentflow(folder.path(), &arguments);
        command.args(more).output().unwrap()
    };
    let output = evaluate(model, &["--compare-decode", "--json", "-"]);
    assert!(output.status.success(), "{}", errors(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let distance = &found["decode_distance"];
    let number = |key: &str| distance[key].as_f64().unwrap();
    assert_eq!(number("records"), 6.0);
    assert!((0.01..0.6).contains(&number("mean_steps")), "{distance}");
    assert!((1.0..20.0).contains(&number("max_steps")), "{distance}");
    assert!((1e-4..0.1).contains(&number("latent")), "{distance}");
    // The card states that JPEGs are decoded in this mode.
    let error = found["reconstruction"]["error"]["mean"].as_f64().unwrap();
    assert!((number("scaled_error") - error).abs() < 1e-9);
    assert!((number("full_error") / error - 1.0).abs() < 0.1);
    let printed = evaluate(model, &["--compare-decode"]);
    let table = String::from_utf8(printed.stdout).unwrap();
    assert!(table.contains("\ndecoding of JPEGs"), "{table}");

    let refused = evaluate(MODEL, &["--compare-decode"]);
    let text = errors(&refused);
    assert!(
        text.contains("does not take images of a fixed size"),
        "{text}"
    );
}
