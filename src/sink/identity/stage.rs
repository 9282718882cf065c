//! The identity of a stage, and what has changed in it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::registry::canonical;

/// The properties of a stage that change rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageIdentity {
    /// The kind of the stage.
    pub kind: String,
    /// The digest over its kind, its options, its model, and the digests of its inputs.
    pub digest: String,
    /// Its parsed options, without those that do not change rows.
    pub options: Map<String, Value>,
    /// The version of the rules for the digest and the options; see [`FINGERPRINT_VERSION`](crate::sink::FINGERPRINT_VERSION).
    #[serde(default)]
    pub version: u32,
    /// Digests of the same stage in this output by other rules or from another spelling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub formers: Vec<String>,
    /// The interpreter with which the current plan reads the records of earlier runs.
    #[serde(skip)]
    pub reader: StageReader,
}

impl StageIdentity {
    /// Whether both are the same stage, possibly with different digests.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest
            || self.formers.contains(&other.digest)
            || other.formers.contains(&self.digest)
    }

    /// Adds another digest of the stage in the output.
    pub(crate) fn add_former(&mut self, digest: &String) {
        if *digest != self.digest && !self.formers.contains(digest) {
            self.formers.push(digest.clone());
        }
    }

    pub(super) fn has_same_options(&self, other: &Self) -> bool {
        let text = |stage: &Self| canonical(&Value::Object(stage.options.clone()));
        text(self) == text(other)
    }

    /// The options of a stage of the plan that are thresholds, as `key=value`.
    pub(crate) fn thresholds(&self) -> Vec<String> {
        let options = self
            .options
            .iter()
            .filter(|(key, _)| self.is_threshold(key));
        options
            .map(|(key, value)| format!("{key}={value}"))
            .collect()
    }

    fn is_threshold(&self, option: &str) -> bool {
        let interpreter = self.reader.interpreter.as_ref();
        interpreter.is_some_and(|interpreter| interpreter.is_threshold(option))
    }

    /// Whether all options but thresholds are those of another stage.
    pub(super) fn differs_only_in_thresholds(&self, other: &Self) -> bool {
        let text = |stage: &Self| {
            let kept = stage
                .options
                .iter()
                .filter(|(key, _)| !self.is_threshold(key));
            let kept: Map<String, Value> = kept
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            canonical(&Value::Object(kept))
        };
        text(self) == text(other)
    }

    pub(super) fn changes(&self, name: &str, found: &Self, changes: &mut Vec<String>) {
        if self.kind != found.kind {
            changes.push(format!(
                "the stage `{name}` was of kind `{}` and is of kind `{}` now",
                found.kind, self.kind
            ));
            return;
        }
        let interpreter = self.reader.interpreter.as_ref();
        let [own, former] = [self, found].map(|stage| {
            let stored = stage.options.clone();
            match interpreter {
                Some(interpreter) => interpreter.with_current_names(stored),
                None => stored,
            }
        });
        let removed = former.keys().filter(|key| !own.contains_key(*key));
        for key in own.keys().chain(removed) {
            let (mine, before) = (own.get(key), former.get(key));
            let text =
                |value: Option<&Value>| value.map_or_else(|| "unset".to_owned(), Value::to_string);
            if mine.map(canonical) != before.map(canonical) {
                changes.push(format!(
                    "`{key}` of the stage `{name}` was {} and is {} now",
                    text(before),
                    text(mine)
                ));
            }
        }
    }
}

/// Interprets the records of earlier runs about a stage of the plan.
pub trait StageInterpreter: Send + Sync {
    /// The names of the input stages.
    fn inputs(&self) -> &[String];

    /// The digest of the stage by the rules before version 1, with its options as written.
    fn former(&self) -> &str;

    /// The options of the plan that change rows, including those inferred from the data.
    fn resolved(&self) -> &Map<String, Value>;

    /// Parses recorded options, with defaults for omitted ones. Returns `None` if they are not
    /// valid for the plan.
    fn parse_recorded(&self, recorded: &StageIdentity) -> Option<Map<String, Value>>;

    /// Parsed options in the form in which the plan records its own options.
    fn as_recorded(
        &self,
        recorded: &StageIdentity,
        understood: Map<String, Value>,
    ) -> Map<String, Value>;

    /// Whether parsed options currently have the same meaning as those of the plan.
    fn is_same(&self, understood: &Map<String, Value>) -> bool;

    /// Whether an option is a threshold on values of records.
    fn is_threshold(&self, option: &str) -> bool;

    /// Stored options under the names that pipelines have.
    fn with_current_names(&self, stored: Map<String, Value>) -> Map<String, Value>;

    /// The digest of the stage by the rules of a version, with these options and these digests of
    /// the inputs.
    fn digest(&self, version: u32, options: &Map<String, Value>, inputs: &[&str])
    -> Option<String>;
}

/// The interpreter of a stage of the plan; `None` for a stage that was read from an output.
#[derive(Clone, Default)]
pub struct StageReader {
    /// The interpreter.
    pub interpreter: Option<Arc<dyn StageInterpreter>>,
}

impl fmt::Debug for StageReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.interpreter.is_some() {
            "Reader"
        } else {
            "none"
        })
    }
}

/// The interpreter is not part of the identity of a stage.
impl PartialEq for StageReader {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
