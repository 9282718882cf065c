//! Checks of a plan against the state of earlier runs: outputs with rows of another configuration,
//! disks that are not mounted, and changed inputs.

use std::path::Path;
use std::sync::Arc;

use crate::config::Diagnostics;
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::error::failure::StageFailure;
use crate::plan::pipeline::Plan;
use crate::plan::stage::{Stage, StageOperator};
use crate::sink::ownership::output_mounts::OutputMounts;
use crate::sink::ownership::{shard_claim, shard_marker};
use crate::sink::{ChangePolicy, IdentityScope, OutputIdentity, STATE_DIR, Sink};
use crate::source::Source;
use crate::storage::Location;

impl Plan {
    /// Checks that the input of every source exists and holds a file to read, without a complete
    /// listing.
    ///
    /// # Errors
    /// A fault at the path of each source that would find nothing to read. For a source without an end
    /// it is an error of the environment: its folder may be on a disk that is mounted later.
    pub(crate) fn find_inputs(&self) -> Result<(), Diagnostics> {
        let find = |source: &dyn Source| source.find_inputs(self.state.as_ref());
        let faults: Vec<ConfigError> = self
            .input_faults(&find)
            .map(|(source, fault)| ConfigError {
                is_of_environment: fault.is_of_environment || source.is_unbounded(),
                ..fault
            })
            .collect();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Diagnostics::new(&self.key_spans, faults))
        }
    }

    /// Lists the inputs of every source, so that the plan shows the skipped files. Returns the
    /// inputs that cannot currently be listed.
    ///
    /// # Errors
    /// A fault at the path of each source that would find nothing to read.
    pub(crate) fn list_inputs(&self) -> Result<Vec<ConfigError>, Diagnostics> {
        let list = |source: &dyn Source| source.list_inputs(self.state.as_ref());
        let faults = self.input_faults(&list).map(|(_, fault)| fault);
        let (unavailable, faults): (Vec<ConfigError>, Vec<ConfigError>) =
            faults.partition(|fault| fault.is_of_environment);
        if faults.is_empty() {
            Ok(unavailable)
        } else {
            Err(Diagnostics::new(&self.key_spans, faults))
        }
    }

    /// The name of each source whose inputs differ from the plan, with a sentence for each
    /// difference.
    pub fn notes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.stages.iter().flat_map(|stage| {
            let notes = match &stage.operator {
                StageOperator::Source(source, _) => source.plan_notes(),
                StageOperator::Transform(_) | StageOperator::Sink(..) => &[],
            };
            notes.iter().map(|note| (&*stage.name, note.as_str()))
        })
    }

    /// Returns the sources for which `check` fails, each with the error as a fault at its path.
    fn input_faults(
        &self,
        check: &dyn Fn(&dyn Source) -> Result<(), StageError>,
    ) -> impl Iterator<Item = (&dyn Source, ConfigError)> {
        self.stages
            .iter()
            .filter_map(|stage| match &stage.operator {
                StageOperator::Source(source, _) => {
                    let error = check(source.as_ref()).err()?;
                    let key = format!("stages.{}.path", stage.name);
                    Some((source.as_ref(), ConfigError::from_error(key, &error)))
                }
                StageOperator::Transform(_) | StageOperator::Sink(..) => None,
            })
    }

    /// Checks that the disks to which earlier runs wrote are mounted.
    ///
    /// # Errors
    /// The name of the sink and the missing disk.
    pub(crate) fn check_mounts(&self) -> Result<(), StageFailure> {
        let mounts = self.output_mounts();
        let outputs = self
            .outputs()
            .into_iter()
            .filter_map(|output| Some((output.name, output.sink.local_folder()?)));
        outputs
            .into_iter()
            .try_for_each(|(name, folder)| mounts.check(&folder).map_err(StageFailure::of(&name)))
    }

    /// Checks that no output belongs to another number of shards, or, for a run of a shard, to a
    /// run without shards. Changes nothing.
    ///
    /// # Errors
    /// The name of the sink with a refusal, or another error if an output cannot be
    /// read.
    pub(crate) fn admit_shards(&self) -> Result<(), StageFailure> {
        self.for_folders(&|folder| match self.shard {
            None => shard_marker::check_undivided(folder),
            Some(shard) => shard_claim::parent(folder, shard)
                .map_or(Ok(()), |parent| shard_claim::check_shard(&parent, shard)),
        })
    }

    /// For a run of a shard, records the number of shards in every output. Shards may do so at the
    /// same time.
    ///
    /// # Errors
    /// Those of [`Self::admit_shards`], and an error if an output cannot be written.
    pub(crate) fn claim_shards(&self) -> Result<(), StageFailure> {
        let Some(shard) = self.shard else {
            return Ok(());
        };
        self.for_folders(&|folder| {
            shard_claim::parent(folder, shard)
                .map_or(Ok(()), |parent| shard_claim::claim(&parent, shard))
        })
    }

    /// Calls `check` with the folder of each output.
    fn for_folders(
        &self,
        check: &dyn Fn(&Location) -> Result<(), StageError>,
    ) -> Result<(), StageFailure> {
        self.outputs().into_iter().try_for_each(|output| {
            let checked = output.sink.folder().map_or(Ok(()), |folder| check(&folder));
            checked.map_err(StageFailure::of(&output.name))
        })
    }

    /// Checks that every output accepts rows of this pipeline, except for changes that `changes`
    /// allows. Takes no writer lease.
    ///
    /// # Errors
    /// The name of the sink with a refusal, or another error if an output cannot be
    /// read.
    pub(crate) fn admit_outputs(&self, changes: ChangePolicy) -> Result<(), StageFailure> {
        self.admit_shards()?;
        let rejects = self.change_policy_of_rejects();
        self.outputs().into_iter().try_for_each(|output| {
            let own = match output.scope {
                IdentityScope::Sink => output.sink.change_policy(),
                IdentityScope::Rejects => rejects,
            };
            let named = |error| StageFailure::new(Arc::clone(&output.name), error);
            let Some(folder) = output.sink.folder() else {
                return Ok(());
            };
            let mut history = output.sink.read_history().map_err(named)?;
            let mut identity = output.identity.clone();
            history.recognize(&mut identity);
            match history.check_compatible(&folder, &identity, output.scope) {
                Err(_) if history.allows(changes.max(own), &identity) => Ok(()),
                admitted => admitted,
            }
            .and_then(|()| output.sink.check_columns())
            .map_err(named)
        })
    }

    /// The changes that the rejects allow in every run: those that a sink allows. A reject belongs to
    /// one stage, whose rejects of earlier runs stay.
    pub(crate) fn change_policy_of_rejects(&self) -> ChangePolicy {
        let sinks = self
            .stages
            .iter()
            .filter_map(|stage| match &stage.operator {
                StageOperator::Sink(sink, _) => Some(sink.change_policy()),
                StageOperator::Source(..) | StageOperator::Transform(_) => None,
            });
        sinks.max().unwrap_or(ChangePolicy::Refuse)
    }

    /// Checks that no source would read a file that it refuses, given the current coverage of the
    /// sinks. Takes no writer lease.
    ///
    /// # Errors
    /// The name of the stage with a refusal, or another error if inputs or outputs
    /// cannot be read.
    pub(crate) fn admit_inputs(&self) -> Result<(), StageFailure> {
        let refuses_changes = |stage: &&Stage| match &stage.operator {
            StageOperator::Source(source, _) => source.refuses_changes(),
            StageOperator::Transform(_) | StageOperator::Sink(..) => false,
        };
        if !self.stages.iter().any(|stage| refuses_changes(&stage)) {
            return Ok(());
        }
        let mut sinks = Vec::new();
        for stage in &self.stages {
            if let StageOperator::Sink(sink, _) = &stage.operator
                && sink.folder().is_some()
            {
                sinks.push(
                    sink.read_history()
                        .map_err(StageFailure::of(&stage.name))?
                        .coverage(),
                );
            }
        }
        let progress = ResumeState {
            sinks: Arc::new(sinks),
            state: self.state.clone(),
        };
        for stage in self.stages.iter().filter(refuses_changes) {
            if let StageOperator::Source(source, _) = &stage.operator {
                source
                    .admit_inputs(&progress)
                    .map_err(StageFailure::of(&stage.name))?;
            }
        }
        Ok(())
    }

    /// Checks the shards of the outputs. If an output is in a bucket, also makes the checks in
    /// advance that a run otherwise makes after it has taken the writer leases. The lease of a
    /// bucket stops another run that writes there, which a refused run must not do.
    ///
    /// # Errors
    /// The name of the stage and the reason for which it cannot run.
    pub(crate) fn admit_before_claims(&self, changes: ChangePolicy) -> Result<(), StageFailure> {
        self.admit_shards()?;
        if self
            .outputs()
            .iter()
            .filter_map(|output| output.sink.folder())
            .all(|folder| folder.local().is_some())
        {
            return Ok(());
        }
        self.check_mounts()?;
        self.admit_outputs(changes)?;
        self.admit_inputs()
    }

    /// Returns the record of the disks that hold the outputs.
    #[must_use]
    pub(crate) fn output_mounts(&self) -> OutputMounts {
        let rejects = self.rejects.as_ref().and_then(|(sink, _)| sink.folder());
        let folders = self
            .folders()
            .into_iter()
            .flatten()
            .map(|folder| folder.join(STATE_DIR));
        let folders = self.state.iter().cloned().chain(folders).chain(rejects);
        OutputMounts::new(
            folders
                .filter_map(|folder| folder.local().map(Path::to_path_buf))
                .collect(),
        )
    }

    /// Returns the outputs of the sinks, and then the rejects.
    fn outputs(&self) -> Vec<PlannedOutput<'_>> {
        let sinks = self
            .stages
            .iter()
            .filter_map(|stage| match &stage.operator {
                StageOperator::Sink(sink, identity) => Some(PlannedOutput {
                    name: Arc::clone(&stage.name),
                    sink: sink.as_ref(),
                    identity,
                    scope: IdentityScope::Sink,
                }),
                StageOperator::Source(..) | StageOperator::Transform(_) => None,
            });
        let rejects = self.rejects.iter().map(|(sink, identity)| {
            let name = Arc::from("rejects");
            PlannedOutput {
                name,
                sink: sink.as_ref(),
                identity,
                scope: IdentityScope::Rejects,
            }
        });
        sinks.chain(rejects).collect()
    }
}

/// An output of the plan with the identity that its rows have.
struct PlannedOutput<'a> {
    name: Arc<str>,
    sink: &'a dyn Sink,
    identity: &'a OutputIdentity,
    scope: IdentityScope,
}
