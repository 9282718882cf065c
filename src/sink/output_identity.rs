//! The identity of an output's writers, and the check whether a run may append to the output.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::writer_recognition::StageReader;
use crate::coverage::Coverage;
use crate::error::StageError;
use crate::registry::{self, canonical};
use crate::storage::Location;

/// The current version of the digest rules, which digest the parsed values of options. The rules
/// before version 1, which are recorded without a number, digested options as written.
pub const FINGERPRINT_VERSION: u32 = 1;

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

/// The properties of a stage that change rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageIdentity {
    /// The kind of the stage.
    pub kind: String,
    /// The digest over its kind, its options, its model, and the digests of its inputs.
    pub digest: String,
    /// Its parsed options, without those that do not change rows.
    pub options: Map<String, Value>,
    /// The version of the rules for the digest and the options; see [`FINGERPRINT_VERSION`].
    #[serde(default)]
    pub version: u32,
    /// Digests of the same stage in this output by other rules or from another spelling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub formers: Vec<String>,
    /// The interpreter with which the current plan reads the records of earlier runs.
    #[serde(skip)]
    pub reader: StageReader,
}

/// The writers and the rows of an output.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutputHistory {
    /// All writers, each digest once, with the source rows of their files.
    pub writers: Vec<(OutputIdentity, Coverage)>,
    /// Digests that the user has allowed together in this output.
    #[serde(default)]
    pub accepted: Vec<String>,
}

impl OutputHistory {
    /// Adds the source rows of a file of this writer.
    pub fn add(&mut self, identity: &OutputIdentity, coverage: &Coverage) {
        match self
            .writers
            .iter_mut()
            .find(|(known, _)| known.is_same(identity))
        {
            Some((known, covered)) => {
                known.absorb(identity);
                covered.union(coverage);
            }
            None => self.writers.push((identity.clone(), coverage.clone())),
        }
    }

    /// Adds the history of another part of the same output.
    pub fn union(&mut self, other: &Self) {
        other
            .writers
            .iter()
            .for_each(|(identity, coverage)| self.add(identity, coverage));
        self.allow_mixing(&other.accepted);
    }

    /// Allows rows of these digests together in the output.
    pub fn allow_mixing(&mut self, digests: &[String]) {
        let new = digests
            .iter()
            .filter(|digest| !self.accepted.contains(digest))
            .cloned()
            .collect::<Vec<_>>();
        self.accepted.extend(new);
    }

    /// The committed source rows of all writers.
    pub fn coverage(&self) -> Coverage {
        self.coverage_where(|_| true)
    }

    /// The source rows that were processed by a stage: one with this name, or an equal one with
    /// another name.
    pub fn coverage_of(&self, name: &str, stage: &StageIdentity) -> Coverage {
        let same =
            |identity: &OutputIdentity| identity.stages.values().any(|known| known.is_same(stage));
        self.coverage_where(|identity| identity.stages.contains_key(name) || same(identity))
    }

    /// The source rows whose rejects by a sink are stored, for a sink that has committed the rows
    /// `held`. Upstream stages are compared separately, so the sink is identified by its kind and
    /// options. A writer without the sink is an earlier version, whose sinks did not reject
    /// records: all of its rows that the sink holds are covered.
    pub fn coverage_of_sink(&self, sink: &StageIdentity, held: &Coverage) -> Coverage {
        let same =
            |known: &StageIdentity| (&known.kind, &known.options) == (&sink.kind, &sink.options);
        let has_sink = |identity: &OutputIdentity| identity.sinks.values().any(same);
        let mut all = self.coverage_where(has_sink);
        all.union(
            &self
                .coverage_where(|identity| !has_sink(identity))
                .intersection(held),
        );
        all
    }

    fn coverage_where(&self, is_counted: impl Fn(&OutputIdentity) -> bool) -> Coverage {
        let mut all = Coverage::default();
        self.writers
            .iter()
            .filter(|(identity, _)| is_counted(identity))
            .for_each(|(_, coverage)| all.union(coverage));
        all
    }

    /// The digests of all writers.
    pub fn digests(&self) -> Vec<String> {
        self.writers
            .iter()
            .map(|(identity, _)| identity.digest.clone())
            .collect()
    }

