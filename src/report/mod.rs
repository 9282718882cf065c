//! Reports: self-contained HTML pages about a model or about the output of a run.

mod chart;
mod dataset_sample;
mod evaluation_tables;
mod features;
mod fragment;
mod image_gallery;
mod latent_map;
mod loss_curve;
mod model_report;
mod model_summary;
mod page;
mod preview;
mod run_report;
mod scale;
mod search_pages;
#[cfg(test)]
mod tests;
mod thumbnails;

pub use crate::report::model_report::examples::examples;
pub use fragment::{card_html, evaluation_html};
pub(crate) use loss_curve::read_curve;
pub(crate) use model_report::{EvaluatedModel, ModelReport};
pub(crate) use preview::Preview;
pub(crate) use run_report::RunReport;
pub(crate) use search_pages::{DuplicatesPage, NeighborsPage};
pub(crate) use thumbnails::Thumbnails;
