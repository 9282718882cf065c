//! Unit tests of the module `denoise`.

#![allow(clippy::unwrap_used)]
use expect_test::{Expect, expect};

use super::*;
use crate::tensor::variable_row;
use crate::transform::denoise::config::DenoiseConfig;
use crate::transform::model_columns::testing::{column, faults, images, plan, run, tensors};
use crate::transform::testing::{part, reasons};

const BLUR: &str = "model = 'blur.onnx'";
const HALVE: &str = "encoder = 'halve.onnx'\ndecoder = 'double.onnx'\nmultiple = 2";

fn row(batch: &Batch, column: &str, row: usize) -> (Vec<f32>, Vec<usize>) {
    let (values, shape) = variable_row(batch.records.column_by_name(column).unwrap(), row).unwrap();
    (values.to_vec(), shape)
}

/// The mean over the pixels of the 3x3 window that are within the image, for interleaved
/// colors.
fn blur(image: &[f32], height: usize, width: usize) -> Vec<f32> {
    let value = |at: usize| {
        let (center_y, center_x, channel) = (at / 3 / width, at / 3 % width, at % 3);
        let rows = center_y.saturating_sub(1)..(center_y + 2).min(height);
        let near = rows.flat_map(|y| {
            (center_x.saturating_sub(1)..(center_x + 2).min(width)).map(move |x| (y, x))
        });
        let near: Vec<f32> = near
            .map(|(y, x)| image[(y * width + x) * 3 + channel])
            .collect();
        near.iter().sum::<f32>() / near.len() as f32
    };
    (0..image.len()).map(value).collect()
}