    /// Checks that `mine` may append to the output in `folder`.
    ///
    /// The rows of a sink depend on all its stages, so a sink with another digest has another
    /// output. A reject depends on a single stage, so stages may be added and removed, and only the
    /// stages of both writers must be equal.
    ///
    /// # Errors
    /// A message with the changes and the possible solutions, if it may not.
    pub fn check_compatible(
        &self,
        folder: &Location,
        mine: &OutputIdentity,
        scope: IdentityScope,
    ) -> Result<(), StageError> {
        let differs = |found: &OutputIdentity| match scope {
            IdentityScope::Sink => !found.is_same(mine),
            IdentityScope::Rejects => mine
                .shared_stages(found)
                .any(|(_, mine, found)| !mine.is_same(found)),
        };
        let refused = |found: &&OutputIdentity| {
            differs(found) && !(self.accepts(found) && self.accepts(mine))
        };
        match self
            .writers
            .iter()
            .map(|(identity, _)| identity)
            .rfind(refused)
        {
            None => Ok(()),
            Some(found) => Err(StageError::Refused(format!(
                "{}: was written with a different configuration (stage `{}` of pipeline `{}`): {}; \
                 use another path, delete the rows with `latentflow reset`, or allow both with \
                 `--allow-change`",
                folder,
                found.stage,
                found.pipeline,
                mine.changes(found),
            ))),
        }
    }
}

impl OutputHistory {
    /// Whether rows of a writer are allowed together with others, by its digest or a former one.
    pub fn accepts(&self, writer: &OutputIdentity) -> bool {
        writer
            .digests()
            .iter()
            .any(|digest| self.accepted.contains(digest))
    }

    /// Whether the policy allows `mine` to append although [`OutputHistory::check_compatible`]
    /// fails.
    pub fn allows(&self, changes: ChangePolicy, mine: &OutputIdentity) -> bool {
        match changes {
            ChangePolicy::Refuse => false,
            ChangePolicy::AllowModels => self.differs_only_in_models(mine),
            ChangePolicy::Allow => true,
        }
    }

    /// Whether all writers differ from `mine` only in models: they have the same stages with the
    /// same options.
    fn differs_only_in_models(&self, mine: &OutputIdentity) -> bool {
        self.writers
            .iter()
            .all(|(found, _)| mine.is_same(found) || mine.differs_only_in_models(found))
    }
}

