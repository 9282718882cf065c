//! Tests of `neighbors` and `duplicates` on datasets that runs and other programs have written.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, FixedSizeListArray, Float32Array, RecordBatch, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Float32Type};
use image::{Rgb, RgbImage};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::common::outputs::data_files;
use crate::common::runs::{errors, latentflow, run};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models");

/// Photos of two waves each; those of one group of five look alike.
fn write_photos(folder: &Path) {
    std::fs::create_dir_all(folder.join("photos/in")).unwrap();
    for number in 0..30_u32 {
        let (group, shift) = (f64::from(number / 5), f64::from(number % 5));
        let wave = |x: u32, length: f64| ((f64::from(x) + shift) / length).sin() * 50.0 + 128.0;
        let color = |x: u32, y: u32| {
            let values = [
                wave(x, 3.0 + 4.0 * group),
                wave(y, 30.0 - 4.0 * group),
                wave(x + y, 9.0 + group),
            ];
            Rgb(values.map(|value| value as u8))
        };
        RgbImage::from_fn(96, 80, color)
            .save(folder.join(format!("photos/in/{number:02}.png")))
            .unwrap();
    }
}

fn pipeline(model: &str) -> String {
    format!(
        "[models.photo]\npath = '{MODELS}/{model}'\n\
         [stages.photos]\nkind = 'images'\npath = 'photos'\n\
         [stages.pixels]\nkind = 'pixels'\ninputs = ['photos']\nmodel = 'photo'\nfit = 'crop'\n\
         [stages.latents]\nkind = 'encode'\ninputs = ['pixels']\nmodel = 'photo'\n\
         [stages.out]\nkind = 'parquet'\ninputs = ['latents']\npath = 'out'\nfile = {{ records = 8 }}\n"
    )
}

fn call(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = latentflow(folder, arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), text, errors(&output))
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let (exit, text, log) = call(folder, &[arguments, &["--format", "json"]].concat());
    assert_eq!(exit, Some(0), "{log}");
    serde_json::from_str(&text).unwrap()
}

/// The latents of a dataset in the order of its files.
fn latents(folder: &Path) -> Vec<Vec<f64>> {
    let mut rows = Vec::new();
    for path in data_files(folder) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap());
        for batch in reader.unwrap().build().unwrap().map(Result::unwrap) {
            let lists = batch["latent"].as_fixed_size_list();
            for row in 0..lists.len() {
                let values = lists.value(row);
                let values = values.as_primitive::<Float32Type>().values().iter();
                rows.push(values.map(|&value| f64::from(value)).collect());
            }
        }
    }
    rows
}

/// The positions of the rows by their cosine distance to `query`, and the distances.
fn by_cosine(rows: &[Vec<f64>], query: &[f64]) -> Vec<(f64, u64)> {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(one, two)| one * two).sum::<f64>();
    let mut all: Vec<(f64, u64)> = rows
        .iter()
        .zip(0..)
        .map(|(row, position)| {
            let norms = dot(row, row).sqrt() * dot(query, query).sqrt();
            (1.0 - dot(row, query) / norms, position)
        })
        .collect();
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    all
}

fn found(result: &Value) -> Vec<(f64, u64)> {
    let neighbors = result["neighbors"].as_array().unwrap().iter();
    let pair = |row: &Value| {
        (
            row["distance"].as_f64().unwrap(),
            row["position"].as_u64().unwrap(),
        )
    };
    neighbors.map(pair).collect()
}

fn assert_near(found: &[(f64, u64)], expected: &[(f64, u64)]) {
    assert_eq!(found.len(), expected.len());
    for (one, other) in found.iter().zip(expected) {
        assert_eq!(one.1, other.1);
        assert!((one.0 - other.0).abs() < 1e-9, "{one:?} {other:?}");
    }
}

