//! `latentflow graph`: the pipeline, drawn.

use std::sync::Arc;

use clap::Args;

use super::{Exit, Pipeline, print};
use crate::metrics::Metrics;
use crate::plan::GraphFormat;

#[derive(Debug, Args)]
pub(super) struct Graph {
    #[command(flatten)]
    pipeline: Pipeline,
    /// How to draw it.
    #[arg(long, value_enum, default_value_t = GraphFormat::Text)]
    format: GraphFormat,
}

impl Graph {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let plan = self.pipeline.plan(&Arc::new(Metrics::new()))?;
        print(&plan.draw(self.format))?;
        Ok(Exit::Done)
    }
}
