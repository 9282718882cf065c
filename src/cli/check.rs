//! `latentflow check`: the plan, or every fault.

use std::sync::Arc;

use clap::Args;

use super::{ExitCode, PipelineArgs, print, print_error, stage_error};
use crate::error::StageError;
use crate::metrics::Metrics;
use crate::plan;
use crate::sink::ChangePolicy;
use crate::system;

#[derive(Debug, Args)]
pub(super) struct CheckCommand {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Accept outputs whose rows other stages, options or models have made, as `run` does with this
    /// option.
    #[arg(long)]
    allow_change: bool,
}

impl CheckCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let read = self.pipeline.read();
        if let Some(library) = plan::library(&read) {
            print(&format!("library   {library}\n\n"))?;
        }
        let plan = plan::check(read, &Arc::new(Metrics::new()))?;
        plan.check_mounts().map_err(stage_error)?;
        let admitted = plan.admit_outputs(ChangePolicy::allowed(
            self.allow_change,
            plan.is_unbounded(),
        ));
        if let Err((stage, error)) = admitted.and_then(|()| plan.admit_inputs()) {
            if matches!(error, StageError::Refused(_)) {
                return Err(stage_error((stage, error)));
            }
            print_error(&format!(
                "{stage}: it cannot be checked now what earlier runs did: {error}\n"
            ));
        }
        for (source, error) in plan.list_inputs() {
            print_error(&format!(
                "{source}: the inputs cannot be listed now: {error}\n"
            ));
        }
        if let Some(warning) = plan.memory.warning(system::cgroup_memory_limit()) {
            print_error(&format!("warning: {warning}\n"));
        }
        print(&format!("{plan}\n"))?;
        Ok(ExitCode::Done)
    }
}
