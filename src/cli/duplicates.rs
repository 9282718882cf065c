//! `latentflow duplicates`: groups of rows of a dataset whose latents are nearly equal.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::latents::{
    LatentArgs, ResultFormat, TableRow, counts_json, counts_text, print_table, show,
};
use super::log::{self, LogFormat};
use super::progress::TaskReporter;
use super::{print, print_json};
use crate::cli::exit::ExitCode;
use crate::report::DuplicatesPage;
use crate::search::duplicates::{DuplicateRow, Duplicates};
use crate::search::latent_dataset::LatentDataset;
use crate::search::metric::Metric;
use crate::search::record_values::{RowValues, ShownColumns};

/// Maximum number of rows of a group that the table and the page list.
const MAX_ROWS: usize = 12;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DuplicatesCommand {
    #[command(flatten)]
    latents: LatentArgs,
    /// The largest distance of two rows that are near-duplicates.
    #[arg(long, value_name = "DISTANCE", value_parser = parse_threshold)]
    threshold: f64,
    /// Distance between latents.
    #[arg(long, value_enum, default_value_t = PairMetric::Cosine)]
    metric: PairMetric,
    /// Maximum number of groups that the table and the page list, largest first; JSON has all of them.
    #[arg(long, value_name = "N", default_value = "50")]
    groups: usize,
}

/// A distance that is 0 for equal latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PairMetric {
    /// 1 minus the cosine of the angle: 0 for the same direction, 2 for opposite ones.
    Cosine,
    /// The length of the difference.
    Euclidean,
}

impl From<PairMetric> for Metric {
    fn from(metric: PairMetric) -> Self {
        match metric {
            PairMetric::Cosine => Self::Cosine,
            PairMetric::Euclidean => Self::Euclidean,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  latentflow duplicates out/latents --threshold 0.001 --page duplicates.html
  latentflow duplicates out/latents --threshold 0.5 --metric euclidean --format json

Two rows whose distance is at most the threshold are in one group, as are all rows that such pairs
connect. So two rows of a group may be further apart than the threshold; the distance that is
printed is that to the nearest other row of the group. Nothing is deleted.

All pairs are compared except for those that a projection excludes, so the time grows with the square
of the number of rows: twice the rows take up to four times as long.";

fn parse_threshold(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value >= 0.0 && value.is_finite() => Ok(value),
        _ => Err("expected a distance of 0 or more, such as 0.001".to_owned()),
    }
}

impl DuplicatesCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        log::start(LogFormat::Auto);
        let dataset = self.latents.open()?;
        let progress = TaskReporter::start(LogFormat::Auto);
        let mut watch = |done, total| show(&progress, "comparing all pairs", done, total);
        let found = dataset.duplicates(self.metric.into(), self.threshold, &mut watch)?;
        drop(progress);
        let listed = || found.groups.iter().take(self.groups);
        let shown = || listed().flat_map(|group| group.iter().take(MAX_ROWS));
        let mut positions: Vec<u64> = shown().map(|row| row.position).collect();
        positions.sort_unstable();
        let values = match (self.latents.format, &self.latents.page) {
            (ResultFormat::Json, None) => BTreeMap::new(),
            _ => dataset.values_of(positions, ShownColumns::Origin)?,
        };
        match self.latents.format {
            ResultFormat::Json => self.print_json(&dataset, &found)?,
            ResultFormat::Table => self.print_table(&found, &values)?,
        }
        self.latents.write_page(|| {
            let page = DuplicatesPage {
                dataset: dataset.location.to_string(),
                metric: self.metric.into(),
                threshold: self.threshold,
                duplicates: &found,
                groups: self.groups,
                rows: MAX_ROWS,
                values: &values,
            };
            page.page(&mut self.latents.thumbnails(&dataset))
        })?;
        Ok(ExitCode::Done)
    }

    fn print_table(
        &self,
        found: &Duplicates,
        values: &BTreeMap<u64, RowValues>,
    ) -> anyhow::Result<()> {
        let metric = Metric::from(self.metric);
        let (groups, rows) = (found.groups.len(), found.rows());
        print(&format!(
            "near-duplicates by {metric} distance up to {}\n{}\n{groups} groups with {rows} rows in total: without \
             all but one row of each, {} rows are left\n",
            self.threshold,
            counts_text(&found.counts),
            found.counts.compared - (rows - groups) as u64,
        ))?;
        let mut table = Vec::new();
        for (number, group) in (1..).zip(found.groups.iter().take(self.groups)) {
            let row = |row: &DuplicateRow| TableRow {
                cells: vec![
                    format!("{number}"),
                    group.len().to_string(),
                    format!("{:.6}", row.distance),
                ],
                position: row.position,
                values: values.get(&row.position),
            };
            table.extend(group.iter().take(MAX_ROWS).map(row));
        }
        if !table.is_empty() {
            print("\n")?;
            print_table(&["group", "rows", "distance"], &table)?;
        }
        let left = found.groups.len().saturating_sub(self.groups);
        let is_cut = found.groups.iter().any(|group| group.len() > MAX_ROWS);
        if left > 0 || is_cut {
            print(&format!(
                "\nThe table lists {MAX_ROWS} rows of a group and {} groups; --format json has all of \
                 them.\n",
                self.groups
            ))?;
        }
        Ok(())
    }

    /// Prints a document with all rows, which are read and printed one after the other.
    fn print_json(&self, dataset: &LatentDataset, found: &Duplicates) -> anyhow::Result<()> {
        let head = json!({
            "dataset": dataset.location.to_string(),
            "column": dataset.column,
            "metric": Metric::from(self.metric).to_string(),
            "threshold": self.threshold,
            "rows": counts_json(&found.counts),
            "groups": found.groups.len(),
        });
        let head = serde_json::to_string(&head)?;
        print_json(&format!(
            "{},\n\"members\": [",
            head.strip_suffix('}').unwrap_or(&head)
        ))?;
        let mut members: Vec<(u64, u64, f64)> = (1..)
            .zip(&found.groups)
            .flat_map(|(group, rows)| {
                rows.iter()
                    .map(move |row| (row.position, group, row.distance))
            })
            .collect();
        members.sort_unstable_by_key(|member| member.0);
        let positions = members.iter().map(|member| member.0);
        let (mut next, mut printed) = (members.iter(), Ok(()));
        let mut separator = "\n";
        dataset.visit_values(positions, ShownColumns::All, &mut |position, values| {
            let (group, distance) = next.next().map_or((0, 0.0), |&(_, group, at)| (group, at));
            let row = json!({
                "group": group, "position": position, "distance": distance, "columns": values,
            });
            if printed.is_ok() {
                printed = print_json(&format!("{separator}{row}"));
            }
            separator = ",\n";
            Ok(())
        })?;
        printed?;
        print_json("\n]}\n")
    }
}
