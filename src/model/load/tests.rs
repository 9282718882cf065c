//! Unit tests of the module `load`.

#![allow(clippy::unwrap_used)]
use expect_test::{Expect, expect};

use super::*;
use crate::image::pixel_format::{Channels, TensorLayout};
use crate::model::files::ModelPath;
use crate::model::testing::{faults, file, open};
use crate::model::{FeatureInput, ModelInput, Scaling};

fn check(written: &str, expected: Expect) {
    expected.assert_eq(&faults(written));
}

/// Creates a model folder from files under `tests/models` and a card.
fn folder(files: &[(&str, &str)], card: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in files {
        std::fs::copy(file(from), folder.path().join(to)).unwrap();
    }
    std::fs::write(folder.path().join(CARD), card).unwrap();
    folder
}

const CARD_TEXT: &str = r#"
        name = "pairs"
        kind = "linear"
        code_size = 2
        [input]
        type = "features"
        columns = ["a", "b", "c", "d"]
        scaling = "standard"
        mean = [1, 2, 3, 4]
        std = [1, 2, 0, 4]
    "#;

#[test]
fn folder_is_loaded_according_to_its_card() {
    let folder = folder(
        &[
            ("encoder.onnx", "encoder.onnx"),
            ("decoder.onnx", "decoder.onnx"),
        ],
        CARD_TEXT,
    );
    let model = open(&format!("path = {:?}", folder.path())).unwrap();
    assert_eq!(
        (model.name(), model.kind(), model.code_size()),
        ("tested", "linear", Some(2))
    );
    let features = model.feature_input().unwrap();
    assert_eq!(features.columns, ["a", "b", "c", "d"]);
    assert_eq!(features.scaling.feature(1).to_input(3.0), 0.5);
    assert_eq!(
        features.scaling.feature(2).to_input(5.0),
        2.0,
        "a deviation of 0 counts as 1"
    );
    assert_eq!(model.card().unwrap().name, "pairs");
}

#[test]
fn input_of_bare_files_is_inferred_from_shapes() {
    let model = open("encoder = 'encoder.onnx'\ndecoder = 'decoder.onnx'\nloss = 'bce'").unwrap();
    assert_eq!(
        *model.input(),
        ModelInput::Features(FeatureInput {
            columns: vec![],
            scaling: Scaling::None,
            encoder: None
        })
    );
    assert_eq!(
        (model.code_size(), model.loss().as_str(), model.kind()),
        (Some(2), "bce", "onnx")
    );
    let image = open("model = 'blur.onnx'").unwrap().image_input().unwrap();
    assert_eq!(
        (image.format.channels, image.format.layout, image.size),
        (Channels::Rgb, TensorLayout::Nhwc, None)
    );
    let byte_image = open("model = 'bytes.onnx'").unwrap().image_input().unwrap();
    assert_eq!(
        (byte_image.format.range, byte_image.size),
        ([0.0, 255.0], Some((2, 2)))
    );
}

#[test]
fn undeclared_code_size_is_found_by_a_trial_run() {
    assert_eq!(
        open("encoder = 'untold.onnx'").unwrap().code_size(),
        Some(2)
    );
}