#[test]
fn neighbors_of_an_image_are_those_of_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_photos(folder);
    let (output, _) = run(folder, &pipeline("photo-ae"), &[]);
    assert!(output.status.success(), "{}", errors(&output));
    let rows = latents(&folder.join("out"));
    assert_eq!(rows.len(), 30);
    let expected = by_cosine(&rows, &rows[12]);
    let of_row = json(folder, &["neighbors", "out", "--row", "12", "-k", "7"]);
    assert_near(&found(&of_row), &expected[1..8]);
    assert_eq!(of_row["rows"]["compared"], 29);
    assert_eq!(of_row["query"]["columns"]["source"], "in/12.png");
    assert_eq!(of_row["neighbors"][0]["columns"]["row"], 0);

    let model = format!("{MODELS}/photo-ae");
    let image = ["neighbors", "out", "--to", "photos/in/12.png", "-k", "8"];
    for encoder in [["--model", &model], ["--pipeline", "p.toml"]] {
        let of_image = json(folder, &[&image[..], &encoder[..]].concat());
        assert_near(&found(&of_image), &expected[..8]);
        assert_eq!(of_image["rows"]["compared"], 30);
    }
    let (exit, table, _) = call(
        folder,
        &[
            "neighbors",
            "out",
            "--row",
            "12",
            "-k",
            "3",
            "--page",
            "near.html",
        ],
    );
    assert_eq!(exit, Some(0));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "nearest to row 12 (in/12.png) by cosine distance");
    assert_eq!(lines[1], "29 rows compared");
    let columns: Vec<&str> = lines[3].split_whitespace().collect();
    assert_eq!(columns, ["distance", "position", "row", "source"]);
    let first: Vec<&str> = lines[4].split_whitespace().collect();
    let nearest = expected[1].1;
    assert_eq!(first[1], nearest.to_string());
    assert_eq!(first[3], format!("in/{nearest:02}.png"));
    let page = std::fs::read_to_string(folder.join("near.html")).unwrap();
    assert_eq!(page.matches("data:image/jpeg;base64,").count(), 4);
}

#[test]
fn image_of_another_model_or_without_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_photos(folder);
    let (output, _) = run(folder, &pipeline("photo-ae"), &["--limit", "5"]);
    assert!(output.status.success(), "{}", errors(&output));
    let image = ["neighbors", "out", "--to", "photos/in/03.png"];
    let (refused_exit, _, refusal) = call(folder, &image);
    assert_eq!(refused_exit, Some(1));
    assert!(
        refusal.contains(
            "--to requires --pipeline FILE or --model FOLDER, with which the image is encoded; the dataset \
             was written by the pipeline `p` with the model `photo` ("
        ),
        "{refusal}"
    );
    std::fs::write(folder.join("broken.png"), "no image").unwrap();
    let model = format!("{MODELS}/photo-ae");
    let (_, _, broken) = call(
        folder,
        &["neighbors", "out", "--to", "broken.png", "--model", &model],
    );
    assert!(
        broken.contains("broken.png: rejected by the stage `pixels`"),
        "{broken}"
    );
    let fashion = format!("{MODELS}/fashion-conv");
    let (exit, _, other) = call(folder, &[&image[..], &["--model", &fashion]].concat());
    assert_eq!(exit, Some(1));
    assert!(
        other.contains("out: its latents were computed by the model ")
            && other
                .contains("use the model of the dataset, or encode the dataset with this model"),
        "{other}"
    );
    let (_, _, range) = call(folder, &["neighbors", "out", "--row", "5"]);
    assert!(
        range.contains("no row at position 5; positions are 0 to 4"),
        "{range}"
    );
    let (_, _, column) = call(
        folder,
        &["neighbors", "out", "--row", "0", "--column", "latents"],
    );
    assert!(
        column.contains("no column `latents` (did you mean `latent`?)"),
        "{column}"
    );
}

/// Writes latents with ids, as another program does.
fn write_latents(path: &Path, latents: &[[f32; 3]], null: usize) {
    let item = Arc::new(Field::new("element", DataType::Float32, true));
    let values = Arc::new(Float32Array::from(latents.concat()));
    let valid: Vec<bool> = (0..latents.len()).map(|row| row != null).collect();
    let lists = FixedSizeListArray::try_new(item, 3, values, Some(valid.into())).unwrap();
    let ids = UInt64Array::from_iter_values((0..latents.len() as u64).map(|id| id * 10));
    let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(ids)), ("vector", Arc::new(lists))];
    let records = RecordBatch::try_from_iter(columns).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, records.schema(), None).unwrap();
    writer.write(&records).unwrap();
    writer.close().unwrap();
}

