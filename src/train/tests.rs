//! Tests that ONNX Runtime and the layers give the same results, and that gradients equal finite
//! differences.

#![allow(clippy::unwrap_used)]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::backprop::Backprop;
use super::backprop::penalties::Penalties;
use super::config::TrainingFile;
use super::epoch_sampler::TrainingBatch;
use super::network_builder::build;
use super::onnx;
use super::sequential::Sequential;
use super::trainer::Trainer;
use super::weight_init::initial;
use crate::metrics::Metrics;
use crate::model::files::ModelPath;
use crate::model::{Loss, Model, ModelSpec, testing};
use crate::train::config::network::{Sparsity, SparsityPenalty};
use crate::train::layer_spec::{Activation, ConvolutionSpec, LayerSpec};
use crate::train::normalization::Normalization;
use crate::train::record_shape::RecordShape;

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

/// Returns normalizations of flat records and of images, and a skip connection that appends
/// channels.
fn normalizations() -> Vec<(&'static str, RecordShape, Vec<LayerSpec>)> {
    let normalize = |over, channels| LayerSpec::Normalize { over, channels };
    let tanh = LayerSpec::Activate(Activation::Tanh);
    vec![
        (
            "batch normalization of values",
            RecordShape::Flat(5),
            vec![normalize(Normalization::Batch, 5), tanh],
        ),
        (
            "batch normalization of channels",
            image(3, 4, 2),
            vec![normalize(Normalization::Batch, 3)],
        ),
        (
            "layer normalization of values",
            RecordShape::Flat(21),
            vec![normalize(Normalization::Layer, 21)],
        ),
        (
            "layer normalization of images",
            image(3, 4, 2),
            vec![normalize(Normalization::Layer, 3), tanh],
        ),
        (
            "two batch normalizations",
            image(2, 4, 4),
            vec![
                LayerSpec::Conv(conv(2, 3, 3, 1, 1)),
                normalize(Normalization::Batch, 3),
                LayerSpec::SaveSkip,
                LayerSpec::Activate(Activation::Silu),
                LayerSpec::Conv(conv(3, 3, 3, 1, 1)),
                normalize(Normalization::Batch, 3),
                LayerSpec::AddSkip,
            ],
        ),
        (
            "appended channels",
            image(2, 4, 4),
            vec![
                LayerSpec::Conv(conv(2, 3, 3, 1, 1)),
                LayerSpec::SaveSkip,
                LayerSpec::Conv(conv(3, 4, 2, 2, 0)),
                LayerSpec::ConvTranspose(conv(4, 2, 2, 2, 0)),
                LayerSpec::ConcatSkip,
                LayerSpec::Conv(conv(5, 2, 3, 1, 1)),
            ],
        ),
        (
            "appended input",
            image(2, 4, 2),
            vec![
                LayerSpec::SaveSkip,
                LayerSpec::Conv(conv(2, 3, 3, 1, 1)),
                LayerSpec::ConcatSkip,
            ],
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
    let all = activations
        .into_iter()
        .chain(steps)
        .chain(convolutions())
        .chain(normalizations());
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
    for values in weights
        .iter_mut()
        .filter(|values| values.iter().all(|&value| value == 1.0))
    {
        values.fill_with(|| rng.random_range(0.5_f32..2.0));
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
        seeds: (0..records as u64).collect(),
    }
}

fn run(chain: &Sequential, weights: &[Vec<f32>], input: &[f32], records: usize) -> Vec<f32> {
    let mut backprop = Backprop::new(
        chain.layers().to_vec(),
        Vec::new(),
        Loss::Mse,
        Penalties::default(),
    );
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
    penalties: Penalties,
    weights: Vec<Vec<f32>>,
    /// Whether each of the weights is learned.
    learned: Vec<bool>,
    batch: TrainingBatch,
}

impl Case {
    fn new(
        name: &str,
        encoder: Sequential,
        decoder: Vec<LayerSpec>,
        loss: Loss,
        penalties: Penalties,
    ) -> Self {
        let records = 3;
        let (mut weights, input) = random_weights_and_input(&encoder, records);
        let back = Sequential::new(encoder.output(), decoder.clone()).unwrap();
        weights.extend(random_weights_and_input(&back, 1).0);
        let mut batch = batch(&back, &input, records);
        batch.shape = dims(encoder.input());
        let encoder_parameters = encoder.parameters();
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
            penalties,
            learned: [encoder_parameters, back.parameters()]
                .concat()
                .iter()
                .map(|parameter| parameter.role.is_learned())
                .collect(),
            weights,
            batch,
        }
    }

    fn backprop(&self) -> Backprop {
        let mut backprop = Backprop::new(
            self.encoder.layers().to_vec(),
            self.decoder.clone(),
            self.loss,
            self.penalties,
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
            .objective_and_gradients(weights, &self.batch, 0.8, &mut gradients)
            .unwrap();
        (value.total(), gradients)
    }

    fn check_gradients(&self) {
        let (_, gradients) = self.loss_and_gradients(&self.weights);
        let learned = |part: &usize| self.learned[*part];
        for (part, gradient) in gradients
            .iter()
            .enumerate()
            .filter(|(part, _)| learned(part))
        {
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
        Case::new(&name, chain, Vec::new(), Loss::Mse, Penalties::default()).check_gradients();
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
fn absolute_losses_equal_those_of_the_model() {
    let output = [0.5_f32, 0.25, -1.0, 3.0, 1e6];
    let target = [0.5_f32, 0.75, 1.0, 3.001, 0.0];
    let check = |loss: Loss, found: f64, gradient: [f32; 5], expected: [f32; 5]| {
        let mean = loss.error(&target, &output);
        assert!((found / 5.0 - mean).abs() < 1e-6 * mean, "{found} {mean}");
        let off = gradient.iter().zip(expected).map(|(a, b)| (a - b).abs());
        assert!(off.fold(0.0, f32::max) < 1e-3, "{gradient:?}");
    };
    let mut gradient = [f32::NAN; 5];
    let found = super::elementwise::absolute_error(&output, &target, 2.0, &mut gradient);
    check(Loss::L1, found, gradient, [0.0, -2.0, -2.0, -2.0, 2.0]);
    let smooth = super::elementwise::charbonnier(&output, &target, 2.0, &mut gradient);
    let near = -2.0 / 2.0_f32.sqrt();
    check(
        Loss::Charbonnier,
        smooth,
        gradient,
        [0.0, -2.0, -2.0, near, 2.0],
    );
    for loss in [
        super::elementwise::absolute_error,
        super::elementwise::charbonnier,
    ] {
        loss(&[f32::NAN; 5], &target, 1.0, &mut gradient);
        assert!(gradient.iter().all(|value| value.is_nan()), "{gradient:?}");
    }
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
            Penalties {
                sparsity: penalties[index % 3].map(sparsity),
                ..Penalties::default()
            },
        )
    };
    let activations = ACTIVATIONS.into_iter().enumerate().map(network);
    let contractive = ACTIVATIONS.map(contractive);
    activations
        .chain(contractive)
        .chain([Loss::Mse, Loss::Bce, Loss::L1, Loss::Charbonnier].map(variational))
        .collect()
}

fn dense(inputs: usize, outputs: usize) -> LayerSpec {
    LayerSpec::Dense { inputs, outputs }
}

/// Returns a variational autoencoder with a batch normalization. The logarithm of a variance lies
/// outside of the range.
fn variational(loss: Loss) -> Case {
    let encoder = vec![
        dense(7, 6),
        LayerSpec::Normalize {
            over: Normalization::Batch,
            channels: 6,
        },
        LayerSpec::Activate(Activation::Elu),
        dense(6, 8),
        LayerSpec::Sample { code: 4 },
    ];
    let decoder = vec![
        dense(4, 6),
        LayerSpec::Activate(Activation::Tanh),
        dense(6, 7),
    ];
    let encoder = Sequential::new(RecordShape::Flat(7), encoder).unwrap();
    let penalties = Penalties {
        beta: Some(0.7),
        ..Penalties::default()
    };
    let mut case = Case::new("variational", encoder, decoder, loss, penalties);
    // The bias of the last dense layer of the encoder: means, then logarithms of variances.
    case.weights[7][5] = -35.0;
    case
}

/// Returns a contractive autoencoder of two dense layers with an activation.
fn contractive(kind: Activation) -> Case {
    let encoder = vec![
        LayerSpec::Affine {
            scale: 1.5,
            offset: -0.25,
        },
        dense(6, 5),
        LayerSpec::Activate(kind),
        dense(5, 3),
        LayerSpec::Activate(kind),
    ];
    let decoder = vec![dense(3, 5), LayerSpec::Activate(kind), dense(5, 6)];
    let encoder = Sequential::new(RecordShape::Flat(6), encoder).unwrap();
    let penalties = Penalties {
        contraction: Some(0.9),
        ..Penalties::default()
    };
    let name = format!("contractive {}", kind.as_str());
    Case::new(&name, encoder, decoder, Loss::Mse, penalties)
}

#[test]
fn contraction_estimates_the_norm_of_the_jacobian() {
    let case = contractive(Activation::Tanh);
    let records = 4000;
    let input: Vec<f32> = case.batch.input[..6].repeat(records);
    let batch = TrainingBatch {
        records,
        seeds: (0..records as u64).map(|seed| seed * 0x9e37_79b9).collect(),
        target: input.clone(),
        input: Vec::new(),
        shape: vec![6],
    };
    let mut gradients = case.weights.clone();
    let found = case
        .backprop()
        .objective_and_gradients(&case.weights, &batch, 1.0, &mut gradients)
        .unwrap();
    // The Jacobian by finite differences of the code.
    let codes = |values: &[f32]| run(&case.encoder, &case.weights[..4], values, 1);
    let norm: f64 = (0..6)
        .map(|index| {
            let at = |off: f32| {
                let mut moved = input[..6].to_vec();
                moved[index] += off;
                codes(&moved)
            };
            let (above, below) = (at(1e-2), at(-1e-2));
            let derivatives = above.iter().zip(&below);
            derivatives
                .map(|(a, b)| (f64::from(a - b) / 0.02).powi(2))
                .sum::<f64>()
        })
        .sum();
    let off = (f64::from(found.contraction) - norm).abs() / norm;
    assert!(off < 0.05, "{} is not {norm}", found.contraction);
    let share = 0.9 * found.contraction / 6.0;
    assert!((found.penalty - share).abs() < 1e-4 * share);
}

#[test]
fn variational_objective_is_the_negative_lower_bound() {
    let case = variational(Loss::Mse);
    let mut backprop = case.backprop();
    let records = case.batch.records;
    let objective = backprop.objective(&case.weights, &case.batch).unwrap();
    let hidden =
        Sequential::new(case.encoder.input(), case.encoder.layers()[..4].to_vec()).unwrap();
    let distributions = run(&hidden, &case.weights[..8], case.batch.input(), records);
    let kl = |row: &[f32]| -> f64 {
        let of = |(&mean, &logvar): (&f32, &f32)| {
            let (mean, logvar) = (f64::from(mean), f64::from(logvar.clamp(-30.0, 20.0)));
            -0.5 * (1.0 + logvar - mean * mean - logvar.exp())
        };
        row[..4].iter().zip(&row[4..]).map(of).sum()
    };
    let mean = distributions.chunks(8).map(kl).sum::<f64>() / records as f64;
    assert!(
        (f64::from(objective.divergence) - mean).abs() < 1e-4 * mean,
        "{objective:?}"
    );
    let weighted = 0.7 * mean / 7.0;
    assert!((f64::from(objective.penalty) - weighted).abs() < 1e-4 * weighted);
    // The code of a model is the mean, so two evaluations are equal; a training draws codes.
    assert_eq!(
        backprop.objective(&case.weights, &case.batch).unwrap(),
        objective
    );
    let mut gradients = case.weights.clone();
    let mut drawn = |seeds: Vec<u64>| {
        let batch = TrainingBatch {
            seeds,
            ..case.batch.clone()
        };
        backprop
            .objective_and_gradients(&case.weights, &batch, 0.0, &mut gradients)
            .unwrap()
    };
    let (one, other) = (drawn(vec![1, 2, 3]), drawn(vec![1, 2, 4]));
    assert_eq!(drawn(vec![1, 2, 3]), one);
    assert_ne!(one.reconstruction, other.reconstruction);
    assert_eq!((one.penalty, one.divergence), (0.0, other.divergence));
}

#[test]
fn statistics_of_a_batch_are_those_of_all_shards() {
    let steps = vec![
        dense(2, 2),
        LayerSpec::Normalize {
            over: Normalization::Batch,
            channels: 2,
        },
    ];
    let mut backprop = Backprop::new(steps, Vec::new(), Loss::Mse, Penalties::default());
    backprop.multiplications_per_thread = 1;
    let batch = TrainingBatch {
        records: 4,
        shape: vec![2],
        input: vec![1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 6.0, 40.0],
        target: vec![0.0; 8],
        seeds: vec![0; 4],
    };
    let [zeros, ones] = [0.0, 1.0].map(|value| vec![value; 2]);
    let identity = vec![1.0, 0.0, 0.0, 1.0];
    let weights = [&identity, &zeros, &ones, &zeros, &zeros, &ones].map(Clone::clone);
    let mut gradients = weights.to_vec();
    let found = backprop
        .objective_and_gradients(&weights, &batch, 1.0, &mut gradients)
        .unwrap();
    assert!((found.reconstruction - 1.0).abs() < 1e-4, "normal values");
    assert_eq!(gradients[4], [3.0, 25.0], "means");
    let variances = [14.0 / 3.0, 500.0 / 3.0];
    for (variance, expected) in gradients[5].iter().zip(variances) {
        assert!((variance - expected).abs() < 1e-4 * expected, "unbiased");
    }
}

#[test]
fn encoder_of_distributions_returns_mean_and_logvar() {
    let runtime = testing::init();
    // The code has fewer values than a record, one value, or more.
    for code in [1, 3, 6] {
        let encoder = vec![dense(5, 2 * code), LayerSpec::Sample { code }];
        let encoder = Sequential::new(RecordShape::Flat(5), encoder).unwrap();
        let decoder = Sequential::new(RecordShape::Flat(code), vec![dense(code, 5)]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (weights, input) = random_weights_and_input(&encoder, 3);
        let (back, _) = random_weights_and_input(&decoder, 1);
        let file = |name: &str, bytes: Vec<u8>| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            Some(path)
        };
        let spec = ModelSpec {
            encoder: file(
                "encoder.onnx",
                onnx::write("test", ["input", "mu"], &encoder, &weights, &[]),
            ),
            decoder: file(
                "decoder.onnx",
                onnx::write("test", ["latent", "reconstruction"], &decoder, &back, &[]),
            ),
            ..ModelSpec::default()
        };
        let metrics = std::sync::Arc::new(Metrics::new());
        let model = Model::open("test", &spec, &runtime, &metrics).unwrap();
        let mut output = Vec::new();
        let mut chain = model.chain(ModelPath::Encode).unwrap();
        chain.run(&input, &[5], &mut output).unwrap();
        let expected = run(&encoder, &weights, &input, 3);
        assert_eq!(output.len(), expected.len());
        let off = output.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        assert!(off.fold(0.0, f32::max) < 1e-4, "{output:?} {expected:?}");
        let bytes = std::fs::read(folder.path().join("encoder.onnx")).unwrap();
        let has_logvar = bytes.windows(6).any(|part| part == b"logvar");
        assert_eq!(has_logvar, code < 5);
    }
}

#[test]
fn bce_of_dense_images_is_that_of_the_model() {
    let text = "kind = 'deep'\ncode_size = 2\nloss = 'bce'\n[network]\nnodes = [4]";
    let file = TrainingFile::read(toml::from_str(text).unwrap()).unwrap();
    let declared = build(&file, image(1, 2, 3), (0.5, 0.3)).unwrap();
    let mut trainer = Trainer::new(&file, &declared);
    let target: Vec<f32> = (0..12).map(|index| index as f32 / 12.0).collect();
    let batch = TrainingBatch {
        records: 2,
        shape: vec![1, 2, 3],
        input: Vec::new(),
        target: target.clone(),
        seeds: vec![0; 2],
    };
    let chains = declared.network.chains();
    let [encoder, decoder] = [0, 1].map(|index| chains[index].layers().to_vec());
    let mut whole = Backprop::new(encoder, decoder, Loss::Mse, Penalties::default());
    let output = whole.output(trainer.ema_weights(), &batch).unwrap();
    let expected = Loss::Bce.error(&target, &output);
    let found = trainer.validation_objective(&batch).unwrap().total();
    assert!(
        (f64::from(found) - expected).abs() < 1e-5,
        "{found} is not {expected}"
    );
}

#[test]
fn tied_weights_have_the_sum_of_both_gradients() {
    let text = "kind = 'deep'\ncode_size = 2\n[network]\nnodes = [4]\ntied = true\n\
                activation = 'tanh'\n[training]\noptimizer = 'sgd'";
    let file = TrainingFile::read(toml::from_str(text).unwrap()).unwrap();
    let declared = build(&file, RecordShape::Flat(6), (0.0, 1.0)).unwrap();
    let mut trainer = Trainer::new(&file, &declared);
    // Two matrices and the biases of four layers.
    assert_eq!(trainer.size(), 6 * 4 + 4 * 2 + 4 + 2 + 4 + 6);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let batch = TrainingBatch {
        records: 5,
        shape: vec![6],
        input: Vec::new(),
        target: random(30, &mut rng),
        seeds: vec![0; 5],
    };
    let before = trainer.ema_weights().to_vec();
    let rate = 1e-2;
    trainer.step(1, rate, 1.0, &batch).unwrap();
    let after = trainer.ema_weights().to_vec();
    let chains = declared.network.chains();
    let [encoder, decoder] = [0, 1].map(|index| chains[index].layers().to_vec());
    let mut backprop = Backprop::new(encoder, decoder, Loss::Mse, Penalties::default());
    for tie in declared.ties() {
        let [rows, columns] = tie.shape;
        for index in 0..rows * columns {
            let mirrored = index % columns * rows + index / columns;
            assert_eq!(after[tie.decoder][mirrored], after[tie.encoder][index]);
            let mut at = |off: f32| {
                let mut moved = before.clone();
                moved[tie.encoder][index] += off;
                moved[tie.decoder][mirrored] += off;
                f64::from(backprop.objective(&moved, &batch).unwrap().total())
            };
            let expected = (at(5e-3) - at(-5e-3)) / 1e-2;
            let moved = before[tie.encoder][index] - after[tie.encoder][index];
            let found = f64::from(moved) / rate;
            assert!((found - expected).abs() < 2e-3, "{found} is not {expected}");
        }
    }
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
    let mut used = Backprop::new(
        chain.layers().to_vec(),
        Vec::new(),
        Loss::Mse,
        Penalties::default(),
    );
    // Different numbers of records and sizes of images.
    for (records, height, width) in [(3, 4, 6), (1, 4, 6), (2, 8, 2), (3, 4, 6)] {
        let values = random(records * 2 * height * width, &mut rng);
        let batch = TrainingBatch {
            records,
            shape: vec![2, height, width],
            input: Vec::new(),
            target: values,
            seeds: vec![0; records],
        };
        let mut fresh = Backprop::new(
            chain.layers().to_vec(),
            Vec::new(),
            Loss::Mse,
            Penalties::default(),
        );
        let loss_and_gradients = |backprop: &mut Backprop| {
            let mut gradients = weights.clone();
            (
                backprop
                    .objective_and_gradients(&weights, &batch, 1.0, &mut gradients)
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
    let mut backprop = Backprop::new(
        vec![LayerSpec::SpaceToDepth],
        Vec::new(),
        Loss::Mse,
        Penalties::default(),
    );
    let batch = TrainingBatch {
        records: 1,
        shape: vec![1, 3, 4],
        input: Vec::new(),
        target: vec![0.0; 12],
        seeds: vec![0],
    };
    let refused = backprop.objective(&[], &batch).unwrap_err();
    assert_eq!(
        refused,
        "layer 0 (space to depth) with input [1, 3, 4]: height and width must be even"
    );
}
