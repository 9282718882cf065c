//! Unit tests of the module `corrupt`.

#![allow(clippy::unwrap_used)]

use expect_test::{Expect, expect};

use super::super::testing::{batch, faults, of, part, plan, reasons, run, strings};
use super::config::CorruptConfig;
use super::*;
use crate::image::pixel_format::{Channels, TensorLayout};
use crate::tensor::{fixed_values, tensor_field, variable_field, variable_row, vector_field};

fn pixels(format: &PixelFormat, height: usize, width: usize, rows: usize, value: f32) -> Batch {
    let shape = format.shape(height, width);
    let field = format.annotate(tensor_field("pixels", &shape).unwrap());
    let len: usize = shape.iter().product();
    of([(field, fixed_column(len, vec![value; len * rows]).unwrap())])
}

fn out(options: &str, batch: Batch) -> Vec<f32> {
    let (out, rejects) = run::<CorruptConfig>(options, batch);
    assert!(rejects.is_empty());
    fixed_values(out.records.column(out.records.num_columns() - 1))
        .unwrap()
        .to_vec()
}

fn deviation(values: &[f32]) -> f64 {
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
    (values
        .iter()
        .map(|&v| (f64::from(v) - mean).powi(2))
        .sum::<f64>()
        / values.len() as f64)
        .sqrt()
}

const GAUSSIAN: &str = r#"{"noise": "gaussian", "sigma": 25}"#;

