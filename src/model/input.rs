//! The input of a model: images in a pixel format, scaled features, or tensors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::image::DecodeMode;
use crate::image::pixel_format::{Channels, PixelFormat, TensorLayout};
use crate::model::tensor_spec::{Dim, ElementType, TensorSpec};

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
}

/// The features that a model was trained with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FeatureInput {
    /// The names of the columns in the order of the input vector; empty if they are not declared.
    pub columns: Vec<String>,
    /// The scaling of the features.
    pub scaling: Scaling,
}

/// The scaling that converts raw features to model inputs.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Scaling {
    /// No scaling.
    #[default]
    None,
    /// To mean 0 and standard deviation 1.
    Standard {
        /// The value that is subtracted, per feature.
        mean: Vec<f64>,
        /// The divisor per feature; 0 counts as 1, and so does a number whose inverse overflows.
        std: Vec<f64>,
    },
    /// To 0..1.
    MinMax {
        /// The value that becomes 0, per feature.
        min: Vec<f64>,
        /// The value that becomes 1, per feature. If it equals the minimum, the divisor is 1.
        max: Vec<f64>,
    },
}

impl Scaling {
    /// The conversion of feature `i`.
    pub fn feature(&self, i: usize) -> FeatureScale {
        let (zero, divisor) = match self {
            Self::None => return FeatureScale::default(),
            Self::Standard { mean, std } => (at(mean, i, 0.0), at(std, i, 1.0)),
            Self::MinMax { min, max } => (at(min, i, 0.0), at(max, i, 1.0) - at(min, i, 0.0)),
        };
        let scale = 1.0 / divisor;
        FeatureScale {
            shift: -zero,
            scale: if scale.is_finite() { scale } else { 1.0 },
        }
    }
}

/// The conversion of the values of one feature into inputs of a model. Training, evaluation and
/// runs convert values with this type only, from float64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeatureScale {
    shift: f64,
    scale: f64,
}

impl Default for FeatureScale {
    fn default() -> Self {
        Self {
            shift: 0.0,
            scale: 1.0,
        }
    }
}

impl FeatureScale {
    /// Converts a value to float64 precision. The mean or minimum is subtracted first, so that a
    /// small difference from a large mean keeps its digits.
    #[inline(always)]
    pub fn scale(self, value: f64) -> f64 {
        (value + self.shift) * self.scale
    }

    /// Converts a value to the input of the model, rounded once.
    #[inline(always)]
    pub fn to_input(self, value: f64) -> f32 {
        self.scale(value) as f32
    }

    /// Reverts the conversion.
    pub fn invert(self, scaled: f64) -> f64 {
        scaled / self.scale - self.shift
    }

    /// Converts a standard deviation, or another difference of two values.
    pub fn scale_difference(self, difference: f64) -> f64 {
        difference * self.scale
    }
}

fn at(values: &[f64], i: usize, default: f64) -> f64 {
    values.get(i).copied().unwrap_or(default)
}

/// The kinds of input that a model card can declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    /// Images.
    Image,
    /// Feature vectors.
    Features,
}