#[test]
fn digest_covers_weights_preprocessing_and_outputs() {
    let digest = |written: &str| open(written).unwrap().digest().to_owned();
    let plain = digest("encoder = 'encoder.onnx'");
    assert_eq!(plain, digest("encoder = 'encoder.onnx'"));
    assert_eq!(plain.len(), 64);
    assert_ne!(plain, digest("encoder = 'fixed_batch.onnx'"));
    assert_ne!(
        plain,
        digest("encoder = 'encoder.onnx'\ncolumns = ['a', 'b', 'c', 'd']")
    );
    let minus = "model = 'two_outputs.onnx'\noutput = 'minus'";
    assert_ne!(
        digest(minus),
        digest("model = 'two_outputs.onnx'\noutput = 'twice'")
    );
    assert_ne!(
        digest(minus),
        digest(&format!("{minus}\nreconstruction = 'twice'"))
    );
    // Earlier versions selected the first output. Their digest stays, also for a `denoise` stage,
    // which uses it.
    assert_eq!(
        digest("model = 'vae.onnx'"),
        digest("model = 'vae.onnx'\noutput = 'recon'")
    );
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("external.onnx");
    std::fs::copy(file("external.onnx"), &copy).unwrap();
    let mut weights = std::fs::read(file("external.bin")).unwrap();
    std::fs::write(folder.path().join("external.bin"), &weights).unwrap();
    let external = digest("encoder = 'external.onnx'");
    assert_eq!(
        external,
        digest(&format!("encoder = {copy:?}")),
        "the digest does not depend on the folder"
    );
    weights[0] ^= 1;
    std::fs::write(folder.path().join("external.bin"), &weights).unwrap();
    assert_ne!(external, digest(&format!("encoder = {copy:?}")));
}

#[test]
fn file_with_another_digest_than_the_card_is_refused() {
    let listed = format!(
        "{CARD_TEXT}\n[files]\n'encoder.onnx' = 'sha256:{}'",
        "0".repeat(64)
    );
    let folder = folder(&[("encoder.onnx", "encoder.onnx")], &listed);
    let message = faults(&format!("path = {:?}", folder.path()));
    assert!(
        message.contains("encoder.onnx: the digest of the file is sha256:")
            && message.ends_with(&format!(
                "but the model card lists sha256:{}",
                "0".repeat(64)
            )),
        "{message}"
    );
}

