//! The table `input` of a card or a training file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::config_error::ConfigError;
use crate::image::DecodeMode;
use crate::image::pixel_format::{Channels, PixelFormat, TensorLayout};
use crate::image::preprocess::Preprocessor;
use crate::image::preprocess::steps::PreprocessStep;
use crate::model::input::rules::FeatureRule;
use crate::model::input::scaling::ScalingKind;
use crate::model::input::tensor_inference::{fixed_size, infer_image};
use crate::model::input::{ImageInput, ModelInput};
use crate::model::tensor_spec::{Dim, ElementType, TensorSpec};

/// The kinds of input that a model card can declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    /// Images.
    Image,
    /// Feature vectors.
    Features,
}

/// The input of a model as a model card, or for bare files the pipeline, declares it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InputSpec {
    /// The kind of input. Default: inferred from the other keys, or else from the shapes of the
    /// file.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<InputKind>,
    /// Images: height and width. Default: any size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<[usize; 2]>,
    /// Images: the color channels of a pixel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    /// Images: the order of the dimensions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<TensorLayout>,
    /// Images: the range to which the byte values 0..255 are mapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<[f32; 2]>,
    /// Images of a fixed size: how JPEGs are decoded before they are resized. Default: scaled in a
    /// training file, full in a card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode: Option<DecodeMode>,
    /// Images: the steps that resize, crop and pad, in their order, as in the stage `pixels`. JPEGs
    /// are decoded in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<PreprocessStep>>,
    /// The value that is subtracted, per channel or per feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f64>>,
    /// The divisor, per channel or per feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f64>>,
    /// Features: the column names, in the order of the input vector. In a training file, a name may
    /// be a pattern in which `*` matches any characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Features: the kind of scaling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingKind>,
    /// Features: the minimum of each feature, for min_max scaling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Vec<f64>>,
    /// Features: the maximum of each feature, for min_max scaling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Vec<f64>>,
    /// Features: rules for missing values, outliers, scaling, categories and times. In a model card,
    /// each value of a record has its own rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<FeatureRule>,
}

impl InputSpec {
    /// Combines the declared keys with the input tensor of the file.
    ///
    /// # Errors
    /// One error per key that contradicts another key or the file.
    pub fn resolve(&self, spec: &TensorSpec) -> Result<ModelInput, Vec<ConfigError>> {
        let (image, features) = (self.image_keys(), self.feature_keys());
        let kind = self
            .declared_kind()
            .map_err(|fault| vec![fault])?
            .or_else(|| infer_kind(spec));
        let stray = match kind {
            Some(InputKind::Image) => features,
            Some(InputKind::Features) => image,
            None => self.set_keys(),
        };
        let mut faults: Vec<ConfigError> =
            stray.into_iter().map(|key| stray_key(key, kind)).collect();
        let input = match kind {
            Some(InputKind::Image) => self.resolve_image(spec, &mut faults).map(ModelInput::Image),
            Some(InputKind::Features) => self
                .resolve_features(spec, &mut faults)
                .map(ModelInput::Features),
            None => Some(ModelInput::Tensor),
        };
        match input {
            Some(input) if faults.is_empty() => Ok(input),
            _ => Err(faults),
        }
    }

    /// The declared kind of input, by `type` or else by the other keys; `None` if nothing is
    /// declared.
    ///
    /// # Errors
    /// When there are keys of both kinds.
    pub(crate) fn declared_kind(&self) -> Result<Option<InputKind>, ConfigError> {
        match (
            self.kind,
            self.image_keys().first(),
            self.feature_keys().first(),
        ) {
            (Some(kind), ..) => Ok(Some(kind)),
            (None, Some(image), Some(features)) => {
                let message = format!(
                    "`{image}` describes images, but `{features}` describes features; remove \
                     one of them"
                );
                Err(ConfigError::new(*image, message))
            }
            (None, Some(_), None) => Ok(Some(InputKind::Image)),
            (None, None, Some(_)) => Ok(Some(InputKind::Features)),
            (None, None, None) => Ok(None),
        }
    }