#[test]
fn sigma_counts_8_bit_steps_at_any_scale_of_pixels() {
    let unit = out(GAUSSIAN, pixels(&PixelFormat::default(), 64, 64, 1, 0.5));
    assert!((deviation(&unit) - 25.0 / 255.0).abs() < 0.002);
    assert!(
        out(GAUSSIAN, pixels(&PixelFormat::default(), 64, 64, 1, 0.99))
            .iter()
            .any(|&v| v > 1.0),
        "values are clipped"
    );
    let scaled = PixelFormat {
        range: [0.0, 255.0],
        std: vec![1.0, 2.0, 4.0],
        ..PixelFormat::default()
    };
    let scaled = out(GAUSSIAN, pixels(&scaled, 64, 64, 1, 0.0));
    let planes: Vec<f64> = scaled.chunks(64 * 64).map(deviation).collect();
    for (plane, expected) in planes.iter().zip([25.0, 12.5, 6.25]) {
        assert!((plane / expected - 1.0).abs() < 0.05, "{planes:?}");
    }
    let plain = of([(
        vector_field("features", 9999),
        fixed_column(9999, vec![0.0; 9999]).unwrap(),
    )]);
    assert!((deviation(&out(r#"{"noise": "gaussian", "sigma": 2}"#, plain)) - 2.0).abs() < 0.1);
}

#[test]
fn noise_depends_on_record_and_not_on_batch() {
    for options in [
        GAUSSIAN,
        r#"{"noise": "masking", "rate": 0.3}"#,
        r#"{"noise": "salt_and_pepper", "rate": 0.3}"#,
        r#"{"noise": "watermark_text"}"#,
        r#"{"noise": "watermark_grid"}"#,
    ] {
        let all = pixels(&PixelFormat::default(), 16, 16, 5, 0.5);
        let apart = [part(&all, 0, 2), part(&all, 2, 5)]
            .into_iter()
            .flat_map(|part| out(options, part));
        let apart: Vec<f32> = apart.collect();
        let together = out(options, all);
        assert_eq!(apart, together, "{options}");
        assert_ne!(together[..768], together[768..1536], "{options}");
    }
}

#[test]
fn noise_depends_on_seed_and_not_on_layout() {
    let image = |layout| {
        pixels(
            &PixelFormat {
                layout,
                ..PixelFormat::default()
            },
            4,
            5,
            1,
            0.5,
        )
    };
    let planar = out(GAUSSIAN, image(TensorLayout::Nchw));
    assert_ne!(
        planar,
        out(
            r#"{"noise": "gaussian", "sigma": 25, "seed": 1}"#,
            image(TensorLayout::Nchw)
        )
    );
    let interleaved = out(GAUSSIAN, image(TensorLayout::Nhwc));
    for (index, value) in planar.iter().enumerate() {
        assert_eq!(*value, interleaved[index % 20 * 3 + index / 20]);
    }
}

#[test]
fn masking_sets_a_fraction_of_the_values_to_0() {
    let values = out(
        r#"{"noise": "masking", "rate": 0.25}"#,
        pixels(&PixelFormat::default(), 64, 64, 1, 0.5),
    );
    let masked = values.iter().filter(|&&v| v == 0.0).count() as f64 / values.len() as f64;
    assert!((masked - 0.25).abs() < 0.02, "{masked}");
    assert!(values.iter().all(|&v| v == 0.0 || v == 0.5));
    let all = out(
        r#"{"noise": "masking", "rate": 1}"#,
        pixels(&PixelFormat::default(), 4, 4, 1, 0.5),
    );
    assert!(all.iter().all(|&v| v == 0.0));
}

#[test]
fn salt_and_pepper_sets_all_channels_of_a_pixel() {
    let format = PixelFormat {
        range: [-1.0, 1.0],
        layout: TensorLayout::Nhwc,
        ..PixelFormat::default()
    };
    let values = out(
        r#"{"noise": "salt_and_pepper", "rate": 0.5}"#,
        pixels(&format, 32, 32, 1, 0.25),
    );
    let count = |level: f32| {
        values
            .chunks(3)
            .filter(|pixel| pixel.iter().all(|&v| v == level))
            .count()
    };
    let (pepper, salt, clean) = (count(-1.0), count(1.0), count(0.25));
    assert_eq!(pepper + salt + clean, 1024);
    assert!(
        pepper > 200 && salt > 200 && clean > 400,
        "{pepper} {salt} {clean}"
    );
}

#[test]
fn fixed_watermark_blends_toward_white() {
    for kind in ["watermark_text", "watermark_grid"] {
        let options = format!(r#"{{"noise": "{kind}", "opacity": 0.25, "to": "marked"}}"#);
        let values = out(&options, pixels(&PixelFormat::default(), 48, 48, 1, 0.0));
        let marked = values.iter().filter(|&&v| v == 0.25).count();
        assert!(values.iter().all(|&v| v == 0.0 || v == 0.25), "{kind}");
        assert!((300..3000).contains(&marked), "{kind} covers {marked}");
    }
}

#[test]
fn images_keep_their_sizes_and_other_shapes_are_rejected() {
    let gray = PixelFormat {
        channels: Channels::Gray,
        ..PixelFormat::default()
    };
    let shapes = [vec![1, 2, 3], vec![2, 2, 2], vec![1, 1, 1]];
    let column = variable_column(3, vec![0.5; 15], &shapes).unwrap();
    let input = of([(gray.annotate(variable_field("pixels", 3).unwrap()), column)]);
    let (out, rejects) = run::<CorruptConfig>(r#"{"noise": "masking", "rate": 1}"#, input);
    assert_eq!(out.row_ordinals, [0, 2]);
    assert_eq!(
        variable_row(out.records.column(0), 0),
        Some((&[0.0; 6][..], vec![1, 2, 3]))
    );
    assert_eq!(
        variable_row(out.records.column(0), 1),
        Some((&[0.0][..], vec![1, 1, 1]))
    );
    expect!["1: mismatch: the shape [2, 2, 2] does not match the pixel format"]
        .assert_eq(&reasons(&rejects));
}

#[test]
fn empty_batch_has_the_planned_schema() {
    let gray = PixelFormat {
        channels: Channels::Gray,
        ..PixelFormat::default()
    };
    let variable = of([(
        variable_field("pixels", 3).unwrap(),
        variable_column(3, vec![0.5], &[vec![1, 1, 1]]).unwrap(),
    )]);
    for input in [pixels(&gray, 2, 2, 1, 0.5), variable] {
        let (out, _) = run::<CorruptConfig>(
            r#"{"noise": "masking", "rate": 1, "to": "bad"}"#,
            part(&input, 0, 0),
        );
        assert_eq!((out.records.num_rows(), out.records.num_columns()), (0, 2));
    }
    let planned = plan::<CorruptConfig>(GAUSSIAN, &pixels(&gray, 2, 2, 1, 0.5)).unwrap();
    assert_eq!(
        PixelFormat::from_field(planned.schema().field(0)),
        Some(gray)
    );
}

#[test]
fn values_that_become_infinite_are_rejected() {
    let format = PixelFormat::default();
    let options = r#"{"noise": "gaussian", "sigma": 1e300}"#;
    let (out, rejects) = run::<CorruptConfig>(options, pixels(&format, 2, 2, 2, 0.5));
    assert_eq!(out.records.num_rows(), 0);
    expect![[r#"
        0: not_finite: the corrupted values exceed the range of float32
        1: not_finite: the corrupted values exceed the range of float32"#]]
    .assert_eq(&reasons(&rejects));
}

#[test]
fn faults_of_options_are_reported_by_key() {
    let column = || fixed_column(2, vec![0.0; 2]).unwrap();
    let two = of([
        (vector_field("a", 2), column()),
        (vector_field("b", 2), column()),
    ]);
    let check = |options: &str, expected: Expect| {
        expected.assert_eq(&faults::<CorruptConfig>(options, &two))
    };
    check(
        r#"{"noise": "masking", "sigma": 1, "rate": 2, "text": "x", "opacity": 1}"#,
        expect![[r#"
            sigma: is for gaussian noise and blur only; leave it out
            text: is for watermark_text only; leave it out
            opacity: is for watermarks only; leave it out
            rate: must lie between 0 and 1; met 2
            column: the input has several tensor columns: a, b; name one of them"#]],
    );
    check(
        r#"{"noise": "gaussian", "column": "c"}"#,
        expect![[r#"
                sigma: is missing; expected the standard deviation, such as 25 for pixels
                column: no column `c`; the input has: a, b"#]],
    );
    check(
        r#"{"noise": "watermark_grid", "column": "a", "to": "b"}"#,
        expect![[r#"
                column: column `a` holds no pixels to draw a watermark on
                to: the input already has a column `b`; choose another name"#]],
    );
    check(
        r#"{"noise": "speckle"}"#,
        expect![
            "noise: unknown variant `speckle`, expected one of `gaussian`, `poisson`, `masking`, \
                 `salt_and_pepper`, `blur`, `downscale`, `jpeg`, `watermark_text`, \
                 `watermark_grid`, `watermark`, `gray`"
        ],
    );
    let text = batch([("source", strings(&["a"]))]);
    expect![
        "column: the input has no tensor column; create one with a `pixels` or `features` stage"
    ]
    .assert_eq(&faults::<CorruptConfig>(GAUSSIAN, &text));
    let wrong = PixelFormat::default().annotate(vector_field("a", 2));
    expect!["column: column `a` has the shape [2], which does not match its pixel format"]
        .assert_eq(&faults::<CorruptConfig>(GAUSSIAN, &of([(wrong, column())])));
}
