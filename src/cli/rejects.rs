//! `latentflow rejects`: removes the originals that the rejects of a pipeline hold.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::log::{self, LogFormat};
use super::progress::{ProgressUnit, TaskProgress, TaskReporter};
use super::{PipelineArgs, ShardArgs, confirm, print, print_error};
use crate::cli::exit::{CommandError, ExitCode};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::metrics::Metrics;
use crate::sink::STATE_DIR;
use crate::sink::dataset::purge::{PurgeFilter, PurgeSummary, SourcePattern, purge};
use crate::sink::ownership::shard_marker::check_undivided;
use crate::storage::Location;
use crate::units::ByteSize;

#[derive(Debug, Args)]
pub(super) struct RejectsCommand {
    #[command(subcommand)]
    action: RejectsAction,
}

#[derive(Debug, Subcommand)]
enum RejectsAction {
    /// Remove the originals of rejects, after a confirmation.
    ///
    /// The rejects keep their source and their reason.
    Purge(PurgeCommand),
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct PurgeCommand {
    /// Pipeline file, or folder of a rejects dataset.
    #[arg(value_name = "PIPELINE|FOLDER")]
    target: PathBuf,
    /// Only originals that were committed before this date, time or age, such as 30d.
    ///
    /// A date is written as 2026-01-31, a time as 2026-01-31T12:00:00Z (UTC).
    #[arg(
        long,
        value_name = "WHEN",
        value_parser = parse_time,
        required_unless_present = "source"
    )]
    before: Option<SystemTime>,
    /// Only originals of records whose `source` equals this value or matches this glob.
    #[arg(long, value_name = "GLOB", value_parser = SourcePattern::new)]
    source: Option<SourcePattern>,
    /// Override a key of the pipeline, such as --set rejects.path=elsewhere; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    shard: ShardArgs,
    /// Skip the confirmation.
    #[arg(long)]
    yes: bool,
}

const EXAMPLES: &str = "\
Examples:
  latentflow rejects purge photos.toml --before 30d
  latentflow rejects purge out/latents/_latentflow/rejects --source 'customers/17/**' --yes

If both --before and --source are given, a reject has to match both. The commit time of a reject is
the modification time of its file: the rejects of one commit are in one file, and a file merged by
`latentflow compact` has the time of the newest of its parts.

The columns `record` and `format` of the matching rejects become empty; `source`, `row`, `stage`,
`code` and `reason` stay (a reason may quote a value). The next run of the pipeline does not process
these records again. Purged rejects cannot be replayed: the source `rejects` rejects them, because
the original is not stored, and the records have to be read from their own source. A pipeline that
reads the dataset treats a rewritten file as new input and processes its other rows again, so purge
after that pipeline has ended.

Stop the run that writes the rejects first. If the command is killed, nothing is lost and no file is
partially rewritten; run it again to continue. Disks may keep the removed bytes until they are
overwritten. Rejects in buckets cannot be purged.";

