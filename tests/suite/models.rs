//! Tests of the shipped models, and of third-party models in the folder `LATENTFLOW_TEST_DATA`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use expect_test::{Expect, expect};
use latentflow::metrics::Metrics;
use latentflow::model::files::ModelPath;
use latentflow::model::{Model, ModelSpec, RuntimeSpec, describe, ort_library};

use crate::common::outputs::{ids, records};
use crate::common::runs::latentflow;
use crate::common::test_data::test_data;

fn init() -> RuntimeSpec {
    let spec = RuntimeSpec::default();
    ort_library::init(&spec).unwrap_or_else(|fault| panic!("{}", fault.message));
    spec
}

#[test]
fn shipped_models_match_their_cards() {
    let runtime = init();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let folders = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let folders: Vec<PathBuf> = folders.filter(|path| path.is_dir()).collect();
    assert!(folders.len() > 7, "{folders:?}");
    for path in folders {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes: u64 = std::fs::read_dir(&path)
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes < 4_000_000, "{name}: {bytes} bytes");
        let spec = ModelSpec {
            path: Some(path),
            ..ModelSpec::default()
        };
        let model = Model::open(&name, &spec, &runtime, &Arc::new(Metrics::new()));
        let model = model.unwrap_or_else(|faults| panic!("{faults:?}"));
        let card = model.card().unwrap();
        assert_eq!(card.name, name);
        assert!(
            !card.files.is_empty() && !card.description.is_empty(),
            "{name}"
        );
        assert!(
            !card.training.as_ref().unwrap().license.is_empty(),
            "{name}"
        );
        let any_size = || model.image_input().unwrap().format.shape(48, 80);
        let shape = model.input_shape().unwrap_or_else(any_size);
        assert_eq!(
            model.output_shape(ModelPath::Reconstruct, &shape).unwrap(),
            shape
        );
        let mut output = Vec::new();
        let records = vec![0.5; 3 * shape.iter().product::<usize>()];
        model
            .chain(ModelPath::Encode)
            .unwrap()
            .run(&records, &shape, &mut output)
            .unwrap();
        assert_eq!(
            output.len(),
            model.code_size().map_or(records.len(), |code| 3 * code),
            "{name}"
        );
        assert!(output.iter().all(|value| value.is_finite()), "{name}");
    }
}

#[test]
fn outputs_are_shown_by_check_or_have_to_be_selected() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x.csv"), "a,b,c,d\n1,3,5,5\n0,0,2,8\n").unwrap();
    let pipeline = |file: &str, options: &str| {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
        format!(
            "[models.m]\nmodel = {:?}\ncolumns = ['a', 'b', 'c', 'd']\n{options}\n\
             [stages.in]\nkind = 'csv'\npath = 'x.csv'\n\
             [stages.f]\nkind = 'features'\ninputs = ['in']\nmodel = 'm'\n\
             [stages.e]\nkind = 'encode'\ninputs = ['f']\nmodel = 'm'\nreconstruct = true\n\
             keep_reconstruction = true\n\
             [stages.out]\nkind = 'parquet'\ninputs = ['e']\npath = 'out'\n",
            models.join(file)
        )
    };
    let call = |command: &str, written: &str| {
        std::fs::write(folder.path().join("p.toml"), written).unwrap();
        let output = latentflow(folder.path(), &[command, "p.toml"])
            .output()
            .unwrap();
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, text) = call("check", &pipeline("vae.onnx", ""));
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "model m: onnx features [4] -> code of 2, mse loss\n",
        "\n  reconstruction `recon` float32 [batch, 4]\n",
        "\n  code           `mu` float32 [batch, 2]\n",
        "\n  not used       `logvar` float32 [batch, 2]\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    for command in ["check", "run"] {
        let (refused, message) = call(command, &pipeline("unnamed.onnx", ""));
        assert_eq!(refused, Some(2), "{message}");
        let expected = "`4` float32 [batch, 4], `5` float32 [batch, 2], `6` float32 [batch, 2]; \
                        select it, such as `output = \"5\"`";
        assert!(message.contains(expected), "{message}");
    }
    let options = "output = '5'\nreconstruction = '4'";
    let (done, log) = call("run", &pipeline("unnamed.onnx", options));
    assert_eq!(done, Some(0), "{log}");
    let rows = records(
        &folder.path().join("out"),
        &["latent", "reconstruction_error", "reconstruction"],
    );
    assert_eq!(
        ids(&rows),
        [
            "[0.0, 10.0] 4.5 [0.0, 0.0, 5.0, 5.0]",
            "[4.0, 10.0] 0.5 [2.0, 2.0, 5.0, 5.0]"
        ]
    );
}

