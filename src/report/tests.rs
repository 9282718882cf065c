//! Tests of complete pages: valid HTML, no external resources, and the expected contents.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float32Array, Float64Array, ListArray, RecordBatch, StringArray, StructArray,
    UInt32Array, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use super::*;
use crate::data::{DataSpec, Subset, prepare};
use crate::evaluate::options::EvaluateOptions;
use crate::evaluate::{collect_examples, evaluate};
use crate::model::{Model, testing};
use crate::registry::parse_options;
use crate::storage::Location;
use crate::tensor::{fixed_column, vector_field};

/// Asserts that a page closes all elements and has no scripts and no external resources.
fn check_page(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in page
        .split('<')
        .skip(2)
        .map(|rest| rest.split('>').next().unwrap())
    {
        let name = tag
            .trim_start_matches('/')
            .split_whitespace()
            .next()
            .unwrap();
        match tag.strip_prefix('/') {
            Some(_) => assert_eq!(open.pop(), Some(name), "{tag}"),
            None if ["img", "meta", "br"].contains(&name) => {}
            None => open.push(name),
        }
        let acts = tag
            .split_whitespace()
            .any(|part| part.starts_with("on") && part.contains('='));
        assert!(name != "script" && !acts, "{tag}");
    }
    assert!(open.is_empty(), "{open:?}");
    for source in page.split("src=\"").skip(1) {
        assert!(source.starts_with("data:image/png;base64,"));
    }
    assert!(!page.contains("http://") && !page.contains("https://"));
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
}

fn write(path: &Path, columns: Vec<(Field, ArrayRef)>) {
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let records = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), records.schema(), None).unwrap();
    writer.write(&records).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, writer.into_inner().unwrap()).unwrap();
}

fn texts(values: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<StringArray>())
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, false)
}

