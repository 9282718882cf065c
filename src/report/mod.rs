//! Reports: self-contained HTML pages about a model or about the output of a run.

mod chart;
mod loss_curve;
mod model_summary;
mod features;
mod fragment;
mod html;
mod evaluation_tables;
mod model_report;
mod page;
mod image_gallery;
mod latent_map;
mod run_report;
mod scale;
mod dataset_sample;

pub use fragment::{card_html, evaluation_html};
pub use loss_curve::{LossPoint, read_curve};
pub use model_report::{EvaluatedModel, ModelReport, examples};
pub use run_report::RunReport;

#[cfg(test)]
mod tests;
