//! The card of a trained model.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::model::card::{ModelCard, TrainingSummary};
use crate::train::export::TrainingOutcome;
use crate::train::sequential::Sequential;

pub(super) fn card(outcome: &TrainingOutcome<'_>, files: BTreeMap<String, String>) -> ModelCard {
    let (head, data) = (&outcome.file.head, &outcome.file.data);
    let architecture = outcome
        .declared
        .network
        .chains()
        .into_iter()
        .flat_map(Sequential::describe)
        .collect();
    let multiple = outcome.declared.network.size_multiple();
    ModelCard {
        name: head.name.clone(),
        kind: head.kind.describe(),
        description: head.description.clone(),
        code_size: head.code_size,
        multiple: (multiple > 1).then_some(multiple),
        loss: outcome.declared.loss,
        input: outcome.input.clone(),
        reconstruction_error: None,
        previous_reconstruction_error: Vec::new(),
        training: Some(TrainingSummary {
            data: data.description.clone(),
            license: data.license.clone(),
            rejects: outcome.data.left_out.0,
            nulls: outcome.data.left_out.1.clone(),
            data_digest: format!(
                "sha256:{}",
                outcome.data.digest.trim_start_matches("sha256:")
            ),
            architecture,
            hyperparameters: hyperparameters(outcome),
            file: portable(outcome.file.written.clone()),
        }),
        metrics: BTreeMap::new(),
        files,
    }
}

fn hyperparameters(outcome: &TrainingOutcome<'_>) -> BTreeMap<String, Value> {
    let (training, position) = (&outcome.file.training, outcome.position);
    let mut all = BTreeMap::from([
        ("optimizer".to_owned(), json!(training.optimizer)),
        ("learning_rate".to_owned(), json!(training.learning_rate)),
        ("schedule".to_owned(), json!(training.schedule)),
        ("batch_size".to_owned(), json!(outcome.schedule.batch_size)),
        ("warmup".to_owned(), json!(outcome.schedule.warmup)),
        ("epochs".to_owned(), json!(position.epoch)),
        ("steps".to_owned(), json!(position.step)),
        ("seconds".to_owned(), json!(position.seconds.round())),
        ("seed".to_owned(), json!(outcome.file.head.seed)),
        ("parameters".to_owned(), json!(outcome.parameters)),
        ("training_records".to_owned(), json!(outcome.data.training)),
        (
            "validation_records".to_owned(),
            json!(outcome.data.validation.len()),
        ),
    ]);
    if let Some(sparsity) = &outcome.file.sparsity {
        all.insert("sparsity".to_owned(), json!(sparsity));
    }
    if !outcome.data.augmentation.corruption.is_empty() {
        let each: Vec<String> = outcome
            .data
            .augmentation
            .corruption
            .iter()
            .map(|one| one.summary())
            .collect();
        all.insert("corruption".to_owned(), json!(each));
    }
    all
}

/// Returns the training file without the location of the data, which is specific to this machine,
/// and without nulls.
fn portable(mut written: Value) -> Value {
    if let Some(data) = written.get_mut("data").and_then(Value::as_object_mut) {
        data.remove("root");
    }
    without_nulls(written)
}

/// Removes nulls, which TOML does not support.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(table) => {
            let kept = table.into_iter().filter(|(_, nested)| !nested.is_null());
            Value::Object(
                kept.map(|(key, nested)| (key, without_nulls(nested)))
                    .collect(),
            )
        }
        Value::Array(values) => Value::Array(values.into_iter().map(without_nulls).collect()),
        value => value,
    }
}

/// Rounds to seven significant digits, the precision of float32.
pub(super) fn round(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}
