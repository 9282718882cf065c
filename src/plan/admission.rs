//! Whether what earlier runs left admits a plan: outputs that hold other rows, disks that are not
//! mounted, inputs that changed.

use std::path::Path;
use std::sync::Arc;

use super::{Plan, Stage, StageRole};
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::sink::output_mounts::OutputMounts;
use crate::sink::{ChangePolicy, IdentityScope, OutputIdentity, STATE_DIR, Sink};

/// The name of a stage and its error.
type StageFailure = (Arc<str>, StageError);

impl Plan {
    /// Checks that the disks are mounted on which earlier runs wrote.
    ///
    /// # Errors
    /// The sink, and the disk that is missing.
    pub fn check_mounts(&self) -> Result<(), StageFailure> {
        let mounts = self.output_mounts();
        let outputs = self
            .outputs()
            .into_iter()
            .filter_map(|output| Some((output.name, output.sink.local_folder()?)));
        outputs
            .into_iter()
            .try_for_each(|(name, folder)| mounts.check(&folder).map_err(|error| (name, error)))
    }

    /// Checks that every output may take rows of this pipeline, but for those whose changes are
    /// allowed. Claims no folder.
    ///
    /// # Errors
    /// The sink, and [`StageError::Refused`]; others when an output cannot be read.
    pub fn admit_outputs(&self, changes: ChangePolicy) -> Result<(), StageFailure> {
        self.outputs().into_iter().try_for_each(|output| {
            let named = |error| (Arc::clone(&output.name), error);
            let Some(folder) = output.sink.folder() else {
                return Ok(());
            };
            let mut history = output.sink.read_history().map_err(named)?;
            let mut identity = output.identity.clone();
            history.recognize(&mut identity);
            match history.check_compatible(&folder, &identity, output.scope) {
                Err(_) if history.allows(changes, &identity) => Ok(()),
                admitted => admitted.map_err(named),
            }
        })
    }

    /// Checks that no source would read a file that it refuses, by what the sinks have now. Claims
    /// no folder.
    ///
    /// # Errors
    /// The stage, and [`StageError::Refused`]; others when inputs or outputs cannot be read.
    pub fn admit_inputs(&self) -> Result<(), StageFailure> {
        let refusing = |stage: &&Stage| matches!(&stage.role, StageRole::Source(source, _) if source.refuses_changes());
        if !self.stages.iter().any(|stage| refusing(&stage)) {
            return Ok(());
        }
        let mut sinks = Vec::new();
        for stage in &self.stages {
            if let StageRole::Sink(sink, _) = &stage.role
                && sink.folder().is_some()
            {
                sinks.push(
                    sink.read_history()
                        .map_err(|error| (Arc::clone(&stage.name), error))?
                        .coverage(),
                );
            }
        }
        let progress = ResumeState {
            sinks: Arc::new(sinks),
            state: self.state.clone(),
        };
        for stage in self.stages.iter().filter(refusing) {
            if let StageRole::Source(source, _) = &stage.role {
                source
                    .admit_inputs(&progress)
                    .map_err(|error| (Arc::clone(&stage.name), error))?;
            }
        }
        Ok(())
    }

    /// Checks what a run checks after it has claimed its outputs, where one of them lies in a
    /// bucket: the claim stops a run that goes on there, which a run that is refused must not do.
    ///
    /// # Errors
    /// The stage, and why it cannot run.
    pub fn admit_before_claims(&self, changes: ChangePolicy) -> Result<(), StageFailure> {
        if self
            .outputs()
            .iter()
            .filter_map(|output| output.sink.folder())
            .all(|folder| folder.local().is_some())
        {
            return Ok(());
        }
        self.check_mounts()?;
        for stage in &self.stages {
            if let StageRole::Source(source, _) = &stage.role {
                source
                    .find_inputs()
                    .map_err(|error| (Arc::clone(&stage.name), error))?;
            }
        }
        self.admit_outputs(changes)?;
        self.admit_inputs()
    }

    /// The record of the disks that the outputs lie on.
    #[must_use]
    pub fn output_mounts(&self) -> OutputMounts {
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

    /// The sinks, and last the rejects.
    fn outputs(&self) -> Vec<PlannedOutput<'_>> {
        let sinks = self.stages.iter().filter_map(|stage| match &stage.role {
            StageRole::Sink(sink, identity) => Some(PlannedOutput {
                name: Arc::clone(&stage.name),
                sink: sink.as_ref(),
                identity,
                scope: IdentityScope::Sink,
            }),
            StageRole::Source(..) | StageRole::Transform(_) => None,
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

struct PlannedOutput<'a> {
    name: Arc<str>,
    sink: &'a dyn Sink,
    identity: &'a OutputIdentity,
    scope: IdentityScope,
}
