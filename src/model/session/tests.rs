//! Unit tests of the module `session`.

#![allow(clippy::unwrap_used)]
use crate::batch::reject::RejectCode;
use crate::model::batch_limits::OWN_RECORDS;
use crate::model::config::{RuntimeSpec, SessionMode};
use crate::model::files::ModelPath;
use crate::model::session::chain::RowFailure;
use crate::model::testing::{open, open_with};

fn run(written: &str, records: &[f32], shape: &[usize]) -> Result<Vec<f32>, String> {
    let mut out = Vec::new();
    let mut chain = open(written)
        .unwrap()
        .chain(ModelPath::Reconstruct)
        .unwrap();
    let ran = chain.run(records, shape, &mut out);
    ran.map(|_| out).map_err(|error| error.to_string())
}

#[test]
fn batch_of_any_length_returns_all_records() {
    let autoencoder = "encoder = 'encoder.onnx'\ndecoder = 'decoder.onnx'";
    for rows in [1, 2, OWN_RECORDS - 1, OWN_RECORDS, 2 * OWN_RECORDS + 5] {
        let records: Vec<f32> = (0..rows).flat_map(|row| [row as f32; 4]).collect();
        assert_eq!(run(autoencoder, &records, &[4]).unwrap(), records);
    }
}

#[test]
fn fixed_batch_is_padded_and_padding_is_removed() {
    let records: Vec<f32> = (0..16).map(|value| value as f32).collect();
    let codes = run("model = 'fixed_batch.onnx'", &records, &[4]).unwrap();
    assert_eq!(codes, [1.0, 5.0, 9.0, 13.0, 17.0, 21.0, 25.0, 29.0]);
}

#[test]
fn slices_are_multiples_of_a_fixed_batch_size() {
    let rows = |written: &str| {
        open(written)
            .unwrap()
            .chain(ModelPath::Encode)
            .unwrap()
            .slice_rows(4)
    };
    assert_eq!(
        rows("encoder = 'encoder.onnx'\ndecoder = 'decoder.onnx'"),
        OWN_RECORDS
    );
    assert_eq!(
        rows("model = 'fixed_batch.onnx'"),
        OWN_RECORDS.next_multiple_of(3)
    );
}

#[test]
fn pixels_of_uint8_input_are_rounded_and_bounded() {
    let records = [
        0.4, 0.6, -3.0, 254.5, 400.0, 7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0,
    ];
    let model = open("model = 'bytes.onnx'").unwrap();
    let mut chain = model
        .chain(ModelPath::Reconstruct)
        .unwrap()
        .with_pixels(true);
    let mut out = Vec::new();
    chain.run(&records, &[2, 2, 3], &mut out).unwrap();
    assert_eq!(
        out,
        [
            0.0, 1.0, 0.0, 255.0, 255.0, 7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0
        ]
    );
}

#[test]
fn record_that_uint8_input_cannot_hold_is_a_mismatch() {
    let mut records: Vec<f32> = (0..36_u8).map(f32::from).collect();
    records[13] = 256.0;
    let model = open("model = 'bytes.onnx'").unwrap();
    let mut chain = model.chain(ModelPath::Reconstruct).unwrap();
    let mut out = vec![9.0];
    let failures = chain.run_rows(&records, &[2, 2, 3], 12, &mut out);
    let reason = "value 2 of the record is 256, but the input `x` of the model is uint8, which \
                      holds whole numbers from 0 to 255";
    assert_eq!(
        failures,
        [RowFailure {
            row: 1,
            code: RejectCode::Mismatch,
            reason: reason.to_owned()
        }]
    );
    records[12..24].fill(0.0);
    assert_eq!(out[1..], records);
}

#[test]
fn float16_input_and_output_are_converted() {
    let records = [1.0, 2.0, 0.25, 1.0 / 3.0];
    let out = run("model = 'float16.onnx'", &records, &[4]).unwrap();
    // A third is 0.33325195 in float16. The sum is halfway between two float16 values and is
    // rounded to the even one.
    assert_eq!(out, [3.0, 0.583_007_8]);
}

#[test]
fn shared_session_returns_each_caller_its_own_records() {
    let autoencoder = "encoder = 'encoder.onnx'\ndecoder = 'decoder.onnx'";
    let runtime = RuntimeSpec {
        sessions: Some(SessionMode::Shared),
        ..RuntimeSpec::default()
    };
    let model = open_with(autoencoder, &runtime).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let mut chain = model.chain(ModelPath::Reconstruct).unwrap();
            scope.spawn(move || {
                for rows in [1, 3, OWN_RECORDS + 1] {
                    let records: Vec<f32> = (0..rows)
                        .flat_map(|row| [(worker * 10_000 + row) as f32; 4])
                        .collect();
                    let mut out = Vec::new();
                    chain.run(&records, &[4], &mut out).unwrap();
                    assert_eq!(out, records);
                }
            });
        }
    });
}

#[test]
fn named_output_is_selected() {
    assert_eq!(
        run(
            "model = 'two_outputs.onnx'\noutput = 'minus'",
            &[1.0, 2.0],
            &[2]
        )
        .unwrap(),
        [-1.0, -2.0]
    );
    assert_eq!(
        run(
            "model = 'two_outputs.onnx'\noutput = 'twice'",
            &[1.0, 2.0],
            &[2]
        )
        .unwrap(),
        [2.0, 4.0]
    );
}

#[test]
fn external_data_next_to_the_file_is_loaded() {
    assert_eq!(
        run("model = 'external.onnx'", &[1.0, 2.0, 3.0, 4.0], &[4]).unwrap(),
        [3.0, 7.0]
    );
}

#[test]
fn only_the_failing_record_is_lost() {
    let mut chain = open("model = 'picky.onnx'")
        .unwrap()
        .chain(ModelPath::Reconstruct)
        .unwrap();
    let mut out = vec![9.0];
    let failures = chain.run_rows(&[1.0, 2.0, 3.0, 70.0, 5.0, 0.0], &[2], 2, &mut out);
    assert_eq!(out, [9.0, 1.0, 2.0, 0.0, 0.0, 5.0, 0.0]);
    assert_eq!(
        failures
            .iter()
            .map(|failure| failure.row)
            .collect::<Vec<_>>(),
        [1]
    );
    assert!(
        failures[0].reason.contains("Gather"),
        "{}",
        failures[0].reason
    );
}

#[test]
fn output_of_unplanned_size_is_a_failure() {
    let mut chain = open("model = 'encoder.onnx'")
        .unwrap()
        .chain(ModelPath::Reconstruct)
        .unwrap();
    let mut out = Vec::new();
    let failures = chain.run_rows(&[0.0; 4], &[4], 3, &mut out);
    let expected =
        "the model returned the shape [2] for a record of shape [4]; expected 3 values".to_owned();
    assert_eq!(
        failures,
        [RowFailure {
            row: 0,
            code: RejectCode::Model,
            reason: expected
        }]
    );
    assert_eq!(out, [0.0; 3]);
}