/// Compares the output of `inspect` for a third-party model, without digests.
fn check(folder: &Path, file: &str, expected: Expect) {
    let description = describe(&folder.join(file), &init()).unwrap();
    let text = description.to_string();
    let folder = format!("{}/", folder.display());
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("digest") && !line.contains("sha256:"));
    let without_digests: String = lines
        .map(|line| format!("{}\n", line.replace(&folder, "")))
        .collect();
    expected.assert_eq(&without_digests);
    assert_eq!(
        description.usable(),
        !without_digests.contains("cannot run as a stage")
    );
}

#[test]
fn third_party_models_are_described_with_their_use() {
    let Some(folder) = test_data("onnx") else {
        return;
    };
    check(
        &folder,
        "sehtasham__edge-ai-inference/autoencoder.onnx",
        expect![[r#"
              format     IR 9, opset 18
              producer   pytorch 2.10.0+cu128
              input      `sensor_input` float32 [batch_size, 10]
              output     `reconstruction` float32 [batch_size, 10]
            in a pipeline: maps vectors of 10 features to the same shape: a denoiser, or an autoencoder in one file
        "#]],
    );
    check(
        &folder,
        "xCures__keras_lstm_vae/encoder.onnx",
        expect![[r#"
              format     IR 8, opset 15, ai.onnx.ml 2
              producer   tf2onnx 1.14.0 8f8d49
              input      `input` float32 [unk__135, 30, 7]
              output     `dense` float32 [unk__136, 100]
            in a pipeline: maps tensors of shape [30, 7] to 100 values
        "#]],
    );
    check(
        &folder,
        "KULeuven-MICAS__zigzag/resnet8.onnx",
        expect![[r#"
              format     IR 6, opset 11
              producer   tflite2onnx
              input      `input_1` float32 [1, 3, 32, 32]
              output     `Identity` float32 [1, 10]
            in a pipeline: maps rgb images of 32x32 to 10 values
        "#]],
    );
    check(
        &folder,
        "KULeuven-MICAS__zigzag/ds_cnn.onnx",
        expect![[r#"
              format     IR 6, opset 11
              producer   tflite2onnx
              ONNX Runtime cannot load it: This is an invalid model. Type Error: Type 'tensor(int8)' of input parameter (functional_1/conv2d/Conv2D) of operator (Conv) in node (TFLITE2ONNX_FAF_functional_1/activation/Relu;functional_1/batch_normalization/FusedBatchNormV3;functional_1/conv2d/BiasAdd/ReadVariableOp/resource;functional_1/conv2d/BiasAdd;functional_1/conv2d_4/Conv2D;functional_1/conv2d/Conv2D1) is invalid.
            in a pipeline: cannot run as a stage
        "#]],
    );
    check(
        &folder,
        "microsoft__onnxruntime-inference-examples/mnist.onnx",
        expect![[r#"
              format     IR 3, opset 8
              producer   CNTK 2.5.1
              input      `Input3` float32 [1, 1, 28, 28]
              output     `Plus214_Output_0` float32 [1, 10]
            in a pipeline: maps gray images of 28x28 to 10 values
        "#]],
    );
    check(
        &folder,
        "onnx__onnx/light_squeezenet.onnx",
        expect![[r#"
              format     IR 3, opset 9
              producer   onnx-caffe2
              input      `data_0` float32 [1, 3, 224, 224]
              output     `softmaxout_1` float32 [1, 1000, 1, 1]
            in a pipeline: maps rgb images of 224x224 to tensors of shape [1000, 1, 1]
        "#]],
    );
    check(
        &folder,
        "pykeio__ort/upsample.onnx",
        expect![[r#"
              format     IR 7, opset 12
              producer   tf2onnx 1.7.2
              input      `up_sampling2d_input:0` float32 [unk__31, unk__32, unk__33, 3]
              output     `Identity:0` float32 [unk__34, unk__35, unk__36, 3]
            in a pipeline: accepts rgb images of any size
        "#]],
    );
    check(
        &folder,
        "Xiaobin-Rong__gtcrn/gtcrn_simple.onnx",
        expect![[r#"
              format     IR 6, opset 11
              producer   pytorch 1.11.0
              input      `mix` float32 [1, 257, 1, 2]
              input      `conv_cache` float32 [2, 1, 16, 16, 33]
              input      `tra_cache` float32 [2, 3, 1, 1, 16]
              input      `inter_cache` float32 [2, 1, 33, 16]
              output     `enh` float32 [1, 257, 1, 2]
              output     `conv_cache_out` float32 [2, 1, 16, 16, 33]
              output     `tra_cache_out` float32 [2, 3, 1, 1, 16]
              output     `inter_cache_out` float32 [2, 1, 33, 16]
            in a pipeline: cannot run as a stage: Xiaobin-Rong__gtcrn/gtcrn_simple.onnx: input `conv_cache` float32 [2, 1, 16, 16, 33] has a batch size of 2 records, but another input 1; the first dimension of every input has to be the batch; the inputs are: `mix` float32 [1, 257, 1, 2], `conv_cache` float32 [2, 1, 16, 16, 33], `tra_cache` float32 [2, 3, 1, 1, 16], `inter_cache` float32 [2, 1, 33, 16]
        "#]],
    );
}

/// Runs zeros through third-party models as a stage does.
#[test]
fn third_party_models_run_on_batches_above_their_fixed_size() {
    let Some(folder) = test_data("onnx") else {
        return;
    };
    let runtime = init();
    let run = |file: &str, shape: &[usize]| {
        let spec = ModelSpec {
            model: Some(folder.join(file)),
            ..ModelSpec::default()
        };
        let model = Model::open("other", &spec, &runtime, &Arc::new(Metrics::new())).unwrap();
        let mut out = Vec::new();
        let records = vec![0.0; 3 * shape.iter().product::<usize>()];
        let output_shape = model
            .chain(ModelPath::Reconstruct)
            .unwrap()
            .run(&records, shape, &mut out)
            .unwrap();
        assert_eq!(out.len(), 3 * output_shape.iter().product::<usize>());
        assert!(out.iter().all(|value| value.is_finite()));
        assert_eq!(
            model.output_shape(ModelPath::Reconstruct, shape).unwrap(),
            output_shape
        );
        output_shape
    };
    assert_eq!(
        run("sehtasham__edge-ai-inference/autoencoder.onnx", &[10]),
        [10]
    );
    assert_eq!(run("xCures__keras_lstm_vae/encoder.onnx", &[210]), [100]);
    assert_eq!(
        run("KULeuven-MICAS__zigzag/resnet8.onnx", &[3, 32, 32]),
        [10]
    );
    assert_eq!(
        run(
            "microsoft__onnxruntime-inference-examples/mnist.onnx",
            &[1, 28, 28]
        ),
        [10]
    );
    assert_eq!(
        run("onnx__onnx/light_squeezenet.onnx", &[3, 224, 224]),
        [1000, 1, 1]
    );
    assert_eq!(run("pykeio__ort/upsample.onnx", &[5, 4, 3]), [10, 8, 3]);
}
