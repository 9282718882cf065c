//! Unit tests of the module `input`.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::model::input::spec::InputSpec;
use crate::model::tensor_spec::{Dim, ElementType, TensorSpec};

/// The input of a model of color images of `height` x 8 pixels; `None` for any height.
fn tensor(height: Option<usize>) -> TensorSpec {
    let height = height.map_or(Dim::Dynamic(None), Dim::Fixed);
    TensorSpec {
        name: "x".to_owned(),
        element: ElementType::Float32,
        dims: vec![Dim::Dynamic(None), Dim::Fixed(3), height, Dim::Fixed(8)],
    }
}

fn resolve(spec: Value, tensor: &TensorSpec) -> Result<ImageInput, Vec<(String, String)>> {
    let spec: InputSpec = serde_json::from_value(spec).unwrap();
    match spec.resolve(tensor) {
        Ok(ModelInput::Image(image)) => Ok(image),
        Ok(other) => panic!("{other:?}"),
        Err(faults) => Err(faults
            .into_iter()
            .map(|fault| (fault.key, fault.message))
            .collect()),
    }
}

#[test]
fn steps_give_the_size_that_other_keys_may_repeat() {
    let steps = json!([{ "op": "center_crop", "size": [6, 8] }]);
    let sized = [
        json!({ "steps": steps }),
        json!({ "steps": steps, "size": [6, 8], "decode": "full" }),
    ];
    for spec in sized {
        for height in [None, Some(6)] {
            let image = resolve(spec.clone(), &tensor(height)).unwrap();
            assert_eq!(image.size, Some((6, 8)), "{spec}");
            assert!(image.steps.is_some());
        }
    }
    let plain = resolve(json!({ "size": [6, 8] }), &tensor(None)).unwrap();
    assert_eq!(plain.steps, None);
}

#[test]
fn keys_that_contradict_steps_are_refused() {
    let steps = json!([{ "op": "center_crop", "size": [6, 8] }]);
    let fault = |spec: Value, height: Option<usize>| {
        let faults = resolve(spec, &tensor(height)).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults.into_iter().next().unwrap()
    };
    let (key, message) = fault(json!({ "steps": steps, "size": [5, 8] }), None);
    assert_eq!(key, "size");
    assert_eq!(
        message,
        "is 5 x 8, but the steps make images of 6 x 8 pixels; remove one of them"
    );
    assert_eq!(
        fault(json!({ "steps": steps, "decode": "scaled" }), None).0,
        "decode"
    );
    assert_eq!(fault(json!({ "steps": steps }), Some(5)).0, "steps");
    let invalid =
        json!([{ "op": "center_crop", "size": 8 }, { "op": "pad", "size": 8, "value": 256.0 }]);
    assert_eq!(fault(json!({ "steps": invalid }), None).0, "steps[1]");
    let columns = json!({ "steps": steps, "columns": ["a"] });
    assert_eq!(fault(columns, None).0, "steps");
}
