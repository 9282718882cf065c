//! `latentflow compact`: puts the small files of a dataset together.

use std::io::IsTerminal as _;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use clap::Args;
use indicatif::ProgressBar;

use super::{ExitCode, print, print_error};
use crate::sink::compact::{CompactionSummary, CompactionTarget, DatasetSize, compact};
use crate::storage::Location;
use crate::units::ByteSize;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompactCommand {
    /// Folders that `parquet` sinks have written, or the rejects of a pipeline.
    #[arg(required = true, value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// The size that files are to have, about; those above half of it are left as they are.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    target: u64,
    /// The most records that a file is to have, where its readers need a bound: as `file.records`
    /// of the sink. Default: any number.
    #[arg(long, value_name = "N")]
    records: Option<NonZeroU64>,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Examples:
  latentflow compact out/latents
  latentflow compact out/latents --target 64MiB --dry-run

A run may be writing there meanwhile: only files that are finished are touched, and runs that are stopped and started go on
as before. Each new file takes the place of those that it was made of: between one and the others, for some milliseconds,
readers see the rows of a group twice, never none of them. Killed at any moment, nothing is lost: the next `compact`, or the
next run, ends what was begun.

Another pipeline that reads the folder takes the new file for new input, and does its rows again: compact before it reads,
or not at all. So rejects are compacted only where their folder is named.";

fn parse_size(text: &str) -> Result<u64, String> {
    let ByteSize(bytes) = serde_json::from_value(text.into()).map_err(|error| error.to_string())?;
    if bytes == 0 {
        Err("0 is no size for a file".to_owned())
    } else {
        Ok(bytes)
    }
}

impl CompactCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut folders = Vec::new();
        for path in &self.folders {
            let place = Location::from_path(path)
                .map_err(|error| anyhow!("{}: {error}", path.display()))?;
            let Some(folder) = place.local() else {
                bail!(
                    "{place}: only folders on a disk can be compacted, not buckets: there, raise `commit.age`"
                );
            };
            if !folder.is_dir() {
                bail!("{}: no such folder", folder.display());
            }
            folders.push(folder.to_path_buf());
        }
        let mut damaged = 0;
        for folder in &folders {
            damaged += self.compact(folder)?;
        }
        if damaged > 0 {
            bail!(
                "{damaged} files cannot be read and were left alone; restore them, or move them away"
            );
        }
        Ok(ExitCode::Done)
    }

    /// Compacts one folder; says how many files of it cannot be read.
    fn compact(&self, folder: &Path) -> anyhow::Result<usize> {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        let mut told = |so_far: &CompactionSummary| {
            bar.set_message(format!(
                "{}: {} files looked at",
                folder.display(),
                so_far.before.files
            ));
            bar.tick();
        };
        let target = CompactionTarget {
            bytes: self.target,
            records: self.records.map(NonZeroU64::get),
        };
        let compacted = compact(folder, target, self.dry_run, &mut told);
        bar.finish_and_clear();
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
                "{}: nothing to put together in {}\n",
                folder.display(),
                format_size(before)
            )
        } else {
            let became = if self.dry_run {
                "would become"
            } else {
                "became"
            };
            let copied = if self.dry_run {
                "would be copied"
            } else {
                "were copied"
            };
            let (before, after) = (format_size(before), format_size(after));
            format!(
                "{}: {before} {became} {after}; {records} records {copied}\n",
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
