//! The identity of a stage: its resolved options that change rows, to be compared with the options
//! that earlier runs recorded.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{fingerprint, fingerprint_v0};
use crate::plan::fingerprint_input::FingerprintInput;
use crate::registry::{OptionAttributes, RenamedKeys, canonical};
use crate::sink::{FINGERPRINT_VERSION, StageIdentity, StageInterpreter, StageReader};
use crate::storage::{is_url, tidy};

/// Plans a stage again with other options and returns the resolved options.
pub(super) type ResolveOptions =
    Box<dyn Fn(Map<String, Value>) -> Option<Map<String, Value>> + Send + Sync>;

/// The facts of a planned stage that its identity depends on.
pub(super) struct PlannedStage {
    /// The name of a source; empty for other stages.
    pub(super) name: String,
    pub(super) kind: &'static str,
    /// The names of the input stages.
    pub(super) inputs: Vec<String>,
    /// The digest of the model; empty for a stage without a model.
    pub(super) model: String,
    /// Facts on which the rows depend in addition to options, inputs and model.
    pub(super) dependency: Option<String>,
    /// The attributes of each option, as declared by the kind.
    pub(super) declared: BTreeMap<String, OptionAttributes>,
    /// The keys that were renamed since earlier versions, as declared by the kind.
    pub(super) renamed: RenamedKeys,
    /// The options as written, except for those that all stages of the role have.
    pub(super) written: Map<String, Value>,
    pub(super) resolve: ResolveOptions,
}

impl PlannedStage {
    /// Returns the identity of the stage from its resolved options and from the digests of its
    /// inputs, by the current rules (`inputs`) and by version 0 (`formers`).
    pub(super) fn identity(
        self,
        options: Map<String, Value>,
        inputs: &[&str],
        formers: &[&str],
    ) -> IdentifiedStage {
        let resolved = self.row_changing(options);
        let recorded = self.recorded_options(resolved.clone(), &self.written);
        let digest = self
            .digest_by(FINGERPRINT_VERSION, &recorded, inputs)
            .unwrap_or_default();
        let counted = fingerprint_v0::options(&self.written, !self.name.is_empty());
        let counted = counted.into_iter().chain(self.changed_defaults(&resolved));
        let counted = counted.filter(|(key, _)| self.changes_rows(key)).collect();
        let former = self.digest_by(0, &counted, formers).unwrap_or_default();
        let (kind, reading) = (
            self.kind.to_owned(),
            PlannedStageInterpreter {
                stage: self,
                resolved,
                former: former.clone(),
            },
        );
        let reader = StageReader {
            interpreter: Some(Arc::new(reading)),
        };
        let stage = StageIdentity {
            kind,
            digest,
            options: recorded,
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
            dependency,
            ..
        } = self;
        fingerprint::of_stage(
            version,
            &FingerprintInput {
                name,
                kind,
                options,
                model,
                dependency: dependency.as_deref(),
            },
            inputs,
        )
    }

    /// Whether an option changes rows. An undeclared option is assumed to change them.
    fn changes_rows(&self, option: &str) -> bool {
        self.declared
            .get(option)
            .is_none_or(|declared| declared.changes_rows != Some(false))
    }

    /// The values of options for outputs of earlier versions that do not record them.
    fn former_defaults(&self) -> impl Iterator<Item = (&String, &Value)> {
        let options = self.declared.iter();
        options.filter_map(|(key, option)| Some((key, option.former_default.as_ref()?)))
    }

    /// The options that were not written, and whose default was another one in earlier versions.
    fn changed_defaults(&self, resolved: &Map<String, Value>) -> Vec<(String, Value)> {
        let changed = self.former_defaults().filter_map(|(key, former)| {
            let value = resolved.get(key).filter(|value| *value != former)?;
            (!self.written.contains_key(key)).then(|| (key.clone(), value.clone()))
        });
        changed.collect()
    }

    /// Returns the options that change rows, with normalized paths.
    fn row_changing(&self, options: Map<String, Value>) -> Map<String, Value> {
        let counted = options
            .into_iter()
            .filter(|(key, _)| self.changes_rows(key));
        counted
            .map(|(key, value)| (key.clone(), self.path(&key, value, &tidy)))
            .collect()
    }

    /// Returns the options that an output records: options that were inferred from the data are
    /// recorded as `given`, because later data may differ. The files of an output may then differ
    /// with the data and are not refused.
    fn recorded_options(
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

    /// Converts the value of an option with `convert` if the option is a path.
    fn path(&self, key: &str, value: Value, convert: &dyn Fn(&str) -> String) -> Value {
        let is_path = self
            .declared
            .get(key)
            .is_some_and(|declared| declared.is_path);
        match value {
            Value::String(path) if is_path => Value::String(convert(&path)),
            other => other,
        }
    }
}

/// A stage and its digest by version 0.
pub(super) struct IdentifiedStage {
    pub(super) stage: StageIdentity,
    pub(super) former: String,
}

struct PlannedStageInterpreter {
    stage: PlannedStage,
    /// The resolved options that change rows, including those that were inferred from the data.
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

    fn with_current_names(&self, stored: Map<String, Value>) -> Map<String, Value> {
        self.stage.renamed.current(stored)
    }

    fn is_threshold(&self, option: &str) -> bool {
        let declared = self.stage.declared.get(option);
        declared.is_some_and(|declared| declared.is_threshold)
    }

    fn resolved(&self) -> &Map<String, Value> {
        &self.resolved
    }

    fn parse_recorded(&self, recorded: &StageIdentity) -> Option<Map<String, Value>> {
        let neutral = self
            .stage
            .written
            .iter()
            .filter(|(key, _)| !self.stage.changes_rows(key));
        let options = self
            .stage
            .former_defaults()
            .chain(neutral)
            .chain(&recorded.options)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let resolved =
            (self.stage.resolve)(options).map(|options| self.stage.row_changing(options));
        // From version 1 on, the recorded options are already resolved.
        resolved.or_else(|| (recorded.version > 0).then(|| recorded.options.clone()))
    }

    fn as_recorded(
        &self,
        recorded: &StageIdentity,
        resolved: Map<String, Value>,
    ) -> Map<String, Value> {
        self.stage.recorded_options(resolved, &recorded.options)
    }

    fn is_same(&self, other: &Map<String, Value>) -> bool {
        let canonical_form = |options: &Map<String, Value>| -> String {
            let absolute = options
                .iter()
                .map(|(key, value)| (key.clone(), self.stage.path(key, value.clone(), &absolute)));
            canonical(&Value::Object(absolute.collect()))
        };
        canonical_form(&self.resolved) == canonical_form(other)
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

/// Resolves a normalized path against the working folder; a URL stays as it is.
fn absolute(path: &str) -> String {
    match std::path::absolute(Path::new(path)) {
        Ok(absolute) if !is_url(path) => tidy(&absolute.to_string_lossy()),
        _ => path.to_owned(),
    }
}
