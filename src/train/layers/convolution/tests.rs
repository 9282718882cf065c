//! Tests of convolutions against their definition, and of their gradients against finite
//! differences.

use super::*;

/// Height, width and channels of the image, depth, kernel, stride and padding. The windows cover
/// the entire image, so that each case applies to both kinds.
const CASES: [[usize; 7]; 10] = [
    [5, 6, 2, 3, 3, 1, 1],
    [7, 7, 2, 3, 3, 2, 1],
    [6, 4, 2, 3, 2, 2, 0],
    [6, 6, 1, 2, 5, 1, 2],
    [4, 6, 3, 4, 4, 2, 1],
    [1, 1, 2, 2, 3, 1, 1],
    [3, 9, 1, 1, 1, 1, 0],
    [2, 3, 1, 5, 7, 1, 3],
    // These are computed by tiles.
    [4, 6, 16, 32, 3, 1, 1],
    [7, 5, 32, 16, 3, 1, 1],
];

fn layer(
    [height, width, channels, depth, kernel, stride, padding]: [usize; 7],
    transposed: bool,
) -> ConvolutionLayer {
    let image = [height, width];
    let count = image.map(|side| (side + 2 * padding - kernel) / stride + 1);
    let windows = KernelWindows {
        image,
        channels,
        count,
        kernel,
        stride,
        padding,
    };
    ConvolutionLayer {
        windows,
        depth,
        transposed,
    }
}

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 37 + seed * 11) % 23) as f32 / 8.0 - 1.4)
        .collect()
}

/// Visits each product of the definition: its index in the weights, in the image and in the points.
fn products(conv: &ConvolutionLayer, records: usize, mut each: impl FnMut(usize, usize, usize)) {
    let KernelWindows {
        image: [height, width],
        channels,
        count: [down, across],
        kernel,
        stride,
        padding,
    } = conv.windows;
    for (record, y, x) in
        (0..records * down * across).map(|i| (i / (down * across), i / across % down, i % across))
    {
        for (row, column) in (0..kernel * kernel).map(|i| (i / kernel, i % kernel)) {
            let (iy, ix) = (
                (y * stride + row).wrapping_sub(padding),
                (x * stride + column).wrapping_sub(padding),
            );
            if iy >= height || ix >= width {
                continue;
            }
            for (depth, channel) in (0..conv.depth * channels).map(|i| (i / channels, i % channels))
            {
                let weight = (depth * kernel * kernel + row * kernel + column) * channels + channel;
                let pixel = ((record * height + iy) * width + ix) * channels + channel;
                let point = ((record * down + y) * across + x) * conv.depth + depth;
                each(weight, pixel, point);
            }
        }
    }
}

/// Returns the number of input values of a record.
fn inputs(conv: &ConvolutionLayer) -> usize {
    if conv.transposed {
        conv.points()
    } else {
        conv.windows.image_values()
    }
}

/// Returns the kernels for weights `[depth, kernel, kernel, channels]`.
fn kernels(conv: &ConvolutionLayer, weight: &[f32]) -> AlignedValues {
    let (mut parameter, mut kernels) = (vec![0.0; weight.len()], AlignedValues::default());
    conv.order().inverse().apply(weight, &mut parameter);
    conv.prepare(&parameter, &mut kernels);
    kernels
}

fn output(
    conv: &ConvolutionLayer,
    weight: &[f32],
    bias: &[f32],
    input: &[f32],
    records: usize,
) -> Vec<f32> {
    let mut output = vec![f32::NAN; records * conv.outputs()];
    let kernels = kernels(conv, weight);
    conv.forward(
        &kernels,
        bias,
        input,
        &mut output,
        &mut AlignedValues::default(),
    );
    output
}

