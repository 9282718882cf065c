//! Tests that ONNX Runtime and the layers give the same results, and that gradients equal finite
//! differences.

#![allow(clippy::unwrap_used)]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::backprop::Backprop;
use super::config::{Sparsity, SparsityPenalty};
use super::epoch_sampler::TrainingBatch;
use super::onnx;
use super::sequential::{Activation, ConvolutionSpec, LayerSpec, RecordShape, Sequential};
use super::weight_init::initial;
use crate::metrics::Metrics;
use crate::model::{Loss, Model, ModelPath, ModelSpec, testing};

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

fn image(channels: usize, height: usize, width: usize) -> RecordShape {
    RecordShape::Planes {
        channels,
        size: Some((height, width)),
    }
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

/// Returns convolutions with different kernels, strides and paddings.
fn convolutions() -> Vec<(&'static str, RecordShape, Vec<LayerSpec>)> {
    vec![
        (
            "conv",
            image(2, 5, 6),
            vec![LayerSpec::Conv(conv(2, 3, 3, 1, 1))],
        ),
        (
            "conv stride 2",
            image(2, 7, 7),
            vec![LayerSpec::Conv(conv(2, 3, 3, 2, 1))],
        ),
        (
            "conv 2x2 stride 2",
            image(2, 6, 4),
            vec![LayerSpec::Conv(conv(2, 3, 2, 2, 0))],
        ),
        (
            "conv 5x5",
            image(1, 6, 6),
            vec![LayerSpec::Conv(conv(1, 2, 5, 1, 2))],
        ),
        (
            "transposed conv 3x3",
            image(3, 4, 4),
            vec![LayerSpec::ConvTranspose(conv(3, 2, 3, 2, 1))],
        ),
        (
            "transposed conv 4x4",
            image(3, 3, 4),
            vec![LayerSpec::ConvTranspose(conv(3, 2, 4, 2, 1))],
        ),
        (
            "transposed conv 2x2",
            image(3, 3, 2),
            vec![LayerSpec::ConvTranspose(conv(3, 2, 2, 2, 0))],
        ),
    ]
}

/// Returns each kind of step in a minimal chain.
fn chains() -> Vec<(String, Sequential)> {
    let activations = ACTIVATIONS.map(|kind| {
        (
            kind.as_str(),
            RecordShape::Flat(6),
            vec![LayerSpec::Activate(kind)],
        )
    });
    let steps = vec![
        (
            "affine",
            RecordShape::Flat(3),
            vec![LayerSpec::Affine {
                scale: 2.5,
                offset: -0.75,
            }],
        ),
        (
            "dense",
            RecordShape::Flat(5),
            vec![LayerSpec::Dense {
                inputs: 5,
                outputs: 3,
            }],
        ),
        ("flatten", image(2, 2, 3), vec![LayerSpec::Flatten]),
        (
            "unflatten",
            RecordShape::Flat(12),
            vec![LayerSpec::Unflatten { shape: [2, 2, 3] }],
        ),
        (
            "space to depth",
            image(3, 4, 6),
            vec![LayerSpec::SpaceToDepth],
        ),
        (
            "depth to space",
            image(8, 2, 3),
            vec![LayerSpec::DepthToSpace],
        ),
        (
            "residual",
            RecordShape::Flat(4),
            vec![
                LayerSpec::SaveSkip,
                LayerSpec::Dense {
                    inputs: 4,
                    outputs: 4,
                },
                LayerSpec::AddSkip,
            ],
        ),
        (
            "nested residual",
            image(2, 4, 4),
            vec![
                LayerSpec::SaveSkip,
                LayerSpec::Conv(conv(2, 2, 3, 1, 1)),
                LayerSpec::SaveSkip,
                LayerSpec::Activate(Activation::Tanh),
                LayerSpec::Conv(conv(2, 2, 3, 1, 1)),
                LayerSpec::AddSkip,
                LayerSpec::AddSkip,
            ],
        ),
    ];
    let all = activations.into_iter().chain(steps).chain(convolutions());
    all.map(|(name, shape, layers)| (name.to_owned(), Sequential::new(shape, layers).unwrap()))
        .collect()
}

fn random(len: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.5_f32..1.5)).collect()
}

