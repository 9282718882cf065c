//! `latentflow reset`: deletes the output and the state of a pipeline, after a confirmation.

use std::sync::Arc;

use anyhow::bail;
use clap::Args;

use super::{PipelineArgs, ShardArgs, confirm, print};
use crate::cli::exit::{CommandError, ExitCode};
use crate::error::code::ErrorCode;
use crate::error::failure::StageFailure;
use crate::metrics::Metrics;
use crate::plan::pipeline::Plan;
use crate::plan::stage::StageOperator;
use crate::sink::{CommitStats, Sink};
use crate::units::ByteSize;
use crate::{source, topology};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ResetCommand {
    #[command(flatten)]
    pipeline: PipelineArgs,
    #[command(flatten)]
    shard: ShardArgs,
    /// Delete only the output of this sink; may be repeated.
    ///
    /// Default: the output of all sinks, the rejects, and the listings of sources.
    #[arg(long, value_name = "STAGE")]
    sink: Vec<String>,
    /// Skip the confirmation.
    #[arg(long)]
    yes: bool,
}

const EXAMPLES: &str = "\
Examples:
  latentflow reset photos.toml                       delete all output and state
  latentflow reset photos.toml --sink out --yes      delete the output of one sink
  latentflow reset photos.toml --shard 3/8           delete the output and state of one shard

The Parquet and image files that the pipeline has written are deleted, together with the record of
the rows that were processed. Inputs are never changed. Outputs of images that were started before
version 0.1.0 have no list of their files; these files are not deleted.";

impl ResetCommand {
    pub(super) fn run(mut self) -> anyhow::Result<ExitCode> {
        self.pipeline.shard = self.shard.shard;
        let plan = self.pipeline.plan(&Arc::new(Metrics::new()))?;
        plan.admit_shards()?;
        let mut existing = Vec::new();
        for (name, sink) in sinks(&plan) {
            if let Some(folder) = sink.folder()
                && folder
                    .is_folder()
                    .map_err(|error| StageFailure::new(name, error))?
            {
                existing.push((name, sink));
            }
        }
        let sinks = existing;
        if let Some(unknown) = self
            .sink
            .iter()
            .find(|name| !sinks.iter().any(|(known, _)| known == name))
        {
            let known: Vec<&str> = sinks.iter().map(|(name, _)| *name).collect();
            bail!(CommandError::new(
                ErrorCode::ArgumentInvalid,
                format!(
                    "no sink `{unknown}` with output; sinks with output: {}",
                    known.join(", ")
                )
            ));
        }
        let is_chosen =
            |name: &str| self.sink.is_empty() || self.sink.iter().any(|chosen| chosen == name);
        let chosen: Vec<_> = sinks
            .into_iter()
            .filter(|(name, _)| is_chosen(name))
            .collect();
        if chosen.is_empty() {
            print("no output to delete\n")?;
            return Ok(ExitCode::Done);
        }
        for (name, sink) in &chosen {
            let CommitStats {
                files,
                bytes,
                records,
            } = reset_sink(name, *sink, false)?;
            let folder = sink
                .folder()
                .map(|folder| folder.to_string())
                .unwrap_or_default();
            let noun = if files == 1 { "file" } else { "files" };
            print(&format!(
                "{name}: {records} records in {files} {noun} ({}) in {folder}\n",
                ByteSize(bytes)
            ))?;
        }
        let question = "delete these files, so that the next run starts from the beginning?";
        if !self.yes && !confirm(question)? {
            print("no file was deleted\n")?;
            return Ok(ExitCode::Done);
        }
        for (name, sink) in &chosen {
            reset_sink(name, *sink, true)?;
        }
        if let Some(state) = plan.state.as_ref().filter(|_| self.sink.is_empty()) {
            for stage in plan
                .stages
                .iter()
                .filter(|stage| matches!(stage.operator, StageOperator::Source(..)))
            {
                source::discovery::delete_state(&stage.name, state)?;
            }
            state.local().map_or(Ok(()), topology::clear_crash_state)?;
        }
        print("deleted: the next run starts from the beginning\n")?;
        Ok(ExitCode::Done)
    }
}

/// Counts the output of a sink and, with `remove`, deletes it.
fn reset_sink(name: &str, sink: &dyn Sink, remove: bool) -> anyhow::Result<CommitStats> {
    sink.reset(remove)
        .map_err(|error| StageFailure::new(name, error).into())
}

/// Returns all sinks, including the rejects, with the names of their stages.
fn sinks(plan: &Plan) -> Vec<(&str, &dyn Sink)> {
    let stages = plan
        .stages
        .iter()
        .filter_map(|stage| match &stage.operator {
            StageOperator::Sink(sink, _) => Some((&*stage.name, sink.as_ref())),
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
