//! Unit tests of the module `score`.

#![allow(clippy::unwrap_used)]

use arrow::array::AsArray;
use arrow::datatypes::Float32Type;
use expect_test::{Expect, expect};

use super::super::testing::{faults, of, part, reasons, run};
use super::*;
use crate::image::pixel_format::{Channels, TensorLayout};
use crate::tensor::{fixed_column, tensor_field, variable_column, variable_field, vector_field};
use crate::transform::score::config::ScoreConfig;

fn vectors(x: &[f32], y: &[f32], len: usize) -> Batch {
    let column = |values: &[f32]| fixed_column(len, values.to_vec()).unwrap();
    of([
        (vector_field("x", len), column(x)),
        (vector_field("y", len), column(y)),
    ])
}

fn images(format: &PixelFormat, side: usize, x: &[f32], y: &[f32]) -> Batch {
    let shape = format.shape(side, side);
    let field = |name| format.annotate(tensor_field(name, &shape).unwrap());
    let column = |values: &[f32]| fixed_column(shape.iter().product(), values.to_vec()).unwrap();
    of([(field("x"), column(x)), (field("y"), column(y))])
}

fn options(metrics: &str) -> String {
    format!(r#"{{"original": "x", "reconstruction": "y", {metrics}}}"#)
}

fn scores(metrics: &str, batch: Batch) -> Vec<f32> {
    let (out, rejects) = run::<ScoreConfig>(&options(metrics), batch);
    assert!(rejects.is_empty(), "{rejects:?}");
    out.records.columns()[2..]
        .iter()
        .map(|scores| scores.as_primitive::<Float32Type>().value(0))
        .collect()
}

#[test]
fn errors_are_means_over_values_of_a_record() {
    let input = vectors(&[0.0, 1.0, 0.5, 1.0], &[0.5, 1.0, 0.5, 0.5], 4);
    let [mse, mae, bce, psnr] = scores(r#""metrics": ["mse", "mae", "bce", "psnr"]"#, input)[..]
    else {
        panic!()
    };
    assert_eq!((mse, mae), (0.125, 0.25));
    // Three values contribute -ln 0.5, and one contributes 0 except for the clamp.
    assert!((bce - 0.75 * std::f32::consts::LN_2).abs() < 1e-5);
    assert!((psnr - 9.030_9).abs() < 1e-4);
}

#[test]
fn default_metric_is_mse_and_prefix_is_in_column_name() {
    let (out, _) = run::<ScoreConfig>(
        &options(r#""prefix": "noisy_""#),
        vectors(&[1.0], &[3.0], 1),
    );
    assert_eq!(
        out.records
            .column_by_name("noisy_mse")
            .unwrap()
            .as_primitive::<Float32Type>()
            .value(0),
        4.0
    );
}

#[test]
fn psnr_is_independent_of_pixel_scale() {
    let bytes = |shift: usize| (0..48).map(move |index| ((index * 5 + shift) % 256) as f32);
    let plain = PixelFormat {
        range: [0.0, 255.0],
        ..PixelFormat::default()
    };
    let scaled = PixelFormat {
        mean: vec![0.4; 3],
        std: vec![0.5, 0.25, 0.125],
        ..PixelFormat::default()
    };
    let as_scaled = |shift| -> Vec<f32> {
        let value = |(index, byte): (usize, f32)| {
            let (scale, offset) = scaled.affine(index / 16);
            byte * scale + offset
        };
        bytes(shift).enumerate().map(value).collect()
    };
    let collect = |shift| bytes(shift).collect::<Vec<f32>>();
    let one = scores(
        r#""metrics": ["psnr"]"#,
        images(&plain, 4, &collect(0), &collect(10)),
    );
    let two = scores(
        r#""metrics": ["psnr"]"#,
        images(&scaled, 4, &as_scaled(0), &as_scaled(10)),
    );
    // All pixels differ by 10 steps: 20 log10(25.5).
    assert!((one[0] - 28.130_8).abs() < 1e-3, "{one:?}");
    assert!((one[0] - two[0]).abs() < 1e-3, "{one:?} {two:?}");
}

#[test]
fn perfect_reconstruction_has_infinite_psnr_and_ssim_1() {
    let image: Vec<f32> = (0..12 * 12 * 3)
        .map(|index| (index % 7) as f32 / 7.0)
        .collect();
    let interleaved = PixelFormat {
        layout: TensorLayout::Nhwc,
        ..PixelFormat::default()
    };
    let input = images(&interleaved, 12, &image, &image);
    assert_eq!(
        scores(r#""metrics": ["psnr", "ssim", "mse"]"#, input),
        [f32::INFINITY, 1.0, 0.0]
    );
    assert_eq!(
        scores(r#""metrics": ["psnr"]"#, vectors(&[1.0], &[1.0], 1)),
        [f32::INFINITY]
    );
}

#[test]
fn psnr_of_values_without_pixels_uses_the_peak() {
    let psnr = scores(
        r#""metrics": ["psnr"], "peak": 100"#,
        vectors(&[0.0], &[1.0], 1),
    );
    assert!((psnr[0] - 40.0).abs() < 1e-5);
}

#[test]
fn rows_that_cannot_be_compared_are_rejected() {
    let field = |name| {
        PixelFormat {
            channels: Channels::Gray,
            ..PixelFormat::default()
        }
        .annotate(variable_field(name, 3).unwrap())
    };
    let column = |shapes: &[Vec<usize>], fill: f32| {
        let len = shapes
            .iter()
            .map(|shape| shape.iter().product::<usize>())
            .sum();
        variable_column(3, vec![fill; len], shapes).unwrap()
    };
    let shapes = [
        vec![1, 11, 11],
        vec![1, 4, 4],
        vec![1, 11, 12],
        vec![1, 0, 11],
    ];
    let mut other = shapes.clone();
    other[2] = vec![1, 12, 11];
    let input = of([
        (field("x"), column(&shapes, 0.5)),
        (field("y"), column(&other, 0.5)),
    ]);
    let (out, rejects) = run::<ScoreConfig>(&options(r#""metrics": ["ssim"]"#), input);
    assert_eq!(out.row_ordinals, [0]);
    expect![[r#"
            1: mismatch: ssim requires at least 11x11 pixels; met 4x4
            2: mismatch: the original has the shape [1, 11, 12], but the reconstruction [1, 12, 11]
            3: mismatch: a tensor of shape [1, 0, 11] has no values to compare"#]]
    .assert_eq(&reasons(&rejects));
    let invalid_values = vectors(&[f32::NAN, 2.0, 0.5], &[0.5, 0.5, 0.5], 1);
    let (kept, value_rejects) =
        run::<ScoreConfig>(&options(r#""metrics": ["bce"]"#), invalid_values);
    assert_eq!(kept.row_ordinals, [2]);
    expect![[r#"
            0: not_finite: the original holds NaN
            1: mismatch: bce requires values within 0..1; met 2"#]]
    .assert_eq(&reasons(&value_rejects));
}

#[test]
fn empty_batch_has_the_planned_schema() {
    let (out, _) = run::<ScoreConfig>(
        &options(r#""metrics": ["mse", "psnr"]"#),
        part(&vectors(&[1.0], &[1.0], 1), 0, 0),
    );
    assert_eq!((out.records.num_rows(), out.records.num_columns()), (0, 4));
}

#[test]
fn faults_of_options_are_reported_by_key() {
    let check = |input: &Batch, metrics: &str, expected: Expect| {
        expected.assert_eq(&faults::<ScoreConfig>(&options(metrics), input));
    };
    let plain = vectors(&[0.0], &[0.0], 1);
    check(
        &plain,
        r#""metrics": ["mse", "mse", "ssim"], "peak": 3"#,
        expect![[r#"
                metrics: `mse` is listed twice
                peak: has no effect without the metric psnr
                metrics: ssim requires images, but the columns do not hold pixels"#]],
    );
    check(
        &plain,
        r#""metrics": []"#,
        expect!["metrics: no metric is selected; list at least one"],
    );
    let scaled = PixelFormat {
        range: [-1.0, 1.0],
        ..PixelFormat::default()
    };
    check(
        &images(&scaled, 2, &[0.0; 12], &[0.0; 12]),
        r#""metrics": ["bce", "ssim"]"#,
        expect![[r#"
                metrics: bce requires values within 0..1, but the pixels have another range
                metrics: ssim requires images of at least 11x11 pixels; met the shape [3, 2, 2]"#]],
    );
    let column = |len| fixed_column(len, vec![0.0; 6]).unwrap();
    let unequal = of([
        (vector_field("x", 2), column(2)),
        (
            tensor_field("mse", &[3]).unwrap(),
            fixed_column(3, vec![0.0; 9]).unwrap(),
        ),
    ]);
    expect![[r#"
            prefix: the input already has a column `mse`; choose another name
            reconstruction: has the shape [3], but `x` has the shape [2]; they must be equal"#]]
    .assert_eq(&faults::<ScoreConfig>(
        r#"{"original": "x", "reconstruction": "mse"}"#,
        &unequal,
    ));
}