fn dims(shape: RecordShape) -> Vec<usize> {
    match shape {
        RecordShape::Flat(len) => vec![len],
        RecordShape::Planes { channels, size } => {
            let (height, width) = size.unwrap();
            vec![channels, height, width]
        }
    }
}

/// Returns weights with biases that are not 0, and a batch of records.
fn random_weights_and_input(chain: &Sequential, records: usize) -> (Vec<Vec<f32>>, Vec<f32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut weights = initial(chain, &mut rng);
    for values in weights
        .iter_mut()
        .filter(|values| values.iter().all(|&value| value == 0.0))
    {
        *values = random(values.len(), &mut rng);
    }
    let input = random(records * chain.input().len().unwrap(), &mut rng);
    (weights, input)
}

fn batch(chain: &Sequential, input: &[f32], records: usize) -> TrainingBatch {
    let target = vec![0.0; records * chain.output().len().unwrap()];
    TrainingBatch {
        records,
        shape: dims(chain.input()),
        input: input.to_vec(),
        target,
    }
}

fn run(chain: &Sequential, weights: &[Vec<f32>], input: &[f32], records: usize) -> Vec<f32> {
    let mut backprop = Backprop::new(chain.layers().to_vec(), Vec::new(), Loss::Mse, None);
    backprop
        .output(weights, &batch(chain, input, records))
        .unwrap()
}

#[test]
fn onnx_runtime_and_layers_agree_on_each_step() {
    let runtime = testing::init();
    for (name, chain) in chains() {
        let (weights, input) = random_weights_and_input(&chain, 3);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(
            &path,
            onnx::write("test", ["input", "output"], &chain, &weights, &[]),
        )
        .unwrap();
        let spec = ModelSpec {
            model: Some(path),
            ..ModelSpec::default()
        };
        let model = Model::open(
            "test",
            &spec,
            &runtime,
            &std::sync::Arc::new(Metrics::new()),
        );
        let model = model.unwrap_or_else(|faults| panic!("{name}: {faults:?}"));
        let mut output = Vec::new();
        model
            .chain(ModelPath::Reconstruct)
            .unwrap()
            .run(&input, &dims(chain.input()), &mut output)
            .unwrap();
        let expected = run(&chain, &weights, &input, 3);
        assert_eq!(output.len(), expected.len(), "{name}");
        let off = output
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(off < 1e-4, "{name}: off by {off}");
    }
}

/// A network and a batch of records to compute gradients for.
struct Case {
    name: String,
    encoder: Sequential,
    decoder: Vec<LayerSpec>,
    loss: Loss,
    sparsity: Option<Sparsity>,
    weights: Vec<Vec<f32>>,
    batch: TrainingBatch,
}

impl Case {
    fn new(
        name: &str,
        encoder: Sequential,
        decoder: Vec<LayerSpec>,
        loss: Loss,
        sparsity: Option<Sparsity>,
    ) -> Self {
        let records = 3;
        let (mut weights, input) = random_weights_and_input(&encoder, records);
        let back = Sequential::new(encoder.output(), decoder.clone()).unwrap();
        weights.extend(random_weights_and_input(&back, 1).0);
        let mut batch = batch(&back, &input, records);
        batch.shape = dims(encoder.input());
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        batch
            .target
            .iter_mut()
            .for_each(|value| *value = rng.random_range(0.1_f32..0.9));
        Self {
            name: name.to_owned(),
            encoder,
            decoder,
            loss,
            sparsity,
            weights,
            batch,
        }
    }

    fn backprop(&self) -> Backprop {
        let mut backprop = Backprop::new(
            self.encoder.layers().to_vec(),
            self.decoder.clone(),
            self.loss,
            self.sparsity,
        );
        // Each record is processed by its own thread.
        backprop.multiplications_per_thread = 1;
        backprop
    }

    /// Returns the objective and its gradients.
    fn loss_and_gradients(&self, weights: &[Vec<f32>]) -> (f32, Vec<Vec<f32>>) {
        // Previous values in the gradient buffers must be replaced.
        let mut gradients: Vec<Vec<f32>> = weights
            .iter()
            .map(|weight| vec![f32::NAN; weight.len()])
            .collect();
        let value = self
            .backprop()
            .loss_and_gradients(weights, &self.batch, &mut gradients)
            .unwrap();
        (value, gradients)
    }