#[test]
fn run_page_shows_errors_latents_sources_and_rejects() {
    let folder = tempfile::tempdir().unwrap();
    let rows = 500;
    let errors: Float32Array = (0..rows).map(|n| Some(0.01 + (n % 97) as f32)).collect();
    let codes = (0..rows * 3).map(|n| (n * 7 % 31) as f32).collect();
    write(
        &folder.path().join("part-00000.parquet"),
        vec![
            (
                text("source"),
                texts((0..rows).map(|n| format!("photos/<b>{}/{n}.jpg", n % 2))),
            ),
            (vector_field("latent", 3), fixed_column(3, codes).unwrap()),
            (
                Field::new("reconstruction_error", DataType::Float32, false),
                Arc::new(errors),
            ),
            (
                text("label"),
                texts((0..rows).map(|n| ["cat & dog", "<script>"][n % 2].to_owned())),
            ),
        ],
    );
    let refused = [
        ("pixels", "truncated"),
        ("pixels", "truncated"),
        ("latents", "not_finite"),
    ];
    write(
        &folder.path().join("_latentflow/rejects/part-00000.parquet"),
        vec![
            (
                text("stage"),
                texts(refused.iter().map(|(stage, _)| (*stage).to_owned())),
            ),
            (
                text("code"),
                texts(refused.iter().map(|(_, code)| (*code).to_owned())),
            ),
        ],
    );
    let page = RunReport::read(&Location::from(folder.path()))
        .unwrap()
        .page();
    check_page(&page);
    for shown in [
        "cat &amp; dog",
        "&lt;script&gt;",
        "photos/&lt;b&gt;1",
        "truncated (pixels)",
        "first principal component",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    let one = RunReport::read(&Location::from(
        folder.path().join("part-00000.parquet").as_path(),
    ))
    .unwrap()
    .page();
    check_page(&one);
    assert!(!one.contains("truncated"));
}

/// Lists of one feature each, with its z-score.
fn reasons(names: &[String], zscores: Vec<f32>) -> (Field, ArrayRef) {
    let fields = Fields::from(vec![
        text("feature"),
        Field::new("zscore", DataType::Float32, false),
    ]);
    let columns: Vec<ArrayRef> = vec![
        texts(names.iter().cloned()),
        Arc::new(Float32Array::from(zscores)),
    ];
    let items = StructArray::try_new(fields.clone(), columns, None).unwrap();
    let item = Arc::new(Field::new_list_field(DataType::Struct(fields), true));
    let offsets = OffsetBuffer::from_lengths(names.iter().map(|_| 1));
    let lists = ListArray::try_new(Arc::clone(&item), offsets, Arc::new(items), None).unwrap();
    (
        Field::new("top_features", DataType::List(item), false),
        Arc::new(lists),
    )
}

#[test]
fn run_page_shows_clusters_and_unusual_records() {
    let folder = tempfile::tempdir().unwrap();
    let rows = 300_usize;
    // 30 % of the latents, and seven times 10 %, far apart from each other.
    let corner = |row: usize| (row % 10).saturating_sub(2) as f32 * 1000.0;
    let codes = (0..rows)
        .flat_map(|row| [corner(row), (row % 7) as f32 * 0.1])
        .collect();
    let zscores: Float32Array = (0..rows)
        .map(|row| {
            Some(if row == 123 {
                777.5
            } else {
                row as f32 / 100.0
            })
        })
        .collect();
    let names: Vec<String> = (0..rows).map(|row| format!("sensor<{row}>")).collect();
    let numbers = UInt64Array::from_iter_values((0..rows as u64).map(|row| 5000 + row));
    write(
        &folder.path().join("part-00000.parquet"),
        vec![
            (
                text("source"),
                texts((0..rows).map(|_| "rows.csv".to_owned())),
            ),
            (
                Field::new("row", DataType::UInt64, false),
                Arc::new(numbers),
            ),
            (vector_field("latent", 2), fixed_column(2, codes).unwrap()),
            (
                Field::new("zscore", DataType::Float32, false),
                Arc::new(zscores),
            ),
            reasons(&names, vec![8.5; rows]),
        ],
    );
    let page = RunReport::read(&Location::from(folder.path()))
        .unwrap()
        .page();
    check_page(&page);
    let section = |title: &str| {
        let start = page.split(&format!("<h2>{title}</h2>")).nth(1).unwrap();
        start.split("</section>").next().unwrap().to_owned()
    };
    let clusters = section("Clusters");
    let count = |share: &str| clusters.matches(share).count();
    assert_eq!(count("30.0 % of the latents"), 1, "{clusters}");
    assert_eq!(count("10.0 % of the latents"), 7, "{clusters}");
    assert!(clusters.contains("rows.csv"), "{clusters}");
    let unusual = section("Unusual records");
    let first = unusual.split("<tr>").nth(2).unwrap();
    let cells: Vec<&str> = first
        .split("</t")
        .filter_map(|cell| cell.rsplit('>').next())
        .filter(|cell| !cell.is_empty())
        .collect();
    assert_eq!(
        cells,
        [
            "rows.csv",
            "5123",
            "123",
            "777.5",
            "sensor&lt;123&gt; (z 8.5)"
        ]
    );
    assert_eq!(unusual.matches("<tr>").count(), 1 + 24);
}

#[test]
fn run_page_of_a_dataset_without_known_columns_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let nothing: Float32Array = [Some(f32::NAN), None].into_iter().collect();
    write(
        &folder.path().join("a.parquet"),
        vec![
            (
                Field::new("mse", DataType::Float32, true),
                Arc::new(nothing),
            ),
            (text("y"), texts(["", "b"].map(str::to_owned).into_iter())),
        ],
    );
    check_page(
        &RunReport::read(&Location::from(folder.path()))
            .unwrap()
            .page(),
    );
}

