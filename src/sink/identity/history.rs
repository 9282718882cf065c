//! The history of an output: its writers, and the source rows of each.

use serde::{Deserialize, Serialize};

use crate::coverage::Coverage;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::sink::identity::stage::StageIdentity;
use crate::sink::identity::{ChangePolicy, IdentityScope, OutputIdentity};
use crate::storage::Location;

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
    pub(crate) fn allow_mixing(&mut self, digests: &[String]) {
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
    pub(crate) fn coverage_of(&self, name: &str, stage: &StageIdentity) -> Coverage {
        let same =
            |identity: &OutputIdentity| identity.stages.values().any(|known| known.is_same(stage));
        self.coverage_where(|identity| identity.stages.contains_key(name) || same(identity))
    }

    /// The source rows whose rejects by a sink are stored, for a sink that has committed the rows
    /// `held`. Upstream stages are compared separately, so the sink is identified by its kind and
    /// options. A writer without the sink is an earlier version, whose sinks did not reject
    /// records: all of its rows that the sink holds are covered.
    pub(crate) fn coverage_of_sink(&self, sink: &StageIdentity, held: &Coverage) -> Coverage {
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
            Some(found) => {
                let is_option = scope == IdentityScope::Sink
                    && mine.differs_only_in_models_and_thresholds(found);
                let option = match is_option {
                    true => ", or continue with `on_change = \"continue\"` of the sink `parquet`",
                    false => "",
                };
                Err(StageError::new(
                    ErrorCode::OutputChanged,
                    format!(
                        "{}: was written with a different configuration (stage `{}` of pipeline `{}`): \
                         {}; use another path, delete the rows with `latentflow reset`, or allow both \
                         with `--allow-change`{option}",
                        folder,
                        found.stage,
                        found.pipeline,
                        mine.changes(found),
                    ),
                ))
            }
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
            ChangePolicy::AllowModels => {
                self.all_writers(mine, OutputIdentity::differs_only_in_models)
            }
            ChangePolicy::AllowModelsAndThresholds => {
                self.all_writers(mine, OutputIdentity::differs_only_in_models_and_thresholds)
            }
            ChangePolicy::Allow => true,
        }
    }

    /// Whether all writers are the same as `mine`, or `mine` is related to them.
    fn all_writers(
        &self,
        mine: &OutputIdentity,
        is_related: fn(&OutputIdentity, &OutputIdentity) -> bool,
    ) -> bool {
        self.writers
            .iter()
            .all(|(found, _)| mine.is_same(found) || is_related(mine, found))
    }
}
