//! Parts of the page about a model, for pages of other programs such as notebooks: HTML without a
//! style sheet.

use maud::html;

use super::page::{all, notes, paragraph, render};
use super::{evaluation_tables, model_summary};
use crate::evaluate::Evaluation;
use crate::model::ModelCard;

/// Returns a model card: name, description, and a table of all entries.
pub fn card_html(card: &ModelCard) -> String {
    render(&html! {
        h3 { (card.name) }
        (paragraph(&card.description))
        (model_summary::table(card))
    })
}

/// Returns the tables of an evaluation, and its notes.
pub fn evaluation_html(evaluation: &Evaluation) -> String {
    render(&html! {
        h3 { (evaluation.model.name) }
        (paragraph(&evaluation.model.summary))
        (all(evaluation_tables::tables(evaluation)))
        (notes(&evaluation.notes))
    })
}