#[test]
fn card_that_contradicts_the_file_is_refused() {
    let card = CARD_TEXT.replace("code_size = 2", "code_size = 3");
    let folder = folder(&[("encoder.onnx", "encoder.onnx")], &card);
    check_in(
        &folder,
        expect![
            "path: the model card sets `code_size` to 3, but the encoder returns the shape [2]"
        ],
    );
    std::fs::write(folder.path().join(CARD), CARD_TEXT.replace(", \"d\"]", "]")).unwrap();
    check_in(
        &folder,
        expect![[r#"
                path: model.toml: `input.columns`: the number of columns, 3, does not fit `x` float32 [batch, 4]
                path: model.toml: `input.mean`: expected as many values as features, 3; found 4
                path: model.toml: `input.std`: expected as many values as features, 3; found 4"#]],
    );
}

fn check_in(folder: &tempfile::TempDir, expected: Expect) {
    let faults = faults(&format!("path = {:?}", folder.path()));
    expected.assert_eq(&faults.replace(&format!("{}/", folder.path().display()), ""));
}

#[test]
fn incomplete_declaration_is_refused() {
    check(
        "loss = 'mse'",
        expect![": no model is given; set `path`, `encoder` or `model`"],
    );
    check(
        "decoder = 'decoder.onnx'",
        expect!["decoder: a decoder cannot be used without its encoder; add the encoder"],
    );
    check(
        "model = 'blur.onnx'\nencoder = 'encoder.onnx'",
        expect![
            "model: a complete network cannot be combined with an encoder or a decoder; \
                 remove one of them"
        ],
    );
    check(
        "model = 'gone.onnx'",
        expect!["model: gone.onnx: No such file or directory (os error 2)"],
    );
    check("model = '.'", expect!["model: . is not a file"]);
    check(
        "encoder = 'encoder.onnx'\nsise = 4",
        expect![
            "sise: unknown key (did you mean `size`?); known: \
                 allow_nondeterministic, channels, columns, decoder, decoder_output, encoder, layout, loss, max, mean, min, model, multiple, \
                 output, path, preprocessor, preset, range, reconstruction, scaling, size, std, steps"
        ],
    );
}

#[test]
fn output_that_differs_between_runs_is_refused() {
    let refused = |file: &str, output: &str| {
        let written = format!("encoder = '{file}'\noutput = '{output}'");
        let allowed = open(&format!("{written}\nallow_nondeterministic = true"));
        assert!(allowed.is_ok(), "{output}: {:?}", allowed.err());
        faults(&written)
    };
    let random = [
        ("normal", "RandomNormalLike `noise of normal`"),
        ("uniform", "RandomUniformLike"),
        ("multinomial", "Multinomial"),
        ("dropout", "Dropout"),
        ("branch", "RandomNormalLike `noise of if_drawn`"),
        ("loop", "RandomUniformLike `inside`"),
        ("bernoulli", "Bernoulli"),
        ("sampled", "RandomUniformLike `inside`"),
        ("dropped", "Dropout `inside`"),
    ];
    for (output, node) in random {
        let message = refused("random.onnx", output);
        let start = format!(
            "encoder: random.onnx: the output `{output}` is not the same in every run: {node} \
                 draws random numbers"
        );
        assert!(message.starts_with(&start), "{message}");
        assert!(
            message.contains("(`code` or `dead_branch` or `default`)"),
            "{message}"
        );
    }
    for (file, output, op) in [
        ("training_mode", "training", "BatchNormalization"),
        ("training_mode", "code", "BatchNormalization"),
        ("training_mode_of_call", "y", "BatchNormalization `inside`"),
        ("old_batch", "y", "BatchNormalization"),
        ("batch", "quantized", "DynamicQuantizeLinear"),
        ("batch", "all_axes", "MeanVarianceNormalization"),
    ] {
        let message = refused(&format!("{file}.onnx"), output);
        assert!(
            message.contains(&format!("in every run: {op} ")),
            "{message}"
        );
    }
    assert_eq!(
        refused("batch.onnx", "centered"),
        "encoder: batch.onnx: the output `centered` of a record depends on the other records of \
             its batch; no operator may combine records, such as a mean over the first dimension; \
             export the model with a batch size of 1, or set `allow_nondeterministic = true`"
    );
    assert_eq!(
        refused("batch.onnx", "without_batch"),
        "encoder: batch.onnx: the model fails on zeros: the output has the shape [2] for a \
             batch of 1 records; expected 1 as its first dimension"
    );
}

#[test]
fn all_outputs_of_a_file_are_shown_and_selected() {
    let model = open("model = 'vae.onnx'").unwrap();
    assert_eq!(
        (model.summary().as_str(), model.code_size()),
        ("onnx features [4] -> code of 2, mse loss", Some(2))
    );
    assert_eq!(
        crate::model::OutputsDisplay(&model).to_string(),
        "  reconstruction `recon` float32 [batch, 4]\n  code           `mu` float32 [batch, 2]\n  \
             not used       `logvar` float32 [batch, 2]\n"
    );
    assert_eq!(
        open("model = 'sampled.onnx'")
            .unwrap()
            .files(ModelPath::EncodeAndReconstruct)
            .map(|files| files.len()),
        None
    );
    check(
        "model = 'sampled.onnx'\nreconstruction = 'recon'",
        expect![
            "model: sampled.onnx: the output `recon` is not the same in every run: RandomNormalLike draws random numbers; export the model without random numbers, such as the mean of a VAE instead of a sample, or set `allow_nondeterministic = true`"
        ],
    );
    check(
        "encoder = 'unnamed.onnx'",
        expect![[
            r#"output: the file has several outputs, and it is not plain which of them is the code of `x` float32 [batch, 4]: `4` float32 [batch, 4], `5` float32 [batch, 2], `6` float32 [batch, 2]; select it, such as `output = "5"`"#
        ]],
    );
}

#[test]
fn output_that_does_not_depend_on_random_nodes_is_used() {
    for output in [
        "code",
        "evaluated",
        "default",
        "kept",
        "dead_branch",
        "not_dropped",
    ] {
        let written = format!("encoder = 'random.onnx'\noutput = '{output}'");
        assert_eq!(faults(&written), "", "{output}");
    }
    assert_eq!(faults("encoder = 'random.onnx'\noutput = 'same'"), "");
    for output in ["code", "trained", "own_axis"] {
        assert_eq!(
            faults(&format!("encoder = 'batch.onnx'\noutput = '{output}'")),
            ""
        );
    }
    assert_eq!(faults("encoder = 'single_record.onnx'"), "");
}

#[test]
fn allowed_random_nodes_are_in_the_summary() {
    let written = "encoder = 'random.onnx'\noutput = 'normal'\nallow_nondeterministic = true";
    assert_eq!(
        open(written).unwrap().summary(),
        "onnx features [4] -> code of 2, mse loss, not the same in every run (RandomNormalLike \
             `noise of normal` draws random numbers)"
    );
}

#[test]
fn pixels_that_uint8_input_cannot_hold_are_refused() {
    check(
        "model = 'bytes.onnx'\nrange = [-1, 1]",
        expect![
            "range: pixels become values from -1 to 1, but the input `x` uint8 [batch, 2, 2, 3] \
                 holds whole numbers from 0 to 255; use range = [0, 255] without `mean` and `std`"
        ],
    );
    assert_eq!(faults("model = 'bytes.onnx'\nrange = [0, 1]"), "");
}

#[test]
fn unusable_tensors_are_refused_and_listed() {
    check(
        "encoder = 'two_inputs.onnx'",
        expect![
            "encoder: two_inputs.onnx: has 2 inputs, but an encoder or a complete network has one: `x` float32 [batch, 2], `state` float32 [batch, 2]"
        ],
    );
    check(
        "encoder = 'whole_numbers.onnx'",
        expect![
            "encoder: whole_numbers.onnx: output `y` int64 [batch, 2] has an unsupported \
                 element type; expected float16, float32, float64 or uint8; the outputs of the \
                 file are: y"
        ],
    );
    check(
        "model = 'two_outputs.onnx'\noutput = 'thrice'",
        expect!["output: unknown output; the outputs of the file are: minus, twice"],
    );
    check(
        "model = 'external.bin'",
        expect!["model: external.bin: not a valid ONNX file: a field has an invalid number"],
    );
    check(
        "encoder = 'encoder.onnx'\ndecoder = 'wide_decoder.onnx'",
        expect![
            "decoder: wide_decoder.onnx: records of shape [2] do not fit the input `x` \
                 float32 [batch, 3]"
        ],
    );
    check(
        "encoder = 'encoder.onnx'\nsize = [2, 3]",
        expect!["size: images of shape [3, 2, 3] do not fit `x` float32 [batch, 4]"],
    );
    check(
        "encoder = 'encoder.onnx'\nsize = [2, 2]\ncolumns = ['a']",
        expect![
            "size: `size` describes images, but `columns` describes features; remove one \
                 of them"
        ],
    );
    check(
        "encoder = 'encoder.onnx'\nmean = [0, 0, 0, 0]",
        expect![[r#"mean: is not used; set scaling = "standard", or remove it"#]],
    );
    check(
        "encoder = 'encoder.onnx'\nscaling = 'min_max'\nmin = [0]\n\
             columns = ['a', 'a', 'b', 'c']",
        expect![[r#"
            columns: `a` is listed twice
            min: expected as many values as features, 4; found 1
            max: missing; the scaling requires it"#]],
    );
    check(
        "model = 'bytes.onnx'\nsize = [4294967296, 4294967296]\nrange = [1.0, 0.0]",
        expect![[r#"
            : `range` must ascend, such as [0.0, 1.0]; met [1.0, 0.0]
            size: images of shape [4294967296, 4294967296, 3] do not fit `x` uint8 [batch, 2, 2, 3]"#]],
    );
}
