//! Unit tests of the module `tensor_selection`.

#![allow(clippy::unwrap_used)]
use expect_test::expect;

use super::*;
use crate::model::tensor_spec::Dim;

/// A tensor of batches of any size; a dimension of 0 is dynamic.
fn tensor(name: &str, element: ElementType, row: &[usize]) -> TensorSpec {
    let dim = |&size: &usize| match size {
        0 => Dim::Dynamic(None),
        size => Dim::Fixed(size),
    };
    let rows = row.iter().map(dim);
    TensorSpec {
        name: name.to_owned(),
        element,
        dims: std::iter::once(Dim::Dynamic(None)).chain(rows).collect(),
    }
}

fn graph(input: &[usize], outputs: &[(&str, &[usize])]) -> OnnxGraph {
    let outputs = outputs
        .iter()
        .map(|(name, row)| tensor(name, ElementType::Float32, row));
    OnnxGraph {
        inputs: vec![tensor("x", ElementType::Float32, input)],
        outputs: outputs.collect(),
    }
}

/// The selected code and reconstruction of an encoder, or the message of the refusal.
fn encoder(graph: &OnnxGraph, output: Option<&str>, reconstruction: Option<&str>) -> String {
    let names = OutputNames {
        output,
        reconstruction,
    };
    match select_encoder(graph, names, true, false) {
        Ok(selected) => {
            let selected_name = selected.reconstruction.map(|spec| spec.name);
            format!(
                "{} {}",
                selected.output.name,
                selected_name.unwrap_or_default()
            )
        }
        Err(SelectionError::Option(key, message)) => format!("{key}: {message}"),
        Err(SelectionError::File(message)) => message,
    }
}

#[test]
fn plain_code_is_smaller_than_the_record_or_named() {
    let check = |input: &[usize], outputs: &[(&str, &[usize])], expected: &str| {
        assert_eq!(
            encoder(&graph(input, outputs), None, None),
            expected,
            "{outputs:?}"
        );
    };
    let small: &[usize] = &[2];
    let full: &[usize] = &[4];
    check(full, &[("y", small)], "y ");
    check(full, &[("y", &[9])], "y ");
    check(full, &[("y", full), ("h", small)], "h y");
    check(
        full,
        &[("recon", full), ("mu", small), ("logvar", small)],
        "mu recon",
    );
    check(
        full,
        &[
            ("z", small),
            ("encoder/z_mean:0", small),
            ("z_log_var", small),
        ],
        "encoder/z_mean:0 ",
    );
    check(full, &[("hidden", &[3]), ("Latent", small)], "Latent ");
    check(
        full,
        &[("code", &[1]), ("loss", &[1]), ("y", full)],
        "code y",
    );
    check(
        full,
        &[("code", small), ("aux", full), ("x_hat", full)],
        "code x_hat",
    );
    check(full, &[("code", small), ("a", full), ("b", full)], "code ");
    check(&[1, 28, 28], &[("y", &[784]), ("h", &[4, 2, 2])], "h y");
    // Images of any size, and a code of unknown size.
    check(&[3, 0, 0], &[("y", &[3, 0, 0]), ("h", &[16, 0, 0])], "h y");
    check(full, &[("y", full), ("h", &[0])], "h y");
}

#[test]
fn option_is_required_if_no_output_is_plainly_the_code() {
    let check = |outputs: &[(&str, &[usize])], expected: expect_test::Expect| {
        expected.assert_eq(&encoder(&graph(&[4], outputs), None, None));
    };
    check(
        &[("5", &[2]), ("6", &[2]), ("4", &[4])],
        expect![[
            r#"output: the file has several outputs, and it is not plain which of them is the code of `x` float32 [?, 4]: `5` float32 [?, 2], `6` float32 [?, 2], `4` float32 [?, 4]; select it, such as `output = "5"`"#
        ]],
    );
    check(
        &[("y", &[4]), ("score", &[1])],
        expect![[
            r#"output: the file has several outputs, and it is not plain which of them is the code of `x` float32 [?, 4]: `y` float32 [?, 4], `score` float32 [?, 1]; select it, such as `output = "score"`"#
        ]],
    );
    check(
        &[("logvar", &[2]), ("wide", &[8])],
        expect![[
            r#"output: the file has several outputs, and it is not plain which of them is the code of `x` float32 [?, 4]: `logvar` float32 [?, 2], `wide` float32 [?, 8]; select it, such as `output = "wide"`"#
        ]],
    );
}

#[test]
fn network_in_one_file_without_plain_code_reconstructs() {
    let two = graph(&[4], &[("5", &[2]), ("6", &[2]), ("y", &[4])]);
    let selected = select_encoder(&two, OutputNames::default(), false, false);
    let selected = selected.ok().unwrap();
    assert_eq!(selected.output.name, "y");
    assert!(selected.ambiguity.unwrap().contains("`output = \"5\"`"));
    let same = graph(&[4], &[("a", &[4]), ("b", &[4])]);
    assert!(select_encoder(&same, OutputNames::default(), false, false).is_err());
}

#[test]
fn named_reconstruction_has_the_shape_of_the_record() {
    let outputs: &[(&str, &[usize])] = &[("mu", &[2]), ("a", &[4]), ("b", &[4])];
    let file = graph(&[4], outputs);
    assert_eq!(encoder(&file, None, Some("b")), "mu b");
    assert_eq!(encoder(&file, Some("a"), Some("b")), "a b");
    assert_eq!(encoder(&file, Some("a"), None), "a ");
    expect!["reconstruction: output `mu` float32 [?, 2] is not a reconstruction; a reconstruction of `x` float32 [?, 4] has its shape and the type float16, float32 or float64; the outputs of the file are: `mu` float32 [?, 2], `a` float32 [?, 4], `b` float32 [?, 4]"]
            .assert_eq(&encoder(&file, Some("a"), Some("mu")));
    expect!["reconstruction: unknown output; the outputs of the file are: mu, a, b"]
        .assert_eq(&encoder(&file, None, Some("c")));
    let mut bytes = graph(&[4], outputs);
    bytes.outputs[1].element = ElementType::Uint8;
    assert!(encoder(&bytes, None, Some("a")).starts_with("reconstruction: output `a` uint8"));
    let names = OutputNames {
        reconstruction: Some("a"),
        ..OutputNames::default()
    };
    let Err(SelectionError::Option(key, message)) = select_encoder(&file, names, true, true) else {
        panic!("accepted")
    };
    assert_eq!(
        (key, message.as_str()),
        (
            "reconstruction",
            "the decoder already computes the reconstruction; remove this key or `decoder`"
        )
    );
}

#[test]
fn decoder_output_has_the_shape_of_the_record() {
    let record = tensor("x", ElementType::Float32, &[4]);
    let select = |outputs: &[(&str, &[usize])], name: Option<&str>| match select_decoder(
        &graph(&[2], outputs),
        name,
        &record,
    ) {
        Ok(selected) => selected.output.name,
        Err(SelectionError::Option(key, message)) => format!("{key}: {message}"),
        Err(SelectionError::File(message)) => message,
    };
    let (one, two): (&[usize], &[usize]) = (&[4], &[2]);
    assert_eq!(select(&[("h", two), ("y", one)], None), "y");
    assert_eq!(select(&[("h", two), ("y", one)], Some("h")), "h");
    expect![[r#"decoder_output: the file has several outputs, and it is not plain which of them is the reconstruction of `x` float32 [?, 4]: `a` float32 [?, 4], `b` float32 [?, 4]; select it, such as `decoder_output = "a"`"#]]
            .assert_eq(&select(&[("a", one), ("b", one)], None));
}
