//! The result of an evaluation as a text table.

mod cells;
pub(crate) mod sections;

use std::fmt;

use super::result::Evaluation;
use crate::evaluate::table::sections::{
    anomalies_found, baseline, code, compression, decode_distance, denoising, labels, listed,
    reconstruction,
};

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (model, data) = (&self.model, &self.data);
        writeln!(f, "{}: {}", model.name, model.summary)?;
        let parts = data.parts_in_words();
        let anomalies = match data.anomalies {
            0 => String::new(),
            anomalies => format!(", {anomalies} of them anomalies"),
        };
        writeln!(f, "{} records of the {parts}{anomalies}", data.scored)?;
        self.reconstruction
            .iter()
            .try_for_each(|found| reconstruction(f, found, model.loss))?;
        if self.compression.is_some() || self.code.is_some() {
            writeln!(f, "\ncode")?;
        }
        self.compression
            .iter()
            .try_for_each(|found| compression(f, found))?;
        self.code.iter().try_for_each(|found| code(f, found))?;
        self.pca.iter().try_for_each(|found| baseline(f, found))?;
        self.labels.iter().try_for_each(|found| labels(f, found))?;
        self.anomalies
            .iter()
            .try_for_each(|found| anomalies_found(f, found))?;
        if let Some(found) = &self.reconstruction {
            let title = if self.anomalies.is_some() {
                "normal records with the largest errors"
            } else {
                "records with the largest errors"
            };
            listed(f, title, &found.largest_errors)?;
        }
        if let Some(found) = &self.anomalies {
            listed(
                f,
                "anomalies with the largest errors",
                &found.largest_errors,
            )?;
            listed(
                f,
                "anomalies with the smallest errors",
                &found.smallest_errors,
            )?;
        }
        if !self.denoising.is_empty() {
            denoising(f, &self.denoising)?;
        }
        self.decode_distance
            .iter()
            .try_for_each(|found| decode_distance(f, found))?;
        if data.failed > 0 || data.rejects > 0 || !self.notes.is_empty() {
            writeln!(f, "\nnotes")?;
        }
        if data.failed > 0 {
            writeln!(
                f,
                "  the model failed on {} records, which are not counted",
                data.failed
            )?;
        }
        if data.rejects > 0 {
            writeln!(
                f,
                "  {} records of the data could not be read",
                data.rejects
            )?;
        }
        self.notes
            .iter()
            .try_for_each(|note| writeln!(f, "  {note}"))
    }
}
