//! The identity of a stage: its options that change rows, in one form, compared with the options
//! that earlier runs noted.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::fingerprint::{self, FingerprintInput};
use super::fingerprint_v0;
use crate::registry::{OptionAttributes, canonical};
use crate::sink::{FINGERPRINT_VERSION, StageIdentity, StageInterpreter, StageReader};
use crate::storage::{is_url, tidy};

/// Plans the stage once more with other options, for their values.
pub(super) type ResolveOptions =
    Box<dyn Fn(Map<String, Value>) -> Option<Map<String, Value>> + Send + Sync>;

/// A stage as it was planned.
pub(super) struct PlannedStage {
    /// A source's name; empty for others.
    pub(super) name: String,
    pub(super) kind: &'static str,
    /// The names of the stages that it takes records from.
    pub(super) inputs: Vec<String>,
    /// The digest of its model; empty where it has none.
    pub(super) model: String,
    /// What its rows depend on beside its options, inputs and model.
    pub(super) known: Option<String>,
    /// What its kind declares of each option.
    pub(super) declared: BTreeMap<String, OptionAttributes>,
    /// Its options as they are written, but for those that all stages of its role have.
    pub(super) written: Map<String, Value>,
    pub(super) resolve: ResolveOptions,
}

impl PlannedStage {
    /// Returns the identity of the stage: from its planned options, and from the digests of its
    /// inputs by the current and former rules.
    pub(super) fn identity(
        self,
        options: Map<String, Value>,
        inputs: &[&str],
        formers: &[&str],
    ) -> IdentifiedStage {
        let resolved = self.that_change_rows(options);
        let options = self.as_noted(resolved.clone(), &self.written);
        let digest = self
            .digest_by(FINGERPRINT_VERSION, &options, inputs)
            .unwrap_or_default();
        let counted = fingerprint_v0::options(&self.written, !self.name.is_empty());
        let counted = counted
            .into_iter()
            .filter(|(key, _)| self.changes_rows(key))
            .collect();
        let former = self.digest_by(0, &counted, formers).unwrap_or_default();
        let (kind, reading) = (
            self.kind.to_owned(),
            PlannedStageInterpreter {
                stage: self,
                resolved,
                former: former.clone(),
            },
        );
        let reader = StageReader(Some(Arc::new(reading)));
        let stage = StageIdentity {
            kind,
            digest,
            options,
            version: FINGERPRINT_VERSION,
            formers: Vec::new(),
            reader,
        };
        IdentifiedStage { stage, former }
    }

    fn digest_by(
        &self,
        version: u32,
        options: &Map<String, Value>,
        inputs: &[&str],
    ) -> Option<String> {
        let Self {
            name,
            kind,
            model,
            known,
            ..
        } = self;
        fingerprint::of_stage(
            version,
            &FingerprintInput {
                name,
                kind,
                options,
                model,
                known: known.as_deref(),
            },
            inputs,
        )
    }

    /// What a kind does not declare counts, to be safe.
    fn changes_rows(&self, option: &str) -> bool {
        self.declared
            .get(option)
            .is_none_or(|declared| declared.changes_rows != Some(false))
    }

    fn that_change_rows(&self, options: Map<String, Value>) -> Map<String, Value> {
        let counted = options
            .into_iter()
            .filter(|(key, _)| self.changes_rows(key));
        counted
            .map(|(key, value)| (key.clone(), self.path(&key, value, &tidy)))
            .collect()
    }

    /// Options as outputs note them: what was taken from the data is as it was `given`, since other
    /// data may come. Files of an output then differ where the data does, and are not refused for
    /// it.
    fn as_noted(
        &self,
        options: Map<String, Value>,
        given: &Map<String, Value>,
    ) -> Map<String, Value> {
        let is_inferred = |key: &str| {
            self.declared
                .get(key)
                .is_some_and(|declared| declared.is_inferred)
        };
        let kept = options.into_iter().filter(|(key, _)| !is_inferred(key));
        let given = given
            .iter()
            .filter(|(key, value)| is_inferred(key) && !value.is_null());
        kept.chain(given.map(|(key, value)| (key.clone(), value.clone())))
            .collect()
    }

    /// A value, by way of `form` where the option is a path.
    fn path(&self, key: &str, value: Value, form: &dyn Fn(&str) -> String) -> Value {
        let is_path = self
            .declared
            .get(key)
            .is_some_and(|declared| declared.is_path);
        match value {
            Value::String(path) if is_path => Value::String(form(&path)),
            other => other,
        }
    }
}

/// A stage, and the digest that it had by the former rules.
pub(super) struct IdentifiedStage {
    pub(super) stage: StageIdentity,
    pub(super) former: String,
}

struct PlannedStageInterpreter {
    stage: PlannedStage,
    /// The plan's options that change rows, those too that were taken from the data.
    resolved: Map<String, Value>,
    former: String,
}

impl StageInterpreter for PlannedStageInterpreter {
    fn inputs(&self) -> &[String] {
        &self.stage.inputs
    }

    fn former(&self) -> &str {
        &self.former
    }

    fn resolved(&self) -> &Map<String, Value> {
        &self.resolved
    }

    fn understand(&self, noted: &StageIdentity) -> Option<Map<String, Value>> {
        let ours = self
            .stage
            .written
            .iter()
            .filter(|(key, _)| !self.stage.changes_rows(key));
        let options = ours
            .chain(&noted.options)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let understood =
            (self.stage.resolve)(options).map(|options| self.stage.that_change_rows(options));
        // What was understood once needs no plan.
        understood.or_else(|| (noted.version > 0).then(|| noted.options.clone()))
    }

    fn as_noted(
        &self,
        noted: &StageIdentity,
        understood: Map<String, Value>,
    ) -> Map<String, Value> {
        self.stage.as_noted(understood, &noted.options)
    }

    fn is_same(&self, other: &Map<String, Value>) -> bool {
        let form = |options: &Map<String, Value>| -> String {
            let absolute = options
                .iter()
                .map(|(key, value)| (key.clone(), self.stage.path(key, value.clone(), &absolute)));
            canonical(&Value::Object(absolute.collect()))
        };
        form(&self.resolved) == form(other)
    }

    fn digest(
        &self,
        version: u32,
        options: &Map<String, Value>,
        inputs: &[&str],
    ) -> Option<String> {
        self.stage.digest_by(version, options, inputs)
    }
}

/// Where a tidy path leads from the working folder.
fn absolute(path: &str) -> String {
    match std::path::absolute(Path::new(path)) {
        Ok(absolute) if !is_url(path) => tidy(&absolute.to_string_lossy()),
        _ => path.to_owned(),
    }
}
