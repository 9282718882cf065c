//! Unit tests of the module `card`.

#![allow(clippy::unwrap_used)]
use expect_test::{Expect, expect};

use super::*;

const COMPLETE: &str = r#"
        name = "photos"
        kind = "convolutional"
        description = "for photographs"
        code_size = 128
        loss = "mse"
        [input]
        type = "image"
        size = [64, 64]
        channels = "rgb"
        layout = "nchw"
        range = [0.0, 1.0]
        mean = [0.0, 0.0, 0.0]
        std = [1.0, 1.0, 1.0]
        [reconstruction_error]
        count = 240
        mean = 0.003
        std = 0.002
        min = 0.0002
        max = 0.014
        quantiles = { p01 = 0.0007, p05 = 0.001, p25 = 0.002, p50 = 0.003, p75 = 0.0045, p95 = 0.008, p99 = 0.012 }
        [training]
        data = "photographs"
        license = "free"
        architecture = ["conv 3->32", "dense 1024->128"]
        hyperparameters = { optimizer = "adam", epochs = 6, learning_rate = 0.02 }
        [metrics]
        psnr = 24.4
        [files]
        "encoder.onnx" = "sha256:0855639d6e3e596a20a8b99b455458321ecd334c2c3a64e4f60eb3cc7e4f83a3"
    "#;

fn check(text: &str, expected: Expect) {
    let faults = ModelCard::parse(text).err().unwrap_or_default();
    let lines: Vec<String> = faults
        .iter()
        .map(|fault| format!("{}: {}", fault.key, fault.message))
        .collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn card_of_earlier_version_gets_current_names() {
    let former = "[training]\nlicence = 'free'\nhyperparameters = { optimiser = 'adam' }\n\
                      [training.file]\nnetwork = { fold = true }\n\
                      training = { optimiser = 'muon', patience = 2 }\n\
                      data = { licence = 'free' }";
    let text = format!("name = 'm'\nkind = 'deep'\n[input]\ntype = 'image'\n{former}\n");
    let training = ModelCard::parse(&text).unwrap().training.unwrap();
    assert_eq!(
        (
            training.license.as_str(),
            &training.hyperparameters["optimizer"]
        ),
        ("free", &"adam".into())
    );
    let current = serde_json::json!({ "network": { "space_to_depth": true },
            "training": { "optimizer": "muon", "patience": 2 }, "data": { "license": "free" } });
    assert_eq!(training.file, current);
}

#[test]
fn complete_card_is_unchanged_by_writing_and_reading() {
    let card = ModelCard::parse(COMPLETE).unwrap();
    assert_eq!(card.input.size, Some([64, 64]));
    assert_eq!(
        card.reconstruction_error.as_ref().unwrap().quantiles.p99,
        0.012
    );
    assert_eq!(card.training.as_ref().unwrap().hyperparameters["epochs"], 6);
    assert_eq!(
        ModelCard::parse(&toml::to_string(&card).unwrap()).unwrap(),
        card
    );
}

#[test]
fn feature_errors_are_checked_for_each_column() {
    let input = COMPLETE
        .split("[reconstruction_error]")
        .next()
        .unwrap()
        .split("[input]")
        .next()
        .unwrap();
    let rest = COMPLETE.split("[reconstruction_error]").nth(1).unwrap();
    let card = |features: &str, columns: &str| {
        let input =
            format!("{input}[input]\ntype = \"features\"\n{columns}\n[reconstruction_error]\n");
        format!("{input}features = {features}\n{rest}")
    };
    let columns = r#"columns = ["a", "b"]"#;
    let written =
        ModelCard::parse(&card("{ mean = [0.1, 0.0], std = [0.2, 0.0] }", columns)).unwrap();
    assert_eq!(
        ModelCard::parse(&toml::to_string(&written).unwrap()).unwrap(),
        written
    );
    check(
        &card("{ mean = [0.1], std = [0.2, -1.0] }", columns),
        expect![[r#"
            reconstruction_error.features.mean: expected as many values as columns in `input.columns`, 2; found 1
            reconstruction_error.features.std: must be 0 or more; found -1 for `b`"#]],
    );
    check(
        &card("{ mean = [nan, 1.0], std = [0.2, inf] }", columns),
        expect!["reconstruction_error.features.mean[0]: invalid type: null, expected f64"],
    );
    check(
        &card("{ mean = [], std = [] }", ""),
        expect!["reconstruction_error.features: requires `input.columns`, which is missing"],
    );
    check(
        &card("{ means = [1.0, 1.0], std = [1.0, 1.0] }", columns),
        expect![[r#"
            reconstruction_error.?.features.?.means: unknown key
            reconstruction_error.features: missing field `mean`"#]],
    );
}

#[test]
fn all_errors_of_a_card_are_reported() {
    check(
        &COMPLETE.replace("channels =", "chanels ="),
        expect!["input.chanels: unknown key"],
    );
    check(
        &COMPLETE
            .replace("name =", "title =")
            .replace("psnr = 24.4", "psnr = 'high'"),
        expect![[r#"metrics.psnr: invalid type: string "high", expected f64"#]],
    );
    let wrong = COMPLETE
        .replace("p25 = 0.002", "p25 = 0.5")
        .replace("code_size = 128", "code_size = 0");
    check(
        &wrong
            .replace("sha256:08", "md5:")
            .replace("encoder.onnx", "../encoder.onnx"),
        expect![[r#"
            code_size: must be above 0; remove it if the network has no code
            reconstruction_error.quantiles: min, quantiles and max must ascend; found [0.0002, 0.0007, 0.001, 0.5, 0.003, 0.0045, 0.008, 0.012, 0.014]
            files.../encoder.onnx: `md5:55639d6e3e596a20a8b99b455458321ecd334c2c3a64e4f60eb3cc7e4f83a3` is not a digest; expected `sha256:` and 64 digits 0-9a-f
            files.../encoder.onnx: is not a plain file name in the model folder"#]],
    );
    check(
        "name = ",
        expect![": line 1: string values must be quoted, expected literal string"],
    );
}
