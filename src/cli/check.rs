//! `latentflow check`: the plan, or every fault.

use std::sync::Arc;

use clap::Args;

use super::{Exit, Pipeline, print, stage_error};
use crate::metrics::Metrics;

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    pipeline: Pipeline,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let plan = self.pipeline.plan(&Arc::new(Metrics::new()))?;
        plan.admit_inputs().map_err(stage_error)?;
        for (source, error) in plan.list_inputs() {
            eprintln!("{source}: the inputs cannot be listed now: {error}");
        }
        print(&format!("{plan}\n"))?;
        Ok(Exit::Done)
    }
}