    fn check_gradients(&self) {
        let (_, gradients) = self.loss_and_gradients(&self.weights);
        for (part, gradient) in gradients.iter().enumerate() {
            // All values of small tensors and some of large ones.
            for index in (0..gradient.len()).step_by(1 + gradient.len() / 40) {
                let step = 2e-3_f32;
                let mut moved = self.weights.clone();
                let mut at = |value: f32| {
                    moved[part][index] = value;
                    f64::from(self.loss_and_gradients(&moved).0)
                };
                let value = self.weights[part][index];
                let expected = (at(value + step) - at(value - step))
                    / f64::from((value + step) - (value - step));
                let found = f64::from(gradient[index]);
                let off = (expected - found).abs() / (expected.abs().max(found.abs()) + 1e-2);
                let name = &self.name;
                assert!(
                    off < 2e-2,
                    "{name}: gradient {part}[{index}] is {found}, \
                     finite differences give {expected}"
                );
            }
        }
    }
}

/// Returns a layer whose gradients are correct only if the layer after it returns the gradient
/// with respect to its input.
fn layer_before(shape: RecordShape) -> LayerSpec {
    match shape {
        RecordShape::Flat(len) => LayerSpec::Dense {
            inputs: len,
            outputs: len,
        },
        RecordShape::Planes { channels, .. } => LayerSpec::Conv(conv(channels, channels, 1, 1, 0)),
    }
}

#[test]
fn gradients_of_each_step_equal_finite_differences() {
    for (name, chain) in chains() {
        let steps = [&[layer_before(chain.input())], chain.layers()].concat();
        let chain = Sequential::new(chain.input(), steps).unwrap();
        Case::new(&name, chain, Vec::new(), Loss::Mse, None).check_gradients();
    }
}

#[test]
fn elu_gradient_is_finite_for_any_value() {
    let values = [-1e30_f32, -200.0, 0.5, 100.0, 1e30];
    let mut gradient = [1.0; 5];
    let mut outputs = values;
    super::elementwise::activate(Activation::Elu, &mut outputs);
    super::elementwise::activate_back(Activation::Elu, &outputs, &outputs, &mut gradient);
    assert_eq!(gradient, [0.0, 0.0, 1.0, 1.0, 1.0]);
}

#[test]
fn gradients_of_networks_equal_finite_differences() {
    networks().iter().for_each(Case::check_gradients);
}

#[test]
fn bce_of_logits_equals_bce_of_sigmoid_and_is_finite() {
    let logits = [-3.0_f32, 0.0, 2.0, -200.0, 200.0];
    let targets = [0.2_f32, 0.5, 0.9, 0.0, 1.0];
    let loss = |z: [f32; 5], t: [f32; 5]| {
        let mut gradient = [0.0; 5];
        super::elementwise::cross_entropy(&z, &t, 1.0, &mut gradient) / 5.0
    };
    let sigmoid = logits.map(|z| 1.0 / (1.0 + (-z).exp()));
    let (found, expected) = (loss(logits, targets), Loss::Bce.error(&targets, &sigmoid));
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    let worst = loss([1000.0; 5], [0.0; 5]);
    assert!((worst - 1000.0).abs() < 1e-3, "{worst}");
}