/// The kinds of scaling that a model card can declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScalingKind {
    /// No scaling.
    None,
    /// To mean 0 and standard deviation 1. Requires `mean` and `std`.
    Standard,
    /// To 0..1. Requires `min` and `max`.
    MinMax,
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
    /// The value that is subtracted, per channel or per feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f64>>,
    /// The divisor, per channel or per feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f64>>,
    /// Features: the column names, in the order of the input vector.
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
    pub fn declared_kind(&self) -> Result<Option<InputKind>, ConfigError> {
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
            Err(message) => faults.push(ConfigError::new("", message)),
            Ok(()) if spec.element == ElementType::Uint8 => {
                faults.extend(bytes_fault(&format, spec));
            }
            Ok(()) => {}
        }
        // A mean of 0 and a deviation of 1 have no effect: the format is the same as without them.
        if format.mean.iter().all(|&mean| mean == 0.0) && format.std.iter().all(|&std| std == 1.0) {
            (format.mean, format.std) = (vec![], vec![]);
        }
        let size = self
            .size
            .map(|[height, width]| (height, width))
            .or_else(|| fixed_size(layout, spec));
        if size.is_some_and(|(height, width)| height == 0 || width == 0) {
            faults.push(ConfigError::new("size", "height and width must be above 0"));
            return None;
        }
        if let Some((height, width)) = size {
            let shape = format.shape(height, width);
            if !spec.takes(&shape) {
                let message = format!("images of shape {shape:?} do not fit {spec}");
                faults.push(ConfigError::new("size", message));
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
        })
    }

    fn resolve_features(
        &self,
        spec: &TensorSpec,
        faults: &mut Vec<ConfigError>,
    ) -> Option<FeatureInput> {
        let columns = self.columns.clone().unwrap_or_default();
        let width = match (columns.len(), spec.row_len()) {
            (0, Some(width)) => width,
            (0, None) => {
                let message =
                    format!("{spec} does not fix the number of features; list them in `columns`");
                faults.push(ConfigError::new("columns", message));
                return None;
            }
            (named, _) => {
                if !spec.takes(&[named]) {
                    faults.push(ConfigError::new(
                        "columns",
                        format!("the number of columns, {named}, does not fit {spec}"),
                    ));
                }
                named
            }
        };
        if let Some(repeated) = first_repeated(&columns) {
            faults.push(ConfigError::new(
                "columns",
                format!("`{repeated}` is listed twice"),
            ));
        }
        let mut list = |key: &'static str, values: &Option<Vec<f64>>| match values {
            Some(values) if values.len() != width => {
                faults.push(ConfigError::new(
                    key,
                    format!(
                        "expected as many values as features, {width}; found {}",
                        values.len()
                    ),
                ));
                vec![]
            }
            Some(values) if values.iter().any(|value| !value.is_finite()) => {
                faults.push(ConfigError::new(key, "contains a value that is not finite"));
                vec![]
            }
            Some(values) => values.clone(),
            None => {
                faults.push(ConfigError::new(key, "missing; the scaling requires it"));
                vec![]
            }
        };
        let scaling = match self.scaling.unwrap_or(ScalingKind::None) {
            ScalingKind::None => Scaling::None,
            ScalingKind::Standard => Scaling::Standard {
                mean: list("mean", &self.mean),
                std: list("std", &self.std),
            },
            ScalingKind::MinMax => Scaling::MinMax {
                min: list("min", &self.min),
                max: list("max", &self.max),
            },
        };
        self.unused_numbers(&scaling, faults);
        Some(FeatureInput { columns, scaling })
    }

    /// Adds an error for each list of numbers that the chosen scaling does not use: the user
    /// expects it to have an effect.
    fn unused_numbers(&self, scaling: &Scaling, faults: &mut Vec<ConfigError>) {
        let standard = matches!(scaling, Scaling::Standard { .. });
        let min_max = matches!(scaling, Scaling::MinMax { .. });
        let unused = [
            ("mean", self.mean.is_some() && !standard, "standard"),
            ("std", self.std.is_some() && !standard, "standard"),
            ("min", self.min.is_some() && !min_max, "min_max"),
            ("max", self.max.is_some() && !min_max, "min_max"),
        ];
        for (key, _, required) in unused.into_iter().filter(|(_, unused, _)| *unused) {
            faults.push(ConfigError::new(
                key,
                format!("is not used; set scaling = \"{required}\", or remove it"),
            ));
        }
    }

    fn image_keys(&self) -> Vec<&'static str> {
        let set = [
            ("size", self.size.is_some()),
            ("channels", self.channels.is_some()),
            ("layout", self.layout.is_some()),
            ("range", self.range.is_some()),
            ("decode", self.decode.is_some()),
        ];
        set.into_iter()
            .filter_map(|(key, set)| set.then_some(key))
            .collect()
    }

    fn feature_keys(&self) -> Vec<&'static str> {
        let set = [
            ("columns", self.columns.is_some()),
            ("scaling", self.scaling.is_some()),
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
        ];
        set.into_iter()
            .filter_map(|(key, set)| set.then_some(key))
            .collect()
    }

    /// The keys that are set, without `type`. A model in a folder has them only in its card.
    pub fn set_keys(&self) -> Vec<&'static str> {
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
pub const UNSCALED: &str = "images of any size are decoded in full; remove `decode`, or set `size`";

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

/// Infers layout and channels from the dimensions, if they have 1 or 3 channels.
fn infer_image(spec: &TensorSpec) -> Option<(TensorLayout, Channels)> {
    let channels = |dim: &Dim| match dim {
        Dim::Fixed(1) => Some(Channels::Gray),
        Dim::Fixed(3) => Some(Channels::Rgb),
        _ => None,
    };
    let [_, second, _, last] = spec.dims.as_slice() else {
        return None;
    };
    let planes = channels(second).map(|channels| (TensorLayout::Nchw, channels));
    planes.or_else(|| channels(last).map(|channels| (TensorLayout::Nhwc, channels)))
}

fn fixed_size(layout: TensorLayout, spec: &TensorSpec) -> Option<(usize, usize)> {
    match (layout, spec.dims.as_slice()) {
        (TensorLayout::Nchw, &[_, _, Dim::Fixed(height), Dim::Fixed(width)])
        | (TensorLayout::Nhwc, &[_, Dim::Fixed(height), Dim::Fixed(width), _]) => {
            Some((height, width))
        }
        _ => None,
    }
}

fn first_repeated(names: &[String]) -> Option<&String> {
    names
        .iter()
        .enumerate()
        .find(|(index, name)| names[..*index].contains(name))
        .map(|(_, name)| name)
}
