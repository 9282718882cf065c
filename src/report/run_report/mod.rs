//! The page about the output of a run: errors, latents, sources, rejects.

pub(crate) mod charts;
mod clusters;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

use maud::{Markup, html};

use super::dataset_sample::{DatasetSample, rejects, sample_dataset};
use super::page::{
    BarRow, FigureTile, all, bars, charts, document, facts, figures, section, tiles,
};
use super::scale::{count, figure};
use crate::error::StageError;
use crate::report::thumbnails::Thumbnails;
use crate::schema_display::type_name;
use crate::sink::dataset::inspect::{self, DatasetDescription};
use crate::sink::{OutputIdentity, STATE_DIR};
use crate::storage::Location;
use crate::units::ByteSize;

/// Maximum number of sources in the table; those with the most records are shown.
const SHOWN: usize = 20;
/// The quantile of the errors above which records are highlighted in the map of latents.
const UNUSUAL: f64 = 0.95;

/// The contents of a page about the output of a run.
#[derive(Debug)]
pub(crate) struct RunReport {
    description: DatasetDescription,
    scan: DatasetSample,
    rejects: BTreeMap<(String, String), u64>,
}

impl RunReport {
    /// Reads a Parquet file, or a folder of Parquet files with its rejects.
    ///
    /// # Errors
    /// If there is no Parquet file, or a file cannot be read.
    pub fn read(location: &Location) -> Result<Self, StageError> {
        let description = inspect::describe(location)?;
        let scan = sample_dataset(location, &description.schema, description.rows)?;
        let rejects = match location.file()? {
            Some(_) => BTreeMap::new(),
            None => rejects(&location.join(STATE_DIR).join("rejects"))?,
        };
        Ok(Self {
            description,
            scan,
            rejects,
        })
    }

    /// Renders the page.
    pub fn page(&self) -> String {
        let name = self.name();
        let writers: Vec<OutputIdentity> = self
            .description
            .writers
            .iter()
            .map(|(identity, _)| identity.clone())
            .collect();
        let mut thumbnails = Thumbnails::new(None, &writers);
        let sections = [
            section(
                "Errors",
                [charts(self.errors())]
                    .into_iter()
                    .filter(|charts| !charts.0.is_empty()),
            ),
            section("Latent space", self.latents().map(|map| charts([map]))),
            section(
                "Clusters",
                self.clusters(&mut thumbnails).into_iter().flatten(),
            ),
            section(
                "Unusual records",
                self.anomalies(&mut thumbnails).into_iter().flatten(),
            ),
            section("Sources", self.sources()),
            section("Rejects", self.rejects()),
            section("Columns", [self.columns()]),
            section("Written by", self.writers()),
        ];
        document(&format!("{name} · latentflow"), &self.head(&name), sections)
    }

    fn name(&self) -> String {
        let location = self.description.location.to_string();
        location
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or(&location)
            .to_owned()
    }

    fn head(&self, name: &str) -> Markup {
        let DatasetDescription {
            location,
            files,
            rows,
            bytes,
            ..
        } = &self.description;
        let rejects: u64 = self.rejects.values().sum();
        let mut all = vec![
            FigureTile::new("Records", count(*rows), ""),
            FigureTile::new("Files", count(*files), ByteSize(*bytes).to_string()),
            FigureTile::new(
                "Rejects",
                count(rejects),
                if rejects == 0 { "none stored" } else { "" },
            ),
        ];
        for (column, summary) in &self.description.errors {
            let note = format!(
                "median {}, p99 {}",
                figure(summary.p50, 3),
                figure(summary.p99, 3)
            );
            all.push(FigureTile::new(
                column.replace('_', " "),
                figure(summary.mean, 4),
                note,
            ));
        }
        html! {
            p.kicker { (location) }
            h1 { (name) }
            (tiles(&all))
        }
    }

    fn sources(&self) -> Option<Markup> {
        let sources = &self.scan.sources;
        if sources.is_empty() {
            return None;
        }
        // If each source has one record, as with images, the folders are more informative.
        let (unit, counts) =
            match sources.values().all(|&records| records == 1) && sources.len() > SHOWN {
                true => ("folder", folders(sources)),
                false => ("source", sources.clone()),
            };
        let mut order: Vec<(&String, u64)> = counts
            .iter()
            .map(|(name, &records)| (name, records))
            .collect();
        order.sort_by_key(|&(name, records)| (Reverse(records), name));
        let most = order.first().map_or(1, |&(_, records)| records).max(1);
        let bar = |name: String, records: u64| BarRow {
            name,
            share: records as f64 / most as f64,
            cells: vec![count(records)],
        };
        let (left, other_records) = order
            .iter()
            .skip(SHOWN)
            .fold((0, 0), |(left, all), (_, records)| {
                (left + 1, all + records)
            });
        let mut rows: Vec<BarRow> = order
            .iter()
            .take(SHOWN)
            .map(|&(name, records)| bar(name.clone(), records))
            .collect();
        if left > 0 {
            rows.push(bar(format!("{} others", count(left)), other_records));
        }
        if self.scan.other_sources > 0 {
            rows.push(bar(
                "not counted separately".to_owned(),
                self.scan.other_sources,
            ));
        }
        Some(bars(
            &format!("Records per {unit}"),
            &[unit, "records", ""],
            rows,
        ))
    }

    fn rejects(&self) -> Option<Markup> {
        let most = self.rejects.values().copied().max()?;
        let mut order: Vec<_> = self.rejects.iter().collect();
        order.sort_by_key(|&(_, &records)| Reverse(records));
        let rows = order.into_iter().map(|((stage, code), &records)| BarRow {
            name: format!("{code} ({stage})"),
            share: records as f64 / most as f64,
            cells: vec![count(records)],
        });
        Some(bars(
            "Rejected records by reason and stage",
            &["reason", "records", ""],
            rows,
        ))
    }

    fn columns(&self) -> Markup {
        let rows = self
            .description
            .schema
            .fields()
            .iter()
            .map(|field| vec![field.name().clone(), type_name(field)]);
        figures("Columns", &["name", "type"], rows)
    }

    fn writers(&self) -> Option<Markup> {
        let writers = self.description.writers.iter().map(|(identity, version)| {
            let models: Vec<String> = identity
                .models
                .iter()
                .map(|(name, digest)| format!("{name} {digest}"))
                .collect();
            let version = version
                .as_ref()
                .map_or(String::new(), |version| format!("latentflow {version}"));
            let rows = [
                ("pipeline", identity.pipeline.clone()),
                ("stage", identity.stage.clone()),
                ("digest", identity.digest.clone()),
                ("models", models.join(", ")),
                ("version", version),
            ];
            let rows = rows.into_iter().filter(|(_, value)| !value.is_empty());
            facts(rows.map(|(name, value)| (name.to_owned(), html! { (value) })))
        });
        let writers = all(writers);
        (!writers.0.is_empty()).then_some(writers)
    }
}

/// Counts the records by the folder of their source.
fn folders(sources: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut folders = BTreeMap::new();
    for (source, records) in sources {
        let folder = Path::new(source)
            .parent()
            .map_or(String::new(), |folder| folder.display().to_string());
        *folders
            .entry(if folder.is_empty() {
                ".".to_owned()
            } else {
                folder
            })
            .or_default() += records;
    }
    folders
}