/// Returns networks with each activation, and with losses and penalties.
fn networks() -> Vec<Case> {
    let penalties = [None, Some(SparsityPenalty::L1), Some(SparsityPenalty::Kl)];
    let network = |(index, kind): (usize, Activation)| {
        let dense = vec![
            LayerSpec::Affine {
                scale: 1.5,
                offset: -0.25,
            },
            LayerSpec::Flatten,
            LayerSpec::Dense {
                inputs: 48,
                outputs: 7,
            },
            LayerSpec::Activate(kind),
        ];
        let convolutional = vec![
            LayerSpec::Affine {
                scale: 1.5,
                offset: -0.25,
            },
            LayerSpec::Conv(conv(3, 4, 3, 2, 1)),
            LayerSpec::Activate(kind),
            LayerSpec::SaveSkip,
            LayerSpec::Conv(conv(4, 4, 3, 1, 1)),
            LayerSpec::Activate(kind),
            LayerSpec::AddSkip,
            LayerSpec::Flatten,
            LayerSpec::Dense {
                inputs: 16,
                outputs: 7,
            },
        ];
        let mut encoder = if index % 2 == 0 { dense } else { convolutional };
        encoder.extend([
            LayerSpec::Dense {
                inputs: 7,
                outputs: 5,
            },
            LayerSpec::Activate(Activation::Sigmoid),
        ]);
        let decoder = vec![
            LayerSpec::Dense {
                inputs: 5,
                outputs: 16,
            },
            LayerSpec::Activate(kind),
            LayerSpec::Affine {
                scale: 0.5,
                offset: 0.1,
            },
            LayerSpec::Unflatten { shape: [4, 2, 2] },
            LayerSpec::ConvTranspose(conv(4, 3, 4, 2, 1)),
        ];
        let loss = if index % 2 == 0 { Loss::Mse } else { Loss::Bce };
        let sparsity = |penalty| Sparsity {
            penalty,
            weight: 0.3,
            target: 0.05,
        };
        let encoder = Sequential::new(image(3, 4, 4), encoder).unwrap();
        Case::new(
            kind.as_str(),
            encoder,
            decoder,
            loss,
            penalties[index % 3].map(sparsity),
        )
    };
    ACTIVATIONS.into_iter().enumerate().map(network).collect()
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    // The shards have different sizes.
    let pool = |threads| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
    };
    let [one, two] = [1, 2].map(pool);
    for case in networks() {
        let (expected, gradients) = one.install(|| case.loss_and_gradients(&case.weights));
        let (value, found) = two.install(|| case.loss_and_gradients(&case.weights));
        assert!(
            (value - expected).abs() < 1e-5 * expected.abs(),
            "{}: {value} is not {expected}",
            case.name
        );
        for (part, (values, expected_values)) in found.iter().zip(&gradients).enumerate() {
            for (a, b) in values.iter().zip(expected_values) {
                assert!(
                    (a - b).abs() < 1e-5 * (b.abs() + 0.1),
                    "{}, gradient {part}: {a} is not {b}",
                    case.name
                );
            }
        }
        assert_eq!(
            two.install(|| case.loss_and_gradients(&case.weights)).1,
            found,
            "{}: each run gives the same bits",
            case.name
        );
    }
}

#[test]
fn batch_does_not_affect_the_next_batch() {
    let all = chains();
    let (_, chain) = all
        .iter()
        .find(|(name, _)| name == "nested residual")
        .unwrap();
    let (weights, _) = random_weights_and_input(chain, 1);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut used = Backprop::new(chain.layers().to_vec(), Vec::new(), Loss::Mse, None);
    // Different numbers of records and sizes of images.
    for (records, height, width) in [(3, 4, 6), (1, 4, 6), (2, 8, 2), (3, 4, 6)] {
        let values = random(records * 2 * height * width, &mut rng);
        let batch = TrainingBatch {
            records,
            shape: vec![2, height, width],
            input: Vec::new(),
            target: values,
        };
        let mut fresh = Backprop::new(chain.layers().to_vec(), Vec::new(), Loss::Mse, None);
        let loss_and_gradients = |backprop: &mut Backprop| {
            let mut gradients = weights.clone();
            (
                backprop
                    .loss_and_gradients(&weights, &batch, &mut gradients)
                    .unwrap(),
                gradients,
            )
        };
        assert_eq!(
            loss_and_gradients(&mut used),
            loss_and_gradients(&mut fresh),
            "{records} of {height}x{width}"
        );
    }
}

#[test]
fn records_of_a_mismatched_shape_are_refused() {
    let mut backprop = Backprop::new(vec![LayerSpec::SpaceToDepth], Vec::new(), Loss::Mse, None);
    let batch = TrainingBatch {
        records: 1,
        shape: vec![1, 3, 4],
        input: Vec::new(),
        target: vec![0.0; 12],
    };
    let refused = backprop.loss_of(&[], &batch).unwrap_err();
    assert_eq!(
        refused,
        "layer 0 (space to depth) with input [1, 3, 4]: height and width must be even"
    );
}