#[test]
fn images_of_any_size_keep_their_order_and_shapes() {
    let sizes = [[5, 7, 3], [3, 2, 3], [5, 7, 3], [40, 9, 3]];
    let batch = images(&sizes, |row, at| ((row * 31 + at * 7) % 17) as f32);
    let (out, rejects) =
        run::<DenoiseConfig>(BLUR, r#"{"to": "y", "tile": 16, "overlap": 6}"#, batch);
    assert!(rejects.is_empty());
    for (index, size) in sizes.iter().enumerate() {
        let (before, _) = row(&out, "x", index);
        let (after, shape) = row(&out, "y", index);
        assert_eq!(shape, size);
        let expected = blur(&before, size[0], size[1]);
        let worst = after
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        // The border of a tile lacks one pixel of context; its weight there is 1 / 7.
        assert!(
            worst < if size[0] > 16 { 2.0 } else { 1e-4 },
            "{size:?} off by {worst}"
        );
    }
}

#[test]
fn images_of_one_size_are_replaced_by_the_result() {
    let image: Vec<f32> = (0..12).map(|value| value as f32).collect();
    let (out, _) = run::<DenoiseConfig>(BLUR, "{}", tensors(&[2, 2, 3], &image));
    assert_eq!(out.records.num_columns(), 1);
    assert_eq!(column(&out, "x"), blur(&image, 2, 2));
}

#[test]
fn strength_is_the_share_of_the_change() {
    let image: Vec<f32> = (0..12).map(|value| value as f32 * value as f32).collect();
    let blurred = blur(&image, 2, 2);
    for (strength, share) in [("0", 0.0), ("0.25", 0.25), ("1.0", 1.0)] {
        let options = format!(r#"{{"strength": {strength}}}"#);
        let (out, _) = run::<DenoiseConfig>(BLUR, &options, tensors(&[2, 2, 3], &image));
        let pairs = image.iter().zip(&blurred);
        let expected: Vec<f32> = pairs.map(|(a, b)| a + share * (b - a)).collect();
        let found = column(&out, "x");
        let worst = found
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1e-4, "{strength}: {found:?}");
    }
    let sizes = [[5, 7, 3], [40, 9, 3]];
    let batch = images(&sizes, |row, at| ((row * 31 + at * 7) % 17) as f32);
    let half = r#"{"to": "y", "tile": 16, "overlap": 6, "strength": 0.5}"#;
    let full = r#"{"to": "y", "tile": 16, "overlap": 6}"#;
    let (half, full) = (
        run::<DenoiseConfig>(BLUR, half, batch.clone()).0,
        run::<DenoiseConfig>(BLUR, full, batch).0,
    );
    for index in 0..2 {
        let (before, after) = (row(&half, "x", index).0, row(&full, "y", index).0);
        let expected: Vec<f32> = before
            .iter()
            .zip(&after)
            .map(|(a, b)| a.midpoint(*b))
            .collect();
        let found = row(&half, "y", index).0;
        assert!(
            found
                .iter()
                .zip(&expected)
                .all(|(a, b)| (a - b).abs() < 1e-4),
            "image {index}"
        );
    }
}

#[test]
fn sides_that_the_model_cannot_halve_are_padded() {
    let batch = images(&[[1, 3, 3], [1, 2, 2]], |_, at| at as f32);
    let (out, rejects) = run::<DenoiseConfig>(HALVE, "{}", batch.clone());
    assert!(rejects.is_empty());
    assert_eq!(
        row(&out, "x", 0),
        (vec![2., 2., 3.5, 2., 2., 3.5, 6.5, 6.5, 8.], vec![1, 3, 3])
    );
    assert_eq!(row(&out, "x", 1), (vec![1.5; 4], vec![1, 2, 2]));
    let (unpadded, mismatches) =
        run::<DenoiseConfig>(&HALVE.replace("multiple = 2", ""), "{}", batch);
    assert_eq!(unpadded.row_ordinals, [1]);
    expect![
        "0: model: the model returned the shape [1, 2, 2] for a record of shape [1, 3, 3]; \
             expected 9 values"
    ]
    .assert_eq(&reasons(&mismatches));
}

#[test]
fn records_of_one_shape_are_not_tiled() {
    let pairs = "encoder = 'encoder.onnx'\ndecoder = 'decoder.onnx'";
    let (out, _) = run::<DenoiseConfig>(pairs, "{}", tensors(&[4], &[1., 3., 5., 5.]));
    assert_eq!(column(&out, "x"), [2., 2., 5., 5.]);
    let (logarithms, rejects) =
        run::<DenoiseConfig>("model = 'log.onnx'", "{}", tensors(&[2], &[1., 1., 0., 1.]));
    assert_eq!(column(&logarithms, "x"), [0., 0.]);
    expect!["1: not_finite: the model returned a result that is not finite"]
        .assert_eq(&reasons(&rejects));
}

#[test]
fn empty_images_and_other_channels_are_rejected() {
    let batch = images(&[[2, 2, 3], [0, 2, 3], [2, 2, 1]], |_, _| 1.0);
    let (out, rejects) = run::<DenoiseConfig>(BLUR, "{}", batch);
    assert_eq!(out.row_ordinals, [0]);
    expect![[r#"
        1: mismatch: the shape [0, 2, 3] is not that of a non-empty image in rgb nhwc in [0, 1]
        2: mismatch: the shape [2, 2, 1] is not that of a non-empty image in rgb nhwc in [0, 1]"#]]
    .assert_eq(&reasons(&rejects));
}

#[test]
fn empty_batch_stays_empty() {
    let empty = part(&images(&[[2, 2, 3]], |_, _| 0.0), 0, 0);
    let (out, _) = run::<DenoiseConfig>(BLUR, r#"{"to": "y"}"#, empty);
    assert_eq!((out.records.num_rows(), out.records.num_columns()), (0, 2));
}

#[test]
fn faults_of_options_are_reported_by_key() {
    let check = |model: &str, options: &str, batch: &Batch, expected: Expect| {
        expected.assert_eq(&faults::<DenoiseConfig>(model, options, batch));
    };
    let any = images(&[[2, 2, 3]], |_, _| 0.0);
    check(
        BLUR,
        r#"{"tile": 8, "overlap": 5, "to": "x"}"#,
        &any,
        expect![[r#"
                overlap: 5 is more than half of the side of a tile, 8"#]],
    );
    check(
        BLUR,
        r#"{"tile": 1000000, "overlap": 5, "column": "y"}"#,
        &any,
        expect![[r#"
            tile: 1000000 is too large: a tile has at most 201326592 values, to bound memory
            column: no column `y`; the input has: x"#]],
    );
    check(
        HALVE,
        r#"{"tile": 33}"#,
        &any,
        expect![[r#"
                tile: 33 is not a multiple of 2, which the model requires
                overlap: 32 is more than half of the side of a tile, 33"#]],
    );
    check(
        "model = 'double.onnx'",
        "{}",
        &any,
        expect![
            "model: the model `tested` returns the shape [1, 64, 64] for a record of shape \
                 [1, 32, 32]; `denoise` requires equal shapes"
        ],
    );
    check(
        "model = 'log.onnx'",
        r#"{"tile": 8, "overlap": 2}"#,
        &tensors(&[2], &[0.; 2]),
        expect![[r#"
            tile: has no effect, since the model takes records of one shape; leave it out
            overlap: has no effect, since the model takes records of one shape; leave it out"#]],
    );
    check(
        "model = 'log.onnx'",
        "{}",
        &any,
        expect![
            "column: column `x`: its records have different shapes, but the model `tested` \
                 takes one shape; set `size` in the `pixels` stage"
        ],
    );
    check(
        "encoder = 'encoder.onnx'",
        "{}",
        &tensors(&[4], &[0.; 4]),
        expect!["model: the model `tested` has no decoder: it returns codes, not images"],
    );
    check(
        "model = 'encoder.onnx'",
        "{}",
        &tensors(&[4], &[0.; 4]),
        expect![
            "model: the model `tested` returns the shape [2] for a record of shape [4]; \
                 `denoise` requires equal shapes"
        ],
    );
    check(
        BLUR,
        "{}",
        &tensors(&[4], &[0.; 4]),
        expect![
            "column: column `x`: its records have the shape [4], but the model takes rgb nhwc \
                 in [0, 1]"
        ],
    );
}

#[test]
fn memory_and_summary_of_tiled_plan_are_correct() {
    let any = plan::<DenoiseConfig>(BLUR, "{}", &images(&[[2, 2, 3]], |_, _| 0.0)).unwrap();
    assert_eq!(any.bytes_per_pixel(), 12);
    assert!(any.scratch_bytes() >= 512 * 512 * 3 * 4);
    assert_eq!(
        any.summary(),
        "model tested: images above 512x512 in tiles that overlap by 32"
    );
}
