//! `latentflow graph`: prints the stage graph of a pipeline.

use std::sync::Arc;

use clap::Args;

use super::{PipelineArgs, print};
use crate::cli::exit::ExitCode;
use crate::metrics::Metrics;
use crate::plan::GraphFormat;

#[derive(Debug, Args)]
pub(super) struct GraphCommand {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Format of the graph.
    #[arg(long, value_enum, default_value_t = GraphFormat::Text)]
    format: GraphFormat,
}

impl GraphCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let plan = self.pipeline.plan(&Arc::new(Metrics::new()))?;
        print(&plan.draw(self.format))?;
        Ok(ExitCode::Done)
    }
}
