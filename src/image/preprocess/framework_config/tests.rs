//! Unit tests of the module `framework_config`.
#![allow(clippy::unwrap_used)]

use super::*;

fn check(text: &str, expected: &str) {
    let shown = match parse(text.as_bytes()) {
        Ok(options) => {
            let steps: Vec<String> = options.steps.iter().map(ToString::to_string).collect();
            format!("{}; {}", steps.join(", "), options.format.describe())
        }
        Err(error) => error.to_string(),
    };
    assert_eq!(shown, expected, "{text}");
}

#[test]
fn files_of_transformers_are_read() {
    check(
        r#"{"do_normalize": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
            "resample": 2, "size": 224, "feature_extractor_type": "ViTFeatureExtractor"}"#,
        "resize 224 x 224 (bilinear of torchvision); rgb nchw in [0, 1], mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5]",
    );
    check(
        r#"{"crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_convert_rgb": true,
            "do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": [0.485, 0.456, 0.406],
            "image_processor_type": "BitImageProcessor", "image_std": [0.229, 0.224, 0.225], "resample": 3,
            "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 256}}"#,
        "resize shorter side to 256 (bicubic of torchvision), center crop 224 x 224; rgb nchw in [0, 1], mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225]",
    );
    check(
        r#"{"crop_size": 224, "do_center_crop": true, "do_normalize": false, "do_rescale": false, "do_resize": true,
            "feature_extractor_type": "CLIPFeatureExtractor", "resample": 1, "size": 224}"#,
        "resize shorter side to 224 (lanczos of pillow), center crop 224 x 224; rgb nchw in [0, 255]",
    );
}

#[test]
fn files_of_timm_are_read() {
    check(
        r#"{"architecture": "vit_small", "pretrained_cfg": {"input_size": [3, 384, 384], "interpolation": "bicubic",
            "crop_pct": 0.95, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}"#,
        "resize shorter side to 404 (bicubic of pillow), center crop 384 x 384; rgb nchw in [0, 1], mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5]",
    );
}

#[test]
fn unsupported_files_name_the_key() {
    let fault = |text: &str, expected: &str| {
        check(text, &format!("{expected}; write the steps instead"));
    };
    let unknown_default = "is missing, and its default depends on the processor";
    check(
        "[]",
        "is not the configuration of a preprocessor: invalid type: sequence, expected a map at \
         line 1 column 0",
    );
    fault(
        r#"{"do_resize": true, "size": 224, "resample": 2}"#,
        "`size`: is one number, whose meaning depends on the processor, and `` is not known",
    );
    fault(
        r#"{"do_resize": true, "size": {"shortest_edge": 1}, "resample": 9}"#,
        "`resample`: 9 is not a filter of Pillow",
    );
    fault(
        r#"{"do_resize": true, "size": {"shortest_edge": 8, "longest_edge": 9}, "resample": 3}"#,
        "`size`: is {\"longest_edge\":9,\"shortest_edge\":8}; expected a number, `height` and \
         `width`, or `shortest_edge` alone",
    );
    fault(
        r#"{"pretrained_cfg": {"input_size": [3, 8, 8], "crop_mode": "border", "mean": [0, 0, 0], "std": [1, 1, 1]}}"#,
        "`crop_mode`: `border` is not supported",
    );
    // A default of this program would silently replace that of the processor.
    let vit = r#"{"image_processor_type": "ViTImageProcessor", "size": 224"#;
    for (rest, key) in [
        (r#""do_resize": true}"#, "resample"),
        (r#""do_resize": true, "resample": 2}"#, "do_normalize"),
        (
            r#""do_resize": true, "resample": 2, "do_normalize": true}"#,
            "image_mean",
        ),
        (r#""resample": 2, "do_normalize": false}"#, "do_resize"),
        (
            r#""do_resize": true, "resample": 2, "crop_size": 9}"#,
            "do_center_crop",
        ),
    ] {
        fault(
            &format!("{vit}, {rest}"),
            &format!("`{key}`: {unknown_default}"),
        );
    }
    fault(
        r#"{"image_processor_type": "CLIPImageProcessor", "do_resize": true, "size": 8, "resample": 3}"#,
        &format!("`do_center_crop`: {unknown_default}"),
    );
    for key in [
        "crop_pct",
        "do_pad",
        "rescale_offset",
        "do_flip_channel_order",
    ] {
        fault(
            &format!(r#"{vit}, "do_resize": true, "{key}": true}}"#),
            &format!("`{key}`: is not supported"),
        );
    }
}

#[test]
fn nulls_and_disabled_steps_have_no_effect() {
    check(
        r#"{"image_processor_type": "BlipImageProcessor", "do_resize": true, "size": 8, "default_to_square": true, "resample": 3,
            "do_normalize": false, "do_pad": false, "crop_size": null, "rescale_offset": null}"#,
        "resize 8 x 8 (bicubic of torchvision); rgb nchw in [0, 1]",
    );
}