/// Creates a model folder from files of `tests/models`.
fn model(folder: &Path, files: &[(&str, &str)], card: &str) -> Model {
    for (from, to) in files {
        std::fs::copy(testing::file(from), folder.join(to)).unwrap();
    }
    std::fs::write(folder.join("model.toml"), card).unwrap();
    testing::open(&format!("path = {folder:?}")).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// Returns the page about a model that is evaluated on all parts of the data of `spec`.
fn page(folder: &Path, model: &Model, spec: Value) -> String {
    let spec: DataSpec = parse_options(spec).unwrap();
    let prepared = prepare(
        &spec,
        &model.input_spec(),
        &folder.join("prepared"),
        &mut |_| {},
    )
    .unwrap();
    let options = EvaluateOptions {
        parts: Subset::ALL.to_vec(),
        corruptions: vec![],
    };
    let evaluation = evaluate(model, &prepared, &options, &mut |_, _, _| Ok(())).unwrap();
    let chosen = examples(&evaluation, model);
    let shown = collect_examples(model, &prepared, &options, &chosen).unwrap();
    let evaluated = Some(EvaluatedModel {
        evaluation: &evaluation,
        prepared: &prepared,
        shown: &shown,
    });
    let curve = read_curve(folder).unwrap();
    let page = ModelReport {
        model,
        curve: &curve,
        evaluated,
        notes: vec!["a <note>".to_owned()],
    }
    .page();
    check_page(&page);
    page
}

#[test]
fn model_page_of_features_shows_their_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let rows = (0..60).map(|n| {
        format!(
            "{},{},{},{},{}\n",
            n % 7,
            n % 7 + n % 3,
            n % 5,
            n % 5,
            u8::from(n % 3 == 2)
        )
    });
    let rows: String = std::iter::once("a<b,b,c,d,odd\n".to_owned())
        .chain(rows)
        .collect();
    std::fs::write(path.join("rows.csv"), rows).unwrap();
    let card = "name = 'pairs <of> two'\nkind = 'linear'\ncode_size = 2\n\
                description = 'sums & halves'\n\
                [input]\ncolumns = ['a<b', 'b', 'c', 'd']\n\
                [reconstruction_error]\ncount = 9\nmean = 0.5\nstd = 0.1\nmin = 0\nmax = 2\n\
                quantiles = { p01 = 0, p05 = 0, p25 = 0, p50 = 0.5, p75 = 0.5, p95 = 0.5, \
                p99 = 1.5 }\n\
                features = { mean = [0.1, 0.1, 0, 0], std = [0.1, 0.1, 0, 0] }\n\
                [training]\nlicense = 'free'\nhyperparameters = { learning_rate = 0.5 }\n\
                file = { name = 'x' }\n";
    let model = model(
        path,
        &[
            ("encoder.onnx", "encoder.onnx"),
            ("decoder.onnx", "decoder.onnx"),
        ],
        card,
    );
    curve(path);
    let source = json!({ "kind": "csv", "path": path.join("rows.csv") });
    let page = page(
        path,
        &model,
        json!({ "sources": [source], "normal": { "column": "odd", "equals": 0 } }),
    );
    for shown in [
        "pairs &lt;of&gt; two",
        "sums &amp; halves",
        "a&lt;b",
        "z-score",
        "median anomaly",
        "Anomalies with the smallest errors",
        "rows.csv, row ",
        "AUCROC",
        "The smallest validation loss, 0.02, is that of epoch 2 of 3.",
        "first principal component",
        "a &lt;note&gt;",
        "The training file",
        "learning rate",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    let alone = ModelReport {
        model: &model,
        curve: &[],
        evaluated: None,
        notes: vec![],
    }
    .page();
    check_page(&alone);
    assert!(alone.contains("validation records") && !alone.contains("<svg"));
}

fn curve(folder: &Path) {
    let floats = |values: [Option<f64>; 3]| Arc::new(Float64Array::from_iter(values)) as ArrayRef;
    let loss = |name: &str| Field::new(name, DataType::Float64, true);
    write(
        &folder.join("training.parquet"),
        vec![
            (
                Field::new("epoch", DataType::UInt32, false),
                Arc::new(UInt32Array::from_iter_values([1, 2, 3])),
            ),
            (loss("loss"), floats([Some(3.0), Some(0.01), Some(0.005)])),
            (
                loss("validation_loss"),
                floats([None, Some(0.02), Some(0.03)]),
            ),
        ],
    );
}

#[test]
fn model_page_of_a_denoiser_shows_images_before_and_after() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for n in 0..6_u32 {
        let (width, height) = if n % 2 == 0 { (300, 230) } else { (24, 24) };
        let pixel = |x: u32, y: u32| image::Rgb([(x + n) as u8, 90 + y as u8 / 2, 110]);
        image::RgbImage::from_fn(width, height, pixel)
            .save(path.join(format!("{n}.png")))
            .unwrap();
    }
    let card = "name = 'blur'\nkind = 'denoiser'\n[input]\ntype = 'image'\n\
                [training]\nfile = { corruption = { noise = 'gaussian', sigma = 25 } }\n";
    let model = model(path, &[("blur.onnx", "model.onnx")], card);
    let page = page(
        path,
        &model,
        json!({ "sources": [{ "kind": "images", "path": path }] }),
    );
    assert_eq!(
        page.matches("<img").count(),
        12,
        "original, corrupted, restored and difference of three images"
    );
    for shown in [
        "gaussian noise, sigma 25/255",
        "PSNR, from",
        "alt=\"worst, restored\"",
        "width=\"224\"",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
}

#[test]
fn invalid_loss_curve_is_refused_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(read_curve(folder.path()).unwrap(), []);
    std::fs::write(folder.path().join("training.parquet"), "no Parquet").unwrap();
    let error = read_curve(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("training.parquet: invalid loss curve: ")
            && error.ends_with("; restore the file, or remove it to omit the curve"),
        "{error}"
    );
}
