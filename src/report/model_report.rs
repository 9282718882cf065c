//! The page about a model: key figures, loss curve, reconstruction errors, examples, latents.

use super::chart::{ChartLabels, HistogramSeries, histogram};
use super::features::{self, FeatureErrorsView};
use super::html::{Html, element};
use super::image_gallery::{GalleryImage, gallery, is_small};
use super::latent_map::{self, LatentPoints};
use super::loss_curve::{self, LossPoint};
use super::page::{charts, document, notes, paragraph, section, tiles};
use super::scale::{count, figure};
use super::{evaluation_tables, model_summary};
use crate::data::{PreparedDataset, Subset};
use crate::evaluate::{Evaluation, ExampleRecord, ExampleSet, RecordScore};
use crate::model::attribution::ATTRIBUTION;
use crate::model::{Model, ModelCard};

/// The contents of a page about a model.
pub struct ModelReport<'a> {
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
pub struct EvaluatedModel<'a> {
    /// The results.
    pub evaluation: &'a Evaluation,
    /// The data.
    pub prepared: &'a PreparedDataset,
    /// The records that [`examples`] selected.
    pub shown: &'a ExampleSet,
}

/// The name of an example and its score.
struct NamedExample<'a> {
    name: String,
    score: &'a RecordScore,
}

/// Selects the records that a page shows: evenly spaced from the smallest error to the largest, and
/// the median anomaly.
pub fn examples(evaluation: &Evaluation, model: &Model) -> Vec<(Subset, usize)> {
    chosen(evaluation, model)
        .iter()
        .map(|example| (example.score.part, example.score.index))
        .collect()
}

fn chosen<'a>(evaluation: &'a Evaluation, model: &Model) -> Vec<NamedExample<'a>> {
    let small = model
        .image_input()
        .and_then(|image| image.size)
        .is_some_and(is_small);
    let sorted = |anomaly: bool| {
        let mut sorted: Vec<&RecordScore> = evaluation
            .records
            .iter()
            .filter(|s| s.anomaly == anomaly)
            .collect();
        sorted.sort_by(|a, b| a.error.total_cmp(&b.error));
        sorted
    };
    let (normal, anomalies) = (sorted(false), sorted(true));
    let steps: usize = if small { 8 } else { 2 };
    let named = |step: usize| {
        let name = match step {
            0 => "best".to_owned(),
            step if step == steps => "worst".to_owned(),
            step if step * 2 == steps => "median".to_owned(),
            step => format!("{} %", figure(100.0 * step as f64 / steps as f64, 3)),
        };
        (name, normal.len().saturating_sub(1) * step / steps)
    };
    let mut selected: Vec<(String, usize)> = (0..=steps).map(named).collect();
    selected.dedup_by_key(|(_, index)| *index);
    let examples = selected.into_iter().filter_map(|(name, index)| {
        Some(NamedExample {
            name,
            score: normal.get(index)?,
        })
    });
    let anomaly = anomalies
        .get(anomalies.len() / 2)
        .map(|score| NamedExample {
            name: "median anomaly".to_owned(),
            score,
        });
    examples.chain(anomaly).collect()
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
            section(
                "Notes",
                Some(notes(&self.all_notes())).filter(|notes| !notes.is_empty()),
            ),
        ];
        document(
            &format!("{name} · latentflow"),
            self.head(name, card),
            sections,
        )
    }

    fn head(&self, name: &str, card: Option<&ModelCard>) -> Html {
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
        let mut head: Html = element("p")
            .class("kicker")
            .text(self.model.summary())
            .into();
        head.push(element("h1").text(name));
        if !description.is_empty() {
            head.push(element("p").class("lead").text(description));
        }
        head.push(tiles(&figures));
        head.push(scored.map_or_else(Html::default, |scored| {
            element("p").class("kicker").text(scored).into()
        }));
        head
    }

    fn learning(&self, card: Option<&ModelCard>) -> Html {
        if self.curve.is_empty() {
            return Html::default();
        }
        let loss = card.map_or("loss", |card| card.loss.as_str());
        let best = loss_curve::best(self.curve).map(|(epoch, smallest)| {
            let epochs = self.curve.len();
            paragraph(format!(
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

    fn errors(&self, card: Option<&ModelCard>) -> Html {
        let Some(evaluation) = self.evaluated.map(|all| all.evaluation) else {
            return Html::default();
        };
        let Some(reconstruction) = &evaluation.reconstruction else {
            return Html::default();
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
        let explanation = paragraph(format!(
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

    fn features(&self) -> FeatureErrorsView<'_> {
        let input = self.model.feature_input();
        let named = input
            .map(|input| input.columns.as_slice())
            .filter(|columns| !columns.is_empty());
        let prepared = self.evaluated.map(|all| all.prepared);
        let names = named
            .or(prepared.map(|prepared| prepared.value_names.as_slice()))
            .unwrap_or_default();
        let stats = self
            .model
            .card()
            .and_then(|card| card.reconstruction_error.as_ref()?.features.as_ref());
        FeatureErrorsView {
            names,
            input,
            stats,
        }
    }

    fn records(&self) -> Html {
        let Some(EvaluatedModel {
            evaluation, shown, ..
        }) = self.evaluated
        else {
            return Html::default();
        };
        let chosen = chosen(evaluation, self.model);
        let found = |example: &NamedExample<'_>| {
            let is_it = |record: &&ExampleRecord| {
                (record.subset, record.index) == (example.score.part, example.score.index)
            };
            shown.records.iter().find(is_it)
        };
        let both: Vec<(NamedExample<'_>, &ExampleRecord)> = chosen
            .into_iter()
            .filter_map(|example| found(&example).map(|record| (example, record)))
            .collect();
        if both.is_empty() {
            return Html::default();
        }
        let mut explanation =
            "Records in the order of their errors, from the smallest to the largest.".to_owned();
        if let Some(corruption) = &shown.corruption {
            explanation.push_str(&format!(" The inputs were corrupted: {corruption}."));
        }
        if both.iter().any(|(_, record)| record.explained.is_some()) {
            explanation.push_str(&format!(" {ATTRIBUTION}"));
        }
        let content = match self.model.image_input() {
            Some(image) => {
                let pictures: Vec<GalleryImage<'_>> = both
                    .iter()
                    .map(|(example, record)| GalleryImage {
                        record,
                        name: example.name.clone(),
                        origin: origin(record),
                        error: figure(example.score.error, 3),
                    })
                    .collect();
                vec![
                    gallery(&pictures, &image.format, shown.corruption.as_deref()),
                    paragraph(DIFFERENCE),
                ]
            }
            None => {
                let features = self.features();
                both.iter()
                    .map(|(example, record)| {
                        let error = figure(example.score.error, 3);
                        let name = match origin(record) {
                            place if place.is_empty() => format!("{} ({error})", example.name),
                            place => format!("{} ({error}): {place}", example.name),
                        };
                        features::record(&features, &name, record)
                    })
                    .collect()
            }
        };
        section(
            "Records",
            [paragraph(explanation)].into_iter().chain(content),
        )
    }

    fn latents(&self) -> Html {
        let Some(EvaluatedModel {
            evaluation,
            prepared,
            ..
        }) = self.evaluated
        else {
            return Html::default();
        };
        let Some(codes) = &evaluation.codes else {
            return Html::default();
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

const DIFFERENCE: &str = "Difference: the output minus the original, multiplied by four; light \
                          pixels became lighter, dark pixels darker, middle gray is unchanged.";
