//! Unit tests of the module `describe`.

#![allow(clippy::unwrap_used)]
use expect_test::{Expect, expect};

use super::*;
use crate::model::testing::{file, init};

fn check(name: &str, expected: Expect) {
    let description = describe(&file(name), &init()).unwrap();
    let text = description.to_string();
    let folder = format!("{}/", file("").display()).replace("//", "/");
    expected.assert_eq(&text.replace(&folder, ""));
    assert_eq!(
        description.usable(),
        !text.contains("cannot run as a stage")
    );
}

#[test]
fn file_is_described_by_its_tensors_and_its_usage() {
    check(
        "untold.onnx",
        expect![[r#"
                untold.onnx  291 bytes  sha256:be69aec41d745624b753025b7386a537da3fd3741e57af89fbb606e94e47fbbe
                  format     IR 8, opset 17
                  producer   make.py
                  input      `x` float32 [batch, 4]
                  output     `y` float32 [batch, code]
                digest       73ef6e31df284f7d501ed074669eb961265baed204a0ff999d4ebd03814d0ee9
                in a pipeline: maps vectors of 4 features to 2 values
            "#]],
    );
    check(
        "external.onnx",
        expect![[r#"
                external.onnx  167 bytes  sha256:7357f635c56b4ce7003208668d4c7d21d325b9a75a01adc84664027d4e690ef4
                  format     IR 8, opset 17
                  producer   make.py
                  weights    in external.bin
                  input      `x` float32 [batch, 4]
                  output     `y` float32 [batch, 2]
                digest       69dc43b3a1655f4300d1a145ef7b8039a96ddfa2b0aee573deb2403ae097a050
                in a pipeline: maps vectors of 4 features to 2 values
            "#]],
    );
    check(
        "blur.onnx",
        expect![[r#"
                blur.onnx  303 bytes  sha256:d3ff440cbc74fbeb147acedb5faa200582d700bf5b66d9c9450f756e59a97168
                  format     IR 8, opset 17
                  producer   make.py
                  input      `x` float32 [batch, height, width, 3]
                  output     `y` float32 [batch, height, width, 3]
                digest       9827d7be12c7ec349ba8c5836e61d182229ad3e13cf91bf61727940eb3e549ea
                in a pipeline: accepts rgb images of any size
            "#]],
    );
}

#[test]
fn nodes_that_differ_between_runs_are_described() {
    let text = describe(&file("training_mode_of_call.onnx"), &init())
        .unwrap()
        .to_string();
    let cautions: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("caution"))
        .collect();
    assert_eq!(
        cautions,
        [
            "  caution    `y`: BatchNormalization `inside` normalizes a record by the other \
                 records of its batch in training mode"
        ]
    );
}

#[test]
fn file_that_a_stage_cannot_use_is_described() {
    check(
        "two_inputs.onnx",
        expect![[r#"
            two_inputs.onnx  133 bytes  sha256:533a3f1f87e626b67a1290d3c86beee7b9401d33b534576bcb03f8c10a303f56
              format     IR 8, opset 17
              producer   make.py
              input      `x` float32 [batch, 2]
              input      `state` float32 [batch, 2]
              output     `y` float32 [batch, 2]
            digest       6f45974a15344938621b929c59876aa5667ec5c6634f68f55ba92ce7455c30ac
            in a pipeline: runs in a stage of kind `onnx` only: has 2 inputs, but an encoder or a complete network has one: `x` float32 [batch, 2], `state` float32 [batch, 2]
        "#]],
    );
    check(
        "external.bin",
        expect![[r#"
                external.bin  32 bytes  sha256:4e8b04ae3930af0851dbb553b503dc2ee7fd8617e141594f3e835100fb96d122
                  external.bin: not a valid ONNX file: a field has an invalid number
                in a pipeline: cannot run as a stage
            "#]],
    );
}

#[test]
fn missing_file_and_empty_folder_are_refused() {
    let faults = describe(&file("gone.onnx"), &init()).err().unwrap();
    assert!(
        faults[0]
            .message
            .ends_with("gone.onnx: No such file or directory (os error 2)"),
        "{faults:?}"
    );
    let folder = tempfile::tempdir().unwrap();
    let folder_faults = describe(folder.path(), &init()).err().unwrap();
    assert!(
        folder_faults[0]
            .message
            .ends_with("contains no model.toml, encoder.onnx, decoder.onnx or model.onnx"),
        "{folder_faults:?}"
    );
}
