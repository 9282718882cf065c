//! Who wrote an output, what it holds already, and whether more may be added to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::writer_recognition::StageReader;
use crate::coverage::Coverage;
use crate::error::StageError;
use crate::registry::{self, canonical};
use crate::storage::Location;

/// The version of the rules by which digests are made now: of values as they were understood. Those
/// before it, without a number, made them of options as they were written.
pub const FINGERPRINT_VERSION: u32 = 1;

/// Who wrote a file: goes into every footer, and is checked before more is added.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutputIdentity {
    /// The pipeline's name.
    pub pipeline: String,
    /// The sink's stage name.
    pub stage: String,
    /// Over all that lies upstream of the sink and changes its rows: stages, options, models.
    pub digest: String,
    /// Model name and digest, for each model upstream.
    pub models: BTreeMap<String, String>,
    /// What the digest is over: the stages upstream, by name, and the sink itself.
    pub stages: BTreeMap<String, StageIdentity>,
    /// Of rejects: the sinks that can refuse records, whose rejects are among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sinks: BTreeMap<String, StageIdentity>,
    /// Digests under which the output knows the same writer.
    #[serde(skip)]
    pub formers: Vec<String>,
}

/// A stage, as far as it changes rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageIdentity {
    /// Its kind.
    pub kind: String,
    /// Over its kind, its options, its model, and the digests of its inputs.
    pub digest: String,
    /// Its options as they were understood, without those that change no row.
    pub options: Map<String, Value>,
    /// The version of the rules by which digest and options were made, see [`FINGERPRINT_VERSION`].
    #[serde(default)]
    pub version: u32,
    /// Digests that other rules, or another spelling, gave the same stage in this output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub formers: Vec<String>,
    /// How the plan that runs reads what earlier runs noted of the stage.
    #[serde(skip)]
    pub reader: StageReader,
}

/// What an output holds already.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutputHistory {
    /// Everyone who wrote here, each digest once, and the source rows that their files stand for.
    pub writers: Vec<(OutputIdentity, Coverage)>,
    /// Digests whose rows may lie beside each other here: the user has said so.
    #[serde(default)]
    pub accepted: Vec<String>,
}

impl OutputHistory {
    /// Adds what a file of this writer stands for.
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

    /// Adds what another part of the same output holds.
    pub fn union(&mut self, other: &Self) {
        other
            .writers
            .iter()
            .for_each(|(identity, coverage)| self.add(identity, coverage));
        self.allow_mixing(&other.accepted);
    }

    /// Notes that rows of these digests may lie beside each other.
    pub fn allow_mixing(&mut self, digests: &[String]) {
        let new = digests
            .iter()
            .filter(|digest| !self.accepted.contains(digest))
            .cloned()
            .collect::<Vec<_>>();
        self.accepted.extend(new);
    }

    /// The source rows that are done, whoever did them.
    pub fn coverage(&self) -> Coverage {
        self.coverage_where(|_| true)
    }

    /// The source rows that went through a stage: one of this name, or one that did the same under
    /// another.
    pub fn coverage_of(&self, name: &str, stage: &StageIdentity) -> Coverage {
        let same =
            |identity: &OutputIdentity| identity.stages.values().any(|known| known.is_same(stage));
        self.coverage_where(|identity| identity.stages.contains_key(name) || same(identity))
    }

    /// The source rows whose rejects by a sink are kept, where it holds the rows `held` itself.
    /// Upstream stages are judged on their own, so the sink is identified by its kind and options.
    /// A writer without it is an earlier version, whose sinks refused no row: all rows that the
    /// sink holds of it are covered.
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

