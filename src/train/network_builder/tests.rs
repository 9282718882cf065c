//! Unit tests of the module `network_builder`.

#![allow(clippy::unwrap_used)]
use expect_test::{Expect, expect};

use super::*;

const GRAY28: RecordShape = RecordShape::Planes {
    channels: 1,
    size: Some((28, 28)),
};
const ANY: RecordShape = RecordShape::Planes {
    channels: 3,
    size: None,
};

fn file(text: &str) -> Result<TrainingFile, Vec<ConfigError>> {
    TrainingFile::read(toml::from_str(text).unwrap())
}

fn check(text: &str, input: RecordShape, expected: Expect) {
    let shown = match file(text).and_then(|file| build(&file, input, (0.5, 0.25))) {
        Err(faults) => faults
            .iter()
            .map(|fault| format!("{}: {}", fault.key, fault.message))
            .collect(),
        Ok(BuiltNetwork { network, loss, .. }) => {
            let chains = network.chains();
            let lines = chains
                .iter()
                .map(|chain| format!("{}: {}", chain.input(), chain.describe().join("\n| ")));
            let end = chains.last().unwrap().output();
            lines
                .chain([format!(
                    "{end}, {} loss, multiples of {}",
                    loss.as_str(),
                    network.size_multiple()
                )])
                .collect::<Vec<_>>()
        }
    };
    expected.assert_eq(&shown.join("\n"));
}

