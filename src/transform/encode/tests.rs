//! Unit tests of the module `encode`.

#![allow(clippy::unwrap_used)]
use arrow::array::{Array, ListArray};
use arrow::datatypes::{Field, Float64Type};
use expect_test::{Expect, expect};

use super::*;
use crate::image::pixel_format::PixelFormat;
use crate::transform::encode::config::EncodeConfig;
use crate::transform::model_columns::testing::{column, faults, images, plan, run, tensors};
use crate::transform::testing::{of, part, reasons};

const PAIRS: &str = "encoder = 'encoder.onnx'\ndecoder = 'decoder.onnx'";

fn names(batch: &Batch) -> Vec<String> {
    batch
        .records
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect()
}

#[test]
fn tensor_column_is_replaced_by_latent() {
    let (out, rejects) = run::<EncodeConfig>(
        PAIRS,
        "{}",
        tensors(&[4], &[1., 2., 3., 4., 5., 6., 7., 8.]),
    );
    assert_eq!(names(&out), ["latent"]);
    assert_eq!(column(&out, "latent"), [3., 7., 11., 15.]);
    assert!(rejects.is_empty());
}

#[test]
fn error_is_the_loss_and_reconstruction_is_optional() {
    let options =
        r#"{"reconstruct": true, "keep_reconstruction": true, "keep": true, "to": "code"}"#;
    let batch = tensors(&[2, 2], &[1., 3., 5., 5.]);
    let before = batch.records.schema().field(0).clone();
    let (out, _) = run::<EncodeConfig>(PAIRS, options, batch);
    assert_eq!(
        names(&out),
        ["x", "code", "reconstruction_error", "reconstruction"]
    );
    assert_eq!(column(&out, "reconstruction"), [2., 2., 5., 5.]);
    assert_eq!(column(&out, "reconstruction_error"), [0.5]);
    assert_eq!(out.records.schema().field(3).metadata(), before.metadata());
    let bce = format!("{PAIRS}\nloss = 'bce'");
    let (with_bce, _) = run::<EncodeConfig>(
        &bce,
        r#"{"reconstruct": true}"#,
        tensors(&[4], &[1., 0., 0.5, 0.5]),
    );
    assert!((column(&with_bce, "reconstruction_error")[0] - std::f32::consts::LN_2).abs() < 1e-6);
}

#[test]
fn network_in_one_file_encodes_and_reconstructs() {
    let (out, _) = run::<EncodeConfig>(
        "model = 'picky.onnx'",
        r#"{"reconstruct": true}"#,
        tensors(&[2], &[1., 2.]),
    );
    assert_eq!(column(&out, "latent"), [1., 2.]);
    assert_eq!(column(&out, "reconstruction_error"), [0.]);
}

#[test]
fn file_with_code_and_reconstruction_returns_both_in_one_pass() {
    let options = r#"{"reconstruct": true, "keep_reconstruction": true}"#;
    let values = [1., 3., 5., 5., 0., 0., 2., 8.];
    let (expected, _) = run::<EncodeConfig>(PAIRS, options, tensors(&[4], &values));
    let plain = "model = 'vae.onnx'";
    for model in [
        plain.to_owned(),
        plain.replace("model", "encoder"),
        format!("{plain}\noutput = 'mu'\nreconstruction = 'recon'"),
    ] {
        let (out, rejects) = run::<EncodeConfig>(&model, options, tensors(&[4], &values));
        assert_eq!(out.records, expected.records, "{model}");
        assert!(rejects.is_empty());
        let (alone, _) = run::<EncodeConfig>(&model, "{}", tensors(&[4], &values));
        assert_eq!(column(&alone, "latent"), column(&expected, "latent"));
    }
    let batch = tensors(&[4], &values);
    let planned = plan::<EncodeConfig>(plain, options, &batch).unwrap();
    assert_eq!(
        planned.depends_on().as_deref(),
        Some("output \"mu\""),
        "earlier versions selected the first output"
    );
    let named = format!("{plain}\noutput = 'mu'");
    let planned_as_named = plan::<EncodeConfig>(&named, options, &batch).unwrap();
    assert_eq!(planned_as_named.depends_on(), None);
}

