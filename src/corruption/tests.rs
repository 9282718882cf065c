//! Tests of the corruptions: the distribution and reproducibility of the random numbers, and the
//! faults of the options.

#![allow(clippy::unwrap_used)]

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;
use crate::corruption::spec::CorruptionSpec;
use crate::image::pixel_format::{Channels, TensorLayout};
use crate::registry::parse_options;

const SIZE: (usize, usize) = (48, 40);

fn spec(options: serde_json::Value) -> CorruptionSpec {
    parse_options(options).unwrap()
}

fn corrupted(options: serde_json::Value, format: &PixelFormat, clean: f32, seed: u64) -> Vec<f32> {
    let mut values = vec![clean; SIZE.0 * SIZE.1 * format.channels.count()];
    spec(options)
        .plan(Some(format))
        .unwrap()
        .apply(&mut values, SIZE, Some(format), seed)
        .unwrap();
    values
}

fn rgb() -> PixelFormat {
    PixelFormat::default()
}

fn deviation(values: &[f32]) -> f64 {
    (values
        .iter()
        .map(|&v| f64::from(v - 0.5).powi(2))
        .sum::<f64>()
        / values.len() as f64)
        .sqrt()
        * 255.0
}

#[test]
fn range_is_drawn_once_per_record_and_uniformly() {
    let deviations: Vec<f64> = (0..200)
        .map(|seed| {
            deviation(&corrupted(
                json!({"noise": "gaussian", "sigma": [10, 50]}),
                &rgb(),
                0.5,
                seed,
            ))
        })
        .collect();
    assert!(
        deviations.iter().all(|d| (9.0..52.0).contains(d)),
        "{deviations:?}"
    );
    for quarter in [10.0, 20.0, 30.0, 40.0] {
        let count = deviations
            .iter()
            .filter(|d| (quarter..quarter + 10.0).contains(*d))
            .count();
        assert!((30..70).contains(&count), "{count} of 200 from {quarter}");
    }
}

#[test]
fn range_of_equal_numbers_acts_as_fixed_number() {
    for (fixed, range) in [
        (json!(0.0), json!([0.0, 0.0])),
        (json!(1.0), json!([1.0, 1.0])),
    ] {
        let fixed = corrupted(json!({"noise": "masking", "rate": fixed}), &rgb(), 0.5, 3);
        assert_eq!(
            fixed,
            corrupted(json!({"noise": "masking", "rate": range}), &rgb(), 0.5, 3)
        );
    }
}

#[test]
fn gray_sets_channels_of_any_scale_to_luma() {
    let (red, green, blue) = (200.0_f32, 100.0, 50.0);
    for layout in [TensorLayout::Nchw, TensorLayout::Nhwc] {
        let format = PixelFormat {
            layout,
            mean: vec![0.1, 0.2, 0.3],
            std: vec![1.0, 2.0, 4.0],
            ..rgb()
        };
        let affine =
            |channel, byte: f32| format.affine(channel).1 + byte * format.affine(channel).0;
        let mut values = vec![0.0; 6];
        for pixel in 0..2 {
            for (channel, byte) in [red, green, blue].into_iter().enumerate() {
                values[format.index(channel, pixel, 2)] = affine(channel, byte);
            }
        }
        let gray = spec(json!({"noise": "gray"})).plan(Some(&format)).unwrap();
        gray.apply(&mut values, (1, 2), Some(&format), 0).unwrap();
        let luma = 0.299 * red + 0.587 * green + 0.114 * blue;
        for pixel in 0..2 {
            for channel in 0..3 {
                let value = values[format.index(channel, pixel, 2)];
                assert!(
                    (value - affine(channel, luma)).abs() < 1e-5,
                    "{layout:?} {pixel} {channel}: {value}"
                );
            }
        }
    }
}

