//! Unit tests of the module `sequential`.

#![allow(clippy::unwrap_used)]
use expect_test::{Expect, expect};

use super::*;
use crate::train::layer_spec::{Activation, ConvolutionSpec};

const fn conv(
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> ConvolutionSpec {
    ConvolutionSpec {
        inputs,
        outputs,
        kernel,
        stride,
        padding,
    }
}

fn image(channels: usize, side: usize) -> RecordShape {
    RecordShape::Planes {
        channels,
        size: Some((side, side)),
    }
}

#[test]
fn shapes_follow_the_steps() {
    let steps = vec![
        LayerSpec::Conv(conv(1, 8, 3, 2, 1)),
        LayerSpec::Activate(Activation::Relu),
        LayerSpec::Flatten,
        LayerSpec::Dense {
            inputs: 8 * 14 * 14,
            outputs: 10,
        },
    ];
    let chain = Sequential::new(image(1, 28), steps).unwrap();
    assert_eq!(chain.output(), RecordShape::Flat(10));
    assert_eq!(
        chain.parameters().iter().map(Parameter::len).sum::<usize>(),
        72 + 8 + 15680 + 10
    );
    assert_eq!(
        chain.describe(),
        ["conv 1->8 3x3 stride 2, relu", "dense 1568->10"]
    );
}

#[test]
fn transposed_convolution_restores_the_size_of_its_mirror() {
    for (from, kernel, to) in [(4, 3, 7), (7, 4, 14), (14, 4, 28)] {
        let chain = Sequential::new(
            image(2, from),
            vec![LayerSpec::ConvTranspose(conv(2, 3, kernel, 2, 1))],
        )
        .unwrap();
        assert_eq!(chain.output(), image(3, to));
    }
}

#[test]
fn mismatched_steps_are_reported_with_their_place() {
    let check = |input, steps, expected: Expect| {
        expected.assert_eq(&Sequential::new(input, steps).unwrap_err())
    };
    let dense = LayerSpec::Dense {
        inputs: 5,
        outputs: 4,
    };
    check(
        RecordShape::Flat(4),
        vec![dense],
        expect!["layer 0 (dense 5->4) with input [4]: the shapes do not match"],
    );
    check(
        RecordShape::Flat(5),
        vec![LayerSpec::SaveSkip, dense, LayerSpec::AddSkip],
        expect!["layer 2 (add what was kept) with input [4]: the stored value has the shape [5]"],
    );
    check(
        RecordShape::Flat(5),
        vec![LayerSpec::SaveSkip],
        expect!["number of stored values that are never added: 1"],
    );
    check(
        RecordShape::Planes {
            channels: 1,
            size: None,
        },
        vec![LayerSpec::Flatten],
        expect![
            "layer 0 (flatten) with input [1, height, width]: \
                 images of any size cannot be flattened"
        ],
    );
    check(
        image(1, 2),
        vec![LayerSpec::Conv(conv(1, 1, 5, 1, 0))],
        expect![
            "layer 0 (conv 1->1 5x5) with input [1, 2, 2]: the image is smaller than the kernel"
        ],
    );
}
