//! The model card, as key figures and as a table.

use maud::{Markup, html};
use serde_json::Value;

use super::page::{FigureTile, facts};
use super::scale::{count, figure};
use crate::model::ModelCard;
use crate::model::input::spec::{InputKind, InputSpec};

/// Returns the key figures of the card, for a model that is not evaluated.
pub(super) fn tiles(card: &ModelCard) -> Vec<FigureTile> {
    let mut tiles = Vec::new();
    tiles.extend(
        card.code_size
            .map(|size| FigureTile::new("Code size", size.to_string(), "")),
    );
    if let Some(error) = &card.reconstruction_error {
        let records = match &error.measured {
            Some(measured) => format!("records, measured {}", measured.date),
            None => "validation records".to_owned(),
        };
        let note = format!(
            "mean, {}, on {} {records}",
            card.loss.as_str(),
            count(error.count)
        );
        tiles.push(FigureTile::new(
            "Reconstruction error",
            figure(error.mean, 4),
            note,
        ));
    }
    let metrics = card
        .metrics
        .iter()
        .take(MAX_TILES - tiles.len().min(MAX_TILES));
    tiles.extend(metrics.map(|(name, value)| {
        FigureTile::new(name, figure(*value, 4), "according to the model card")
    }));
    tiles
}

const MAX_TILES: usize = 8;

/// Returns a table of all entries of the card.
pub(super) fn table(card: &ModelCard) -> Markup {
    let mut rows: Vec<(String, Markup)> = Vec::new();
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            rows.push((name.to_owned(), html! { (value) }));
        }
    };
    row("kind", card.kind.clone());
    row("input", input(&card.input));
    row(
        "code size",
        card.code_size
            .map(|size| size.to_string())
            .unwrap_or_default(),
    );
    row("loss", card.loss.as_str().to_owned());
    if let Some(error) = &card.reconstruction_error {
        let quantiles = &error.quantiles;
        let [mean, p50, p95, p99] =
            [error.mean, quantiles.p50, quantiles.p95, quantiles.p99].map(|v| figure(v, 4));
        let count = count(error.count);
        let (name, origin) = match &error.measured {
            Some(measured) => ("calibrated error", format!(", measured {}", measured.date)),
            None => ("validation error", String::new()),
        };
        row(
            name,
            format!("mean {mean}, median {p50}, p95 {p95}, p99 {p99} of {count} records{origin}"),
        );
    }
    for (name, value) in &card.metrics {
        row(name, figure(*value, 5));
    }
    if let Some(training) = &card.training {
        row("training data", training.data.clone());
        row("license", training.license.clone());
        row("data digest", training.data_digest.clone());
        if !training.architecture.is_empty() {
            let steps = html! {
                ol {
                    @for step in &training.architecture {
                        li { (step) }
                    }
                }
            };
            rows.push(("architecture".to_owned(), steps));
        }
        rows.extend(
            training
                .hyperparameters
                .iter()
                .map(|(name, value)| (name.replace('_', " "), html! { (plain(value)) })),
        );
    }
    for (file, digest) in &card.files {
        let digest = html! {
            code { (digest) }
        };
        rows.push((file.clone(), digest));
    }
    facts(rows)
}

/// Returns the training file that the card holds.
pub(super) fn training_file(card: &ModelCard) -> Option<Markup> {
    let file = &card.training.as_ref()?.file;
    let text = toml::to_string(file)
        .ok()
        .filter(|text| !text.is_empty() && !file.is_null())?;
    Some(html! {
        details {
            summary { "The training file" }
            pre.scroll {
                code { (text) }
            }
        }
    })
}

fn input(input: &InputSpec) -> String {
    match input.kind {
        Some(InputKind::Features) => match &input.columns {
            Some(columns) => format!("{} features: {}", columns.len(), columns.join(", ")),
            None => "features".to_owned(),
        },
        _ => {
            let size = input.size.map_or("any size".to_owned(), |[height, width]| {
                format!("{height}×{width} pixels")
            });
            let channels = input.channels.map_or_else(String::new, |channels| {
                format!(", {channels:?}").to_lowercase()
            });
            let range = input
                .range
                .map_or_else(String::new, |[low, high]| format!(", in [{low}, {high}]"));
            let steps = match &input.steps {
                None => String::new(),
                Some(steps) => {
                    let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
                    format!(", after {}", steps.join(", "))
                }
            };
            format!("images of {size}{channels}{range}{steps}")
        }
    }
}

/// Formats a value without the quotes and brackets of JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(table) => {
            let entries = table
                .iter()
                .map(|(key, nested)| format!("{key} {}", plain(nested)));
            entries.collect::<Vec<_>>().join(", ")
        }
        Value::Number(number) => number
            .as_f64()
            .map_or_else(|| number.to_string(), |number| figure(number, 6)),
        other => other.to_string(),
    }
}
