//! The two readings of each step agree with each other, and gradients with finite differences.

#![allow(clippy::unwrap_used)]

use burn_tensor::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::batches::Batch;
use super::dense::Dense;
use super::net::{Activation, Chain, Convolution, Shape, Step};
use super::objective::{loss, penalty};
use super::spec::{Penalty, Sparsity};
use super::tensors::{Value, download, forward, initial, upload};
use super::{onnx, tensors};
use crate::metrics::Metrics;
use crate::model::{Loss, Model, ModelSpec, Pass, testing};

const fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize, padding: usize) -> Convolution {
    Convolution { inputs, outputs, kernel, stride, padding }
}

fn image(channels: usize, height: usize, width: usize) -> Shape {
    Shape::Planes { channels, size: Some((height, width)) }
}

const ACTIVATIONS: [Activation; 7] = [
    Activation::Linear,
    Activation::Relu,
    Activation::LeakyRelu,
    Activation::Elu,
    Activation::Silu,
    Activation::Tanh,
    Activation::Sigmoid,
];

/// Every kind of step, in the smallest chain that shows it.
fn chains() -> Vec<(String, Chain)> {
    let activations = ACTIVATIONS.map(|kind| (kind.as_str(), Shape::Flat(6), vec![Step::Activate(kind)]));
    let steps = vec![
        ("affine", Shape::Flat(3), vec![Step::Affine { scale: 2.5, offset: -0.75 }]),
        ("dense", Shape::Flat(5), vec![Step::Dense { inputs: 5, outputs: 3 }]),
        ("conv", image(2, 5, 6), vec![Step::Conv(conv(2, 3, 3, 1, 1))]),
        ("conv stride 2", image(2, 7, 7), vec![Step::Conv(conv(2, 3, 3, 2, 1))]),
        ("conv 2x2 stride 2", image(2, 6, 4), vec![Step::Conv(conv(2, 3, 2, 2, 0))]),
        ("conv 5x5", image(1, 6, 6), vec![Step::Conv(conv(1, 2, 5, 1, 2))]),
        ("transposed conv 3x3", image(3, 4, 4), vec![Step::ConvTranspose(conv(3, 2, 3, 2, 1))]),
        ("transposed conv 4x4", image(3, 3, 4), vec![Step::ConvTranspose(conv(3, 2, 4, 2, 1))]),
        ("transposed conv 2x2", image(3, 3, 2), vec![Step::ConvTranspose(conv(3, 2, 2, 2, 0))]),
        ("flatten", image(2, 2, 3), vec![Step::Flatten]),
        ("unflatten", Shape::Flat(12), vec![Step::Unflatten { shape: [2, 2, 3] }]),
        ("space to depth", image(3, 4, 6), vec![Step::SpaceToDepth]),
        ("depth to space", image(8, 2, 3), vec![Step::DepthToSpace]),
        ("residual", Shape::Flat(4), vec![Step::Keep, Step::Dense { inputs: 4, outputs: 4 }, Step::Add]),
        (
            "nested residual",
            image(2, 4, 4),
            vec![
                Step::Keep,
                Step::Conv(conv(2, 2, 3, 1, 1)),
                Step::Keep,
                Step::Activate(Activation::Tanh),
                Step::Conv(conv(2, 2, 3, 1, 1)),
                Step::Add,
                Step::Add,
            ],
        ),
    ];
    let all = activations.into_iter().chain(steps);
    all.map(|(name, shape, steps)| (name.to_owned(), Chain::new(shape, steps).unwrap())).collect()
}

fn random(len: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.5_f32..1.5)).collect()
}

fn dims(shape: Shape) -> Vec<usize> {
    match shape {
        Shape::Flat(len) => vec![len],
        Shape::Planes { channels, size } => {
            let (height, width) = size.unwrap();
            vec![channels, height, width]
        }
    }
}

