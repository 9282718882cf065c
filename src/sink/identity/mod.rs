//! The identity of an output's writers, and the check whether a run may append to the output.

pub mod history;
pub mod stage;
pub(crate) mod writer_recognition;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::sink::identity::stage::StageIdentity;

/// The current version of the digest rules, which digest the parsed values of options. The rules
/// before version 1, which are recorded without a number, digested options as written.
pub(crate) const FINGERPRINT_VERSION: u32 = 1;

/// The writer of a file. It is part of every footer, and is checked before a run appends to an
/// output.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutputIdentity {
    /// The name of the pipeline.
    pub pipeline: String,
    /// The name of the sink's stage.
    pub stage: String,
    /// The digest over everything upstream that changes rows: stages, options, models.
    pub digest: String,
    /// The digest of each model upstream by its name.
    pub models: BTreeMap<String, String>,
    /// The content of the digest: the upstream stages and the sink by their names.
    pub stages: BTreeMap<String, StageIdentity>,
    /// For rejects: the sinks that can reject records.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sinks: BTreeMap<String, StageIdentity>,
    /// Other digests of the same writer in the output.
    #[serde(skip)]
    pub formers: Vec<String>,
}

/// The changes of a pipeline that are allowed for an output with rows of the earlier pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangePolicy {
    /// No changes.
    Refuse,
    /// Only other models. A running daemon replaces them by hot reload; this allows the same
    /// replacement while the daemon does not run.
    AllowModels,
    /// Other models, other statistics of their cards, and other thresholds. The option `on_change` of
    /// a sink allows them.
    AllowModelsAndThresholds,
    /// All changes. The output then has old and new rows, which the footer of each file identifies.
    Allow,
}

impl ChangePolicy {
    /// The policy of a run: all changes on request, and other models in a run without an end.
    #[must_use]
    pub fn allowed(on_request: bool, is_endless: bool) -> Self {
        match (on_request, is_endless) {
            (true, _) => Self::Allow,
            (false, true) => Self::AllowModels,
            (false, false) => Self::Refuse,
        }
    }
}

/// The stages that the rows of an output depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityScope {
    /// All upstream stages.
    Sink,
    /// For each row one stage and the stages upstream of it.
    Rejects,
}

/// Maximum number of changes that a message lists. The others are counted.
const MAX_CHANGES: usize = 6;

impl OutputIdentity {
    /// Whether both are the same writer, possibly with different digests.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let stage_by_stage = || {
            let pairs = || {
                self.shared_stages(other)
                    .map(|(_, mine, theirs)| (mine, theirs))
            };
            self.stages.keys().eq(other.stages.keys())
                && pairs().all(|(mine, theirs)| mine.is_same(theirs))
                // If all digests are equal, another property differs.
                && pairs().any(|(mine, theirs)| mine.digest != theirs.digest)
        };
        self.digest == other.digest
            || match (self.last(), other.last()) {
                (Some(mine), Some(other)) => mine.is_same(other),
                (None, None) => stage_by_stage(),
                _ => false,
            }
    }

    /// Whether files of both may be merged: they are the same writer with the same names.
    pub(crate) fn can_merge_with(&self, other: &Self) -> bool {
        let names = |identity: &'_ Self| {
            (
                identity.pipeline.clone(),
                identity.stage.clone(),
                identity.models.clone(),
            )
        };
        self.is_same(other)
            && names(self) == names(other)
            && self.stages.keys().eq(other.stages.keys())
    }

    /// The digest and the former digests.
    pub fn digests(&self) -> Vec<String> {
        std::iter::once(&self.digest)
            .chain(&self.formers)
            .cloned()
            .collect()
    }

    /// The stage whose digest is that of the identity: the sink. `None` for rejects, which belong
    /// to many stages.
    fn last(&self) -> Option<&StageIdentity> {
        self.stages
            .values()
            .find(|stage| stage.digest == self.digest)
    }

    /// Adds the digests of the same writer from another record. The stages of the newer rules are
    /// kept.
    pub(crate) fn absorb(&mut self, other: &Self) {
        if self.stages == other.stages {
            return;
        }
        let version = |identity: &Self| identity.stages.values().map(|stage| stage.version).max();
        let older = if version(other) > version(self) {
            std::mem::replace(self, other.clone())
        } else {
            other.clone()
        };
        for (name, stage) in &mut self.stages {
            if let Some(older) = older.stages.get(name).filter(|older| stage.is_same(older)) {
                std::iter::once(&older.digest)
                    .chain(&older.formers)
                    .for_each(|digest| stage.add_former(digest));
            }
        }
    }

    fn shared_stages<'a>(
        &'a self,
        found: &'a Self,
    ) -> impl Iterator<Item = (&'a String, &'a StageIdentity, &'a StageIdentity)> {
        self.stages
            .iter()
            .filter_map(|(name, mine)| Some((name, mine, found.stages.get(name)?)))
    }

    /// Whether both have the same stages with the same options, so that their models differ, or the
    /// statistics in the cards of the models.
    fn differs_only_in_models(&self, found: &Self) -> bool {
        self.has_stages(found, StageIdentity::has_same_options)
    }

    /// As [`Self::differs_only_in_models`], with any thresholds.
    fn differs_only_in_models_and_thresholds(&self, found: &Self) -> bool {
        self.has_stages(found, StageIdentity::differs_only_in_thresholds)
    }

    /// Whether both have the same stages of the same kinds, with options that `is_same` accepts.
    fn has_stages(
        &self,
        found: &Self,
        is_same: fn(&StageIdentity, &StageIdentity) -> bool,
    ) -> bool {
        let same = |(name, stage): (&String, &StageIdentity)| {
            let same = |other: &StageIdentity| stage.kind == other.kind && is_same(stage, other);
            found.stages.get(name).is_some_and(same)
        };
        self.stages.len() == found.stages.len() && self.stages.iter().all(same)
    }

    /// The text of the differences from an earlier writer.
    fn changes(&self, found: &Self) -> String {
        let mut changes = Vec::new();
        for (name, mine, before) in self.shared_stages(found) {
            mine.changes(name, before, &mut changes);
        }
        let missing = |stages: &BTreeMap<String, StageIdentity>,
                       others: &BTreeMap<String, StageIdentity>,
                       change: &str| {
            let names = stages.keys().filter(|name| !others.contains_key(*name));
            names
                .map(|name| format!("the stage `{name}` was {change}"))
                .collect::<Vec<_>>()
        };
        changes.extend(missing(&found.stages, &self.stages, "removed"));
        changes.extend(missing(&self.stages, &found.stages, "added"));
        for (name, digest) in &self.models {
            match found.models.get(name) {
                Some(before) if before == digest => {}
                Some(before) => changes.push(format!(
                    "the model `{name}` was {before} and is {digest} now"
                )),
                None => changes.push(format!("the model `{name}` was added")),
            }
        }
        if changes.is_empty() {
            changes.push("the inputs of its stages were changed".to_owned());
        }
        let more = changes.len().saturating_sub(MAX_CHANGES);
        changes.truncate(MAX_CHANGES);
        if more > 0 {
            changes.push(format!("and {more} more"));
        }
        changes.join(", ")
    }
}

#[cfg(test)]
mod tests;
