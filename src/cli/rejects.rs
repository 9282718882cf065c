//! `latentflow rejects`: removes the originals that rejects hold.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};

use super::{ExitCode, PipelineArgs, confirmed, print, print_error};
use crate::metrics::Metrics;
use crate::sink::STATE_DIR;
use crate::sink::purge::{PurgeFilter, PurgeSummary, SourcePattern, purge};
use crate::storage::Location;
use crate::units::ByteSize;

#[derive(Debug, Args)]
pub(super) struct RejectsCommand {
    #[command(subcommand)]
    action: RejectsAction,
}

#[derive(Debug, Subcommand)]
enum RejectsAction {
    /// Remove the originals of rejects, while it stays known where they came from and why they were
    /// rejected; asks first.
    Purge(PurgeCommand),
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct PurgeCommand {
    /// The pipeline whose rejects are meant, or the folder of a rejects dataset.
    #[arg(value_name = "PIPELINE|FOLDER")]
    target: PathBuf,
    /// Only originals that were committed before: a date such as 2026-01-31, a time such as
    /// 2026-01-31T12:00:00Z (UTC), or an age such as 30d.
    #[arg(long, value_name = "WHEN", value_parser = moment, required_unless_present = "source")]
    before: Option<SystemTime>,
    /// Only originals of records whose `source` is this, or is matched by this glob.
    #[arg(long, value_name = "GLOB", value_parser = SourcePattern::new)]
    source: Option<SourcePattern>,
    /// Override a key of the pipeline: --set rejects.path=elsewhere.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

const EXAMPLES: &str = "\
Examples:
  latentflow rejects purge photos.toml --before 30d
  latentflow rejects purge out/latents/_latentflow/rejects --source 'customers/17/**' --yes

Where both options are given, both must hold. A reject counts as committed when its file was written last: rejects of one
commit lie in one file, and files that are put together (`latentflow compact`) are as old as the youngest of them.

The columns `record` and `format` of these rejects become empty; `source`, `row`, `stage`, `code` and `reason` stay (a reason
may quote a value). The next run of the pipeline takes nothing again. These records can no longer be
replayed from here: the source `rejects` rejects them with that reason, and they have to be read from their own source. A
pipeline that reads the dataset takes a rewritten file for new input, and does its other rows again: purge when it is done.

The run that writes the rejects must not be at work. Killed at any moment, nothing is lost and no file is half rewritten: call
it again to go on. Disks may keep removed bytes until they are written over. In buckets (`s3://`) rejects cannot be purged.";

/// A moment that is written as a date, a time or an age.
fn moment(text: &str) -> Result<SystemTime, String> {
    if let Ok(age) = humantime::parse_duration(text) {
        return SystemTime::now()
            .checked_sub(age)
            .ok_or_else(|| format!("`{text}` ago is before all time"));
    }
    let midnight = || humantime::parse_rfc3339_weak(&format!("{text}T00:00:00"));
    humantime::parse_rfc3339_weak(text)
        .or_else(|_| midnight())
        .map_err(|_| {
            format!("`{text}` is not a date (2026-01-31), time (2026-01-31T12:00:00Z) or age (30d)")
        })
}

impl RejectsCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.action {
            RejectsAction::Purge(command) => command.run(),
        }
    }
}

impl PurgeCommand {
    fn run(self) -> anyhow::Result<ExitCode> {
        let place = self.place()?;
        let Some(folder) = place.local() else {
            bail!(
                "{place}: rejects in a bucket cannot be purged; write `rejects.record = false`, or remove the objects"
            );
        };
        if !folder.is_dir() {
            bail!("{place}: there are no rejects");
        }
        if folder.join(STATE_DIR).join("rejects").is_dir() {
            bail!("{place}: this is an output; its rejects lie in {place}/{STATE_DIR}/rejects");
        }
        let wanted = PurgeFilter {
            before: self.before,
            source: self.source,
        };
        let found = purge(folder, &wanted, true)?;
        let PurgeSummary {
            rejects,
            originals,
            bytes,
            files,
            ..
        } = found;
        let sized = format!(
            "{originals} originals ({}) in {files} files",
            ByteSize(bytes)
        );
        print(&format!("{place}: {sized}, of {rejects} rejects\n"))?;
        let question = "remove these originals? they cannot be replayed from here then";
        if originals > 0 && !self.yes && !confirmed(question)? {
            print("nothing was removed\n")?;
            return Ok(ExitCode::Done);
        }
        // Where there are none, unfinished files of a killed run are removed all the same.
        let PurgeSummary {
            originals, bytes, ..
        } = purge(folder, &wanted, false)?;
        print(&format!(
            "removed: {originals} originals ({})\n",
            ByteSize(bytes)
        ))?;
        if !found.left.is_empty() {
            found
                .left
                .iter()
                .for_each(|reason| print_error(&format!("latentflow: {reason}\n")));
            bail!(
                "{} files were left as they are, with their originals; restore or remove them",
                found.left.len()
            );
        }
        Ok(ExitCode::Done)
    }

    /// Where the rejects lie.
    fn place(&self) -> anyhow::Result<Location> {
        let place = Location::from_path(&self.target)
            .map_err(|error| anyhow!("{}: {error}", self.target.display()))?;
        if place.local().is_none_or(std::path::Path::is_dir) {
            return Ok(place);
        }
        let pipeline = PipelineArgs {
            file: self.target.clone(),
            set: self.set.clone(),
        };
        let plan = pipeline.plan(&Arc::new(Metrics::new()))?;
        let folder = plan.rejects.as_ref().and_then(|(sink, _)| sink.folder());
        folder.ok_or_else(|| anyhow!("{}: this pipeline keeps no rejects", self.target.display()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_dates_times_and_ages() {
        let day = humantime::parse_rfc3339("2026-01-31T00:00:00Z").unwrap();
        assert_eq!(moment("2026-01-31"), Ok(day));
        assert_eq!(
            moment("2026-01-31T12:00:00Z"),
            Ok(day + Duration::from_secs(43200))
        );
        let earliest = SystemTime::now();
        assert!(moment("30d").unwrap() + Duration::from_secs(30 * 86400) >= earliest);
        assert!(moment("soon").unwrap_err().contains("`soon` is not a date"));
    }
}
