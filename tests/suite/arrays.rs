//! Tests of array files (IDX, NumPy) in pipelines, also on real files in the folder
//! `LATENTFLOW_TEST_DATA`.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float32Type, Int64Type, UInt8Type};
use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::common::outputs::data_files;
use crate::common::runs::{errors, run};
use crate::common::test_data::test_data;

/// Writes compressed IDX images of 4 x 4 bytes, with the value `n` for all pixels of image `n`, and
/// their labels `n % 10`.
fn write_idx(folder: &Path, count: u8) {
    let sides: Vec<u8> = [u32::from(count), 4, 4]
        .iter()
        .flat_map(|side| side.to_be_bytes())
        .collect();
    let pixels: Vec<u8> = (0..count).flat_map(|number| [number; 16]).collect();
    let mut images = GzEncoder::new(
        File::create(folder.join("images-idx3-ubyte.gz")).unwrap(),
        Compression::fast(),
    );
    images
        .write_all(&[&[0, 0, 8, 3][..], &sides, &pixels].concat())
        .unwrap();
    images.finish().unwrap();
    let labels: Vec<u8> = (0..count).map(|number| number % 10).collect();
    std::fs::write(
        folder.join("labels-idx1-ubyte"),
        [&[0, 0, 8, 1][..], &sides[..4], &labels].concat(),
    )
    .unwrap();
}

fn output(folder: &Path) -> RecordBatch {
    let files = data_files(folder).into_iter().flat_map(|path| {
        ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap())
            .unwrap()
            .build()
            .unwrap()
    });
    let batches: Vec<RecordBatch> = files.map(Result::unwrap).collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn run_to_end(folder: &Path, pipeline: &str) -> Value {
    let (output, summary) = run(folder, pipeline, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    summary
}

const TO_PARQUET: &str = "path = \"out\"\nkind = \"parquet\"\n[rejects]\npath = \"bad\"\n\
                          [stages.again]\nkind = \"discard\"\ninputs = [\"in\"]\n";

#[test]
fn idx_images_are_encoded_and_written_as_files() {
    let folder = tempfile::tempdir().unwrap();
    write_idx(folder.path(), 50);
    let source = "[stages.in]\nkind = \"idx\"\npath = \"images-idx3-ubyte.gz\"\n\
                  labels = \"labels-idx1-ubyte\"\n";
    let pixels = "[stages.pixels]\nkind = \"pixels\"\ninputs = [\"in\"]\nsize = [4, 4]\n\
                  channels = \"gray\"\n";
    let sinks = "[stages.out]\ninputs = [\"pixels\"]\n";
    let photos = "[stages.photos]\nkind = \"images\"\ninputs = [\"pixels\"]\npath = \"photos\"\n";
    let pipeline = format!("{source}{pixels}{photos}{sinks}{TO_PARQUET}");
    assert_eq!(run_to_end(folder.path(), &pipeline)["records"], 50);
    let out = output(&folder.path().join("out"));
    assert_eq!(out["label"].as_primitive::<UInt8Type>().value(37), 7);
    assert_eq!(
        out["pixels"]
            .as_fixed_size_list()
            .value(37)
            .as_primitive::<Float32Type>()
            .value(5),
        37.0 / 255.0
    );
    assert_eq!(
        walkdir::WalkDir::new(folder.path().join("photos"))
            .into_iter()
            .filter(|e| {
                e.as_ref()
                    .unwrap()
                    .path()
                    .extension()
                    .is_some_and(|end| end == "png")
            })
            .count(),
        50
    );
    assert_eq!(
        run_to_end(folder.path(), &pipeline)["records"],
        0,
        "read once"
    );
}

#[test]
fn rejected_idx_images_can_be_replayed() {
    let folder = tempfile::tempdir().unwrap();
    write_idx(folder.path(), 5);
    let pixels = "[stages.pixels]\nkind = \"pixels\"\ninputs = [\"in\"]\nsize = [2, 2]\n";
    let sink = |path: &str| {
        format!(
            "[stages.out]\nkind = \"parquet\"\ninputs = [\"pixels\"]\npath = \"{path}\"\n\
             [rejects]\npath = \"{path}-bad\"\n"
        )
    };
    let source = "[stages.in]\nkind = \"idx\"\npath = \"images-idx3-ubyte.gz\"\n";
    let strict = run_to_end(
        folder.path(),
        &format!("limits.pixels = 10\n{source}{pixels}{}", sink("first")),
    );
    assert_eq!(strict["rejects"], 5);
    let replay = "[stages.in]\nkind = \"rejects\"\npath = \"first-bad\"\n";
    let replayed = run_to_end(
        folder.path(),
        &format!("{replay}{pixels}{}", sink("second")),
    );
    assert_eq!(
        (&replayed["records"], &replayed["rejects"]),
        (&5.into(), &0.into())
    );
}

#[test]
fn fashion_mnist_is_read_completely() {
    let Some(data) = test_data("images/fashion_mnist") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let source = format!(
        "[stages.in]\nkind = \"idx\"\npath = {:?}\nlabels = {:?}\n",
        data.join("train-images-idx3-ubyte.gz"),
        data.join("train-labels-idx1-ubyte.gz")
    );
    let sinks = "[stages.labels]\nkind = \"select\"\ninputs = [\"in\"]\ncolumns = [\"label\"]\n\
                 [stages.out]\ninputs = [\"labels\"]\n";
    let summary = run_to_end(folder.path(), &format!("{source}{sinks}{TO_PARQUET}"));
    assert_eq!(
        (&summary["records"], &summary["rejects"]),
        (&60_000.into(), &0.into())
    );
    let labels = output(&folder.path().join("out"));
    let labels = labels["label"].as_primitive::<UInt8Type>().values();
    assert!((0..10).all(|class| labels.iter().filter(|&&label| label == class).count() == 6000));
}

#[test]
fn adbench_archives_are_read_completely() {
    let Some(data) = test_data("tabular/adbench") else {
        return;
    };
    for (name, rows, width, anomalies) in [
        ("38_thyroid", 3772, 6, 93),
        ("24_mnist", 7603, 100, 700),
        ("4_breastw", 683, 9, 239),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let source = format!(
            "[stages.in]\nkind = \"npz\"\npath = {:?}\n",
            data.join(format!("{name}.npz"))
        );
        let features = "[stages.features]\nkind = \"features\"\ninputs = [\"in\"]\n\
                        columns = [\"X\"]\n[stages.out]\ninputs = [\"features\"]\n";
        let summary = run_to_end(folder.path(), &format!("{source}{features}{TO_PARQUET}"));
        assert_eq!(
            (&summary["records"], &summary["rejects"]),
            (&rows.into(), &0.into()),
            "{name}"
        );
        let out = output(&folder.path().join("out"));
        assert_eq!(out["features"].as_fixed_size_list().value_length(), width);
        let y = arrow::compute::cast(&out["y"], &arrow::datatypes::DataType::Int64).unwrap();
        assert_eq!(
            y.as_primitive::<Int64Type>().values().iter().sum::<i64>(),
            anomalies,
            "{name}"
        );
    }
}