    fn coverage_where(&self, counts: impl Fn(&OutputIdentity) -> bool) -> Coverage {
        let mut all = Coverage::default();
        self.writers
            .iter()
            .filter(|(identity, _)| counts(identity))
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

    /// Whether `mine` may add rows to what lies in `folder`.
    ///
    /// The rows of a sink are those of all its stages, so another digest is another output. The
    /// rejects belong to one stage each: there, stages that come and go do no harm, and only one
    /// that is there under both must be the same.
    ///
    /// # Errors
    /// What has changed, and what to do, where it may not.
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
                "{}: holds rows that stage `{}` of pipeline `{}` made otherwise: {}; write to another path, \
                 forget what is there with `latentflow reset`, or mix both with `--allow-change`",
                folder,
                found.stage,
                found.pipeline,
                mine.changes(found),
            ))),
        }
    }
}

impl OutputHistory {
    /// Whether rows of a writer may lie beside others, under its digest or a former one.
    pub fn accepts(&self, writer: &OutputIdentity) -> bool {
        writer
            .digests()
            .iter()
            .any(|digest| self.accepted.contains(digest))
    }

    /// Whether `mine` may add rows although [`OutputHistory::check_compatible`] refuses it.
    pub fn allows(&self, changes: ChangePolicy, mine: &OutputIdentity) -> bool {
        match changes {
            ChangePolicy::Refuse => false,
            ChangePolicy::AllowModels => self.differs_only_in_models(mine),
            ChangePolicy::Allow => true,
        }
    }

    /// Whether what [`OutputHistory::check_compatible`] refuses comes of other models alone: the
    /// same stages, with the same options.
    fn differs_only_in_models(&self, mine: &OutputIdentity) -> bool {
        self.writers
            .iter()
            .all(|(found, _)| mine.is_same(found) || mine.differs_only_in_models(found))
    }
}

/// Which changes of a pipeline are allowed where an output holds rows of the pipeline as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangePolicy {
    /// None of them.
    Refuse,
    /// Other models alone, as a running daemon exchanges them: these were exchanged while no daemon
    /// ran.
    AllowModels,
    /// All of them: old and new rows lie beside each other, and the footer of each file says which
    /// it holds.
    Allow,
}

impl ChangePolicy {
    /// The changes that a run allows: all on request, and other models in a run without an end.
    #[must_use]
    pub fn allowed(on_request: bool, is_endless: bool) -> Self {
        match (on_request, is_endless) {
            (true, _) => Self::Allow,
            (false, true) => Self::AllowModels,
            (false, false) => Self::Refuse,
        }
    }
}

/// What an output's rows depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityScope {
    /// On everything upstream.
    Sink,
    /// Each on one stage, and what lies upstream of it.
    Rejects,
}

/// Changes that are told; the rest are counted.
const MAX_CHANGES: usize = 6;

impl OutputIdentity {
    /// Whether both are one writer, under the same digest or another.
    pub fn is_same(&self, other: &Self) -> bool {
        let stage_by_stage = || {
            let pairs = || {
                self.shared_stages(other)
                    .map(|(_, mine, other)| (mine, other))
            };
            self.stages.keys().eq(other.stages.keys())
                && pairs().all(|(mine, other)| mine.is_same(other))
                // Where none has another digest, something else differs.
                && pairs().any(|(mine, other)| mine.digest != other.digest)
        };
        self.digest == other.digest
            || match (self.last(), other.last()) {
                (Some(mine), Some(other)) => mine.is_same(other),
                (None, None) => stage_by_stage(),
                _ => false,
            }
    }

