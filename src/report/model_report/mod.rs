//! The page about a model: key figures, loss curve, reconstruction errors, examples, latents.

pub mod examples;
pub(crate) mod records;

use maud::{Markup, html};

use super::chart::{ChartLabels, HistogramSeries, histogram};
use super::latent_map::{self, LatentPoints};
use super::loss_curve::{self, LossPoint};
use super::page::{charts, document, notes, paragraph, section, tiles};
use super::scale::{count, figure};
use super::{evaluation_tables, features, model_summary};
use crate::data::PreparedDataset;
use crate::evaluate::{Evaluation, ExampleRecord, ExampleSet};
use crate::model::{Model, ModelCard};

/// The contents of a page about a model.
pub(crate) struct ModelReport<'a> {
    /// The model.
    pub model: &'a Model,
    /// The loss curve by epoch; empty if it is not available.
    pub curve: &'a [LossPoint],
    /// The evaluation of the model on data, if there is one.
    pub evaluated: Option<EvaluatedModel<'a>>,
    /// Notes about parts that are missing, in sentences.
    pub notes: Vec<String>,
}

/// The evaluation of a model on data.
#[derive(Clone, Copy)]
pub(crate) struct EvaluatedModel<'a> {
    /// The results.
    pub evaluation: &'a Evaluation,
    /// The data.
    pub prepared: &'a PreparedDataset,
    /// The records that [`examples`] selected.
    pub shown: &'a ExampleSet,
}

impl ModelReport<'_> {
    /// Renders the page.
    pub fn page(&self) -> String {
        let card = self.model.card();
        let name = card.map_or(self.model.name(), |card| card.name.as_str());
        let sections = [
            self.learning(card),
            self.errors(card),
            self.records(),
            self.latents(),
            section(
                "Measurements",
                self.evaluated
                    .map(|all| charts(evaluation_tables::tables(all.evaluation))),
            ),
            section(
                "Model",
                card.into_iter()
                    .flat_map(|card| {
                        [
                            Some(model_summary::table(card)),
                            model_summary::training_file(card),
                        ]
                    })
                    .flatten(),
            ),
            section("Notes", [notes(&self.all_notes())]),
        ];
        document(
            &format!("{name} · latentflow"),
            &self.head(name, card),
            sections,
        )
    }

    fn head(&self, name: &str, card: Option<&ModelCard>) -> Markup {
        let description = card.map_or("", |card| card.description.as_str());
        let figures = match (self.evaluated, card) {
            (Some(all), _) => evaluation_tables::tiles(all.evaluation),
            (None, Some(card)) => model_summary::tiles(card),
            (None, None) => Vec::new(),
        };
        let scored = self.evaluated.map(|all| {
            let data = &all.evaluation.data;
            format!(
                "{} records of the {}",
                count(data.scored as u64),
                data.parts_in_words()
            )
        });
        html! {
            p.kicker { (self.model.summary()) }
            h1 { (name) }
            @if !description.is_empty() {
                p.lead { (description) }
            }
            (tiles(&figures))
            @if let Some(scored) = scored {
                p.kicker { (scored) }
            }
        }
    }

    fn learning(&self, card: Option<&ModelCard>) -> Markup {
        if self.curve.is_empty() {
            return Markup::default();
        }
        let loss = card.map_or("loss", |card| card.loss.as_str());
        let best = loss_curve::best(self.curve).map(|(epoch, smallest)| {
            let epochs = self.curve.len();
            paragraph(&format!(
                "The smallest validation loss, {}, is that of epoch {epoch} of {epochs}.",
                figure(smallest, 4)
            ))
        });
        section(
            "Training",
            best.into_iter()
                .chain([charts(loss_curve::charts(self.curve, loss))]),
        )
    }

    fn errors(&self, card: Option<&ModelCard>) -> Markup {
        let Some(evaluation) = self.evaluated.map(|all| all.evaluation) else {
            return Markup::default();
        };
        let Some(reconstruction) = &evaluation.reconstruction else {
            return Markup::default();
        };
        let errors = |anomaly: bool| {
            evaluation
                .records
                .iter()
                .filter(|score| score.anomaly == anomaly)
                .map(|score| score.error)
                .collect::<Vec<_>>()
        };
        let samples = [
            HistogramSeries {
                name: "normal",
                values: errors(false),
            },
            HistogramSeries {
                name: "anomalies",
                values: errors(true),
            },
        ];
        let samples: Vec<HistogramSeries<'_>> = samples
            .into_iter()
            .filter(|sample| !sample.values.is_empty())
            .collect();
        let known = card.and_then(|card| card.reconstruction_error.as_ref());
        let quantiles = known.map_or(&reconstruction.error.quantiles, |known| &known.quantiles);
        let marks = [
            ("p50", quantiles.p50),
            ("p95", quantiles.p95),
            ("p99", quantiles.p99),
        ];
        let marks = marks.map(|(name, value)| (name.to_owned(), value));
        let labels = ChartLabels {
            title: "Reconstruction error",
            x: evaluation.model.loss,
            y: "% of the records",
        };
        let records = match known {
            Some(known) => format!(
                "the {} validation records of the model card",
                count(known.count)
            ),
            None => "these records".to_owned(),
        };
        let explanation = paragraph(&format!(
            "The dashed lines mark the 50 %, 95 % and 99 % quantiles of {records}."
        ));
        let features = self.features();
        let means = reconstruction.error.features.as_ref();
        let means = means.map(|found| features::largest_means(&features, found));
        let drawn = histogram(labels, &samples, &marks);
        section(
            "Reconstruction error",
            [explanation, charts([drawn].into_iter().chain(means))],
        )
    }

    fn latents(&self) -> Markup {
        let Some(EvaluatedModel {
            evaluation,
            prepared,
            ..
        }) = self.evaluated
        else {
            return Markup::default();
        };
        let Some(codes) = &evaluation.codes else {
            return Markup::default();
        };
        let has_labels = codes.labels.iter().any(Option::is_some);
        let (group, groups) = if has_labels {
            let group = codes
                .labels
                .iter()
                .map(|label| label.map(|label| label as usize))
                .collect();
            (group, prepared.labels.clone())
        } else if codes.anomalies.contains(&true) {
            let group = codes
                .anomalies
                .iter()
                .map(|&anomaly| Some(usize::from(anomaly)))
                .collect();
            (group, vec!["normal".to_owned(), "anomalies".to_owned()])
        } else {
            (vec![None; codes.labels.len()], Vec::new())
        };
        let map = latent_map::latent_map(
            &LatentPoints {
                size: codes.size,
                values: &codes.values,
                group,
                groups,
            },
            "Latents",
        );
        section("Latent space", map.map(|map| charts([map])))
    }

    fn all_notes(&self) -> Vec<String> {
        let found = self.evaluated.map(|all| {
            let Evaluation { data, notes, .. } = all.evaluation;
            let failed = (data.failed > 0).then(|| {
                format!(
                    "the model failed on {} records, which are not counted",
                    count(data.failed as u64)
                )
            });
            let rejects = (data.rejects > 0).then(|| {
                format!(
                    "{} records of the data could not be read",
                    count(data.rejects)
                )
            });
            failed
                .into_iter()
                .chain(rejects)
                .chain(notes.iter().cloned())
                .collect::<Vec<_>>()
        });
        self.notes
            .iter()
            .cloned()
            .chain(found.unwrap_or_default())
            .collect()
    }
}

/// Names the origin of a record; empty if it is not known.
fn origin(record: &ExampleRecord) -> String {
    record
        .origin
        .as_ref()
        .map_or_else(String::new, ToString::to_string)
}
