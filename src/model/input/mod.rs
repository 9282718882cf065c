//! The input of a model: images in a pixel format, scaled features, or tensors.

pub(crate) mod features;
pub mod rules;
pub(crate) mod scaling;
pub mod spec;
mod steps;
mod tensor_inference;

use std::sync::Arc;

use crate::image::DecodeMode;
use crate::image::pixel_format::PixelFormat;
use crate::image::preprocess::Preprocessor;
use crate::model::feature_groups::FeatureGroups;
use crate::model::input::rules::RawValue;
use crate::model::input::rules::encoder::FeatureEncoder;
use crate::model::input::scaling::Scaling;

/// The input of a model for one record.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelInput {
    /// Images.
    Image(ImageInput),
    /// Feature vectors.
    Features(FeatureInput),
    /// Tensors of the shape that the file declares.
    Tensor,
}

/// The image format that a model was trained with.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageInput {
    /// The conversion of pixels to values.
    pub format: PixelFormat,
    /// Height and width. `None`: any size, for a fully convolutional model.
    pub size: Option<(usize, usize)>,
    /// How JPEGs are decoded for the model.
    pub decode: DecodeMode,
    /// The steps that give images their size, if a plain resize does not.
    pub steps: Option<Preprocessor>,
}

/// The features that a model was trained with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FeatureInput {
    /// The names of the columns in the order of the input vector; empty if they are not declared.
    pub columns: Vec<String>,
    /// The scaling of the features, if there are no rules.
    pub scaling: Scaling,
    /// The rules of the values, if the card has rules.
    pub encoder: Option<Arc<FeatureEncoder>>,
}

impl FeatureInput {
    /// The inputs of each feature of a record with this number of inputs.
    pub(crate) fn groups(&self, inputs: usize) -> FeatureGroups {
        match &self.encoder {
            Some(encoder) => encoder.groups().clone(),
            None => FeatureGroups::single(inputs),
        }
    }

    /// The raw values that are accepted in a column: one of `columns`, or the list whose first value
    /// is one of them.
    pub(crate) fn raw(&self, column: &str) -> RawValue {
        let Some(encoder) = &self.encoder else {
            return RawValue::default();
        };
        let is_column = |name: &String| {
            let rest = name.strip_prefix(column);
            rest.is_some_and(|rest| rest.is_empty() || rest == "[0]")
        };
        let index = self.columns.iter().position(is_column);
        index.map(|index| encoder.raw(index)).unwrap_or_default()
    }

    /// Appends the inputs for a record of raw values.
    pub(crate) fn append_inputs(&self, raw: impl Iterator<Item = f64>, inputs: &mut Vec<f32>) {
        match &self.encoder {
            Some(encoder) => encoder.encode(raw, inputs),
            None => {
                let scaled = |(index, value)| self.scaling.feature(index).to_input(value);
                inputs.extend(raw.enumerate().map(scaled));
            }
        }
    }
}

#[cfg(test)]
mod tests;