    /// Whether files of both may become one: the same writer, with all its names.
    pub(super) fn is_one_with(&self, other: &Self) -> bool {
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

    /// The digests under which it is known.
    pub fn digests(&self) -> Vec<String> {
        std::iter::once(&self.digest)
            .chain(&self.formers)
            .cloned()
            .collect()
    }

    /// The stage that stands for all before it: the sink. The rejects, which belong to many stages,
    /// have none.
    fn last(&self) -> Option<&StageIdentity> {
        self.stages
            .values()
            .find(|stage| stage.digest == self.digest)
    }

    /// Takes in the digests that the same writer has elsewhere; what newer rules say of it stands.
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
                    .for_each(|digest| stage.was(digest));
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
                |other: &StageIdentity| stage.kind == other.kind && stage.is_spelled_as(other);
            found.stages.get(name).is_some_and(same)
        };
        self.stages.len() == found.stages.len() && self.stages.iter().all(same)
    }

    /// What differs from an earlier writer, in words.
    fn changes(&self, found: &Self) -> String {
        let mut changes = Vec::new();
        for (name, mine, found) in self.shared_stages(found) {
            mine.changes(name, found, &mut changes);
        }
        let unknown = |stages: &BTreeMap<String, StageIdentity>,
                       others: &BTreeMap<String, StageIdentity>,
                       what: &str| {
            let names = stages.keys().filter(|name| !others.contains_key(*name));
            names
                .map(|name| format!("the stage `{name}` {what}"))
                .collect::<Vec<_>>()
        };
        changes.extend(unknown(&found.stages, &self.stages, "is gone"));
        changes.extend(unknown(&self.stages, &found.stages, "is new"));
        for (name, digest) in &self.models {
            match found.models.get(name) {
                Some(before) if before == digest => {}
                Some(before) => changes.push(format!(
                    "the model `{name}` was {before} and is {digest} now"
                )),
                None => changes.push(format!("the model `{name}` is new")),
            }
        }
        if changes.is_empty() {
            changes.push("its stages feed each other in another order".to_owned());
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
    /// Whether both are the same, under the same digest or another.
    pub fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest
            || self.formers.contains(&other.digest)
            || other.formers.contains(&self.digest)
    }

    /// Notes that the output knows it under another digest.
    pub(super) fn was(&mut self, digest: &String) {
        if *digest != self.digest && !self.formers.contains(digest) {
            self.formers.push(digest.clone());
        }
    }

    fn is_spelled_as(&self, other: &Self) -> bool {
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
        let keys = self.options.keys().chain(
            found
                .options
                .keys()
                .filter(|key| !self.options.contains_key(*key)),
        );
        for key in keys {
            let (mine, before) = (self.options.get(key), found.options.get(key));
            let text =
                |value: Option<&Value>| value.map_or_else(|| "unset".to_owned(), Value::to_string);
            if mine.map(canonical) != before.map(canonical) {
                let key = registry::name_in_files(&self.kind, key);
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

    /// An identity from its stages: name, kind, digest, options.
    fn identity(digest: &str, stages: &[(&str, &str, &str, Value)]) -> OutputIdentity {
        let stage = |(name, kind, digest, options): &(&str, &str, &str, Value)| {
            let options = options.as_object().unwrap().clone();
            let (kind, digest) = ((*kind).to_owned(), (*digest).to_owned());
            (
                (*name).to_owned(),
                StageIdentity {
                    kind,
                    digest,
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
    fn what_has_changed_is_named_down_to_the_option() {
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
                "out: holds rows that stage `out` of pipeline `photos` made otherwise: `fit` of the stage `px` was unset and is \"crop\" now, `size` of the stage `px` was [64,64] and is [32,32] now, the stage `old` is gone; write to another path, forget what is there with `latentflow reset`, or mix both with `--allow-change`"
            ],
        );
    }

    #[test]
    fn digests_that_were_accepted_may_lie_beside_each_other_and_no_third() {
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
    fn rejects_are_judged_stage_by_stage() {
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
    fn rejects_of_a_sink_are_known_by_its_kind_and_options() {
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
        // Rows 0..10 by a program whose sinks refused nothing, 10..20 by one whose do.
        let before = identity("1", &[]);
        let now = OutputIdentity {
            sinks: BTreeMap::from([("out".into(), jpegs.clone())]),
            ..identity("2", &[])
        };
        let history = history(&[&before, &now]);
        let mut held = Coverage::default();
        held.insert(&Provenance::rows(Split::new("s"), 5..30));
        let covered = |sink: &StageIdentity, held: &Coverage| {
            let covered = history.coverage_of_sink(sink, held);
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