/// The changes of a pipeline that are allowed for an output with rows of the earlier pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangePolicy {
    /// No changes.
    Refuse,
    /// Only other models. A running daemon replaces them by hot reload; this allows the same
    /// replacement while the daemon does not run.
    AllowModels,
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
    pub fn is_same(&self, other: &Self) -> bool {
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
    pub(super) fn can_merge_with(&self, other: &Self) -> bool {
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
    pub(super) fn absorb(&mut self, other: &Self) {
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

    fn differs_only_in_models(&self, found: &Self) -> bool {
        let same = |(name, stage): (&String, &StageIdentity)| {
            let same =
                |other: &StageIdentity| stage.kind == other.kind && stage.has_same_options(other);
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

impl StageIdentity {
    /// Whether both are the same stage, possibly with different digests.
    pub fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest
            || self.formers.contains(&other.digest)
            || other.formers.contains(&self.digest)
    }

    /// Adds another digest of the stage in the output.
    pub(super) fn add_former(&mut self, digest: &String) {
        if *digest != self.digest && !self.formers.contains(digest) {
            self.formers.push(digest.clone());
        }
    }

    fn has_same_options(&self, other: &Self) -> bool {
        let text = |stage: &Self| canonical(&Value::Object(stage.options.clone()));
        text(self) == text(other)
    }

    fn changes(&self, name: &str, found: &Self, changes: &mut Vec<String>) {
        if self.kind != found.kind {
            changes.push(format!(
                "the stage `{name}` was of kind `{}` and is of kind `{}` now",
                found.kind, self.kind
            ));
            return;
        }
        let [own, former] = [self, found]
            .map(|stage| registry::current_options(&stage.kind, stage.options.clone()));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;
    use crate::batch::{Provenance, Split};

    /// An identity with stages of the given name, kind, digest and options.
    fn identity(digest: &str, stages: &[(&str, &str, &str, Value)]) -> OutputIdentity {
        let stage = |(name, kind, stage_digest, options): &(&str, &str, &str, Value)| {
            let options = options.as_object().unwrap().clone();
            (
                (*name).to_owned(),
                StageIdentity {
                    kind: (*kind).to_owned(),
                    digest: (*stage_digest).to_owned(),
                    options,
                    ..StageIdentity::default()
                },
            )
        };
        OutputIdentity {
            pipeline: "photos".into(),
            stage: "out".into(),
            digest: digest.into(),
            stages: stages.iter().map(stage).collect(),
            ..OutputIdentity::default()
        }
    }

    fn history(writers: &[&OutputIdentity]) -> OutputHistory {
        let mut history = OutputHistory::default();
        for (n, identity) in (0..).zip(writers) {
            let mut coverage = Coverage::default();
            coverage.insert(&Provenance::rows(Split::new("s"), n * 10..n * 10 + 10));
            history.add(identity, &coverage);
        }
        history
    }

    fn folder() -> Location {
        Location::Local("out".into())
    }

    fn refusal(
        history: &OutputHistory,
        mine: &OutputIdentity,
        scope: IdentityScope,
        expected: Expect,
    ) {
        let refusal = history
            .check_compatible(&folder(), mine, scope)
            .map_or_else(|error| error.to_string(), |()| "ok".into());
        expected.assert_eq(&refusal);
    }

    #[test]
    fn refusal_lists_changed_options_and_stages() {
        let before = identity(
            "1",
            &[
                ("in", "images", "a", json!({"path": "x"})),
                ("px", "pixels", "b", json!({"size": [64, 64]})),
                ("old", "filter", "c", json!({})),
            ],
        );
        let now = identity(
            "2",
            &[
                ("in", "images", "a", json!({"path": "x"})),
                (
                    "px",
                    "pixels",
                    "d",
                    json!({"size": [32, 32], "fit": "crop"}),
                ),
            ],
        );
        refusal(
            &history(&[&before]),
            &before,
            IdentityScope::Sink,
            expect!["ok"],
        );
        refusal(
            &history(&[&before]),
            &now,
            IdentityScope::Sink,
            expect![
                "out: was written with a different configuration (stage `out` of pipeline \
                 `photos`): `fit` of the stage `px` was unset and is \"crop\" now, `size` of the \
                 stage `px` was [64,64] and is [32,32] now, the stage `old` was removed; use \
                 another path, delete the rows with `latentflow reset`, or allow both with \
                 `--allow-change`"
            ],
        );
    }

    #[test]
    fn only_accepted_digests_are_allowed_together() {
        let (one, two, three) = (identity("1", &[]), identity("2", &[]), identity("3", &[]));
        let mut history = history(&[&one]);
        history.allow_mixing(&["1".into(), "2".into()]);
        refusal(&history, &two, IdentityScope::Sink, expect!["ok"]);
        assert!(
            history
                .check_compatible(&folder(), &three, IdentityScope::Sink)
                .is_err()
        );
    }

    #[test]
    fn rejects_are_compared_by_stage() {
        let before = identity(
            "1",
            &[
                ("in", "csv", "a", json!({})),
                ("gone", "filter", "b", json!({})),
            ],
        );
        let more = identity(
            "2",
            &[
                ("in", "csv", "a", json!({})),
                ("new", "filter", "c", json!({})),
            ],
        );
        let history = history(&[&before, &more]);
        refusal(&history, &more, IdentityScope::Rejects, expect!["ok"]);
        let other = identity("3", &[("in", "csv", "z", json!({"path": 1}))]);
        assert!(
            history
                .check_compatible(&folder(), &other, IdentityScope::Rejects)
                .is_err()
        );
        let done = |name: &str, stage: &str| history.coverage_of(name, &more.stages[stage]).len();
        assert_eq!(
            [done("in", "in"), done("new", "new"), done("renamed", "new")],
            [20, 10, 10]
        );
        let never = StageIdentity {
            digest: "never".into(),
            ..StageIdentity::default()
        };
        assert_eq!(history.coverage_of("never", &never).len(), 0);
    }

    #[test]
    fn rejects_of_sink_are_identified_by_kind_and_options() {
        let sink = |digest: &str, options: Value| {
            let options = options.as_object().unwrap().clone();
            StageIdentity {
                kind: "images".into(),
                digest: digest.into(),
                options,
                ..StageIdentity::default()
            }
        };
        let jpegs = sink("a", json!({"format": "jpeg"}));
        // Rows 0..10 are of a version whose sinks did not reject records, rows 10..20 of a later
        // one.
        let before = identity("1", &[]);
        let now = OutputIdentity {
            sinks: BTreeMap::from([("out".into(), jpegs.clone())]),
            ..identity("2", &[])
        };
        let history = history(&[&before, &now]);
        let mut held = Coverage::default();
        held.insert(&Provenance::rows(Split::new("s"), 5..30));
        let covered = |stage: &StageIdentity, coverage: &Coverage| {
            let covered = history.coverage_of_sink(stage, coverage);
            covered
                .splits()
                .get("s")
                .map(|rows| rows.ranges().to_vec())
                .unwrap_or_default()
        };
        assert_eq!(covered(&jpegs, &held), vec![5..20]);
        assert_eq!(
            covered(
                &sink("other models", json!({"format": "jpeg"})),
                &Coverage::default()
            ),
            vec![10..20]
        );
        assert_eq!(
            covered(&sink("a", json!({"format": "webp"})), &Coverage::default()),
            vec![]
        );
    }
}