#[test]
fn both_kinds_equal_their_definitions() {
    for (case, transposed) in CASES.iter().flat_map(|&case| [(case, false), (case, true)]) {
        let (conv, records) = (layer(case, transposed), 3);
        let weight = numbers(conv.depth * conv.windows.values(), 1);
        let bias = numbers(conv.channels_out(), 2);
        let input = numbers(records * inputs(&conv), 3);
        let mut expected: Vec<f32> = bias
            .iter()
            .copied()
            .cycle()
            .take(records * conv.outputs())
            .collect();
        let mut magnitudes = vec![0.0; expected.len()];
        products(&conv, records, |index, pixel, point| {
            let (from, to) = if transposed {
                (point, pixel)
            } else {
                (pixel, point)
            };
            let product = weight[index] * input[from];
            expected[to] += product;
            magnitudes[to] += product.abs();
        });
        let found = output(&conv, &weight, &bias, &input, records);
        for (index, (a, b)) in found.iter().zip(&expected).enumerate() {
            assert!(
                (a - b).abs() <= 1e-5 * (1.0 + magnitudes[index]),
                "{conv:?}: output {index} is {a}, not {b}"
            );
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for (case, transposed) in CASES.iter().flat_map(|&case| [(case, false), (case, true)]) {
        let (conv, records) = (layer(case, transposed), 2);
        let weight = numbers(conv.depth * conv.windows.values(), 1);
        let bias = numbers(conv.channels_out(), 2);
        let input = numbers(records * inputs(&conv), 3);
        // The objective is linear in each value, so that differences are exact except for rounding.
        let output_gradient = numbers(records * conv.outputs(), 4);
        let (mut sums, mut input_gradient) =
            (ConvolutionGradients::default(), vec![f32::NAN; input.len()]);
        conv.clear(&mut sums);
        conv.backward(
            &kernels(&conv, &weight),
            &input,
            &output_gradient,
            Some(&mut input_gradient),
            &mut sums,
            &mut AlignedValues::default(),
        );
        let parts = [weight, bias, input];
        for (part, found) in [&sums.weight, &sums.bias, &input_gradient]
            .into_iter()
            .enumerate()
        {
            // Some of the values represent those of large layers.
            for index in (0..found.len()).step_by((found.len() / 199).max(1)) {
                let at = |off: f32| {
                    let mut moved = parts.clone();
                    moved[part][index] += off;
                    let [moved_weight, moved_bias, moved_input] = &moved;
                    let output = output(&conv, moved_weight, moved_bias, moved_input, records);
                    output
                        .iter()
                        .zip(&output_gradient)
                        .map(|(a, b)| f64::from(a * b))
                        .sum::<f64>()
                };
                let (expected, found) = ((at(0.5) - at(-0.5)) as f32, found[index]);
                let near = (expected - found).abs() < 1e-3 * (1.0 + expected.abs());
                assert!(
                    near,
                    "{conv:?}: gradient {part}[{index}] is {found}, \
                     finite differences give {expected}"
                );
            }
        }
    }
}

#[test]
fn several_blocks_give_the_result_of_the_definition() {
    // A record takes several blocks, and the last block is smaller than the others. The last case is
    // computed by tiles.
    for (case, transposed) in [
        ([40, 33, 9, 5, 5, 1, 2], false),
        ([40, 33, 9, 5, 5, 1, 2], true),
        ([43, 50, 80, 16, 3, 1, 1], false),
    ] {
        let conv = layer(case, transposed);
        assert!(conv.windows.count[0] * conv.windows.count[1] * conv.windows.values() > 2 * BLOCK);
        let weight = numbers(conv.depth * conv.windows.values(), 1);
        let bias = numbers(conv.channels_out(), 2);
        let input = numbers(2 * inputs(&conv), 3);
        let output_gradient = numbers(2 * conv.outputs(), 4);
        let (mut sums, mut input_gradient) =
            (ConvolutionGradients::default(), vec![f32::NAN; input.len()]);
        conv.clear(&mut sums);
        conv.backward(
            &kernels(&conv, &weight),
            &input,
            &output_gradient,
            Some(&mut input_gradient),
            &mut sums,
            &mut AlignedValues::default(),
        );
        let mut expected = [
            vec![0.0_f64; sums.weight.len()],
            vec![0.0; input.len()],
            vec![0.0; output_gradient.len()],
        ];
        let mut magnitudes = expected.clone();
        products(&conv, 2, |index, pixel, point| {
            let (from, to) = if transposed {
                (point, pixel)
            } else {
                (pixel, point)
            };
            for (part, at, product) in [
                (0, index, input[from] * output_gradient[to]),
                (1, from, weight[index] * output_gradient[to]),
                (2, to, weight[index] * input[from]),
            ] {
                expected[part][at] += f64::from(product);
                magnitudes[part][at] += f64::from(product.abs());
            }
        });
        let bias: Vec<f32> = bias.into_iter().map(|_| 0.0).collect();
        let found = [
            sums.weight,
            input_gradient,
            output(&conv, &weight, &bias, &input, 2),
        ];
        for (part, (values, expected_values)) in found.iter().zip(&expected).enumerate() {
            for ((a, b), magnitude) in values.iter().zip(expected_values).zip(&magnitudes[part]) {
                assert!(
                    (f64::from(*a) - b).abs() <= 1e-5 * (1.0 + magnitude),
                    "{transposed}, {part}: {a} is not {b}"
                );
            }
        }
    }
}
