//! Tests of the corruptions of photographs: their effect on pixels of any layout and scale.

#![allow(clippy::unwrap_used)]

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::corruption::spec::CorruptionSpec;
use crate::corruption::tests::faults;
use crate::image::pixel_format::{Channels, TensorLayout};
use crate::registry::parse_options;

const SIZE: (usize, usize) = (40, 56);

/// Waves of 4 to 30 pixels in 8-bit steps, which differ in each channel.
fn waves(format: &PixelFormat) -> Vec<f32> {
    let channels = format.channels.count();
    let pixels = SIZE.0 * SIZE.1;
    let mut values = vec![0.0; pixels * channels];
    for pixel in 0..pixels {
        let (y, x) = ((pixel / SIZE.1) as f32, (pixel % SIZE.1) as f32);
        for channel in 0..channels {
            let sample = format.sample_index(channel) as f32;
            let level = 128.0 + 50.0 * (x / (4.0 + sample)).sin() + 50.0 * (y / 5.0).cos();
            let (step, black) = format.affine(channel);
            values[format.index(channel, pixel, pixels)] = level.round() * step + black;
        }
    }
    values
}

fn corrupted(options: Value, format: &PixelFormat, clean: &[f32], seed: u64) -> Vec<f32> {
    let spec: CorruptionSpec = parse_options(options).unwrap();
    let mut values = clean.to_vec();
    let planned = spec.plan(Some(format)).unwrap();
    planned
        .apply(&mut values, SIZE, Some(format), seed)
        .unwrap();
    values
}

/// The root mean square of the difference, in 8-bit steps.
fn distance(one: &[f32], other: &[f32]) -> f64 {
    let squares = one.iter().zip(other).map(|(a, b)| f64::from(a - b).powi(2));
    (squares.sum::<f64>() / one.len() as f64).sqrt() * 255.0
}

const KINDS: [&str; 6] = [
    "jpeg",
    "blur",
    "downscale",
    "poisson",
    "gaussian",
    "watermark",
];

fn options(kind: &str) -> Value {
    match kind {
        "jpeg" => json!({"noise": "jpeg", "quality": 40}),
        "blur" => json!({"noise": "blur", "sigma": 1.5}),
        "downscale" => json!({"noise": "downscale", "factor": 2}),
        "poisson" => json!({"noise": "poisson", "peak": 30}),
        "gaussian" => json!({"noise": "gaussian", "sigma": 20, "correlation": 1}),
        kind => json!({ "noise": kind }),
    }
}

#[test]
fn result_depends_on_record_and_not_on_layout_or_scale() {
    let standard = PixelFormat::default();
    let other = PixelFormat {
        layout: TensorLayout::Nhwc,
        channels: Channels::Bgr,
        range: [-1.0, 1.0],
        mean: vec![0.1, 0.2, 0.3],
        std: vec![0.5, 1.0, 2.0],
    };
    let pixels = SIZE.0 * SIZE.1;
    for kind in KINDS {
        let clean = waves(&standard);
        let one = corrupted(options(kind), &standard, &clean, 5);
        assert_eq!(
            one,
            corrupted(options(kind), &standard, &clean, 5),
            "{kind}"
        );
        assert!(distance(&one, &clean) > 1.0, "{kind}");
        // Noise is drawn channel by channel, in the order of the tensor.
        if ["poisson", "gaussian"].contains(&kind) {
            continue;
        }
        let two = corrupted(options(kind), &other, &waves(&other), 5);
        for pixel in 0..pixels {
            for channel in 0..3 {
                let level = |format: &PixelFormat, values: &[f32], at| {
                    let (step, black) = format.affine(at);
                    (values[format.index(at, pixel, pixels)] - black) / step
                };
                let (a, b) = (
                    level(&standard, &one, channel),
                    level(&other, &two, 2 - channel),
                );
                assert!((a - b).abs() < 0.01, "{kind} {pixel} {channel}: {a} {b}");
            }
        }
    }
}

#[test]
fn probability_is_the_share_of_corrupted_records() {
    let (format, clean) = (PixelFormat::default(), waves(&PixelFormat::default()));
    let options = json!({"noise": "gaussian", "sigma": 5, "probability": 0.3});
    let is_corrupted = |&seed: &u64| corrupted(options.clone(), &format, &clean, seed) != clean;
    let count = (0..400).filter(is_corrupted).count();
    assert!((90..150).contains(&count), "{count} of 400");
    let always = json!({"noise": "gaussian", "sigma": 5, "probability": 1});
    let without = json!({"noise": "gaussian", "sigma": 5});
    assert_eq!(
        corrupted(always, &format, &clean, 3),
        corrupted(without, &format, &clean, 3)
    );
}