#[test]
fn random_watermark_covers_small_share_and_varies_by_record() {
    let marks: Vec<Vec<f32>> = (0..100)
        .map(|seed| corrupted(json!({"noise": "watermark"}), &rgb(), 0.5, seed))
        .collect();
    let share =
        |mark: &Vec<f32>| mark.iter().filter(|&&v| v != 0.5).count() as f64 / mark.len() as f64;
    let mean = marks.iter().map(share).sum::<f64>() / 100.0;
    assert!((0.05..0.5).contains(&mean), "{mean}");
    assert!(marks.iter().filter(|mark| share(mark) > 0.0).count() > 90);
    assert!(
        marks.iter().any(|mark| mark.iter().any(|&v| v > 0.6)),
        "no watermark is light"
    );
    assert!(
        marks.iter().any(|mark| mark.iter().any(|&v| v < 0.4)),
        "no watermark is dark"
    );
    assert!(marks.iter().flatten().all(|v| (0.0..=1.0).contains(v)));
    assert!(marks.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(
        marks[7],
        corrupted(json!({"noise": "watermark"}), &rgb(), 0.5, 7)
    );
}

#[test]
fn drawn_watermark_has_colors_and_its_opacity() {
    let options = json!({"noise": "watermark", "size": [8, 40], "opacity": 0.5});
    let marks: Vec<Vec<f32>> = (0..60)
        .map(|seed| corrupted(options.clone(), &rgb(), 0.5, seed))
        .collect();
    let changed = |mark: &&Vec<f32>| mark.iter().any(|value| *value != 0.5);
    assert!(marks.iter().filter(changed).count() > 30);
    assert!(
        marks
            .iter()
            .flatten()
            .all(|value| (value - 0.5).abs() <= 0.2501)
    );
    let third = marks[0].len() / 3;
    let has_color = |mark: &&Vec<f32>| mark[..third] != mark[third..2 * third];
    assert!(marks.iter().filter(has_color).count() > 10);
    assert_eq!(marks[5], corrupted(options, &rgb(), 0.5, 5));
}

#[test]
fn opacity_bounds_change_by_random_watermark() {
    for seed in 0..50 {
        let faint = corrupted(
            json!({"noise": "watermark", "opacity": [0.0, 0.1]}),
            &rgb(),
            0.5,
            seed,
        );
        assert!(faint.iter().all(|v| (v - 0.5).abs() <= 0.051), "{seed}");
    }
}

#[test]
fn corruption_of_empty_image_does_not_panic() {
    let kinds = [
        "gray",
        "watermark",
        "watermark_text",
        "watermark_grid",
        "jpeg",
    ];
    for noise in kinds {
        for layout in [TensorLayout::Nchw, TensorLayout::Nhwc] {
            let format = PixelFormat { layout, ..rgb() };
            let mut values: Vec<f32> = vec![];
            spec(json!({"noise": noise}))
                .plan(Some(&format))
                .unwrap()
                .apply(&mut values, (0, 7), Some(&format), 1)
                .unwrap();
            assert!(values.is_empty(), "{noise}");
        }
    }
    let gaussian = spec(json!({"noise": "gaussian", "sigma": 1}));
    let interleaved = PixelFormat {
        layout: TensorLayout::Nhwc,
        ..rgb()
    };
    gaussian
        .plan(Some(&interleaved))
        .unwrap()
        .apply(&mut [], (3, 0), Some(&interleaved), 1)
        .unwrap();
}

#[test]
fn corruption_of_a_record_equals_earlier_versions() {
    let format = PixelFormat {
        layout: TensorLayout::Nhwc,
        range: [-1.0, 1.0],
        ..rgb()
    };
    let check = |options: serde_json::Value, expected: Expect| {
        let values = corrupted(options, &format, 0.25, 7);
        let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
        expected.assert_eq(&format!("{:?} {sum:.4}", &values[300..303]));
    };
    check(
        json!({"noise": "gaussian", "sigma": 25}),
        expect!["[0.47445184, 0.57862365, 0.16143817] 1452.4287"],
    );
    check(
        json!({"noise": "masking", "rate": 0.3}),
        expect!["[0.0, 0.25, 0.25] 1012.0000"],
    );
    check(
        json!({"noise": "salt_and_pepper", "rate": 0.3}),
        expect!["[1.0, 1.0, 1.0] 1056.0000"],
    );
    check(
        json!({"noise": "watermark_text", "text": "Zoë"}),
        expect!["[0.25, 0.25, 0.25] 1620.0000"],
    );
    check(
        json!({"noise": "watermark_grid", "opacity": 0.3}),
        expect!["[0.25, 0.25, 0.25] 1743.7500"],
    );
}

#[test]
fn spec_is_serialized_as_it_was_read() {
    for text in [
        "noise = \"gaussian\"\nsigma = [0.0, 55.5]\n",
        "noise = \"masking\"\nrate = 0.1\n",
    ] {
        let spec: CorruptionSpec = toml::from_str(text).unwrap();
        assert_eq!(toml::to_string(&spec).unwrap(), text);
    }
}

/// The faults of options for tensors of `format`, one per line.
pub(super) fn faults(options: serde_json::Value, format: Option<&PixelFormat>) -> String {
    let faults = parse_options::<CorruptionSpec>(options)
        .and_then(|spec| spec.plan(format))
        .err()
        .unwrap_or_default();
    let lines = faults
        .iter()
        .map(|fault| format!("{}: {}", fault.key, fault.message));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn faults_of_options_are_reported_by_key() {
    let gray = PixelFormat {
        channels: Channels::Gray,
        ..rgb()
    };
    let check = |options: serde_json::Value, format: Option<&PixelFormat>, expected: Expect| {
        expected.assert_eq(&faults(options, format));
    };
    check(
        json!({"noise": "gaussian", "sigma": [5, 0], "rate": 0.1}),
        None,
        expect![[r#"
        rate: is for masking and salt_and_pepper only; leave it out
        sigma: must ascend, such as [0, 5]; met [5, 0]"#]],
    );
    check(
        json!({"noise": "gaussian", "sigma": [-1, 5]}),
        None,
        expect!["sigma: must be 0 or more; met [-1, 5]"],
    );
    check(
        json!({"noise": "gaussian", "sigma": "x"}),
        None,
        expect![
            "sigma: invalid type: string \"x\", expected a number, or a range of two numbers \
             such as [0, 55]"
        ],
    );
    check(
        json!({"noise": "gaussian", "sigma": [1]}),
        None,
        expect![
            "sigma: invalid length 1, expected a number, or a range of two numbers such as [0, 55]"
        ],
    );
    check(
        json!({"noise": "gaussian", "sigma": [1, 2, 3]}),
        None,
        expect![
            "sigma: invalid length 3, expected a number, or a range of two numbers such as [0, 55]"
        ],
    );
    check(
        json!({"noise": "salt_and_pepper", "rate": [0.5, 2]}),
        None,
        expect!["rate: must lie between 0 and 1; met [0.5, 2]"],
    );
    check(
        json!({"noise": "watermark_text", "text": " ", "opacity": 2}),
        Some(&gray),
        expect![[r#"
        text: the text is blank; write at least one visible character
        opacity: must lie between 0 and 1; met 2"#]],
    );
    check(
        json!({"noise": "watermark", "text": "x", "opacity": [0.5, 0.4]}),
        None,
        expect![[r#"
        text: is for watermark_text only; leave it out
        opacity: must ascend, such as [0.4, 0.5]; met [0.5, 0.4]
        noise: the input holds no pixels to draw a watermark on"#]],
    );
    check(
        json!({"noise": "gray", "opacity": 1}),
        None,
        expect![[r#"
        opacity: is for watermarks only; leave it out
        noise: the input holds no pixels to remove the color from"#]],
    );
    check(
        json!({"noise": "gray"}),
        Some(&gray),
        expect![
            "noise: the input holds gray pixels, which have no color to remove; prepare them as rgb"
        ],
    );
}
