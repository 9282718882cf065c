//! `latentflow check`: the plan, or every fault.

use std::sync::Arc;

use clap::Args;

use super::{Exit, Pipeline, complain, print, stage_error};
use crate::error::StageError;
use crate::machine;
use crate::metrics::Metrics;
use crate::plan;
use crate::sink::Changes;

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    pipeline: Pipeline,
    /// Accept outputs whose rows other stages, options or models have made, as `run` does with this option.
    #[arg(long)]
    allow_change: bool,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let read = self.pipeline.read();
        if let Some(library) = plan::library(&read) {
            print(&format!("library   {library}\n\n"))?;
        }
        let plan = plan::check(read, &Arc::new(Metrics::new()))?;
        plan.check_mounts().map_err(stage_error)?;
        let admitted = plan.admit_outputs(Changes::allowed(self.allow_change, plan.is_endless()));
        if let Err((stage, error)) = admitted.and_then(|()| plan.admit_inputs()) {
            if matches!(error, StageError::Refused(_)) {
                return Err(stage_error((stage, error)));
            }
            complain(&format!("{stage}: it cannot be checked now what earlier runs did: {error}\n"));
        }
        for (source, error) in plan.list_inputs() {
            complain(&format!("{source}: the inputs cannot be listed now: {error}\n"));
        }
        if let Some(warning) = plan.memory.warning(machine::group_limit()) {
            complain(&format!("warning: {warning}\n"));
        }
        print(&format!("{plan}\n"))?;
        Ok(Exit::Done)
    }
}
