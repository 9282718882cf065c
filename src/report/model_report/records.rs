//! The records of a report: examples, their errors and their features.

use maud::Markup;

use crate::evaluate::ExampleRecord;
use crate::model::attribution::ATTRIBUTION;
use crate::report::features;
use crate::report::features::FeatureErrorsView;
use crate::report::image_gallery::{GalleryImage, gallery};
use crate::report::model_report::examples::{NamedExample, chosen};
use crate::report::model_report::{EvaluatedModel, ModelReport, origin};
use crate::report::page::{paragraph, section};
use crate::report::scale::figure;

const DIFFERENCE: &str = "Difference: the output minus the original, multiplied by four; light \
                          pixels became lighter, dark pixels darker, middle gray is unchanged.";

impl ModelReport<'_> {
    pub(super) fn features(&self) -> FeatureErrorsView<'_> {
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

    pub(super) fn records(&self) -> Markup {
        let Some(EvaluatedModel {
            evaluation, shown, ..
        }) = self.evaluated
        else {
            return Markup::default();
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
            return Markup::default();
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
            [paragraph(&explanation)].into_iter().chain(content),
        )
    }
}