/// Weights with biases that are not 0, and a batch of records.
fn material(chain: &Chain, records: usize) -> (Vec<Vec<f32>>, Vec<f32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut weights = initial(chain, &mut rng);
    for values in weights.iter_mut().filter(|values| values.iter().all(|&value| value == 0.0)) {
        *values = random(values.len(), &mut rng);
    }
    let input = random(records * chain.input().len().unwrap(), &mut rng);
    (weights, input)
}

fn run(chain: &Chain, weights: &[Vec<f32>], input: &[f32], records: usize) -> Vec<f32> {
    let device = Device::flex();
    let weights: Vec<Tensor<1>> = weights.iter().map(|values| upload(values, &device)).collect();
    let value = Value::new(input.to_vec(), records, &dims(chain.input()), &device);
    download(forward(chain.steps(), &mut weights.iter(), value).flat()).unwrap()
}

#[test]
fn onnx_runtime_computes_what_was_trained_for_every_kind_of_step() {
    let runtime = testing::init();
    for (name, chain) in chains() {
        let (weights, input) = material(&chain, 3);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, onnx::write("test", ["input", "output"], &chain, &weights, &[])).unwrap();
        let spec = ModelSpec { model: Some(path), ..ModelSpec::default() };
        let model = Model::open("test", &spec, &runtime, &std::sync::Arc::new(Metrics::new()));
        let model = model.unwrap_or_else(|faults| panic!("{name}: {faults:?}"));
        let mut output = Vec::new();
        model.chain(Pass::Whole).unwrap().run(&input, &dims(chain.input()), &mut output).unwrap();
        let expected = run(&chain, &weights, &input, 3);
        assert_eq!(output.len(), expected.len(), "{name}");
        let off = output.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-4, "{name}: off by {off}");
    }
}

/// The objective of a chain as a number, for weights and input in one list.
fn objective(chain: &Chain, parts: &[Vec<f32>], target: &[f32], of: &dyn Fn(Tensor<2>, Tensor<2>) -> Tensor<1>) -> f64 {
    let (input, weights) = parts.split_first().unwrap();
    let records = input.len() / chain.input().len().unwrap();
    let output = run(chain, weights, input, records);
    let device = Device::flex();
    let flat = |values: &[f32]| Tensor::<1>::from_data(values, &device).reshape([records, values.len() / records]);
    f64::from(download(of(flat(&output), flat(target))).unwrap()[0])
}

fn check_gradients(name: &str, chain: &Chain, of: &dyn Fn(Tensor<2>, Tensor<2>) -> Tensor<1>) {
    let records = 2;
    let (weights, input) = material(chain, records);
    let target: Vec<f32> = {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        (0..records * chain.output().len().unwrap()).map(|_| rng.random_range(0.1_f32..0.9)).collect()
    };
    let mut parts = vec![input];
    parts.extend(weights);
    let device = Device::flex().autodiff();
    let leaves: Vec<Tensor<1>> = parts.iter().map(|values| upload(values, &device).require_grad()).collect();
    let shape = dims(chain.input());
    let value = match *shape.as_slice() {
        [channels, height, width] => Value::Planes(leaves[0].clone().reshape([records, channels, height, width])),
        _ => Value::Flat(leaves[0].clone().reshape([records, shape[0]])),
    };
    let output = tensors::forward(chain.steps(), &mut leaves[1..].iter(), value).flat();
    let wanted = Tensor::<1>::from_data(target.as_slice(), &device).reshape(output.dims());
    let gradients = of(output, wanted).backward();
    for (part, leaf) in leaves.iter().enumerate() {
        let gradient = download(leaf.grad(&gradients).unwrap()).unwrap();
        // Every value of small tensors, some of large ones.
        for place in (0..gradient.len()).step_by(1 + gradient.len() / 40) {
            let step = 1e-2_f32;
            let mut moved = parts.clone();
            let mut at = |value: f32| {
                moved[part][place] = value;
                objective(chain, &moved, &target, of)
            };
            let value = parts[part][place];
            let slope = (at(value + step) - at(value - step)) / f64::from((value + step) - (value - step));
            let found = f64::from(gradient[place]);
            let off = (slope - found).abs() / (slope.abs().max(found.abs()) + 1e-2);
            assert!(off < 2e-2, "{name}: gradient {part}[{place}] is {found}, differences say {slope}");
        }
    }
}

