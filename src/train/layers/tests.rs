//! Unit tests of the module `layers`.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::train::layer_spec::ConvolutionSpec;

const CONV: ConvolutionSpec = ConvolutionSpec {
    inputs: 3,
    outputs: 3,
    kernel: 3,
    stride: 1,
    padding: 1,
};

fn kinds(plan: &LayerPlan) -> Vec<LayerKind> {
    plan.layers.iter().map(|layer| layer.kind).collect()
}

#[test]
fn images_are_rearranged_only_if_a_layer_needs_it() {
    let relu = LayerSpec::Activate(Activation::Relu);
    let plan = LayerPlan::new(
        &[
            LayerSpec::Conv(CONV),
            relu,
            LayerSpec::Conv(CONV),
            LayerSpec::Flatten,
        ],
        &[],
        &[3, 4, 4],
    )
    .unwrap();
    let [there, first, second, back] = kinds(&plan)[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(
        there,
        LayerKind::Rearrange(Rearrange::ToPixels {
            channels: 3,
            pixels: 16
        })
    );
    assert!(matches!(
        first,
        LayerKind::Convolution {
            weight: 0,
            number: 0,
            ..
        }
    ));
    assert!(matches!(
        second,
        LayerKind::Convolution {
            weight: 2,
            number: 1,
            ..
        }
    ));
    assert_eq!(
        back,
        LayerKind::Rearrange(Rearrange::ToPlanes {
            channels: 3,
            pixels: 16
        })
    );
    assert_eq!(
        (plan.layers[1].activation, plan.first, plan.code),
        (Activation::Relu, 1, 4)
    );
    assert_eq!(plan.multiplications, 2 * 16 * 9 * 9);
    // Dense layers and images of one channel do not need a rearrangement.
    let dense = LayerSpec::Dense {
        inputs: 48,
        outputs: 2,
    };
    assert_eq!(
        LayerPlan::new(&[LayerSpec::Flatten, dense], &[], &[3, 4, 4])
            .unwrap()
            .layers
            .len(),
        1
    );
    let conv = ConvolutionSpec {
        inputs: 1,
        outputs: 1,
        ..CONV
    };
    assert_eq!(
        LayerPlan::new(
            &[LayerSpec::Conv(conv), LayerSpec::Flatten],
            &[],
            &[1, 4, 4]
        )
        .unwrap()
        .layers
        .len(),
        1
    );
}

#[test]
fn activation_in_place_preserves_needed_values() {
    let dense = LayerSpec::Dense {
        inputs: 2,
        outputs: 2,
    };
    let (relu, silu) = (
        LayerSpec::Activate(Activation::Relu),
        LayerSpec::Activate(Activation::Silu),
    );
    let layers = |encoder: &[LayerSpec], decoder: &[LayerSpec]| {
        LayerPlan::new(encoder, decoder, &[2]).unwrap().layers.len()
    };
    assert_eq!(layers(&[dense, relu, dense], &[]), 2);
    assert_eq!(layers(&[dense, silu, dense], &[]), 3);
    assert_eq!(layers(&[dense, relu, relu], &[]), 2);
    assert_eq!(
        layers(&[dense, LayerSpec::SaveSkip, relu, LayerSpec::AddSkip], &[]),
        3
    );
    assert_eq!(layers(&[dense], &[relu]), 2);
    assert_eq!(layers(&[relu], &[]), 1);
}

#[test]
fn mismatched_shape_is_reported_with_its_step() {
    let found = LayerPlan::new(&[LayerSpec::SpaceToDepth], &[], &[3, 5, 4]).unwrap_err();
    assert_eq!(
        found,
        "layer 0 (space to depth) with input [3, 5, 4]: height and width must be even"
    );
}