/// Parses a date, a time or an age.
fn parse_time(text: &str) -> Result<SystemTime, String> {
    if let Ok(age) = humantime::parse_duration(text) {
        return SystemTime::now()
            .checked_sub(age)
            .ok_or_else(|| format!("`{text}` is too long; expected an age such as 30d"));
    }
    let midnight = || humantime::parse_rfc3339_weak(&format!("{text}T00:00:00"));
    humantime::parse_rfc3339_weak(text)
        .or_else(|_| midnight())
        .map_err(|_| {
            format!(
                "`{text}` is not a date (2026-01-31), a time (2026-01-31T12:00:00Z) or an age (30d)"
            )
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
        log::start(LogFormat::Auto);
        let location = self.location()?;
        let Some(folder) = location.local() else {
            bail!(CommandError::new(
                ErrorCode::ArgumentInvalid,
                format!(
                    "{location}: rejects in a bucket cannot be purged; set `rejects.record = false`, \
                 or delete the objects"
                )
            ));
        };
        if !folder.is_dir() {
            bail!(CommandError::new(
                ErrorCode::ArgumentInvalid,
                format!("{location}: no such folder of rejects")
            ));
        }
        check_undivided(&location)?;
        if folder.join(STATE_DIR).join("rejects").is_dir() {
            bail!(CommandError::new(
                ErrorCode::ArgumentInvalid,
                format!(
                    "{location}: this folder is an output; its rejects are in \
                 {location}/{STATE_DIR}/rejects"
                )
            ));
        }
        let filter = PurgeFilter {
            before: self.before,
            source: self.source,
        };
        let found = purge_with_progress(folder, &filter, true)?;
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
        print(&format!("{location}: {sized}, of {rejects} rejects\n"))?;
        let question = "remove these originals, so that the rejects can no longer be replayed?";
        if originals > 0 && !self.yes && !confirm(question)? {
            print("no original was removed\n")?;
            return Ok(ExitCode::Done);
        }
        // This also removes the unfinished files of a killed run, even if no original matches.
        let removed = purge_with_progress(folder, &filter, false)?;
        print(&format!(
            "removed: {} originals ({})\n",
            removed.originals,
            ByteSize(removed.bytes)
        ))?;
        if !found.left.is_empty() {
            found
                .left
                .iter()
                .for_each(|reason| print_error(&format!("latentflow: {reason}\n")));
            bail!(CommandError::new(
                ErrorCode::DatasetCorrupt,
                format!(
                    "files that were not changed and keep their originals: {}; restore or remove them",
                    found.left.len()
                )
            ));
        }
        Ok(ExitCode::Done)
    }

    /// Returns the folder of the rejects.
    fn location(&self) -> anyhow::Result<Location> {
        let location = Location::from_path(&self.target).map_err(|error| {
            CommandError::new(
                ErrorCode::ArgumentInvalid,
                format!("{}: {error}", self.target.display()),
            )
        })?;
        if location.local().is_none_or(Path::is_dir) {
            return Ok(location);
        }
        let pipeline = PipelineArgs {
            file: self.target.clone(),
            set: self.set.clone(),
            options: Vec::new(),
            shard: self.shard.shard,
        };
        let plan = pipeline.plan(&Arc::new(Metrics::new()))?;
        plan.admit_shards()?;
        let folder = plan.rejects.as_ref().and_then(|(sink, _)| sink.folder());
        folder.ok_or_else(|| {
            let message = format!("{}: the pipeline stores no rejects", self.target.display());
            CommandError::new(ErrorCode::ArgumentInvalid, message).into()
        })
    }
}

/// Purges the rejects in `folder` and shows the progress.
fn purge_with_progress(
    folder: &Path,
    filter: &PurgeFilter,
    dry: bool,
) -> Result<PurgeSummary, StageError> {
    let progress = TaskReporter::start(LogFormat::Auto);
    let name = if dry { "examining" } else { "removing" };
    purge(folder, filter, dry, &mut |done, total| {
        progress.show(TaskProgress {
            name: format!("{name} originals"),
            unit: ProgressUnit::Bytes,
            done,
            total: Some(total),
            ..TaskProgress::default()
        });
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    #[test]
    fn before_option_accepts_dates_times_and_ages() {
        let day = humantime::parse_rfc3339("2026-01-31T00:00:00Z").unwrap();
        assert_eq!(parse_time("2026-01-31"), Ok(day));
        assert_eq!(
            parse_time("2026-01-31T12:00:00Z"),
            Ok(day + Duration::from_secs(43200))
        );
        let earliest = SystemTime::now();
        assert!(parse_time("30d").unwrap() + Duration::from_secs(30 * 86400) >= earliest);
        assert_eq!(
            parse_time("soon").unwrap_err(),
            "`soon` is not a date (2026-01-31), a time (2026-01-31T12:00:00Z) or an age (30d)"
        );
    }
}