#[test]
fn gradients_of_every_kind_of_step_are_those_of_finite_differences() {
    for (name, chain) in chains() {
        check_gradients(&name, &chain, &|output, target| loss(Loss::Mse, output, target));
    }
}

#[test]
fn the_gradient_of_an_elu_is_finite_for_any_value() {
    let values = [-1e30_f32, -200.0, 0.5, 100.0, 1e30];
    let chain = Chain::new(Shape::Flat(5), vec![Step::Activate(Activation::Elu)]).unwrap();
    let leaf = upload(&values, &Device::flex().autodiff()).require_grad();
    let output = forward(chain.steps(), &mut [].iter(), Value::Flat(leaf.clone().reshape([1, 5]))).flat();
    let gradient = download(leaf.grad(&output.sum().backward()).unwrap()).unwrap();
    assert_eq!(gradient, [0.0, 0.0, 1.0, 1.0, 1.0]);
}

#[test]
fn gradients_of_losses_and_penalties_are_those_of_finite_differences() {
    let chain = Chain::new(Shape::Flat(4), vec![Step::Dense { inputs: 4, outputs: 3 }]).unwrap();
    check_gradients("bce", &chain, &|output, target| loss(Loss::Bce, output, target));
    let steps = vec![Step::Dense { inputs: 4, outputs: 3 }, Step::Activate(Activation::Sigmoid)];
    let chain = Chain::new(Shape::Flat(4), steps).unwrap();
    for kind in [Penalty::L1, Penalty::Kl] {
        let sparsity = Sparsity { penalty: kind, weight: 0.7, target: 0.05 };
        check_gradients(&format!("{kind:?}"), &chain, &|output, _| penalty(&sparsity, output));
    }
}

#[test]
fn binary_cross_entropy_on_logits_is_that_of_their_sigmoid_and_finite() {
    let device = Device::flex();
    let logits = [-3.0_f32, 0.0, 2.0, -200.0, 200.0];
    let targets = [0.2_f32, 0.5, 0.9, 0.0, 1.0];
    let tensor = |values: [f32; 5]| Tensor::<2>::from_data([values], &device);
    let found = download(loss(Loss::Bce, tensor(logits), tensor(targets))).unwrap()[0];
    let sigmoid = logits.map(|z| 1.0 / (1.0 + (-z).exp()));
    let expected = Loss::Bce.error(&targets, &sigmoid);
    assert!((f64::from(found) - expected).abs() < 1e-5, "{found} {expected}");
    let worst = download(loss(Loss::Bce, tensor([1000.0; 5]), tensor([0.0; 5]))).unwrap()[0];
    assert!((worst - 1000.0).abs() < 1e-3, "{worst}");
}

#[test]
fn kl_penalty_is_the_divergence_of_mean_activations() {
    let device = Device::flex();
    let code = Tensor::<2>::from_data([[0.1_f32, 0.4], [0.3, 0.6]], &device);
    let sparsity = Sparsity { penalty: Penalty::Kl, weight: 2.0, target: 0.1 };
    let kl = |rho: f64, m: f64| rho * (rho / m).ln() + (1.0 - rho) * ((1.0 - rho) / (1.0 - m)).ln();
    let expected = 2.0 * (kl(0.1, 0.2) + kl(0.1, 0.5)) / 2.0;
    let found = f64::from(download(penalty(&sparsity, code)).unwrap()[0]);
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
}

/// Steps to the code, steps from it, what is made small.
type DenseNetwork = (Vec<Step>, Vec<Step>, Loss, Option<Sparsity>);