#[test]
fn photons_keep_the_mean_and_have_its_variance() {
    let format = PixelFormat::default();
    let count = SIZE.0 * SIZE.1 * 3;
    for (level, peak) in [(0.2_f32, 20.0), (0.8, 20.0), (0.5, 500.0)] {
        let options = json!({"noise": "poisson", "peak": peak});
        let values = corrupted(options, &format, &vec![level; count], 1);
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count as f64;
        let squares = values.iter().map(|&v| (f64::from(v) - mean).powi(2));
        let variance = squares.sum::<f64>() / count as f64;
        let expected = f64::from(level) / peak;
        assert!(
            (mean / f64::from(level) - 1.0).abs() < 0.02,
            "{level} {peak}: {mean}"
        );
        assert!(
            (variance / expected - 1.0).abs() < 0.1,
            "{level} {peak}: {variance}"
        );
    }
    let black = corrupted(
        json!({"noise": "poisson", "peak": 9}),
        &format,
        &vec![-0.5; count],
        1,
    );
    assert!(black.iter().all(|&value| value == 0.0));
}

#[test]
fn correlated_noise_keeps_its_deviation() {
    let format = PixelFormat {
        channels: Channels::Gray,
        ..PixelFormat::default()
    };
    let clean = vec![0.5; SIZE.0 * SIZE.1];
    for correlation in [0.0, 0.7, 1.5] {
        let (mut squares, mut products) = (0.0, 0.0);
        for seed in 0..20 {
            let options = json!({"noise": "gaussian", "sigma": 20, "correlation": correlation});
            let values = corrupted(options, &format, &clean, seed);
            for row in values.chunks_exact(SIZE.1) {
                for pair in row.windows(2) {
                    let [a, b] = [pair[0], pair[1]].map(|value| f64::from(value - 0.5) * 255.0);
                    squares += a * a;
                    products += a * b;
                }
            }
        }
        let pairs = 20.0 * (SIZE.0 * (SIZE.1 - 1)) as f64;
        let deviation = (squares / pairs).sqrt();
        assert!(
            (deviation / 20.0 - 1.0).abs() < 0.06,
            "{correlation}: {deviation}"
        );
        // The autocorrelation of a Gaussian filter at a distance of one pixel.
        let expected = match correlation {
            0.0 => 0.0,
            sigma => (-1.0_f64 / (4.0 * sigma * sigma)).exp(),
        };
        let found = products / squares;
        assert!(
            (found - expected).abs() < 0.08,
            "{correlation}: {found} {expected}"
        );
    }
}

#[test]
fn correlated_noise_is_the_same_at_the_edges_of_small_images() {
    let format = PixelFormat {
        channels: Channels::Gray,
        ..PixelFormat::default()
    };
    for correlation in [0.6, 2.0] {
        let options = json!({"noise": "gaussian", "sigma": 20, "correlation": correlation});
        let spec: CorruptionSpec = parse_options(options).unwrap();
        let planned = spec.plan(Some(&format)).unwrap();
        let mut squares = [0.0_f64; 6];
        for seed in 0..3000 {
            let mut values = [0.5_f32; 6];
            planned
                .apply(&mut values, (2, 3), Some(&format), seed)
                .unwrap();
            for (sum, value) in squares.iter_mut().zip(values) {
                *sum += f64::from((value - 0.5) * 255.0).powi(2);
            }
        }
        let deviations = squares.map(|sum| (sum / 3000.0).sqrt());
        assert!(
            deviations
                .iter()
                .all(|value| (value / 20.0 - 1.0).abs() < 0.05),
            "{correlation}: {deviations:?}"
        );
    }
}

#[test]
fn blur_and_reduction_remove_detail() {
    let format = PixelFormat::default();
    let clean = waves(&format);
    for (kind, strength, values) in [
        ("blur", "sigma", [0.0, 1.0, 3.0]),
        ("downscale", "factor", [1.0, 2.0, 8.0]),
    ] {
        let changes = values.map(|value| {
            let result = corrupted(json!({"noise": kind, strength: value}), &format, &clean, 2);
            distance(&result, &clean)
        });
        assert!(
            changes[0] < 1e-3 && changes.is_sorted(),
            "{kind}: {changes:?}"
        );
        assert!(changes[2] > 8.0, "{kind}: {changes:?}");
        let flat = vec![51.0 / 255.0; clean.len()];
        let same = corrupted(
            json!({"noise": kind, strength: values[2]}),
            &format,
            &flat,
            2,
        );
        assert!(distance(&same, &flat) < 1e-3, "{kind}");
    }
}

