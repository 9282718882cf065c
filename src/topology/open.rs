//! Opens the sinks of a plan, and admits or refuses the outputs of earlier runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::coverage::Coverage;
use crate::error::StageError;
use crate::error::failure::StageFailure;
use crate::plan::pipeline::Plan;
use crate::plan::stage::StageOperator;
use crate::sink::ownership::output_mounts::OutputMounts;
use crate::sink::{ChangePolicy, IdentityScope, OutputHistory, OutputIdentity, Sink, SinkWriter};
use crate::source;
use crate::storage::Location;

pub(super) struct OpenSink {
    pub(super) name: Arc<str>,
    pub(super) stage: Option<usize>,
    pub(super) writer: Box<dyn SinkWriter>,
    /// The sink skips a batch that all of these contain.
    pub(super) committed: Vec<Coverage>,
    pub(crate) durable: bool,
    /// Whether the sink writes to this machine.
    pub(super) is_local: bool,
}

impl OpenSink {
    /// The maximum age of an uncommitted record: the smaller of the pipeline's `age` and the age of
    /// the writer.
    pub(super) fn commit_age(&self, age: Option<Duration>) -> Option<Duration> {
        age.into_iter().chain(self.writer.commit_age()).min()
    }
}

/// Opens the sinks of a run.
pub(super) struct SinkOpener {
    /// The changes that the run allows.
    pub(super) changes: ChangePolicy,
    /// The changes that the rejects allow in every run.
    pub(super) rejects: ChangePolicy,
    pub(super) mounts: OutputMounts,
}

impl SinkOpener {
    /// Opens a sink if it may append to its output, and records the file system of its folder.
    /// `stage` is the index of the stage, `None` for the rejects dataset. Returns the sink without
    /// committed coverage, and the identity with the former digests under which the sink
    /// recognizes the stage.
    pub(super) fn open(
        &self,
        name: Arc<str>,
        stage: Option<usize>,
        sink: Box<dyn Sink>,
        mut identity: OutputIdentity,
    ) -> Result<(OpenSink, OutputHistory, OutputIdentity), StageFailure> {
        let scope = match stage {
            Some(_) => IdentityScope::Sink,
            None => IdentityScope::Rejects,
        };
        let is_durable = sink.folder().is_some();
        let is_local = sink.folder().is_none_or(|folder| folder.local().is_some());
        let local_folder = sink.local_folder();
        let opened = self
            .admit(sink.as_ref(), &mut identity, scope)
            .and_then(|history| Ok((history, sink.open(identity.clone())?)));
        let (history, writer) = opened.map_err(StageFailure::of(&name))?;
        if let Some(folder) = &local_folder {
            self.mounts.record(folder);
        }
        let committed = history.coverage().len();
        tracing::info!(stage = &*name, committed, "sink opened");
        let open_sink = OpenSink {
            name,
            stage,
            writer,
            committed: Vec::new(),
            durable: is_durable,
            is_local,
        };
        Ok((open_sink, history, identity))
    }

    /// Returns the history of a sink if `identity` may append to it. Adds the former digests under
    /// which the sink recognizes the stage to `identity`.
    fn admit(
        &self,
        sink: &dyn Sink,
        identity: &mut OutputIdentity,
        scope: IdentityScope,
    ) -> Result<OutputHistory, StageError> {
        let folder = sink
            .folder()
            .unwrap_or_else(|| Location::Local(PathBuf::new()));
        if let Some(local) = sink.local_folder() {
            self.mounts.check(&local)?;
        }
        let own = match scope {
            IdentityScope::Sink => sink.change_policy(),
            IdentityScope::Rejects => self.rejects,
        };
        let changes = self.changes.max(own);
        let mut history = sink.history()?;
        history.recognize(identity);
        let admitted = history.check_compatible(&folder, identity, scope);
        if admitted.is_ok() || history.allows(changes, identity) {
            sink.check_columns()?;
        }
        match admitted {
            // An identity that is accepted under a former digest is also accepted under this one.
            Ok(()) if history.accepts(identity) && !history.accepted.contains(&identity.digest) => {
                sink.allow_mixing(&identity.digests())?;
            }
            Ok(()) => {}
            Err(_) if history.allows(changes, identity) => {
                sink.allow_mixing(&[history.digests(), identity.digests()].concat())?;
            }
            Err(refused) => return Err(refused),
        }
        Ok(history)
    }
}

/// Accepts the folders of a plan in their present state: deletes the records of earlier runs about
/// the file systems of these folders.
///
/// # Errors
/// When a record cannot be deleted.
pub(crate) fn start_over(plan: &Plan) -> Result<(), StageError> {
    let mounts = plan.output_mounts();
    let rejects = plan.rejects.as_ref().and_then(|(sink, _)| sink.folder());
    for folder in plan.folders().into_iter().flatten().chain(rejects) {
        folder
            .local()
            .map_or(Ok(()), |folder| mounts.remove_record(folder))?;
    }
    let sources = plan
        .stages
        .iter()
        .filter(|stage| matches!(stage.operator, StageOperator::Source(..)));
    let state = plan.state.as_ref();
    sources
        .zip(state.into_iter().cycle())
        .try_for_each(|(stage, state)| source::discovery::accept_folder(&stage.name, state))
}

/// The distinct coverages of the durable sinks. A sink without durability (`stdout`) is left out,
/// so that it does not make a source read all records again. If no other sink is durable, the
/// rejects dataset alone must not make a source skip records; the list is then empty.
pub(super) fn durable_coverage(sinks: &[OpenSink]) -> Vec<Coverage> {
    let durable = sinks.iter().filter(|sink| sink.durable);
    if durable.clone().all(|sink| sink.stage.is_none()) {
        return Vec::new();
    }
    let mut coverages: Vec<Coverage> = Vec::new();
    for coverage in durable.flat_map(|sink| &sink.committed) {
        if !coverages.contains(coverage) {
            coverages.push(coverage.clone());
        }
    }
    coverages
}
