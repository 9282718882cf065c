//! Unit tests of the module `preprocess`.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::image::Channels;

fn planned(steps: serde_json::Value) -> Result<Preprocessor, (Option<usize>, ImageOptionError)> {
    let written: Vec<PreprocessStep> = serde_json::from_value(steps).unwrap();
    let planned = Preprocessor::new(&written)?;
    assert_eq!(planned.steps(), written);
    Ok(planned)
}

fn preprocessor(steps: serde_json::Value) -> Preprocessor {
    planned(steps).unwrap()
}

fn gray(height: usize, width: usize) -> Pixels {
    Pixels {
        width,
        height,
        channels: Channels::Gray,
        data: (1..=255).cycle().take(height * width).collect(),
    }
}

#[test]
fn sizes_follow_the_steps() {
    let sizes = |steps: serde_json::Value, image: ImageSize| {
        let written: Vec<PreprocessStep> = serde_json::from_value(steps).unwrap();
        let mut now = image;
        let after = written.into_iter().map(|step| {
            now = PlannedStep::new(step).unwrap().size_after(now);
            now
        });
        after.collect::<Vec<ImageSize>>()
    };
    let clip = json!([
        { "op": "resize", "size": 224, "side": "shorter", "filter": "bicubic" },
        { "op": "center_crop", "size": 224 },
    ]);
    assert_eq!(sizes(clip.clone(), (600, 451)), [(298, 224), (224, 224)]);
    assert_eq!(sizes(clip, (100, 451)), [(224, 1010), (224, 224)]);
    let padded = json!([
        { "op": "resize", "size": 64, "side": "longer" },
        { "op": "pad", "size": [64, 64], "value": 114 },
    ]);
    assert_eq!(sizes(padded, (30, 120)), [(16, 64), (64, 64)]);
}

#[test]
fn every_result_has_the_size_of_the_plan() {
    let longer = json!({ "op": "resize", "size": 16, "side": "longer" });
    for steps in [
        json!([{ "op": "resize", "size": [9, 7] }]),
        json!([{ "op": "resize", "size": 20, "side": "shorter" }, { "op": "center_crop", "size": 16 }]),
        json!([longer, { "op": "pad", "size": 16 }]),
        json!([longer, { "op": "pad", "size": [16, 24] }, { "op": "resize", "size": 8, "side": "shorter" }]),
        json!([{ "op": "center_crop", "size": 5 }, { "op": "pad", "size": [4, 9] }]),
    ] {
        let planned = preprocessor(steps);
        for (height, width) in [(30, 12), (12, 30), (1, 40), (3, 3)] {
            let result = planned.apply(gray(height, width), 1 << 20).unwrap();
            assert_eq!((result.height, result.width), planned.size(), "{planned}");
            assert_eq!(result.values.len(), result.height * result.width);
        }
    }
}

#[test]
fn steps_with_results_of_different_sizes_are_refused() {
    let longer = json!({ "op": "resize", "size": 16, "side": "longer" });
    for steps in [
        json!([]),
        json!([{ "op": "resize", "size": 20, "side": "shorter" }]),
        json!([longer]),
        json!([longer, { "op": "pad", "size": [16, 12] }]),
        json!([{ "op": "pad", "size": 16 }]),
    ] {
        let refused = planned(steps).unwrap_err();
        assert_eq!(refused, (None, ImageOptionError::VariableSize));
    }
}

#[test]
fn crops_and_pads_keep_the_center() {
    let values = |step: serde_json::Value, input: Pixels| {
        let written: PreprocessStep = serde_json::from_value(step).unwrap();
        let planned = PlannedStep::new(written).unwrap();
        planned.apply(&SampleGrid::from_pixels(input)).values
    };
    let crop = |size, rounding: &str| json!({ "op": "center_crop", "size": [1, size], "rounding": rounding });
    // The excess of 3 begins at 1 or, to the even neighbor of 1.5, at 2.
    assert_eq!(values(crop(2, "floor"), gray(1, 5)), [2.0, 3.0]);
    assert_eq!(values(crop(2, "even"), gray(1, 5)), [3.0, 4.0]);
    // Smaller images are padded with black.
    assert_eq!(values(crop(4, "floor"), gray(1, 1)), [0.0, 0.0, 1.0, 0.0]);
    assert_eq!(values(crop(4, "even"), gray(1, 1)), [0.0, 1.0, 0.0, 0.0]);
    let pad = json!({ "op": "pad", "size": [1, 3], "value": 9, "rounding": "even" });
    assert_eq!(values(pad, gray(2, 1)), [9.0, 1.0, 9.0, 9.0, 2.0, 9.0]);
}

#[test]
fn images_larger_than_the_limit_are_refused() {
    let large = preprocessor(json!([
        { "op": "resize", "size": 4000, "side": "shorter" },
        { "op": "center_crop", "size": 2 },
    ]));
    let narrow = Pixels {
        width: 1,
        height: 60_000,
        channels: Channels::Gray,
        data: vec![0; 60_000],
    };
    let long = Pixels {
        width: 1,
        height: (1 << 20) + 1,
        channels: Channels::Gray,
        data: vec![0; (1 << 20) + 1],
    };
    assert!(matches!(
        large.apply(long, u64::MAX).unwrap_err(),
        ImageOptionError::SideTooLong { width: 1, .. }
    ));
    let refused = large.apply(narrow, 1 << 20).unwrap_err();
    assert!(matches!(
        refused,
        ImageOptionError::StepTooLarge { width: 4000, .. }
    ));
}

#[test]
fn options_without_a_meaning_are_refused() {
    let fault = |step: serde_json::Value| {
        let (index, error) = planned(json!([step])).unwrap_err();
        assert_eq!(index, Some(0));
        error.to_string()
    };
    let resize = |filter: &str, library: &str| json!({ "op": "resize", "size": 8, "filter": filter, "library": library });
    assert_eq!(
        fault(resize("hamming", "opencv")),
        "opencv does not offer the filter hamming"
    );
    assert_eq!(
        fault(resize("lanczos", "torchvision")),
        "torchvision does not offer the filter lanczos"
    );
    assert_eq!(
        fault(json!({ "op": "resize", "size": 8, "library": "pillow", "antialias": false })),
        "pillow offers the filter bilinear only without `antialias = false`"
    );
    assert_eq!(
        fault(json!({ "op": "resize", "size": [8, 9], "side": "shorter" })),
        "`size` has two numbers, but `side` names one side; write one number"
    );
    for value in [-1.0, 255.5] {
        assert_eq!(
            fault(json!({ "op": "pad", "size": 8, "value": value })),
            format!("`value` is {value}; expected a sample from 0 to 255")
        );
    }
    for unknown in [
        json!([{ "op": "resize", "siz": 8 }]),
        json!([{ "op": "resize", "size": 8, "filtr": "box" }]),
        json!([{ "op": "center_crop", "size": 8, "filter": "box" }]),
        json!([{ "op": "crop", "size": 8 }]),
        json!([{ "op": "pad", "size": 0 }]),
    ] {
        assert!(serde_json::from_value::<Vec<PreprocessStep>>(unknown).is_err());
    }
    for size in [json!(0), json!([8, 0]), json!("8"), json!([8, 8, 3])] {
        let step = json!({ "op": "resize", "size": size });
        let error = serde_json::from_value::<PreprocessStep>(step).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected a number of pixels above 0, or [height, width]"
        );
    }
}