#[test]
fn only_failing_rows_of_both_outputs_are_rejected() {
    let mut values = [1., 3., 5., 5., f32::NAN, 0., 2., 8., 1., 1., 1., 1.];
    values[10] = f32::MAX;
    values[11] = f32::MAX;
    let (out, rejects) = run::<EncodeConfig>(
        "model = 'vae.onnx'",
        r#"{"reconstruct": true}"#,
        tensors(&[4], &values),
    );
    assert_eq!(out.row_ordinals, [0]);
    assert_eq!(column(&out, "latent"), [4., 10.]);
    assert_eq!(column(&out, "reconstruction_error"), [0.5]);
    assert_eq!(rejects.len(), 2);
}

#[test]
fn rows_with_non_finite_input_or_code_are_rejected() {
    let log = "encoder = 'log.onnx'";
    let batch = tensors(
        &[2],
        &[1., 1., f32::NAN, 1., 0., 1., -1., 1., 1., f32::INFINITY],
    );
    let (out, rejects) = run::<EncodeConfig>(log, "{}", batch);
    assert_eq!(out.row_ordinals, [0]);
    assert_eq!(column(&out, "latent"), [0., 0.]);
    expect![[r#"
            1: not_finite: `x` holds a value that is not finite
            4: not_finite: `x` holds a value that is not finite
            2: not_finite: the model returned a code that is not finite
            3: not_finite: the model returned a code that is not finite"#]]
    .assert_eq(&reasons(&rejects));
}

#[test]
fn values_outside_the_type_of_the_input_are_rejected() {
    let bytes = "encoder = 'bytes.onnx'";
    let mut values: Vec<f32> = (0..48_u8).map(f32::from).collect();
    (values[12], values[30], values[47]) = (-1., 300., 1.5);
    let batch = tensors(&[2, 2, 3], &values);
    let (out, rejects) = run::<EncodeConfig>(bytes, "{}", batch);
    assert_eq!(out.row_ordinals, [0]);
    assert_eq!(column(&out, "latent"), values[..12]);
    expect![[r#"
            1: mismatch: value 1 of the record is -1, but the input `x` of the model is uint8, which holds whole numbers from 0 to 255
            2: mismatch: value 7 of the record is 300, but the input `x` of the model is uint8, which holds whole numbers from 0 to 255
            3: mismatch: value 12 of the record is 1.5, but the input `x` of the model is uint8, which holds whole numbers from 0 to 255"#]]
        .assert_eq(&reasons(&rejects));
    // All records of a batch may be unfit, which is not a fault of the model.
    let (empty, all) = run::<EncodeConfig>(bytes, "{}", tensors(&[2, 2, 3], &[256.; 12]));
    assert_eq!((empty.row_ordinals.len(), all.len()), (0, 1));
    let (_, halves) = run::<EncodeConfig>(
        "encoder = 'float16.onnx'",
        "{}",
        tensors(&[4], &[1., 2., 3., 70_000.]),
    );
    expect!["0: mismatch: value 4 of the record is 70000, but the input `x` of the model is float16, which holds numbers from -65504 to 65504"]
            .assert_eq(&reasons(&halves));
}

#[test]
fn pixels_of_a_uint8_input_are_rounded_and_bounded() {
    let format = open_bytes_format();
    let values = [0.4, 0.6, -3., 254.4, 400., 7., 0., 1., 2., 3., 4., 5.];
    let field = format.annotate(crate::tensor::tensor_field("x", &[2, 2, 3]).unwrap());
    let batch = of([(field, fixed_column(12, values.to_vec()).unwrap())]);
    let (out, rejects) = run::<EncodeConfig>("encoder = 'bytes.onnx'", "{}", batch);
    assert_eq!(reasons(&rejects), "");
    let expected = [0., 1., 0., 254., 255., 7., 0., 1., 2., 3., 4., 5.];
    assert_eq!(column(&out, "latent"), expected);
}

fn open_bytes_format() -> PixelFormat {
    let model = crate::model::testing::open("encoder = 'bytes.onnx'").unwrap();
    model.image_input().unwrap().format
}

/// A column of lists of float64.
fn lists(values: &[&[f64]]) -> (Field, ArrayRef) {
    let lists = values
        .iter()
        .map(|list| Some(list.iter().copied().map(Some)));
    let lists = ListArray::from_iter_primitive::<Float64Type, _, _>(lists);
    (
        Field::new("steps", lists.data_type().clone(), true),
        Arc::new(lists),
    )
}

#[test]
fn more_outputs_of_the_encoder_are_columns() {
    let values = [1., 3., 5., 5., 0., 0., 2., 8.];
    for model in [
        "model = 'vae.onnx'",
        "encoder = 'vae.onnx'\ndecoder = 'decoder.onnx'",
    ] {
        let options = r#"{"outputs": {"latent": "mu", "spread": "logvar"}, "reconstruct": true}"#;
        let (out, _) = run::<EncodeConfig>(model, options, tensors(&[4], &values));
        assert_eq!(names(&out), ["latent", "reconstruction_error", "spread"]);
        assert_eq!(column(&out, "latent"), [4., 10., 0., 10.]);
        assert_eq!(column(&out, "spread"), [-4., -10., 0., -10.]);
        assert_eq!(column(&out, "reconstruction_error"), [0.5, 4.5]);
    }
}

#[test]
fn images_of_different_sizes_have_codes_of_one_size() {
    let shapes = [[3, 4, 4], [3, 8, 6], [3, 4, 4], [3, 2, 2]];
    let options = r#"{"outputs": {"largest": "most", "minus": "minus"}}"#;
    let model = "model = 'resize.onnx'\noutput = 'code'";
    let value = |row: usize, index: usize| (row * 100 + index) as f32;
    let (out, rejects) = run::<EncodeConfig>(model, options, images(&shapes, value));
    assert_eq!(reasons(&rejects), "");
    assert_eq!(names(&out), ["latent", "largest", "minus"]);
    let codes = column(&out, "latent");
    for (row, shape) in shapes.iter().enumerate() {
        let alone = images(&[*shape], |_, index| value(row, index));
        let (one, _) = run::<EncodeConfig>(model, options, alone);
        let code = &codes[row * 12..(row + 1) * 12];
        assert_eq!(code, column(&one, "latent"), "image {row}");
        let largest = code.iter().copied().fold(f32::MIN, f32::max);
        assert_eq!(column(&out, "largest")[row], largest);
    }
    // An image of 2x2 is not resized.
    let expected: Vec<f32> = (0..12).map(|index| value(3, index)).collect();
    assert_eq!(codes[36..], expected);
}

#[test]
fn lists_are_sequences_of_any_length() {
    let steps: [&[f64]; 5] = [
        &[1., 2., 3., 10., 20., 30.],
        &[4., 5., 6.],
        &[1., 2.],
        &[f64::NAN, 0., 0.],
        &[0.5, 0., 0., 0., 0.5, 0., 0., 0., 0.5],
    ];
    let (out, rejects) = run::<EncodeConfig>(
        "model = 'sequence.onnx'\noutput = 'code'",
        "{}",
        of([lists(&steps)]),
    );
    assert_eq!(
        column(&out, "latent"),
        [11., 22., 33., 4., 5., 6., 0.5, 0.5, 0.5]
    );
    assert_eq!(out.row_ordinals, [0, 1, 4]);
    expect![[r#"
        2: mismatch: `steps` has the shape [2], which does not fit the input `x` float32 [batch, time, 3] of the model
        3: not_finite: `steps` holds a value that is not finite"#]].assert_eq(&reasons(&rejects));
}

#[test]
fn lists_that_fill_the_input_are_reconstructed() {
    let options = r#"{"reconstruct": true, "keep_reconstruction": true}"#;
    let values: [&[f64]; 2] = [&[1., 3., 5., 5.], &[0., 0., 2.]];
    let (out, rejects) = run::<EncodeConfig>(PAIRS, options, of([lists(&values)]));
    assert_eq!(column(&out, "reconstruction"), [2., 2., 5., 5.]);
    assert_eq!(column(&out, "reconstruction_error"), [0.5]);
    expect!["1: mismatch: `steps` has the shape [3], which does not fit the input `x` float32 [batch, 4] of the model"].assert_eq(&reasons(&rejects));
}

#[test]
fn only_rows_on_which_the_model_fails_are_rejected() {
    let batch = tensors(&[2], &[1., 2., 60., 0., 3., 4.]);
    let options = r#"{"reconstruct": true, "keep_reconstruction": true}"#;
    let (out, rejects) = run::<EncodeConfig>("model = 'picky.onnx'", options, batch);
    assert_eq!(out.row_ordinals, [0, 2]);
    assert_eq!(column(&out, "latent"), [1., 2., 3., 4.]);
    assert_eq!(
        (rejects.len(), rejects[0].ordinal, rejects[0].code),
        (1, 1, RejectCode::Model)
    );
}

#[test]
fn empty_batch_stays_empty() {
    let empty = part(&tensors(&[4], &[0.; 4]), 0, 0);
    let (out, _) = run::<EncodeConfig>(
        PAIRS,
        r#"{"reconstruct": true, "keep_reconstruction": true}"#,
        empty,
    );
    assert_eq!(out.records.num_rows(), 0);
}

#[test]
fn only_fitting_column_is_selected() {
    let (a, b) = (tensors(&[3], &[0.; 3]), tensors(&[4], &[1., 2., 3., 4.]));
    let of_two = of([
        (
            a.records.schema().field(0).clone().with_name("a"),
            Arc::clone(a.records.column(0)),
        ),
        (
            b.records.schema().field(0).clone().with_name("b"),
            Arc::clone(b.records.column(0)),
        ),
    ]);
    let (out, _) = run::<EncodeConfig>(PAIRS, "{}", of_two);
    assert_eq!(names(&out), ["a", "latent"]);
}

#[test]
fn model_is_named_for_metrics_if_error_is_computed() {
    let batch = tensors(&[4], &[0.; 4]);
    assert_eq!(
        plan::<EncodeConfig>(PAIRS, "{}", &batch).unwrap().model(),
        None
    );
    let planned = plan::<EncodeConfig>(PAIRS, r#"{"reconstruct": true}"#, &batch).unwrap();
    assert_eq!(planned.model(), Some("tested"));
    assert_eq!(
        planned.summary(),
        "model tested: [4] to a code of 2, reconstruction_error in mse"
    );
}

#[test]
fn faults_of_options_are_reported_by_key() {
    let check = |model: &str, options: &str, batch: &Batch, expected: Expect| {
        expected.assert_eq(&faults::<EncodeConfig>(model, options, batch));
    };
    let (four, three) = (tensors(&[4], &[0.; 4]), tensors(&[3], &[0.; 3]));
    check(
        PAIRS,
        "{}",
        &three,
        expect![
            "column: column `x`: its records have the shape [3], but the model `tested` \
                 takes [4]"
        ],
    );
    check(
        PAIRS,
        r#"{"column": "y", "keep_reconstruction": true}"#,
        &four,
        expect![[r#"
            keep_reconstruction: requires `reconstruct = true`
            column: no column `y`; the input has: x"#]],
    );
    check(
        PAIRS,
        r#"{"keep": true, "to": "x"}"#,
        &four,
        expect!["to: the input already has a column `x`; choose another name"],
    );
    check(
        "encoder = 'encoder.onnx'",
        r#"{"reconstruct": true}"#,
        &four,
        expect!["reconstruct: the model `tested` has no decoder"],
    );
    check(
        "model = 'encoder.onnx'",
        r#"{"reconstruct": true}"#,
        &four,
        expect![
            "reconstruct: the model returns the shape [2] for records of shape [4], which is \
                 not a reconstruction"
        ],
    );
    check(
        "model = 'unnamed.onnx'",
        "{}",
        &four,
        expect![[
            r#"model: the model `tested`: the file has several outputs, and it is not plain which of them is the code of `x` float32 [batch, 4]: `4` float32 [batch, 4], `5` float32 [batch, 2], `6` float32 [batch, 2]; select it, such as `output = "5"`"#
        ]],
    );
    // The reconstruction is random, so it is not taken without an option.
    check(
        "model = 'sampled.onnx'",
        r#"{"reconstruct": true}"#,
        &four,
        expect![
            "reconstruct: the model returns the shape [2] for records of shape [4], which is not a reconstruction; set `reconstruction` of the model to one of its outputs: `recon` float32 [batch, 4], `mu` float32 [batch, 2], `logvar` float32 [batch, 2]"
        ],
    );
    check(
        "model = 'blur.onnx'",
        "{}",
        &images(&[[2, 2, 3]], |_, _| 0.),
        expect![
            "column: column `x`: its records have different shapes, and the model returns 12288 values for the shape [64, 64, 3], but 27648 for [96, 96, 3]; a code needs one size: set `size` in the `pixels` stage, or run the model in a stage of kind `onnx`"
        ],
    );
    check(
        "model = 'halve.onnx'\nmultiple = 2",
        "{}",
        &images(&[[1, 2, 2]], |_, _| 0.),
        expect![
            "column: column `x`: its records have different shapes, but the model takes one shape; set `size` in the `pixels` stage"
        ],
    );
    check(
        "model = 'vae.onnx'",
        r#"{"outputs": {"latent": "logvar", "a": "sigma", "b": "mu", "reconstruction_error": "mu"}, "reconstruct": true}"#,
        &four,
        expect![[r#"
            outputs: the encoder has no output `sigma`; its outputs are: `recon` float32 [batch, 4], `mu` float32 [batch, 2], `logvar` float32 [batch, 2]
            outputs: `latent` is the column of the code, which is the output `mu` float32 [batch, 2]; set `output = "logvar"` in [models.tested], or choose another name"#]],
    );
    check(
        "model = 'vae.onnx'",
        r#"{"outputs": {"reconstruction_error": "logvar"}, "reconstruct": true}"#,
        &four,
        expect![
            "outputs: the input already has a column `reconstruction_error`; choose another name"
        ],
    );
    check(
        "model = 'sampled.onnx'",
        r#"{"outputs": {"r": "recon"}}"#,
        &four,
        expect![
            "outputs: sampled.onnx: the output `recon` is not the same in every run: RandomNormalLike draws random numbers; set `outputs` to an output that does not depend on it (`logvar` or `mu`), or export the model without random numbers, such as the mean of a VAE instead of a sample, or set `allow_nondeterministic = true`"
        ],
    );
    check(
        "model = 'sequence.onnx'\noutput = 'code'",
        r#"{"outputs": {"p": "partial"}}"#,
        &of([lists(&[&[1.; 3]])]),
        expect![
            "outputs: output `partial` float32 [batch, time, 3] has no fixed shape for a record; run the file in a stage of kind `onnx`"
        ],
    );
    check(
        "model = 'two_inputs.onnx'",
        "{}",
        &four,
        expect![
            "model: the model `tested`: has 2 inputs, but an encoder or a complete network has one: `x` float32 [batch, 2], `state` float32 [batch, 2]; run it in a stage of kind `onnx`"
        ],
    );
    let pixels = tensors(&[2, 2, 3], &[0.; 12]);
    let field = PixelFormat::default().annotate(pixels.records.schema().field(0).clone());
    let pixels = of([(field, Arc::clone(pixels.records.column(0)))]);
    check(
        "model = 'blur.onnx'",
        "{}",
        &pixels,
        expect![
            "column: column `x`: its pixels are rgb nchw in [0, 1], but the model takes rgb \
                 nhwc in [0, 1]; set `model = \"tested\"` in its `pixels` stage"
        ],
    );
}