#[test]
fn rows_without_distance_are_counted_and_ties_keep_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rows = [
        [1.0, 0.0, 0.0],
        [0.0, 2.0, 0.0],
        [0.0, 0.0, 0.0],
        [f32::NAN, 0.0, 0.0],
        [5.0, 5.0, 5.0],
        [0.0, 0.0, -3.0],
        [4.0, 0.0, 0.0],
    ];
    write_latents(&folder.join("other.parquet"), &rows, 4);
    let cosine = json(folder, &["neighbors", "other.parquet", "--row", "0"]);
    assert_eq!(found(&cosine), [(0.0, 6), (1.0, 1), (1.0, 5)]);
    assert_eq!(cosine["rows"]["without_distance"], 3);
    assert_eq!(cosine["neighbors"][0]["columns"]["id"], 60);
    assert_eq!(cosine["column"], "vector");
    let euclidean = [
        "neighbors",
        "other.parquet",
        "--row",
        "0",
        "--metric",
        "euclidean",
    ];
    let euclidean = json(folder, &euclidean);
    let expected = [(1.0, 2), (5_f64.sqrt(), 1), (3.0, 6), (10_f64.sqrt(), 5)];
    assert_near(&found(&euclidean), &expected);
    assert_eq!(euclidean["rows"]["without_distance"], 2);
    let dot = json(
        folder,
        &[
            "neighbors",
            "other.parquet",
            "--row",
            "0",
            "--metric",
            "dot",
            "-k",
            "1",
        ],
    );
    assert_eq!(found(&dot), [(-4.0, 6)]);
    let (_, _, refusal) = call(folder, &["neighbors", "other.parquet", "--row", "2"]);
    assert!(
        refusal.contains("all of its values are 0, so that it has no cosine"),
        "{refusal}"
    );
    let (_, _, unknown) = call(
        folder,
        &[
            "neighbors",
            "other.parquet",
            "--to",
            "x.png",
            "--model",
            MODELS,
        ],
    );
    assert!(
        unknown.contains("was written by another program"),
        "{unknown}"
    );
}

#[test]
fn duplicates_are_listed_in_groups_with_nearest_distances() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rows = [
        [0.0, 0.0, 0.0],
        [9.0, 0.0, 0.0],
        [9.5, 0.0, 0.0],
        [20.0, 0.0, 0.0],
        [10.0, 0.0, 0.0],
        [0.0, 0.25, 0.0],
        [f32::INFINITY, 0.0, 0.0],
    ];
    write_latents(&folder.join("other.parquet"), &rows, 99);
    let duplicates = [
        "duplicates",
        "other.parquet",
        "--threshold",
        "0.5",
        "--metric",
        "euclidean",
    ];
    let result = json(folder, &duplicates);
    assert_eq!(result["groups"], 2);
    let members = result["members"].as_array().unwrap();
    let listed: Vec<(u64, u64, f64, u64)> = members
        .iter()
        .map(|row| {
            (
                row["group"].as_u64().unwrap(),
                row["position"].as_u64().unwrap(),
                row["distance"].as_f64().unwrap(),
                row["columns"]["id"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        listed,
        [
            (2, 0, 0.25, 0),
            (1, 1, 0.5, 10),
            (1, 2, 0.5, 20),
            (1, 4, 0.5, 40),
            (2, 5, 0.25, 50)
        ]
    );
    let (exit, table, _) = call(folder, &[&duplicates[..], &["--page", "d.html"]].concat());
    assert_eq!(exit, Some(0));
    assert!(
        table.contains(
            "2 groups with 5 rows in total: without all but one row of each, 3 rows are left"
        ),
        "{table}"
    );
    assert!(
        table.contains("6 rows compared; 1 rows without a distance"),
        "{table}"
    );
    let page = std::fs::read_to_string(folder.join("d.html")).unwrap();
    assert!(page.contains("<h2>Group 1: 3 rows</h2>") && page.contains("<h2>Group 2: 2 rows</h2>"));
    let none = json(
        folder,
        &[
            "duplicates",
            "other.parquet",
            "--threshold",
            "0",
            "--metric",
            "euclidean",
        ],
    );
    assert_eq!(
        (&none["groups"], &none["members"]),
        (&0.into(), &serde_json::json!([]))
    );
}
