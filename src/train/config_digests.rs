//! The digests of a training file and its data, by which a training recognizes its checkpoint.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::config::TrainingFile;
use super::network_builder::default_loss;
use super::step_schedule::StepSchedule;
use crate::model::Loss;
use crate::model::input::spec::InputKind;
use crate::registry::{self, canonical};
use crate::train::config::network::{ModelHeader, ModelKinds};
use crate::train::layer_spec::Activation;

/// Digests by which a checkpoint is recognized.
pub(crate) struct ConfigDigests {
    /// Covers everything that the result of a training depends on: the resolved training file
    /// without the locations of the data, and the data.
    pub resolved: String,
    /// Covers the training file as written, which earlier versions use, and the data.
    pub written: String,
    /// Covers the same as `resolved`, except for the number of epochs and the minimum number of steps.
    pub without_epochs: String,
}

impl ConfigDigests {
    /// Computes the digests of a training with records of `kind`, whose digest is `data`.
    pub fn new(file: &TrainingFile, schedule: StepSchedule, kind: InputKind, data: &str) -> Self {
        // Checkpoints of earlier versions have digests over the key names of those versions.
        let without_locations = |options: Value| {
            let mut stored = registry::stored_training_file(options);
            if let Some(table) = stored.get_mut("data").and_then(Value::as_object_mut) {
                table.retain(|key, _| {
                    !matches!(key.as_str(), "root" | "sources" | "description" | "licence")
                });
            }
            stored
        };
        let TrainingFile {
            head,
            input,
            network,
            sparsity,
            corruption,
            training,
            data: table,
            written,
        } = file;
        // Earlier versions chose bce for every network that ends in a sigmoid. A checkpoint with
        // that loss does not belong to a training with another one.
        let is_other_loss = head.loss.is_none()
            && network.output_activation == Some(Activation::Sigmoid)
            && default_loss(file, kind) != Loss::Bce;
        let marker = if is_other_loss { "\nloss mse" } else { "" };
        let head = ModelHeader {
            description: String::new(),
            kind: ModelKinds::Several(head.kind.words().to_vec()),
            ..head.clone()
        };
        let training = schedule.fill_in(training);
        let corruption: Vec<_> = corruption
            .iter()
            .map(|spec| spec.clone().with_defaults())
            .collect();
        let resolved = json!({ "head": head, "input": input, "network": network,
            "sparsity": sparsity, "corruption": corruption, "training": training, "data": table });
        let mut without_epochs = resolved.clone();
        if let Some(options) = without_epochs["training"].as_object_mut() {
            options.remove("epochs");
            options.remove("min_steps");
        }
        let digest = |text: String| {
            let hash = Sha256::digest(format!("{text}\n{data}{marker}"));
            hash.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        Self {
            resolved: digest(canonical(&without_locations(resolved))),
            written: digest(without_locations(written.clone()).to_string()),
            without_epochs: digest(canonical(&without_locations(without_epochs))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn numbers_of_epochs_and_steps_do_not_change_the_training() {
        let digests = |training: &str| {
            let text = format!("kind = 'vanilla'\ncode_size = 2\n[training]\n{training}");
            let file = TrainingFile::read(toml::from_str(&text).unwrap()).unwrap();
            let schedule = StepSchedule {
                batch_size: 16,
                warmup: 0,
            };
            ConfigDigests::new(&file, schedule, InputKind::Features, "data")
        };
        let [one, more, other] = [
            "epochs = 3",
            "epochs = 4\nmin_steps = 90",
            "learning_rate = 0.5",
        ]
        .map(digests);
        assert_eq!(one.without_epochs, more.without_epochs);
        assert_ne!(one.resolved, more.resolved);
        assert_ne!(one.without_epochs, other.without_epochs);
    }
}
