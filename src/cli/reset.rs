//! `latentflow reset`: forgets what a pipeline has done, after asking.

use std::sync::Arc;

use anyhow::{anyhow, bail};
use clap::Args;

use super::{ExitCode, PipelineArgs, confirmed, print};
use crate::metrics::Metrics;
use crate::plan::{Plan, StageRole};
use crate::sink::{CommitStats, Sink};
use crate::source;
use crate::topology;
use crate::units::ByteSize;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ResetCommand {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Forget only what this sink has; may be repeated. Default: all sinks, the rejects, and the
    /// listings of sources.
    #[arg(long, value_name = "STAGE")]
    sink: Vec<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

const EXAMPLES: &str = "\
Examples:
  latentflow reset photos.toml                       begin anew
  latentflow reset photos.toml --sink out --yes      make one output anew

Parquet and image files that the pipeline has written are removed, and its memory of what is done. Image files of outputs
that were begun before version 0.1.0 kept a list of them stay. Input is never touched.";

impl ResetCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let plan = self.pipeline.plan(&Arc::new(Metrics::new()))?;
        let mut there = Vec::new();
        for (name, sink) in sinks(&plan) {
            if let Some(folder) = sink.folder()
                && folder
                    .is_folder()
                    .map_err(|error| anyhow!("{name}: {error}"))?
            {
                there.push((name, sink));
            }
        }
        let sinks = there;
        if let Some(unknown) = self
            .sink
            .iter()
            .find(|name| !sinks.iter().any(|(known, _)| known == name))
        {
            let known: Vec<&str> = sinks.iter().map(|(name, _)| *name).collect();
            bail!(
                "no sink `{unknown}` has written anything; those that have: {}",
                known.join(", ")
            );
        }
        let chosen =
            |name: &str| self.sink.is_empty() || self.sink.iter().any(|wanted| wanted == name);
        let chosen: Vec<_> = sinks.into_iter().filter(|(name, _)| chosen(name)).collect();
        if chosen.is_empty() {
            print("there is nothing to forget\n")?;
            return Ok(ExitCode::Done);
        }
        for (name, sink) in &chosen {
            let CommitStats {
                files,
                bytes,
                records,
            } = forget(name, *sink, false)?;
            let folder = sink
                .folder()
                .map(|folder| folder.to_string())
                .unwrap_or_default();
            print(&format!(
                "{name}: {records} records in {files} files ({}) in {folder}\n",
                ByteSize(bytes)
            ))?;
        }
        if !self.yes && !confirmed("remove these files, so that the next run starts over?")? {
            print("nothing was removed\n")?;
            return Ok(ExitCode::Done);
        }
        for (name, sink) in &chosen {
            forget(name, *sink, true)?;
        }
        if let Some(state) = plan.state.as_ref().filter(|_| self.sink.is_empty()) {
            for stage in plan
                .stages
                .iter()
                .filter(|stage| matches!(stage.role, StageRole::Source(..)))
            {
                source::forget(&stage.name, state)?;
            }
            state.local().map_or(Ok(()), topology::forget)?;
        }
        print("forgotten: the next run begins anew\n")?;
        Ok(ExitCode::Done)
    }
}

fn forget(name: &str, sink: &dyn Sink, remove: bool) -> anyhow::Result<CommitStats> {
    sink.reset(remove)
        .map_err(|error| anyhow!("{name}: {error}"))
}

/// Every sink that keeps files, by its stage's name.
fn sinks(plan: &Plan) -> Vec<(&str, &dyn Sink)> {
    let stages = plan.stages.iter().filter_map(|stage| match &stage.role {
        StageRole::Sink(sink, _) => Some((&*stage.name, sink.as_ref())),
        _ => None,
    });
    stages
        .chain(
            plan.rejects
                .as_ref()
                .map(|(sink, _)| ("rejects", sink.as_ref())),
        )
        .collect()
}