#[test]
fn qualities_and_subsamplings_are_drawn_for_each_record() {
    let (format, clean) = (PixelFormat::default(), waves(&PixelFormat::default()));
    let change =
        |options: Value, seed| distance(&corrupted(options, &format, &clean, seed), &clean);
    let fixed = |quality: u8, subsampling: &str| {
        change(
            json!({"noise": "jpeg", "quality": quality, "subsampling": [subsampling]}),
            1,
        )
    };
    assert!(fixed(30, "4:4:4") > fixed(95, "4:4:4"));
    assert!(fixed(95, "4:2:0") > fixed(95, "4:4:4"));
    let drawn: Vec<f64> = (0..60)
        .map(|seed| change(json!({"noise": "jpeg"}), seed))
        .collect();
    let (low, high) = (fixed(95, "4:4:4"), fixed(30, "4:2:0"));
    assert!(
        drawn
            .iter()
            .all(|drawn_change| (low - 0.3..=high + 0.3).contains(drawn_change)),
        "{drawn:?}"
    );
    let mut distinct = drawn.clone();
    distinct.sort_by(f64::total_cmp);
    distinct.dedup();
    assert!(distinct.len() > 30, "{}", distinct.len());
}

#[test]
fn faults_of_options_are_reported_by_key() {
    let check = |options: Value, format: Option<&PixelFormat>, expected: Expect| {
        expected.assert_eq(&faults(options, format));
    };
    let rgb = PixelFormat::default();
    check(
        json!({"noise": "jpeg", "quality": 0}),
        Some(&rgb),
        expect!["quality: must lie between 1 and 100; met 0"],
    );
    check(
        json!({"noise": "jpeg", "subsampling": []}),
        Some(&rgb),
        expect![[r#"subsampling: lists no value; expected ["4:2:0"], ["4:4:4"] or both"#]],
    );
    check(
        json!({"noise": "jpeg", "subsampling": ["4:1:1"]}),
        Some(&rgb),
        expect!["subsampling[0]: unknown variant `4:1:1`, expected `4:4:4` or `4:2:0`"],
    );
    check(
        json!({"noise": "jpeg", "sigma": 1}),
        None,
        expect![[r#"
        sigma: is for gaussian noise and blur only; leave it out
        noise: the input holds no pixels to compress"#]],
    );
    check(
        json!({"noise": "blur"}),
        Some(&rgb),
        expect![
            "sigma: is missing; expected the standard deviation of the blur in pixels, such as 1.5"
        ],
    );
    check(
        json!({"noise": "blur", "sigma": 100}),
        None,
        expect![[r#"
        sigma: must lie between 0 and 64; met 100
        noise: the input holds no pixels to blur"#]],
    );
    check(
        json!({"noise": "downscale", "factor": 0.5}),
        Some(&rgb),
        expect!["factor: must lie between 1 and 64; met 0.5"],
    );
    check(
        json!({"noise": "poisson", "peak": 0}),
        Some(&rgb),
        expect!["peak: must lie between 1 and 1000000; met 0"],
    );
    check(
        json!({"noise": "gaussian", "sigma": 1, "correlation": [2, 1]}),
        None,
        expect![[r#"
            correlation: must ascend, such as [1, 2]; met [2, 1]
            correlation: the input holds no pixels, whose noise could depend on that of their neighbors"#]],
    );
    check(
        json!({"noise": "gaussian", "sigma": 1, "probability": 0}),
        None,
        expect!["probability: must be above 0 and at most 1; met 0"],
    );
    check(
        json!({"noise": "masking", "rate": 1, "probability": 1.5, "factor": 2, "quality": 5, "subsampling": ["4:4:4"], "peak": 3}),
        None,
        expect![[r#"
            peak: is for poisson noise only; leave it out
            factor: is for downscale only; leave it out
            quality: is for jpeg only; leave it out
            subsampling: is for jpeg only; leave it out
            probability: must be above 0 and at most 1; met 1.5"#]],
    );
}
