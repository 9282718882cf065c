//! The reconstruction errors of features, on average and in single records.

use maud::Markup;

use super::chart::{self, ChartLabels, LineSeries};
use super::page::{BarRow, bars, charts};
use super::scale::{ScaleKind, figure};
use crate::evaluate::ExampleRecord;
use crate::model::FeatureInput;
use crate::model::feature_errors::FeatureStats;
use crate::model::feature_groups::FeatureGroups;
use crate::model::input::rules::value_encoder::RawDescription;

/// Maximum number of features in a table.
const SHOWN: usize = 12;
/// Minimum number of features of a record that is also drawn as a line.
const LINES_FROM: usize = 24;

/// The names, the scaling and the error statistics of features.
pub(super) struct FeatureErrorsView<'a> {
    pub(super) names: &'a [String],
    pub(super) input: Option<&'a FeatureInput>,
    /// The statistics of the model card.
    pub(super) stats: Option<&'a FeatureStats>,
}

impl FeatureErrorsView<'_> {
    fn name(&self, index: usize) -> String {
        self.names
            .get(index)
            .cloned()
            .unwrap_or_else(|| format!("feature {index}"))
    }

    /// The inputs of each feature of a record with this number of inputs.
    fn groups(&self, inputs: usize) -> FeatureGroups {
        match self.input {
            Some(input) => input.groups(inputs),
            None => FeatureGroups::single(inputs),
        }
    }

    /// Reverts the conversion of a value into inputs of the model.
    fn raw(&self, index: usize, inputs: &[f32]) -> String {
        let encoder = self.input.and_then(|input| input.encoder.as_ref());
        let raw = match (encoder, self.input) {
            (Some(encoder), _) => encoder.describe(index, inputs),
            (None, Some(input)) => {
                let scale = input.scaling.feature(index);
                RawDescription::Number(scale.invert(f64::from(inputs[index])))
            }
            (None, None) => RawDescription::Number(f64::from(inputs[index])),
        };
        match raw {
            RawDescription::Number(value) => figure(value, 4),
            RawDescription::Text(text) => text,
        }
    }
}

/// Returns a table of the features with the largest mean errors.
pub(super) fn largest_means(features: &FeatureErrorsView<'_>, found: &FeatureStats) -> Markup {
    let order = largest(&found.mean);
    let most = order.first().map_or(0.0, |&index| found.mean[index]);
    let rows = order.iter().take(SHOWN).map(|&index| BarRow {
        name: features.name(index),
        share: found.mean[index] / most,
        cells: vec![figure(found.mean[index], 4), figure(found.std[index], 4)],
    });
    let rows: Vec<BarRow> = rows.collect();
    bars(
        &of_all("Mean squared error of each feature", found.mean.len()),
        &["feature", "mean", "standard deviation", ""],
        rows,
    )
}

/// Returns a table of the features of a record that explain most of its error, or that have the
/// largest errors if the record is not unusual, and a line chart of all features if there are many.
pub(super) fn record(
    features: &FeatureErrorsView<'_>,
    name: &str,
    record: &ExampleRecord,
) -> Markup {
    let groups = features.groups(record.clean.len());
    let errors = groups.squared_errors(&record.clean, &record.output);
    let errors: Vec<f64> = errors.collect();
    let shares: Vec<(usize, Option<f64>)> = match &record.explained {
        Some(explained) => {
            let ranked = explained.iter();
            ranked.map(|one| (one.feature, Some(one.share))).collect()
        }
        None => largest(&errors)
            .into_iter()
            .map(|index| (index, None))
            .collect(),
    };
    let most = errors.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let stats = features
        .stats
        .filter(|stats| stats.mean.len() == errors.len());
    let zscores = stats.map(|stats| stats.zscores(&groups, &record.clean, &record.output));
    let rows = shares.iter().take(SHOWN).map(|&(index, share)| {
        let [original, output] =
            [&record.clean, &record.output].map(|values| features.raw(index, values));
        let mut cells = vec![original, output, figure(errors[index], 3)];
        cells.extend(zscores.as_ref().map(|zscores| figure(zscores[index], 3)));
        cells.extend(share.map(|share| format!("{} %", figure(100.0 * share, 3))));
        BarRow {
            name: features.name(index),
            share: share.unwrap_or(errors[index] / most),
            cells,
        }
    });
    let mut heads = vec!["feature", "original", "reconstruction", "squared error"];
    heads.extend(zscores.as_ref().map(|_| "z-score"));
    heads.extend(record.explained.as_ref().map(|_| "share of the error"));
    heads.push("");
    let rows: Vec<BarRow> = rows.collect();
    let title = match &record.explained {
        Some(_) if errors.len() > SHOWN => {
            format!(
                "{name}: the {SHOWN} features of {} that explain most",
                errors.len()
            )
        }
        _ => of_all(name, errors.len()),
    };
    let table = bars(&title, &heads, rows);
    let drawn = (groups.features() == record.clean.len() && errors.len() >= LINES_FROM)
        .then(|| line(name, record));
    charts(drawn.into_iter().chain([table]))
}

fn line(name: &str, record: &ExampleRecord) -> Markup {
    let line = |series: &str, values: &[f32]| LineSeries {
        name: series.to_owned(),
        points: values
            .iter()
            .enumerate()
            .map(|(index, &value)| (index as f64, f64::from(value)))
            .collect(),
    };
    let lines = [
        line("original", &record.clean),
        line("reconstruction", &record.output),
    ];
    chart::line_chart(
        ChartLabels {
            title: name,
            x: "feature",
            y: "scaled value",
        },
        &lines,
        ScaleKind::Linear,
    )
}

fn of_all(name: &str, all: usize) -> String {
    if all > SHOWN {
        format!("{name}: the {SHOWN} largest of {all}")
    } else {
        name.to_owned()
    }
}

/// Returns the indices of values in descending order of the values.
fn largest(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order
}
