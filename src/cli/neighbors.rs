//! `latentflow neighbors`: the rows of a dataset whose latents are nearest to that of an image or of a
//! row.

use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::latents::{
    LatentArgs, ResultFormat, TableRow, counts_json, counts_text, print_table, show,
};
use super::log::{self, LogFormat};
use super::progress::TaskReporter;
use super::{PipelineArgs, print, print_json};
use crate::cli::exit::ExitCode;
use crate::columns::SOURCE;
use crate::report::NeighborsPage;
use crate::search::latent_dataset::LatentDataset;
use crate::search::metric::Metric;
use crate::search::neighbors::{NeighborQuery, Neighbors};
use crate::search::query_image::{QueryEncoder, QueryImageError};
use crate::search::record_values::{RowValues, ShownColumns, value_text};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct NeighborsCommand {
    #[command(flatten)]
    latents: LatentArgs,
    #[command(flatten)]
    query: QueryArgs,
    /// Number of neighbors.
    #[arg(long, short, value_name = "K", default_value = "10")]
    k: NonZeroU16,
    /// Distance between latents.
    #[arg(long, value_enum, default_value_t = Metric::Cosine)]
    metric: Metric,
    /// Pipeline that wrote the dataset, which encodes the image of --to.
    #[arg(long, value_name = "FILE", requires = "to", conflicts_with = "model")]
    pipeline: Option<PathBuf>,
    /// Folder of the model that computed the latents, which encodes the image of --to.
    ///
    /// The options of the stages `pixels` and `encode` are those that the dataset records.
    #[arg(long, value_name = "FOLDER", requires = "to")]
    model: Option<PathBuf>,
}

/// The query: an image or a row.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct QueryArgs {
    /// Image whose neighbors are searched; requires --pipeline or --model.
    #[arg(long, value_name = "IMAGE")]
    to: Option<PathBuf>,
    /// Row whose neighbors are searched, by its position in the dataset, counted from 0.
    ///
    /// The files count in the order of their names. The row is not its own neighbor.
    #[arg(long, value_name = "N")]
    row: Option<u64>,
}

const EXAMPLES: &str = "\
Examples:
  latentflow neighbors out/latents --to photo.jpg --pipeline photos.toml
  latentflow neighbors out/latents --to photo.jpg --model models/photo-ae --page nearest.html
  latentflow neighbors out/latents --row 17 -k 5 --metric euclidean --format json

All rows are compared, in bounded memory: the result is exact. Rows of equal distance are in the
order of the dataset.";

impl NeighborsCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        log::start(LogFormat::Auto);
        let dataset = self.latents.open()?;
        let query = self.query(&dataset)?;
        let progress = TaskReporter::start(LogFormat::Auto);
        let mut watch = |done, total| show(&progress, "comparing latents", done, total);
        let k = usize::from(self.k.get());
        let neighbors = dataset.neighbors(&query, self.metric, k, &mut watch)?;
        drop(progress);
        let mut positions: Vec<u64> = neighbors.found.iter().map(|&(_, at)| at).collect();
        positions.extend(query.position);
        positions.sort_unstable();
        let values = dataset.values_of(positions, ShownColumns::All)?;
        let own = query.position.and_then(|position| values.get(&position));
        let name = self.query_name(own);
        let found: Vec<(f64, u64, &RowValues)> = neighbors
            .found
            .iter()
            .filter_map(|&(distance, position)| Some((distance, position, values.get(&position)?)))
            .collect();
        match self.latents.format {
            ResultFormat::Json => {
                let document = self.document(&dataset, own, &neighbors, &found);
                print_json(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
            }
            ResultFormat::Table => self.print(&name, &neighbors, &found)?,
        }
        self.latents.write_page(|| {
            let mut thumbnails = self.latents.thumbnails(&dataset);
            let query_image = match (&self.query.to, own) {
                (Some(file), _) => thumbnails.of_file(file),
                (None, Some(row)) => thumbnails.of_name(&value_text(row, SOURCE)),
                (None, None) => None,
            };
            let page = NeighborsPage {
                dataset: dataset.location.to_string(),
                query: name,
                query_image,
                metric: self.metric,
                counts: neighbors.counts,
                neighbors: found,
            };
            page.page(&mut thumbnails)
        })?;
        Ok(ExitCode::Done)
    }

    fn query(&self, dataset: &LatentDataset) -> anyhow::Result<NeighborQuery> {
        let Some(file) = &self.query.to else {
            return Ok(dataset.row_query(self.query.row.unwrap_or_default())?);
        };
        let encoder = match (&self.pipeline, &self.model) {
            (Some(pipeline), _) => {
                let arguments = PipelineArgs {
                    file: pipeline.clone(),
                    set: Vec::new(),
                    options: Vec::new(),
                    shard: None,
                };
                QueryEncoder::Pipeline(Box::new(arguments.read()?))
            }
            (None, Some(folder)) => QueryEncoder::Model(folder.clone()),
            (None, None) => {
                return Err(QueryEncoder::missing(dataset).into());
            }
        };
        dataset
            .image_query(file, encoder)
            .map_err(|error| match error {
                QueryImageError::Pipeline(faults) => faults.into(),
                QueryImageError::Stage(failure) => failure.into(),
                QueryImageError::Query(error) => error.into(),
            })
    }

    fn query_name(&self, own: Option<&RowValues>) -> String {
        if let Some(file) = &self.query.to {
            return file.display().to_string();
        }
        let source = own.map(|values| value_text(values, SOURCE));
        let row = format!("row {}", self.query.row.unwrap_or_default());
        match source.filter(|source| !source.is_empty()) {
            Some(source) => format!("{row} ({source})"),
            None => row,
        }
    }

    fn print(
        &self,
        name: &str,
        neighbors: &Neighbors,
        found: &[(f64, u64, &RowValues)],
    ) -> anyhow::Result<()> {
        let counts = counts_text(&neighbors.counts);
        print(&format!(
            "nearest to {name} by {} distance\n{counts}\n\n",
            self.metric
        ))?;
        let rows: Vec<TableRow<'_>> = found
            .iter()
            .map(|&(distance, position, values)| TableRow {
                cells: vec![format!("{distance:.6}")],
                position,
                values: Some(values),
            })
            .collect();
        print_table(&["distance"], &rows)
    }

    fn document(
        &self,
        dataset: &LatentDataset,
        own: Option<&RowValues>,
        neighbors: &Neighbors,
        found: &[(f64, u64, &RowValues)],
    ) -> Value {
        let neighbor = |&(distance, position, values): &(f64, u64, &RowValues)| json!({ "distance": distance, "position": position, "columns": values });
        let query = match &self.query.to {
            Some(file) => json!({ "image": file.display().to_string() }),
            None => json!({ "position": self.query.row, "columns": own }),
        };
        json!({
            "dataset": dataset.location.to_string(),
            "column": dataset.column,
            "metric": self.metric.to_string(),
            "query": query,
            "rows": counts_json(&neighbors.counts),
            "neighbors": found.iter().map(neighbor).collect::<Vec<_>>(),
        })
    }
}
