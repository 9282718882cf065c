//! Parts of the page about a model, for pages of other programs such as notebooks: HTML without a
//! style sheet.

use super::evaluation_tables;
use super::html::{Html, element};
use super::model_summary;
use super::page::{notes, paragraph};
use crate::evaluate::Evaluation;
use crate::model::ModelCard;

/// Returns a model card: name, description, and a table of all entries.
pub fn card_html(card: &ModelCard) -> String {
    let mut html = Html::default();
    html.push(element("h3").text(&card.name));
    html.push(paragraph(&card.description));
    html.push(model_summary::table(card));
    html.to_string()
}

/// Returns the tables of an evaluation, and its notes.
pub fn evaluation_html(evaluation: &Evaluation) -> String {
    let mut html = Html::default();
    html.push(element("h3").text(&evaluation.model.name));
    html.push(paragraph(&evaluation.model.summary));
    for table in evaluation_tables::tables(evaluation) {
        html.push(table);
    }
    html.push(notes(&evaluation.notes));
    html.to_string()
}
