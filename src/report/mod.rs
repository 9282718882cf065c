//! Reports: one self-contained page about a model, or about what a run has written.

mod chart;
mod curve;
mod facts;
mod features;
mod html;
mod metrics;
mod model;
mod page;
mod pictures;
mod points;
mod run;
mod scale;
mod scan;

pub use curve::{Point, read_curve};
pub use model::{Evaluated, ModelReport, examples};
pub use run::RunReport;

#[cfg(test)]
mod tests;