#[test]
fn vanilla_autoencoder_has_one_hidden_layer() {
    check(
        "kind = 'vanilla'\ncode_size = 32",
        GRAY28,
        expect![[r#"
            [1, 28, 28]: scale 4, offset -2
            | dense 784->32, linear
            [32]: dense 32->784, linear
            [1, 28, 28], mse loss, multiples of 1"#]],
    );
    check(
        "kind = 'vanilla'\ncode_size = 3\nloss = 'bce'",
        RecordShape::Flat(8),
        expect![[r#"
            [8]: dense 8->3, linear
            [3]: dense 3->8, sigmoid
            [8], bce loss, multiples of 1"#]],
    );
}

#[test]
fn sigmoid_chooses_bce_only_for_values_in_its_range() {
    let loss = |input: &str, shape: RecordShape| {
        let text = "kind = 'vanilla'\ncode_size = 3\n[network]\noutput_activation = 'sigmoid'\n";
        let file = file(&format!("{text}[input]\n{input}")).unwrap();
        build(&file, shape, (0.5, 0.25)).unwrap().loss
    };
    let features = RecordShape::Flat(8);
    assert_eq!(loss("", features), Loss::Mse);
    assert_eq!(loss("scaling = 'standard'", features), Loss::Mse);
    assert_eq!(loss("scaling = 'none'", features), Loss::Mse);
    assert_eq!(loss("scaling = 'min_max'", features), Loss::Bce);
    assert_eq!(loss("channels = 'gray'", GRAY28), Loss::Bce);
    assert_eq!(
        loss("channels = 'gray'\nrange = [-1, 1]", GRAY28),
        Loss::Mse
    );
    assert_eq!(loss("channels = 'gray'\nmean = [0.5]", GRAY28), Loss::Mse);
}

#[test]
fn deep_decoder_mirrors_its_encoder_by_default() {
    let deep = "kind = 'deep'\ncode_size = 4\n[network]\nnodes = [32, 16]\nactivation = 'tanh'\n";
    check(
        deep,
        RecordShape::Flat(64),
        expect![[r#"
            [64]: dense 64->32, tanh
            | dense 32->16, tanh
            | dense 16->4, linear
            [4]: dense 4->16, tanh
            | dense 16->32, tanh
            | dense 32->64, linear
            [64], mse loss, multiples of 1"#]],
    );
    check(
        &format!("{deep}decoder = {{ nodes = [8] }}"),
        RecordShape::Flat(64),
        expect![[r#"
            [64]: dense 64->32, tanh
            | dense 32->16, tanh
            | dense 16->4, linear
            [4]: dense 4->8, tanh
            | dense 8->64, linear
            [64], mse loss, multiples of 1"#]],
    );
}

#[test]
fn convolutional_decoder_mirrors_the_sizes_of_its_encoder() {
    let conv = "kind = 'convolutional'\ncode_size = 32\n[network]\nchannels = [32, 64, 128]\n";
    check(
        conv,
        GRAY28,
        expect![[r#"
            [1, 28, 28]: scale 4, offset -2
            | conv 1->32 3x3 stride 2, relu
            | conv 32->64 3x3 stride 2, relu
            | conv 64->128 3x3 stride 2, relu
            | dense 2048->32, linear
            [32]: dense 32->2048, relu
            | transposed conv 128->64 3x3 stride 2, relu
            | transposed conv 64->32 4x4 stride 2, relu
            | transposed conv 32->1 4x4 stride 2, linear
            [1, 28, 28], mse loss, multiples of 1"#]],
    );
    check(
        &format!(
            "{conv}nodes = [256]\nblocks = 1\nstrides = [1, 2, 2]\n\
                    decoder = {{ channels = [96, 64, 16] }}"
        ),
        GRAY28,
        expect![[r#"
            [1, 28, 28]: scale 4, offset -2
            | conv 1->32 3x3, relu
            | conv 32->32 3x3, relu
            | conv 32->32 3x3
            | add what was kept
            | conv 32->64 3x3 stride 2, relu
            | conv 64->64 3x3, relu
            | conv 64->64 3x3
            | add what was kept
            | conv 64->128 3x3 stride 2, relu
            | conv 128->128 3x3, relu
            | conv 128->128 3x3
            | add what was kept
            | dense 6272->256, relu
            | dense 256->32, linear
            [32]: dense 32->256, relu
            | dense 256->4704, relu
            | conv 96->96 3x3, relu
            | conv 96->96 3x3
            | add what was kept
            | transposed conv 96->64 4x4 stride 2, relu
            | conv 64->64 3x3, relu
            | conv 64->64 3x3
            | add what was kept
            | transposed conv 64->16 4x4 stride 2, relu
            | conv 16->16 3x3, relu
            | conv 16->16 3x3
            | add what was kept
            | conv 16->1 3x3, linear
            [1, 28, 28], mse loss, multiples of 1"#]],
    );
}

#[test]
fn network_without_a_code_accepts_images_of_any_size() {
    let whole = "kind = ['denoising', 'convolutional']\n[[corruption]]\nnoise = 'gray'\n\
            [network]\nchannels = [16, 32, 48]\n";
    check(
        &format!("{whole}residual = true\nblocks = 1"),
        ANY,
        expect![[r#"
            [3, height, width]: conv 3->16 3x3
            | conv 16->16 3x3, relu
            | conv 16->16 3x3
            | add what was kept
            | conv 16->32 2x2 stride 2
            | conv 32->32 3x3, relu
            | conv 32->32 3x3
            | add what was kept
            | conv 32->48 2x2 stride 2
            | conv 48->48 3x3, relu
            | conv 48->48 3x3
            | add what was kept
            | transposed conv 48->32 2x2 stride 2
            | add what was kept
            | conv 32->32 3x3, relu
            | conv 32->32 3x3
            | add what was kept
            | transposed conv 32->16 2x2 stride 2
            | add what was kept
            | conv 16->16 3x3, relu
            | conv 16->16 3x3
            | add what was kept
            | conv 16->3 3x3
            | add what was kept
            [3, height, width], mse loss, multiples of 4"#]],
    );
    check(
        &format!("{whole}space_to_depth = true\nskips = false\nstrides = [1, 1, 2]"),
        ANY,
        expect![[r#"
            [3, height, width]: space to depth
            | conv 12->16 3x3, relu
            | conv 16->32 3x3, relu
            | conv 32->48 2x2 stride 2, relu
            | transposed conv 48->32 2x2 stride 2, relu
            | conv 32->16 3x3, relu
            | conv 16->12 3x3
            | depth to space
            [3, height, width], mse loss, multiples of 4"#]],
    );
}

#[test]
fn kinds_combine() {
    let text = "kind = ['sparse', 'convolutional', 'denoising']\ncode_size = 16\n\
            [network]\nchannels = [8]\n[sparsity]\npenalty = 'kl'\n[corruption]\n\
            noise = 'masking'\nrate = 0.2";
    check(
        text,
        GRAY28,
        expect![[r#"
            [1, 28, 28]: scale 4, offset -2
            | conv 1->8 3x3 stride 2, relu
            | dense 1568->16, sigmoid
            [16]: dense 16->1568, relu
            | transposed conv 8->1 4x4 stride 2, linear
            [1, 28, 28], mse loss, multiples of 1"#]],
    );
}

#[test]
fn variational_encoder_ends_in_a_distribution() {
    check(
        "kind = ['variational', 'deep']\ncode_size = 4\nbeta = 0.5\n[network]\nnodes = [8]\n\
         normalization = 'batch'",
        RecordShape::Flat(16),
        expect![[r#"
            [16]: dense 16->8
            | batch normalization, relu
            | dense 8->8, linear
            | mean and log variance of 4
            [4]: dense 4->8
            | batch normalization, relu
            | dense 8->16, linear
            [16], mse loss, multiples of 1"#]],
    );
}

#[test]
fn concatenated_skips_are_reduced_by_a_convolution() {
    check(
        "kind = ['denoising', 'convolutional']\n[[corruption]]\nnoise = 'gray'\n[network]\n\
         channels = [16, 32, 48]\nskips = 'concat'\nnormalization = 'layer'",
        ANY,
        expect![[r#"
            [3, height, width]: conv 3->16 3x3
            | layer normalization, relu
            | conv 16->32 2x2 stride 2
            | layer normalization, relu
            | conv 32->48 2x2 stride 2
            | layer normalization, relu
            | transposed conv 48->32 2x2 stride 2
            | append stored channels
            | conv 64->32 3x3
            | layer normalization, relu
            | transposed conv 32->16 2x2 stride 2
            | append stored channels
            | conv 32->16 3x3
            | layer normalization, relu
            | conv 16->3 3x3
            [3, height, width], mse loss, multiples of 4"#]],
    );
}

#[test]
fn options_of_other_kinds_are_refused() {
    let features = RecordShape::Flat(8);
    check(
        "kind = 'vanilla'\ncode_size = 2\nbeta = 1.0\nbeta_warmup = 2\ncontraction = 0.1\n\
         [network]\nnormalization = 'batch'",
        features,
        expect![
            "kind: `beta` is set; add \"variational\"\n\
             kind: `beta_warmup` is set; add \"variational\"\n\
             kind: `contraction` is set; add \"contractive\"\n\
             network.normalization: has no effect without hidden layers; set network.nodes or \
             network.channels"
        ],
    );
    check(
        "kind = 'deep'\ncode_size = 2\n[network]\nnodes = [4]\nnormalization = 'batch'\n\
         [training]\nbatch_size = 1",
        features,
        expect![
            "training.batch_size: a batch normalization requires at least 2 records per step, of \
             which it computes a variance; raise it, or set network.normalization = \"layer\""
        ],
    );
    check(
        "kind = ['variational', 'contractive', 'deep']\ncode_size = 2\nbeta = -1.0\n[network]\n\
         nodes = [4, 3]\ntied = true\ncode_activation = 'relu'\nnormalization = 'layer'\n\
         decoder = { nodes = [4, 3] }",
        features,
        expect![
            "beta: must be 0 or more, such as 1.0\n\
             kind: a variational autoencoder has the KL divergence as its penalty on the code; \
             remove \"variational\", or \"sparse\" and \"contractive\"\n\
             network.code_activation: the mean of a variational code is linear; remove the option\n\
             contraction: is missing; expected the weight of the penalty on the derivatives of the \
             code, such as 0.1\n\
             network.normalization: the penalty of a contractive autoencoder applies to layers \
             without normalization; remove the option\n\
             network.tied: the encoder of a variational autoencoder returns a mean and a variance, \
             so that the decoder is not its transpose; remove the option\n\
             network.decoder.nodes: the decoder of a network with tied weights mirrors its encoder; \
             remove the option"
        ],
    );
    check(
        "kind = ['contractive', 'convolutional']\ncode_size = 2\ncontraction = 0.1\n[network]\n\
         channels = [4]\ntied = true\nskips = 'concat'",
        GRAY28,
        expect![
            "network.channels: the penalty of a contractive autoencoder applies to dense layers; \
             remove them, and set network.nodes\n\
             network.skips: applies to networks without a code; it would bypass the code\n\
             network.tied: applies to networks of dense layers; the kernels of convolutions and \
             transposed convolutions differ; remove the option, or network.channels"
        ],
    );
    check(
        "kind = ['variational', 'convolutional']\n[network]\nchannels = [4]\nskips = 'both'",
        ANY,
        expect!["network.skips: expected true, false, \"add\" or \"concat\""],
    );
    check(
        "kind = ['variational', 'convolutional']\n[network]\nchannels = [4]",
        ANY,
        expect!["code_size: is missing; the code of a variational autoencoder is a distribution"],
    );
}

#[test]
fn all_conflicting_options_are_reported() {
    check(
        "code_size = 0",
        GRAY28,
        expect![
            "kind: is missing; expected vanilla, deep, convolutional, sparse, \
                 denoising, variational, contractive, or a list of them\n\
                 code_size: must be above 0; remove it for a network without a code"
        ],
    );
    check(
        "kind = ['deep', 'sparse', 'denoising']\ncode_size = 4\n[network]\n\
                residual = true\nkernel = 4\nchannels = [0]\nstrides = [1, 3]",
        RecordShape::Flat(3),
        expect![
            "network.nodes: is missing; a deep autoencoder has hidden layers \
                 before its code, such as [512, 128]\n\
                 kind: network.channels is set; add \"convolutional\"\n\
                 corruption: is missing; a denoising autoencoder learns from \
                 corrupted input; add [[corruption]]\n\
                 sparsity: is missing; add [sparsity] with penalty = \"l1\" or \
                 \"kl\" and its weight\n\
                 network.residual: applies to networks without a code; it would \
                 bypass the code\n\
                 network.channels: convolutions apply to images only; for features \
                 set network.nodes\n\
                 network.channels: a layer must have 1 to 32768 values; met 0\n\
                 network.strides: must have as many entries as network.channels, 1; \
                 met 2\n\
                 network.strides: must each be 1 or 2\n\
                 network.kernel: must be odd and at most 31, such as 3; met 4"
        ],
    );
    check(
        "kind = 'vanilla'\n[network]\nnodes = [3]\n[corruption]\n\
                noise = 'gray'\n[sparsity]\nweight = -1",
        ANY,
        expect![
            "kind: a vanilla autoencoder has one hidden layer, its code; with \
                 more layers it is deep or convolutional\n\
                 kind: [[corruption]] is set; add \"denoising\"\n\
                 kind: [sparsity] is set; add \"sparse\"\n\
                 code_size: is missing; only convolutional networks (with \
                 network.channels) can omit it\n\
                 sparsity.weight: must be 0 or more"
        ],
    );
    check(
        "kind = 'convolutional'\ncode_size = 4\n[network]\n\
                channels = [8, 8]\noutput_activation = 'tanh'",
        ANY,
        expect![
            "input.size: is missing; a network with a code needs images of one size, \
                 such as [64, 64]"
        ],
    );
    check(
        "kind = 'convolutional'\ncode_size = 4\nloss = 'bce'\n[network]\n\
                channels = [8, 8]\noutput_activation = 'tanh'",
        GRAY28,
        expect![
            "network.output_activation: binary cross-entropy needs `sigmoid`, \
                 not `tanh`; remove the option"
        ],
    );
    check(
        "kind = 'convolutional'\ncode_size = 4\n[network]\nchannels = [8, 8, 8]",
        RecordShape::Planes {
            channels: 1,
            size: Some((4, 4)),
        },
        expect![
            "network.channels: an image of 1x1 cannot be halved; \
                 remove a convolution, or set its stride to 1"
        ],
    );
    check(
        "kind = 'convolutional'\ncode_size = 4\n[network]\nchannels = [8, 8, 8]",
        RecordShape::Planes {
            channels: 1,
            size: Some((28, 21)),
        },
        expect![
            "input.size: height and width must both be even, or both odd, before each halving; \
                 met 28x21"
        ],
    );
    check(
        "kind = 'shallow'\nnmae = 'x'\n[netwrok]\n[network]\nnode = 3\n\
                [training]\nepochs = 'many'\n[[corruption]]\nnoise = 'gauss'",
        GRAY28,
        expect![
            "network.node: unknown key (did you mean `nodes`?); known: \
                 activation, blocks, channels, code_activation, decoder, kernel, \
                 nodes, normalization, output_activation, residual, skips, \
                 space_to_depth, standardize, strides, tied\n\
                 training.epochs: invalid type: string \"many\", expected u32\n\
                 corruption[0].noise: unknown variant `gauss`, expected one of \
                 `gaussian`, `poisson`, `masking`, `salt_and_pepper`, `blur`, \
                 `downscale`, `jpeg`, `watermark_text`, `watermark_grid`, `watermark`, \
                 `gray`\n\
                 kind: expected a kind such as \"deep\", or a list such as \
                 [\"deep\", \"denoising\"]"
        ],
    );
}