/// Dense networks of every activation, with what belongs around them, and their losses and penalties.
fn dense_networks() -> Vec<DenseNetwork> {
    let penalties = [None, Some(Penalty::L1), Some(Penalty::Kl)];
    let network = |(place, kind): (usize, Activation)| {
        let encoder = vec![
            Step::Affine { scale: 1.5, offset: -0.25 },
            Step::Flatten,
            Step::Dense { inputs: 12, outputs: 7 },
            Step::Activate(kind),
            Step::Dense { inputs: 7, outputs: 5 },
            Step::Activate(Activation::Sigmoid),
        ];
        let decoder = vec![
            Step::Dense { inputs: 5, outputs: 12 },
            Step::Activate(kind),
            Step::Affine { scale: 0.5, offset: 0.1 },
            Step::Unflatten { shape: [3, 2, 2] },
        ];
        let loss = if place % 2 == 0 { Loss::Mse } else { Loss::Bce };
        let sparsity = |penalty| Sparsity { penalty, weight: 0.3, target: 0.05 };
        (encoder, decoder, loss, penalties[place % 3].map(sparsity))
    };
    ACTIVATIONS.into_iter().enumerate().map(network).collect()
}

#[test]
fn gradients_by_hand_are_those_of_the_tensors() {
    // Several threads, each with a part of the batch, and parts of different sizes.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for records in [9, 50] {
        pool.install(|| compare_with_tensors(records));
    }
    compare_with_tensors(9);
}

fn compare_with_tensors(records: usize) {
    for (number, (encoder, decoder, kind, sparsity)) in dense_networks().into_iter().enumerate() {
        let code = Chain::new(image(3, 2, 2), encoder.clone()).unwrap();
        let output = Chain::new(code.output(), decoder.clone()).unwrap();
        let (mut weights, input) = material(&code, records);
        weights.extend(material(&output, 1).0);
        let target: Vec<f32> = input.iter().map(|value| value.abs().min(1.0)).collect();

        let device = Device::flex().autodiff();
        let leaves: Vec<Tensor<1>> = weights.iter().map(|values| upload(values, &device).require_grad()).collect();
        let value = |values: &[f32]| Value::new(values.to_vec(), records, &[3, 2, 2], &device);
        let mut iter = leaves.iter();
        let code = forward(&encoder, &mut iter, value(&input));
        let reconstruction = forward(&decoder, &mut iter, code.clone()).flat();
        let mut objective = loss(kind, reconstruction, value(&target).flat());
        if let Some(sparsity) = &sparsity {
            objective = objective + penalty(sparsity, code.flat());
        }
        let found = objective.backward();
        let expected: Vec<Vec<f32>> = leaves.iter().map(|leaf| download(leaf.grad(&found).unwrap()).unwrap()).collect();

        let make = || {
            let mut dense = Dense::new(&encoder, &decoder, kind, sparsity).unwrap();
            dense.worth_a_thread = 100;
            dense
        };
        let mut dense = make();
        let mut gradients: Vec<Vec<f32>> = weights.iter().map(|weight| vec![f32::NAN; weight.len()]).collect();
        let batch = Batch { records, shape: vec![3, 2, 2], input, target };
        let value = dense.learn(&weights, &batch, &mut gradients);
        let whole = download(objective.inner()).unwrap()[0];
        assert!((value - whole).abs() < 1e-5 * whole, "network {number}: {value} is not {whole}");
        for (part, (found, expected)) in gradients.iter().zip(&expected).enumerate() {
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() < 1e-5 * (b.abs() + 0.1), "network {number}, gradient {part}: {a} is not {b}");
            }
        }
        // A smaller batch leaves nothing of the one before.
        let half = Batch {
            records: 4,
            shape: vec![3, 2, 2],
            input: batch.input[..48].to_vec(),
            target: batch.target[..48].to_vec(),
        };
        let again = make().measure(&weights, &half);
        assert_eq!(dense.measure(&weights, &half), again, "network {number}");
    }
}

#[test]
fn what_is_not_dense_is_left_to_the_tensors() {
    for step in [Step::Conv(conv(1, 1, 3, 1, 1)), Step::SpaceToDepth, Step::Keep] {
        assert!(Dense::new(&[step], &[], Loss::Mse, None).is_none());
    }
}
