//! Unit tests of the module `input`.

use super::*;
use crate::train::input::value_range::cross_entropy_fault;

#[test]
fn declared_ranges_of_images_follow_range_mean_and_std() {
    let fault = |spec: InputSpec| cross_entropy_fault(&spec, InputKind::Image);
    assert_eq!(fault(InputSpec::default()), None);
    let range = Some([0.25, 0.75]);
    let narrow = InputSpec {
        range,
        ..InputSpec::default()
    };
    assert_eq!(fault(narrow.clone()), None);
    let wide = InputSpec {
        std: Some(vec![1.0, 1.0, 0.5]),
        ..narrow
    };
    assert_eq!(
        fault(wide),
        Some(ConfigError::new(
            "loss",
            "`bce` is for values in 0..1, but `input.range`, `input.mean` and `input.std` map \
                 the pixels of channel 2 to 0.5..1.5; set input.range = [0, 1] without mean and \
                 std, or loss = \"mse\""
        ))
    );
}

#[test]
fn steps_with_results_between_bytes_are_refused() {
    let keys = |steps: serde_json::Value| -> Vec<String> {
        let spec = InputSpec {
            steps: serde_json::from_value(steps).unwrap_or_default(),
            ..InputSpec::default()
        };
        faults(&spec).into_iter().map(|fault| fault.key).collect()
    };
    let resize =
        |library: &str| serde_json::json!([{ "op": "resize", "size": 4, "library": library }]);
    assert_eq!(keys(resize("tensorflow")), ["input.steps"]);
    assert!(keys(resize("opencv")).is_empty());
    let padded = serde_json::json!([{ "op": "center_crop", "size": 4 }, { "op": "pad", "size": 5, "value": 0.5 }]);
    assert_eq!(keys(padded), ["input.steps"]);
}
