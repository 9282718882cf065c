//! Tests that evaluate small models whose errors can be computed by hand.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::corruption::Strength;
use crate::corruption::spec::{CorruptionKind, CorruptionSpec};
use crate::data::{DataSpec, PreparedDataset, Subset, prepare};
use crate::evaluate::options::EvaluateOptions;
use crate::evaluate::result::anomaly_scores::DenoisingQuality;
use crate::model::{Model, testing};
use crate::registry::parse_options;

/// Makes a model folder from files under `tests/models` and opens it.
fn model(folder: &Path, files: &[(&str, &str)], card: &str) -> Model {
    for (from, to) in files {
        std::fs::copy(testing::file(from), folder.join(to)).unwrap();
    }
    std::fs::write(folder.join("model.toml"), card).unwrap();
    testing::open(&format!("path = {folder:?}")).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// A model whose latent is the sums of two adjacent features. The decoder returns half of the sum
/// for each of the two.
fn pairs(folder: &Path) -> Model {
    let card = "name = 'pairs'\nkind = 'linear'\ncode_size = 2\n\
                [input]\ncolumns = ['a', 'b', 'c', 'd']\n\
                [reconstruction_error]\ncount = 9\nmean = 0.5\nstd = 0.1\nmin = 0\nmax = 2\n\
                quantiles = { p01 = 0, p05 = 0, p25 = 0, p50 = 0.5, p75 = 0.5, p95 = 0.5, \
                p99 = 1.5 }\n";
    model(
        folder,
        &[
            ("encoder.onnx", "encoder.onnx"),
            ("decoder.onnx", "decoder.onnx"),
        ],
        card,
    )
}

/// Returns three kinds of 20 rows each, with two pairs of adjacent features. The features of a pair
/// are equal in the first kind, and differ by 2 and by 4 in the others. The errors are thus 0, 1
/// and 4.
fn rows() -> String {
    let row = |n: usize| {
        let (kind, at) = (n % 3, n * 7 % 20);
        let (a, c) = (at as f64, (20 * kind + n % 4) as f64);
        let gap = 2.0 * kind as f64;
        format!(
            "{a},{},{c},{},kind {kind},{}\n",
            a + gap,
            c + gap,
            u8::from(kind == 2)
        )
    };
    std::iter::once("a,b,c,d,kind,odd\n".to_owned())
        .chain((0..60).map(row))
        .collect()
}

fn prepared(folder: &Path, model: &Model, spec: Value) -> PreparedDataset {
    let spec: DataSpec = parse_options(spec).unwrap();
    prepare(
        &spec,
        &model.input_spec(),
        &folder.join("prepared"),
        &mut |_| {},
    )
    .unwrap()
}

fn table(folder: &Path, model: &Model, more: Value) -> PreparedDataset {
    std::fs::write(folder.join("rows.csv"), rows()).unwrap();
    let mut spec = json!({
        "sources": [{ "kind": "csv", "path": folder.join("rows.csv") }],
        "validation": 0.0,
    });
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    prepared(folder, model, spec)
}

fn run(model: &Model, prepared: &PreparedDataset, options: &EvaluateOptions) -> Evaluation {
    evaluate(model, prepared, options, &mut |_, _, _| Ok(())).unwrap()
}

fn check(evaluation: &Evaluation, expected: Expect) {
    expected.assert_eq(&evaluation.to_string());
}

#[test]
fn table_shows_errors_latent_usage_and_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let model = pairs(folder.path());
    let prepared = table(folder.path(), &model, json!({ "label": "kind" }));
    let evaluation = run(
        &model,
        &prepared,
        &EvaluateOptions {
            parts: vec![Subset::Training],
            corruptions: vec![],
        },
    );
    let reconstruction = evaluation.reconstruction.as_ref().unwrap();
    assert_eq!(
        (
            reconstruction.error.mean,
            reconstruction.error.min,
            reconstruction.error.max
        ),
        (5.0 / 3.0, 0.0, 4.0)
    );
    assert_eq!(evaluation.records.len(), 60);
    assert!(
        evaluation
            .records
            .iter()
            .all(|record| record.error == [0.0, 1.0, 4.0][record.label.unwrap() as usize])
    );
    check(
        &evaluation,
        expect![[r#"
            pairs: linear features [4] -> code of 2, mse loss
            60 records of the training part

            reconstruction error (mse)
              mean, deviation                1.667         1.700
              p01, p05, p25                  0.000         0.000         0.000
              p50, p75                       1.000         4.000
              p95, p99                       4.000         4.000
              best                           0.000  rows.csv, row 0
              median                         1.000  rows.csv, row 28
              worst                          4.000  rows.csv, row 59

            code
              compression             4 values to 2: 2.0x, 16 bytes to 8: 2.0x
              active                  82.5 % of the values (magnitude above 4.349, a tenth of the root mean square)

            against PCA                      model           PCA   PCA / model
              mean squared error             1.667      0.002807          0.00
              PCA: 2 components fitted to 60 training records explain 100.0 % of their variance

            labels                          latent           PCA
              5 nearest neighbors           1.0000        1.0000
              linear probe                  1.0000        1.0000
              accuracy over 3 labels: fitted to 60 training records, scored on 60

            records with the largest errors
              4.000     rows.csv, row 59 (kind 2)
              4.000     rows.csv, row 56 (kind 2)
              4.000     rows.csv, row 53 (kind 2)
              4.000     rows.csv, row 50 (kind 2)
              4.000     rows.csv, row 47 (kind 2)

            notes
              the scored records include the training part, on which the model may have been trained
        "#]],
    );
}

/// Checks the lists of records in an evaluation of [`rows`]. The kind of a row is its number modulo
/// 3, and determines its error.
fn check_lists(json: &Value) {
    for (list, kind, error) in [
        (&json["reconstruction"]["largest_errors"], 1, 1.0),
        (&json["anomalies"]["largest_errors"], 2, 4.0),
        (&json["anomalies"]["smallest_errors"], 2, 4.0),
    ] {
        let list = list.as_array().unwrap();
        assert_eq!(list.len(), 10);
        for record in list {
            assert_eq!(record["source"], "rows.csv");
            assert_eq!(record["row"].as_u64().unwrap() % 3, kind, "{record}");
            assert_eq!(record["error"], error);
        }
    }
}

#[test]
fn anomalies_are_ranked_by_error_and_left_out_of_the_mean() {
    let folder = tempfile::tempdir().unwrap();
    let model = pairs(folder.path());
    let prepared = table(
        folder.path(),
        &model,
        json!({ "normal": { "column": "odd", "equals": 0 } }),
    );
    let evaluation = run(
        &model,
        &prepared,
        &EvaluateOptions {
            parts: vec![Subset::Training, Subset::Test],
            corruptions: vec![],
        },
    );
    assert_eq!(evaluation.reconstruction.as_ref().unwrap().error.mean, 0.5);
    check(
        &evaluation,
        expect![[r#"
            pairs: linear features [4] -> code of 2, mse loss
            60 records of the training and test parts, 20 of them anomalies

            reconstruction error (mse)
              mean, deviation               0.5000        0.5000
              p01, p05, p25                  0.000         0.000         0.000
              p50, p75                      0.5000         1.000
              p95, p99                       1.000         1.000
              best                           0.000  rows.csv, row 0
              median                         0.000  rows.csv, row 57
              worst                          1.000  rows.csv, row 58

            code
              compression             4 values to 2: 2.0x, 16 bytes to 8: 2.0x
              active                  83.8 % of the values (magnitude above 2.789, a tenth of the root mean square)

            against PCA                      model           PCA   PCA / model
              mean squared error            0.5000      0.002788          0.01
              PCA: 2 components fitted to 40 training records explain 100.0 % of their variance

            anomalies                        model           PCA
              AUCROC                        1.0000        0.5000
              average precision             1.0000        0.4967
              anomalies: 20, normal records: 40; error of the anomalies: mean 4.000, median 4.000
              above p95 of the card, 0.5000: 100.0 % of the anomalies, 50.0 % of the normal records
              above p99 of the card, 1.500: 100.0 % of the anomalies, 0.0 % of the normal records

            normal records with the largest errors
              1.000     rows.csv, row 58
              1.000     rows.csv, row 55
              1.000     rows.csv, row 52
              1.000     rows.csv, row 49
              1.000     rows.csv, row 46

            anomalies with the largest errors
              4.000     rows.csv, row 59
              4.000     rows.csv, row 56
              4.000     rows.csv, row 53
              4.000     rows.csv, row 50
              4.000     rows.csv, row 47

            anomalies with the smallest errors
              4.000     rows.csv, row 2
              4.000     rows.csv, row 5
              4.000     rows.csv, row 8
              4.000     rows.csv, row 11
              4.000     rows.csv, row 14

            notes
              the scored records include the training part, on which the model may have been trained
        "#]],
    );
    let json = serde_json::to_value(&evaluation).unwrap();
    assert_eq!(
        json["anomalies"]["model"],
        json!({ "auc_roc": 1.0, "average_precision": 1.0 })
    );
    assert_eq!(json["anomalies"]["thresholds"][0]["normal_above"], 0.5);
    check_lists(&json);
    let anomalies = run(&model, &prepared, &EvaluateOptions::default());
    assert!(
        anomalies.anomalies.is_none(),
        "the validation part is empty, so that there are only anomalies"
    );
    assert_eq!(
        anomalies.notes,
        ["only anomalies were scored; select a part that has normal records as well"]
    );
}

/// Writes eight images of 40 x 30 and 24 x 24 pixels with low contrast.
fn images(folder: &Path) {
    for n in 0..8_u32 {
        let (width, height) = if n % 2 == 0 { (40, 30) } else { (24, 24) };
        let pixel = |x: u32, y: u32| {
            image::Rgb([100 + (x + n) as u8, 90 + y as u8, 110 + ((x + y) / 2) as u8])
        };
        image::RgbImage::from_fn(width, height, pixel)
            .save(folder.join(format!("{n}.png")))
            .unwrap();
    }
}

#[test]
fn denoiser_is_measured_with_noise_on_images_of_any_size() {
    let folder = tempfile::tempdir().unwrap();
    images(folder.path());
    let card = "name = 'blur'\nkind = 'denoiser'\n[input]\ntype = 'image'\n\
                [training]\nfile = { corruption = { noise = 'gaussian', sigma = [20, 30] } }\n";
    let model = model(folder.path(), &[("blur.onnx", "model.onnx")], card);
    let prepared = prepared(
        folder.path(),
        &model,
        json!({ "sources": [{ "kind": "images", "path": folder.path() }] }),
    );
    let options = EvaluateOptions {
        parts: Subset::ALL.to_vec(),
        corruptions: vec![],
    };
    let trained = run(&model, &prepared, &options);
    let [level] = trained.denoising.as_slice() else {
        panic!("one level expected: of the usual sigmas, only 25 is in the range")
    };
    assert_eq!(
        (level.corruption.as_str(), level.records),
        ("gaussian noise, sigma 25/255", 8)
    );
    let psnr = |close: &DenoisingQuality| close.images.as_ref().unwrap().psnr.unwrap();
    // 20 log10(255 / 25); a mean over 9 pixels has a ninth of the variance.
    assert!(
        (psnr(&level.noisy) - 20.17).abs() < 0.2,
        "{}",
        psnr(&level.noisy)
    );
    assert!(
        (psnr(&level.output) - 29.71).abs() < 0.7,
        "{}",
        psnr(&level.output)
    );
    let sigma = Some(Strength::Fixed(50.0));
    let spec = CorruptionSpec {
        sigma,
        ..CorruptionSpec::of(CorruptionKind::Gaussian)
    };
    let selected = run(
        &model,
        &prepared,
        &EvaluateOptions {
            corruptions: vec![spec.clone(), spec],
            ..options
        },
    );
    let [one, two] = selected.denoising.as_slice() else {
        panic!("two levels expected")
    };
    assert_eq!(
        psnr(&one.noisy),
        psnr(&two.noisy),
        "the noise of a record depends on more than its identity"
    );
    assert!(
        (psnr(&one.noisy) - 14.15).abs() < 0.2,
        "{}",
        psnr(&one.noisy)
    );
    assert!(selected.compression.is_none() && selected.pca.is_none() && selected.code.is_none());
}

#[test]
fn failures_of_the_model_are_counted_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(
        folder.path(),
        &[("picky.onnx", "model.onnx")],
        "name = 'picky'\nkind = 'x'\n[input]\ncolumns = ['a', 'c']",
    );
    let prepared = table(folder.path(), &model, json!({}));
    let evaluation = run(
        &model,
        &prepared,
        &EvaluateOptions {
            parts: vec![Subset::Training],
            corruptions: vec![],
        },
    );
    let rows = rows();
    let fits = rows.lines().skip(1).filter(|line| {
        let values: Vec<f64> = line
            .split(',')
            .take(3)
            .map(|value| value.parse().unwrap())
            .collect();
        values[0] < 6.0 && values[2] < 6.0
    });
    assert_eq!(
        (
            evaluation.data.scored,
            evaluation.data.scored + evaluation.data.failed
        ),
        (fits.count(), 60)
    );
    assert_eq!(evaluation.reconstruction.unwrap().error.max, 0.0);
    let [note, ..] = evaluation.notes.as_slice() else {
        panic!("a note with the reason expected")
    };
    assert!(
        note.starts_with("reason of the first failure of the model: ") && note.contains("Gather"),
        "{note}"
    );
}

#[test]
fn records_without_label_are_left_out_and_noted() {
    let folder = tempfile::tempdir().unwrap();
    let model = pairs(folder.path());
    let missing = rows().replace(",kind 1,0", ",kind 1,");
    std::fs::write(folder.path().join("missing.csv"), missing).unwrap();
    let spec = json!({
        "sources": [{ "kind": "csv", "path": folder.path().join("missing.csv") }],
        "validation": 0.0, "normal": { "column": "odd", "equals": 0 },
    });
    let prepared = prepared(folder.path(), &model, spec);
    let options = EvaluateOptions {
        parts: vec![Subset::Training, Subset::Test],
        corruptions: vec![],
    };
    let evaluation = run(&model, &prepared, &options);
    let anomalies = evaluation.anomalies.unwrap();
    assert_eq!((anomalies.normal, anomalies.anomalies), (20, 20));
    assert_eq!(evaluation.data.without_label, 20);
    let note = "20 records have no value in the column of `normal`; they are neither normal nor \
                anomalies, and are left out";
    assert!(evaluation.notes.iter().any(|found| found == note));
}

#[test]
fn model_that_fails_on_every_record_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let card = "name = 'picky'\nkind = 'x'\n[input]\ncolumns = ['a', 'c']";
    let model = model(folder.path(), &[("picky.onnx", "model.onnx")], card);
    std::fs::write(folder.path().join("high.csv"), "a,c\n70,1\n80,2\n").unwrap();
    let spec = json!({
        "sources": [{ "kind": "csv", "path": folder.path().join("high.csv") }],
        "validation": 0.0,
    });
    let prepared = prepared(folder.path(), &model, spec);
    let options = EvaluateOptions {
        parts: vec![Subset::Training],
        corruptions: vec![],
    };
    let error = evaluate(&model, &prepared, &options, &mut |_, _, _| Ok(()))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("the model fails on every record: "),
        "{error}"
    );
}

#[test]
fn empty_part_and_inapplicable_corruption_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = pairs(folder.path());
    let prepared = table(folder.path(), &model, json!({}));
    let refused = |options: &EvaluateOptions| {
        evaluate(&model, &prepared, options, &mut |_, _, _| Ok(()))
            .unwrap_err()
            .to_string()
    };
    expect!["the data has no records in the parts to score (validation); select other parts"]
        .assert_eq(&refused(&EvaluateOptions::default()));
    let spec = CorruptionSpec::of(CorruptionKind::WatermarkGrid);
    expect!["corruption.noise: the input holds no pixels to draw a watermark on"].assert_eq(
        &refused(&EvaluateOptions {
            parts: vec![Subset::Training],
            corruptions: vec![spec],
        }),
    );
}
