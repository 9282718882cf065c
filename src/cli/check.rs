//! `latentflow check`: prints the plan of a pipeline, or every fault.

use std::sync::Arc;

use clap::Args;

use super::{PipelineArgs, ShardArgs, print, print_error};
use crate::cli::exit::ExitCode;
use crate::error::config_error::ConfigError;
use crate::error::failure::StageFailure;
use crate::metrics::Metrics;
use crate::plan::models::library;
use crate::sink::ChangePolicy;
use crate::{plan, system};

#[derive(Debug, Args)]
pub(super) struct CheckCommand {
    #[command(flatten)]
    pipeline: PipelineArgs,
    #[command(flatten)]
    shard: ShardArgs,
    /// Accept outputs whose rows were written with other stages, options or models, as `run
    /// --allow-change` does.
    #[arg(long)]
    allow_change: bool,
}

impl CheckCommand {
    pub(super) fn run(mut self) -> anyhow::Result<ExitCode> {
        self.pipeline.shard = self.shard.shard;
        let read = self.pipeline.read();
        if let Some(library) = library(&read) {
            print(&format!("library   {library}\n\n"))?;
        }
        let plan = plan::check(read, &Arc::new(Metrics::new()))?;
        plan.find_inputs()?;
        plan.check_mounts()?;
        let admitted = plan.admit_outputs(ChangePolicy::allowed(
            self.allow_change,
            plan.is_unbounded(),
        ));
        if let Err(failure) = admitted.and_then(|()| plan.admit_inputs()) {
            if failure.error.code().is_refusal() {
                return Err(failure.into());
            }
            let StageFailure { stage, error } = failure;
            print_error(&format!(
                "{stage}: cannot currently check the state of earlier runs: {error}\n"
            ));
        }
        for ConfigError { key, message, .. } in plan.list_inputs()? {
            print_error(&format!(
                "{key}: cannot currently list the inputs: {message}\n"
            ));
        }
        if let Some(warning) = plan.memory.warning(system::cgroup_memory_limit()) {
            print_error(&format!("warning: {warning}\n"));
        }
        print(&format!("{plan}\n"))?;
        Ok(ExitCode::Done)
    }
}
