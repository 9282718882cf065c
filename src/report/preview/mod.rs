//! The preview of an image: the original next to the tensors that stages make of it.

mod picture;
mod tensor;

use maud::{Markup, html};

use crate::image::prepared::ImagePreparation;
use crate::image::{ImageError, ImageFormat, Pixels};
use crate::report::page::{document, figures, paragraph, section};
use crate::report::preview::picture::{embedded, reduced, sheet};
use crate::report::preview::tensor::{ChannelValues, StagePreview, original};
use crate::text_escape::line;

/// The maximum side of the original and of tensors in pictures, in pixels.
const MAX_SIDE: usize = 768;

/// An image, and the result of each stage.
pub(crate) struct Preview {
    file: String,
    /// The format and the size, as far as they are known.
    description: String,
    /// The decoded image, reduced for display; `None` if it cannot be decoded.
    original: Option<Pixels>,
    stages: Vec<StagePreview>,
}

impl Preview {
    /// Prepares the image with each of the stages, which are not empty. An image that a stage rejects
    /// is part of the preview.
    pub(crate) fn new(file: String, bytes: &[u8], stages: &[(&str, &ImagePreparation)]) -> Self {
        let decoded = stages.iter().find_map(|(_, stage)| original(stage, bytes));
        let size = decoded.as_ref().map(|image| (image.height, image.width));
        let format = ImageFormat::from_bytes(bytes).map(ImageFormat::name);
        let description = match (format, size) {
            (Some(format), Some((height, width))) => {
                format!("{format} of {height} x {width} pixels (height x width)")
            }
            (Some(format), None) => format.to_owned(),
            (None, _) => "not an image of a known format".to_owned(),
        };
        let previews = stages
            .iter()
            .map(|(name, stage)| StagePreview::new(name, stage, bytes, size));
        Self {
            file,
            description,
            original: decoded.map(|image| reduced(image, MAX_SIDE)),
            stages: previews.collect(),
        }
    }

    /// Whether a stage rejects the image.
    pub(crate) fn has_reject(&self) -> bool {
        self.stages.iter().any(|stage| stage.tensor.is_err())
    }

    /// The steps and the values of each stage.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}: {}\n", line(&self.file), self.description);
        for stage in &self.stages {
            text.push_str(&format!("\n{}\n{}", stage.name, stage.steps));
            match &stage.tensor {
                Ok(tensor) => {
                    for values in &tensor.channels {
                        text.push_str(&format!("  {values}\n"));
                    }
                }
                Err(error) => text.push_str(&format!("  {}\n", reject(error))),
            }
        }
        text
    }

    /// A page in HTML.
    pub(crate) fn page(&self) -> String {
        let head = html! {
            p.kicker { (self.description) }
            h1 { (self.file) }
            p.lead {
                "The picture of a tensor shows its values with " code { "range" } ", " code { "mean" }
                " and " code { "std" } " undone, rounded to bytes."
            }
        };
        let sections = self.stages.iter().map(|stage| self.section(stage));
        document(&format!("Preview of {}", self.file), &head, sections)
    }

    fn section(&self, stage: &StagePreview) -> Markup {
        let row = |step: &crate::image::preparation_steps::PreparationStep| {
            vec![step.operation.clone(), step.shape.clone(), step.values()]
        };
        let steps = figures(
            "Steps",
            &["operation", "height x width", "range of values"],
            stage.steps.0.iter().map(row),
        );
        let (shown, values) = match &stage.tensor {
            Ok(tensor) => {
                let rows = tensor.channels.iter().map(ChannelValues::cells);
                let heads = ["channel", "minimum", "mean", "maximum"];
                (
                    embedded(&tensor.picture, "tensor"),
                    figures("Values of the tensor", &heads, rows),
                )
            }
            Err(error) => (Markup::default(), paragraph(&reject(error))),
        };
        let first = self.original.as_ref();
        let pictures = html! {
            div.preview {
                @if let Some(image) = first { (embedded(image, "original")) }
                (shown)
            }
        };
        section(&stage.name, [pictures, steps, values])
    }

    /// The original next to the tensor of each stage, as a PNG.
    ///
    /// # Errors
    /// If the picture cannot be encoded.
    pub(crate) fn picture(&self) -> Result<Vec<u8>, ImageError> {
        let rows = self.stages.iter().map(|stage| {
            let tensor = stage.tensor.as_ref().ok().map(|tensor| &tensor.picture);
            self.original.iter().chain(tensor).collect()
        });
        sheet(rows.collect())
    }
}

/// The reason of a reject, as runs report it.
fn reject(error: &ImageError) -> String {
    format!(
        "rejected ({}): {}",
        error.code().as_str(),
        line(&error.to_string())
    )
}

#[cfg(test)]
mod tests;
