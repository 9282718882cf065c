//! The arguments and the output that the searches over latents have in common.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::print;
use super::progress::{TaskProgress, TaskReporter};
use crate::cli::exit::CommandError;
use crate::columns::{LABEL, ROW, SOURCE};
use crate::error::code::ErrorCode;
use crate::fs_durable::write_atomically;
use crate::report::Thumbnails;
use crate::search::latent_dataset::LatentDataset;
use crate::search::neighbors::RowCounts;
use crate::search::record_values::{RowValues, value_text};
use crate::storage::Location;

/// The dataset, and the forms of the result.
#[derive(Debug, Args)]
pub(super) struct LatentArgs {
    /// Folder of Parquet files that a run has written, or one Parquet file; also the URL of a bucket (`s3://`, `gs://`, `az://`).
    #[arg(value_name = "DATASET")]
    dataset: PathBuf,
    /// The column of latents. Default: `latent`, or the only column of vectors.
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// Format of the result on standard output.
    #[arg(long, value_enum, default_value_t = ResultFormat::Table)]
    pub(super) format: ResultFormat,
    /// Also write an HTML page with thumbnails of the images to this file; an existing file is replaced.
    #[arg(long, value_name = "FILE")]
    pub(super) page: Option<PathBuf>,
    /// Folder that the names of images in the column `source` are relative to, for the thumbnails.
    ///
    /// Default: the folders that the pipeline of the dataset has read.
    #[arg(long, value_name = "FOLDER", requires = "page")]
    images: Option<PathBuf>,
}

/// The format of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ResultFormat {
    /// An aligned table.
    Table,
    /// A JSON document with all columns of single values, and with `top_features`.
    Json,
}

impl LatentArgs {
    pub(super) fn open(&self) -> anyhow::Result<LatentDataset> {
        let path = self.dataset.display();
        let invalid = |fault: String| CommandError::new(ErrorCode::ArgumentInvalid, fault);
        let location = Location::from_path(&self.dataset)
            .map_err(|error| invalid(format!("{path}: {error}")))?;
        if location.local().is_some_and(|local| !local.exists()) {
            anyhow::bail!(invalid(format!("{path}: no such file or folder")));
        }
        Ok(LatentDataset::open(&location, self.column.as_deref())?)
    }

    pub(super) fn thumbnails(&self, dataset: &LatentDataset) -> Thumbnails {
        Thumbnails::new(self.images.as_deref(), &dataset.writers)
    }

    /// Writes the page, if it is requested.
    pub(super) fn write_page(&self, page: impl FnOnce() -> String) -> anyhow::Result<()> {
        let Some(path) = &self.page else {
            return Ok(());
        };
        write_page(path, &page())
    }
}

fn write_page(path: &Path, page: &str) -> anyhow::Result<()> {
    write_atomically(path, page.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Shows the rows of a search that are done.
pub(super) fn show(progress: &TaskReporter, name: &str, done: u64, total: u64) {
    progress.show(TaskProgress {
        name: name.to_owned(),
        done,
        total: Some(total),
        ..TaskProgress::default()
    });
}

/// The counts of a search as a sentence.
pub(super) fn counts_text(counts: &RowCounts) -> String {
    let RowCounts {
        compared,
        without_distance,
        other_models,
    } = counts;
    let mut text = format!("{compared} rows compared");
    if *without_distance > 0 {
        let _ = write!(
            text,
            "; {without_distance} rows without a distance (no latent, not finite, or zero)"
        );
    }
    if *other_models > 0 {
        let _ = write!(text, "; {other_models} rows of other models not compared");
    }
    text
}

/// The counts of a search as JSON.
pub(super) fn counts_json(counts: &RowCounts) -> Value {
    json!({
        "compared": counts.compared,
        "without_distance": counts.without_distance,
        "other_models": counts.other_models,
    })
}

/// A row of the table of a result.
pub(super) struct TableRow<'a> {
    /// The texts of the first columns.
    pub(super) cells: Vec<String>,
    pub(super) position: u64,
    pub(super) values: Option<&'a RowValues>,
}

/// Prints rows as an aligned table: the columns of `heads`, the position, and the origin and the label
/// as far as the dataset has them. Numbers are aligned to the right.
pub(super) fn print_table(heads: &[&str], rows: &[TableRow<'_>]) -> anyhow::Result<()> {
    let has = |name: &&str| {
        let mut values = rows.iter().filter_map(|row| row.values);
        values.any(|values| values.get(*name).is_some_and(|value| !value.is_null()))
    };
    let origin: Vec<&str> = [ROW, SOURCE, LABEL].into_iter().filter(has).collect();
    let mut all: Vec<Vec<String>> = vec![
        heads
            .iter()
            .chain(&["position"])
            .chain(&origin)
            .map(|&head| head.to_owned())
            .collect(),
    ];
    all.extend(rows.iter().map(|row| {
        let text = |name: &&str| {
            let text = row.values.map(|values| value_text(values, name));
            text.unwrap_or_default()
        };
        let position = std::iter::once(row.position.to_string());
        let cells = row.cells.iter().cloned().chain(position);
        cells.chain(origin.iter().map(text)).collect()
    }));
    let is_number =
        |column: usize| column <= heads.len() || origin.get(column - heads.len() - 1) == Some(&ROW);
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..all[0].len()).filter_map(width).collect();
    let mut text = String::new();
    for row in &all {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &wide))| match is_number(column) {
                true => format!("{cell:>wide$}"),
                false => format!("{cell:wide$}"),
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    print(&text)
}