    fn resolve_image(
        &self,
        spec: &TensorSpec,
        faults: &mut Vec<ConfigError>,
    ) -> Option<ImageInput> {
        let inferred = infer_image(spec);
        let layout = self
            .layout
            .or(inferred.map(|(layout, _)| layout))
            .unwrap_or_default();
        let channels = self
            .channels
            .or(inferred.map(|(_, channels)| channels))
            .unwrap_or_default();
        let range = if spec.element == ElementType::Uint8 {
            [0.0, 255.0]
        } else {
            [0.0, 1.0]
        };
        let narrow = |values: &Option<Vec<f64>>| {
            values.iter().flatten().map(|&value| value as f32).collect()
        };
        let mut format = PixelFormat {
            channels,
            layout,
            range: self.range.unwrap_or(range),
            mean: narrow(&self.mean),
            std: narrow(&self.std),
        };
        match format.check() {
            Err(error) => faults.push(ConfigError::new("", error.to_string())),
            Ok(()) if spec.element == ElementType::Uint8 => {
                faults.extend(bytes_fault(&format, spec));
            }
            Ok(()) => {}
        }
        // A mean of 0 and a deviation of 1 have no effect: the format is the same as without them.
        if format.mean.iter().all(|&mean| mean == 0.0) && format.std.iter().all(|&std| std == 1.0) {
            (format.mean, format.std) = (vec![], vec![]);
        }
        let steps = match self.preprocessor() {
            Ok(steps) => steps,
            Err(fault) => {
                faults.push(fault);
                return None;
            }
        };
        let size = steps
            .as_ref()
            .map(Preprocessor::size)
            .or(self.size.map(|[height, width]| (height, width)))
            .or_else(|| fixed_size(layout, spec));
        if size.is_some_and(|(height, width)| height == 0 || width == 0) {
            faults.push(ConfigError::new("size", "height and width must be above 0"));
            return None;
        }
        if let Some((height, width)) = size {
            let shape = format.shape(height, width);
            if !spec.takes(&shape) {
                let message = format!("images of shape {shape:?} do not fit {spec}");
                let key = steps.as_ref().map_or("size", |_| "steps");
                faults.push(ConfigError::new(key, message));
            }
        } else if spec.dims.len() != 4 {
            faults.push(ConfigError::new(
                "size",
                format!("{spec} is not a batch of images of any size; set `size`"),
            ));
        }
        let decode = self.decode.unwrap_or_default();
        if decode == DecodeMode::Scaled && size.is_none() {
            faults.push(ConfigError::new("decode", UNSCALED));
        }
        Some(ImageInput {
            format,
            size,
            decode,
            steps,
        })
    }

    fn image_keys(&self) -> Vec<&'static str> {
        let set = [
            ("size", self.size.is_some()),
            ("channels", self.channels.is_some()),
            ("layout", self.layout.is_some()),
            ("range", self.range.is_some()),
            ("decode", self.decode.is_some()),
            ("steps", self.steps.is_some()),
        ];
        set.into_iter()
            .filter_map(|(key, set)| set.then_some(key))
            .collect()
    }

    /// The keys that are set, without `type`. A model in a folder has them only in its card.
    pub(crate) fn set_keys(&self) -> Vec<&'static str> {
        let both = [("mean", self.mean.is_some()), ("std", self.std.is_some())];
        let both = both.into_iter().filter_map(|(key, set)| set.then_some(key));
        self.image_keys()
            .into_iter()
            .chain(self.feature_keys())
            .chain(both)
            .collect()
    }
}

/// The fault of a pixel format whose values a uint8 input cannot hold: they would be bounded.
fn bytes_fault(format: &PixelFormat, spec: &TensorSpec) -> Option<ConfigError> {
    let spans = (0..format.channels.count()).map(|channel| {
        let (scale, offset) = format.affine(channel);
        (offset, 255.0 * scale + offset)
    });
    let fits = |low: f32, high: f32| (-0.5..255.5).contains(&low) && (-0.5..255.5).contains(&high);
    let (low, high) = spans.into_iter().find(|&(low, high)| !fits(low, high))?;
    let message = format!(
        "pixels become values from {low} to {high}, but the input {spec} holds whole numbers from \
         0 to 255; use range = [0, 255] without `mean` and `std`"
    );
    Some(ConfigError::new("range", message))
}

/// The fault of decoding at a fraction of the size without a target.
pub(crate) const UNSCALED: &str =
    "images of any size are decoded in full; remove `decode`, or set `size`";

fn stray_key(key: &str, kind: Option<InputKind>) -> ConfigError {
    let message = match kind {
        Some(InputKind::Image) => "describes features, but the model takes images",
        Some(InputKind::Features) => "describes images, but the model takes features",
        None => {
            "the input of the file is neither a batch of images nor a batch of vectors; describe \
             it with `size` or `columns`"
        }
    };
    ConfigError::new(key, message)
}

/// Infers the kind of input from the dimensions: four dimensions with 1 or 3 channels are images,
/// two are vectors, and all others are tensors (`None`).
fn infer_kind(spec: &TensorSpec) -> Option<InputKind> {
    if infer_image(spec).is_some() {
        return Some(InputKind::Image);
    }
    matches!(spec.dims.as_slice(), [_, Dim::Fixed(_)]).then_some(InputKind::Features)
}
