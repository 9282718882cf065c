//! `latentflow compact`: merges the small Parquet files of a dataset into larger ones.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;

use super::log::{self, LogFormat};
use super::progress::{ProgressUnit, TaskProgress, TaskReporter};
use super::{print, print_error};
use crate::cli::exit::{CommandError, ExitCode};
use crate::error::code::ErrorCode;
use crate::sink::dataset::compact::{CompactionSummary, CompactionTarget, DatasetSize, compact};
use crate::sink::ownership::shard_marker::shard_count;
use crate::storage::Location;
use crate::units::ByteSize;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompactCommand {
    /// Folders that `parquet` sinks have written, or the rejects folder of a pipeline.
    #[arg(required = true, value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// Approximate size of the new files; files of at least half this size are not merged.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    target: u64,
    /// Maximum number of records in a new file, as `file.records` of the sink.
    ///
    /// Set it if the readers of the dataset need a bound. Default: unlimited.
    #[arg(long, value_name = "N")]
    records: Option<NonZeroU64>,
    /// Print the result without changing any file.
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Examples:
  latentflow compact out/latents
  latentflow compact out/latents --target 64MiB --dry-run

A run may write to the folder at the same time: only finished files are merged, and later runs skip
the rows of merged files as before. Each new file replaces the files that it was merged from. During
the replacement, for a few milliseconds, readers see the rows of a group twice, but never miss them.
If the command is killed, nothing is lost: the next `compact` or the next run completes the
replacement.

A pipeline that reads the folder treats a new file as new input and processes its rows again, so
compact before it reads the folder, or not at all. For this reason, rejects are compacted only if
their folder is given.";

fn parse_size(text: &str) -> Result<u64, String> {
    let ByteSize(bytes) = serde_json::from_value(text.into()).map_err(|error| error.to_string())?;
    if bytes == 0 {
        Err("invalid target size 0; expected a size above 0, such as 256MiB".to_owned())
    } else {
        Ok(bytes)
    }
}

impl CompactCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        log::start(LogFormat::Auto);
        let mut folders = Vec::new();
        for path in &self.folders {
            let location = Location::from_path(path).map_err(|error| {
                CommandError::new(
                    ErrorCode::ArgumentInvalid,
                    format!("{}: {error}", path.display()),
                )
            })?;
            let Some(folder) = location.local() else {
                bail!(CommandError::new(
                    ErrorCode::ArgumentInvalid,
                    format!(
                        "{location}: cannot compact a bucket, only a local folder; to write larger \
                     files to a bucket, raise `commit.age`"
                    )
                ));
            };
            if !folder.is_dir() {
                bail!(CommandError::new(
                    ErrorCode::ArgumentInvalid,
                    format!("{}: no such folder", folder.display())
                ));
            }
            if let Some(count) = shard_count(&location)? {
                bail!(CommandError::new(
                    ErrorCode::ArgumentInvalid,
                    format!(
                        "{location}: holds the output of {count} shards; merge the files of each of them: \
                     `latentflow compact {location}/shard-*-of-{count}`"
                    )
                ));
            }
            folders.push(folder.to_path_buf());
        }
        let mut damaged = 0;
        for folder in &folders {
            damaged += self.compact(folder)?;
        }
        if damaged > 0 {
            bail!(CommandError::new(
                ErrorCode::DatasetCorrupt,
                format!(
                    "files that cannot be read and were not merged: {damaged}; restore or move them \
                 away"
                )
            ));
        }
        Ok(ExitCode::Done)
    }

    /// Compacts one folder and returns how many of its files cannot be read.
    fn compact(&self, folder: &Path) -> anyhow::Result<usize> {
        let progress = TaskReporter::start(LogFormat::Auto);
        let name = format!("compacting {}", folder.display());
        let mut on_progress = |done: u64, total: u64| {
            progress.show(TaskProgress {
                name: name.clone(),
                unit: ProgressUnit::Bytes,
                done,
                total: Some(total),
                ..TaskProgress::default()
            });
        };
        let target = CompactionTarget {
            bytes: self.target,
            records: self.records.map(NonZeroU64::get),
        };
        let compacted = compact(folder, target, self.dry_run, &mut on_progress);
        drop(progress);
        let CompactionSummary {
            before,
            after,
            records,
            damaged,
        } = compacted?;
        damaged
            .iter()
            .for_each(|reason| print_error(&format!("latentflow: {reason}\n")));
        let text = if before == after {
            format!(
                "{}: nothing to merge in {}\n",
                folder.display(),
                format_size(before)
            )
        } else {
            let (merged, copied) = if self.dry_run {
                ("would be merged into", "would be copied")
            } else {
                ("merged into", "were copied")
            };
            let (before, after) = (format_size(before), format_size(after));
            format!(
                "{}: {before} {merged} {after}; {records} records {copied}\n",
                folder.display()
            )
        };
        print(&text)?;
        Ok(damaged.len())
    }
}

fn format_size(size: DatasetSize) -> String {
    let files = if size.files == 1 { "file" } else { "files" };
    format!("{} {files} ({})", size.files, ByteSize(size.bytes))
}
