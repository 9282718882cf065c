//! Unit tests of the module `nondeterminism`.

#![allow(clippy::unwrap_used)]
use expect_test::{Expect, expect};

use super::*;
use crate::model::nondeterminism::scope::TOO_DEEP;
use crate::model::testing::file;

/// The outputs of a file under `tests/models` with their nodes, one per line.
fn check(name: &str, expected: Expect) {
    let outputs = find(&std::fs::read(file(name)).unwrap()).unwrap();
    let line = |(output, nodes): (&String, &BTreeSet<NondeterministicNode>)| {
        let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        format!("{output}: {}\n", nodes.join(", "))
    };
    expected.assert_eq(&outputs.iter().map(line).collect::<String>());
}

#[test]
fn random_nodes_are_found_for_each_output() {
    check(
        "random.onnx",
        expect![[r#"
                bernoulli: Bernoulli draws random numbers
                branch: RandomNormalLike `noise of if_drawn` draws random numbers
                code: 
                dead_branch: 
                default: 
                dropout: Dropout draws random numbers in training mode
                dropped: Dropout `inside` draws random numbers in training mode
                evaluated: 
                kept: 
                loop: RandomUniformLike `inside` draws random numbers
                multinomial: Multinomial draws random numbers
                normal: RandomNormalLike `noise of normal` draws random numbers
                not_dropped: 
                same: 
                sampled: RandomUniformLike `inside` draws random numbers
                uniform: RandomUniformLike draws random numbers
            "#]],
    );
}

#[test]
fn nodes_that_mix_records_are_found_for_each_output() {
    check(
        "batch.onnx",
        expect![[r#"
                all_axes: MeanVarianceNormalization scales a record by the values of all records of its batch
                centered: 
                code: 
                own_axis: 
                quantized: DynamicQuantizeLinear scales a record by the values of all records of its batch
                trained: 
                without_batch: 
            "#]],
    );
}

#[test]
fn node_in_training_mode_changes_all_outputs() {
    let node = "normalizes a record by the other records of its batch in training mode";
    for (name, op, outputs) in [
        (
            "training_mode",
            "BatchNormalization",
            ["code", "training"].as_slice(),
        ),
        (
            "training_mode_of_call",
            "BatchNormalization `inside`",
            &["y"],
        ),
        (
            "old_batch",
            "BatchNormalization",
            &["dropped", "training", "y"],
        ),
    ] {
        let found = find(&std::fs::read(file(&format!("{name}.onnx"))).unwrap()).unwrap();
        let nodes: Vec<(&str, Vec<String>)> = found
            .iter()
            .map(|(output, nodes)| {
                (
                    output.as_str(),
                    nodes.iter().map(ToString::to_string).collect(),
                )
            })
            .collect();
        let expected: Vec<_> = outputs
            .iter()
            .map(|&output| (output, vec![format!("{op} {node}")]))
            .collect();
        assert_eq!(nodes, expected);
    }
}

#[test]
fn message_names_the_nodes_and_other_outputs() {
    let node = |op: &str, effect| NondeterministicNode {
        op: op.to_owned(),
        name: "n".to_owned(),
        effect,
    };
    let scale = node("DynamicQuantizeLinear", NondeterministicEffect::BatchScale);
    let random = node("RandomNormal", NondeterministicEffect::Random);
    let outputs = BTreeMap::from([
        ("z".to_owned(), BTreeSet::from([random, scale.clone()])),
        ("mu".to_owned(), BTreeSet::from([scale])),
    ]);
    let message = |output: &str, single: bool| {
        fault(&outputs, output, single, Some("output")).map(|fault| fault.message)
    };
    assert_eq!(message("mu", true), None);
    let expected = "the output `z` is not the same in every run: RandomNormal `n` draws random \
                        numbers; set `output` to an output that does not depend on it (`mu`), or \
                        export the model without random numbers, such as the mean of a VAE instead \
                        of a sample, or set `allow_nondeterministic = true`";
    assert_eq!(message("z", true).as_deref(), Some(expected));
    let of_mean = "the output `mu` is not the same in every run: DynamicQuantizeLinear `n` \
                        scales a record by the values of all records of its batch; export the model \
                        with a batch size of 1, or set `allow_nondeterministic = true`";
    assert_eq!(message("mu", false).as_deref(), Some(of_mean));
    assert_eq!(message("unknown", false), None);
}

#[test]
fn functions_that_call_each_other_endlessly_are_refused() {
    // A function whose only node calls the function itself.
    let bytes = |number: u8, value: &[u8]| {
        let len = u8::try_from(value.len()).unwrap();
        [&[number << 3 | 2, len], value].concat()
    };
    let call = |output: &[u8]| [bytes(2, output), bytes(4, b"F"), bytes(7, b"d")].concat();
    let function = [
        bytes(1, b"F"),
        bytes(5, b"y"),
        bytes(7, &call(b"y")),
        bytes(10, b"d"),
    ]
    .concat();
    let graph = [bytes(1, &call(b"z")), bytes(12, &bytes(1, b"z"))].concat();
    let len = u8::try_from(function.len()).unwrap();
    let model = [
        bytes(7, &graph),
        [&[0xca, 1, len], function.as_slice()].concat(),
    ]
    .concat();
    assert_eq!(find(&model), Err(TOO_DEEP));
}
