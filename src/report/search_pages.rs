//! The pages of searches over the latents of a dataset: neighbors and near-duplicates.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::page::{FigureTile, document, paragraph, section, tiles};
use super::scale::{count, figure};
use super::thumbnails::{Card, Thumbnails, cards};
use crate::columns::{LABEL, ROW, SOURCE};
use crate::search::duplicates::Duplicates;
use crate::search::metric::Metric;
use crate::search::neighbors::RowCounts;
use crate::search::record_values::{RowValues, value_text};

/// The contents of a page about neighbors.
pub(crate) struct NeighborsPage<'a> {
    /// The dataset.
    pub(crate) dataset: String,
    /// The name of the query.
    pub(crate) query: String,
    /// The thumbnail of the query.
    pub(crate) query_image: Option<Markup>,
    pub(crate) metric: Metric,
    pub(crate) counts: RowCounts,
    /// The neighbors with their distances and positions.
    pub(crate) neighbors: Vec<(f64, u64, &'a RowValues)>,
}

impl NeighborsPage<'_> {
    /// Renders the page.
    pub(crate) fn page(self, thumbnails: &mut Thumbnails) -> String {
        let mut all = vec![
            FigureTile::new("Compared", count(self.counts.compared), "rows"),
            FigureTile::new("Distance", self.metric.to_string(), ""),
        ];
        all.extend(left_out(&self.counts));
        let head = html! {
            p.kicker { (self.dataset) }
            h1 { "Nearest to " (self.query) }
            (tiles(&all))
        };
        let query = Card {
            title: self.query.clone(),
            image: self.query_image,
            lines: Vec::new(),
        };
        let found = self.neighbors.iter().map(|&(distance, position, values)| {
            row_card(figure(distance, 4), position, values, thumbnails)
        });
        let sections = [
            section("Query", [cards([query])]),
            section("Neighbors", [cards(found)]),
        ];
        document(&format!("{} · latentflow", self.query), &head, sections)
    }
}

/// The contents of a page about near-duplicates.
pub(crate) struct DuplicatesPage<'a> {
    /// The dataset.
    pub(crate) dataset: String,
    pub(crate) metric: Metric,
    pub(crate) threshold: f64,
    pub(crate) duplicates: &'a Duplicates,
    /// Maximum number of groups, and of rows of a group, on the page.
    pub(crate) groups: usize,
    pub(crate) rows: usize,
    /// The values of these rows by position.
    pub(crate) values: &'a BTreeMap<u64, RowValues>,
}

impl DuplicatesPage<'_> {
    /// Renders the page.
    pub(crate) fn page(&self, thumbnails: &mut Thumbnails) -> String {
        let groups = &self.duplicates.groups;
        let (found, rows) = (groups.len() as u64, self.duplicates.rows() as u64);
        let mut all = vec![
            FigureTile::new("Compared", count(self.duplicates.counts.compared), "rows"),
            FigureTile::new("Groups", count(found), format!("{} rows", count(rows))),
            FigureTile::new("Redundant", count(rows - found), "rows"),
            FigureTile::new("Distance", self.metric.to_string(), ""),
            FigureTile::new("Threshold", figure(self.threshold, 4), ""),
        ];
        all.extend(left_out(&self.duplicates.counts));
        let head = html! {
            p.kicker { (self.dataset) }
            h1 { "Near-duplicates" }
            (tiles(&all))
        };
        let none = RowValues::new();
        let mut sections = Vec::new();
        for (number, group) in (1..).zip(groups.iter().take(self.groups)) {
            let shown = group.iter().take(self.rows).map(|row| {
                let values = self.values.get(&row.position).unwrap_or(&none);
                row_card(figure(row.distance, 4), row.position, values, thumbnails)
            });
            let title = format!("Group {number}: {} rows", count(group.len() as u64));
            sections.push(section(&title, [cards(shown)]));
        }
        if groups.len() > self.groups {
            let left = count((groups.len() - self.groups) as u64);
            sections.push(paragraph(&format!("{left} more groups are not shown.")));
        }
        document("Near-duplicates · latentflow", &head, sections)
    }
}

fn left_out(counts: &RowCounts) -> Option<FigureTile> {
    let left_out = counts.without_distance + counts.other_models;
    (left_out > 0).then(|| {
        let note = format!(
            "{} without a distance, {} of other models",
            count(counts.without_distance),
            count(counts.other_models)
        );
        FigureTile::new("Not compared", count(left_out), note)
    })
}

/// A row with its thumbnail, source, row and label.
pub(super) fn row_card(
    title: String,
    position: u64,
    values: &RowValues,
    thumbnails: &mut Thumbnails,
) -> Card {
    let source = value_text(values, SOURCE);
    let image = thumbnails.of_name(&source);
    let row = match value_text(values, ROW).as_str() {
        "" => format!("position {position}"),
        // The file of an image has no other rows.
        "0" if image.is_some() => format!("position {position}"),
        row => format!("row {row}, position {position}"),
    };
    Card {
        title,
        image,
        lines: vec![source, row, value_text(values, LABEL)],
    }
}
