//! What a model takes: images in some pixel format, scaled features, or plain tensors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::image::pixel_format::{Channels, PixelFormat, TensorLayout};
use crate::model::tensor_spec::{Dim, ElementType, TensorSpec};

/// What a model takes, one record at a time.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelInput {
    /// Images.
    Image(ImageInput),
    /// Feature vectors.
    Features(FeatureInput),
    /// Tensors of the shape that the file declares.
    Tensor,
}

/// The images that a model was trained on.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageInput {
    /// How pixels become values.
    pub format: PixelFormat,
    /// Height and width; `None`: any, the model is fully convolutional.
    pub size: Option<(usize, usize)>,
}

/// The features that a model was trained on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FeatureInput {
    /// Their names, in the order of the input vector; empty where nobody said.
    pub columns: Vec<String>,
    /// How they are scaled.
    pub scaling: Scaling,
}

/// How raw features become what the model was trained on.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Scaling {
    /// As they are.
    #[default]
    None,
    /// To mean 0 and standard deviation 1.
    Standard {
        /// Per feature, subtracted.
        mean: Vec<f64>,
        /// Per feature, divided by; 0 counts as 1.
        std: Vec<f64>,
    },
    /// To 0..1.
    MinMax {
        /// Per feature, becomes 0.
        min: Vec<f64>,
        /// Per feature, becomes 1; where it equals the least, the span counts as 1.
        max: Vec<f64>,
    },
}

impl Scaling {
    /// Scale and offset of feature `i`: `scaled = raw * scale + offset`.
    pub fn affine(&self, i: usize) -> (f64, f64) {
        let (centre, span) = match self {
            Self::None => return (1.0, 0.0),
            Self::Standard { mean, std } => (at(mean, i, 0.0), at(std, i, 1.0)),
            Self::MinMax { min, max } => (at(min, i, 0.0), at(max, i, 1.0) - at(min, i, 0.0)),
        };
        let span = if span == 0.0 { 1.0 } else { span };
        (1.0 / span, -centre / span)
    }
}

fn at(values: &[f64], i: usize, default: f64) -> f64 {
    values.get(i).copied().unwrap_or(default)
}

/// The kinds of input that a card names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    /// Images.
    Image,
    /// Feature vectors.
    Features,
}

/// The kinds of scaling that a card names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScalingKind {
    /// As they are.
    None,
    /// To mean 0 and standard deviation 1; needs `mean` and `std`.
    Standard,
    /// To 0..1; needs `min` and `max`.
    MinMax,
}

/// What a card, or the pipeline in its place, says of a model's input.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InputSpec {
    /// Images or features. Default: by the other keys, else by the file's shapes.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<InputKind>,
    /// Images: height and width; left out where the model takes any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<[usize; 2]>,
    /// Images: colours of a pixel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    /// Images: order of the dimensions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<TensorLayout>,
    /// Images: bytes 0..255 are mapped onto this range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<[f32; 2]>,
    /// Subtracted, per channel or per feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f64>>,
    /// Divided by, per channel or per feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f64>>,
    /// Features: names, in the order of the input vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Features: how they are scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingKind>,
    /// Features: the least value of each, for min_max scaling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Vec<f64>>,
    /// Features: the greatest value of each, for min_max scaling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Vec<f64>>,
}

impl InputSpec {
    /// Joins what was said with what the file's input shows.
    ///
    /// # Errors
    /// Every key that contradicts another or the file.
    pub fn resolve(&self, port: &TensorSpec) -> Result<ModelInput, Vec<ConfigError>> {
        let (image, features) = (self.image_keys(), self.feature_keys());
        let kind = self
            .told()
            .map_err(|fault| vec![fault])?
            .or_else(|| guess(port));
        let stray = match kind {
            Some(InputKind::Image) => features,
            Some(InputKind::Features) => image,
            None => self.set_keys(),
        };
        let mut faults: Vec<ConfigError> =
            stray.into_iter().map(|key| stray_key(key, kind)).collect();
        let input = match kind {
            Some(InputKind::Image) => self.resolve_image(port, &mut faults).map(ModelInput::Image),
            Some(InputKind::Features) => self
                .resolve_features(port, &mut faults)
                .map(ModelInput::Features),
            None => Some(ModelInput::Tensor),
        };
        match input {
            Some(input) if faults.is_empty() => Ok(input),
            _ => Err(faults),
        }
    }

    /// What it says the input is, by `type` or else by the other keys.
    ///
    /// # Errors
    /// Where its keys speak of both.
    pub fn told(&self) -> Result<Option<InputKind>, ConfigError> {
        match (
            self.kind,
            self.image_keys().first(),
            self.feature_keys().first(),
        ) {
            (Some(kind), ..) => Ok(Some(kind)),
            (None, Some(image), Some(features)) => {
                let message = format!(
                    "`{image}` describes images, but `{features}` features; say one of them"
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
        port: &TensorSpec,
        faults: &mut Vec<ConfigError>,
    ) -> Option<ImageInput> {
        let shown = shown_image(port);
        let layout = self
            .layout
            .or(shown.map(|(layout, _)| layout))
            .unwrap_or_default();
        let channels = self
            .channels
            .or(shown.map(|(_, channels)| channels))
            .unwrap_or_default();
        let range = if port.element == ElementType::Uint8 {
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
        if let Err(message) = format.check() {
            faults.push(ConfigError::new("", message));
        }
        // Written out, but doing nothing: the same format as where nothing is said.
        if format.mean.iter().all(|&mean| mean == 0.0) && format.std.iter().all(|&std| std == 1.0) {
            (format.mean, format.std) = (vec![], vec![]);
        }
        let size = self
            .size
            .map(|[height, width]| (height, width))
            .or_else(|| fixed_size(layout, port));
        if size.is_some_and(|(height, width)| height == 0 || width == 0) {
            faults.push(ConfigError::new("size", "a side of the image is 0"));
            return None;
        }
        if let Some((height, width)) = size {
            let shape = format.shape(height, width);
            if !port.takes(&shape) {
                let message = format!("images of shape {shape:?} do not fit {port}");
                faults.push(ConfigError::new("size", message));
            }
        } else if port.dims.len() != 4 {
            faults.push(ConfigError::new(
                "size",
                format!("{port} is no batch of images of any size; give `size`"),
            ));
        }
        Some(ImageInput { format, size })
    }

    fn resolve_features(
        &self,
        port: &TensorSpec,
        faults: &mut Vec<ConfigError>,
    ) -> Option<FeatureInput> {
        let columns = self.columns.clone().unwrap_or_default();
        let width = match (columns.len(), port.row_len()) {
            (0, Some(width)) => width,
            (0, None) => {
                let message = format!(
                    "{port} does not say how many features it takes; name them in `columns`"
                );
                faults.push(ConfigError::new("columns", message));
                return None;
            }
            (named, _) => {
                if !port.takes(&[named]) {
                    faults.push(ConfigError::new(
                        "columns",
                        format!("{named} columns do not fit {port}"),
                    ));
                }
                named
            }
        };
        if let Some(twice) = first_repeated(&columns) {
            faults.push(ConfigError::new(
                "columns",
                format!("`{twice}` is named twice"),
            ));
        }
        let mut list = |key: &'static str, values: &Option<Vec<f64>>| match values {
            Some(values) if values.len() != width => {
                faults.push(ConfigError::new(
                    key,
                    format!("{} values for {width} features", values.len()),
                ));
                vec![]
            }
            Some(values) if values.iter().any(|value| !value.is_finite()) => {
                faults.push(ConfigError::new(key, "holds a value that is not finite"));
                vec![]
            }
            Some(values) => values.clone(),
            None => {
                faults.push(ConfigError::new(key, "missing: the scaling needs it"));
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

    /// Numbers that the chosen scaling does not use are a mistake: the user believes that they
    /// count.
    fn unused_numbers(&self, scaling: &Scaling, faults: &mut Vec<ConfigError>) {
        let standard = matches!(scaling, Scaling::Standard { .. });
        let min_max = matches!(scaling, Scaling::MinMax { .. });
        let unused = [
            ("mean", self.mean.is_some() && !standard, "standard"),
            ("std", self.std.is_some() && !standard, "standard"),
            ("min", self.min.is_some() && !min_max, "min_max"),
            ("max", self.max.is_some() && !min_max, "min_max"),
        ];
        for (key, _, scaling) in unused.into_iter().filter(|(_, unused, _)| *unused) {
            faults.push(ConfigError::new(
                key,
                format!("not used; say scaling = \"{scaling}\", or leave it out"),
            ));
        }
    }

    fn image_keys(&self) -> Vec<&'static str> {
        let set = [
            ("size", self.size.is_some()),
            ("channels", self.channels.is_some()),
            ("layout", self.layout.is_some()),
            ("range", self.range.is_some()),
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

    /// The keys that were given, `type` apart: a model from a folder has them in its card, and
    /// nowhere else.
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

fn stray_key(key: &str, kind: Option<InputKind>) -> ConfigError {
    let message = match kind {
        Some(InputKind::Image) => "describes features, but the model takes images",
        Some(InputKind::Features) => "describes images, but the model takes features",
        None => {
            "the file's input is neither a batch of images nor of vectors; say what it is: `size`, or `columns`"
        }
    };
    ConfigError::new(key, message)
}

/// Four dimensions with 1 or 3 channels are images, two are vectors; anything else is a tensor of
/// its own shape.
fn guess(port: &TensorSpec) -> Option<InputKind> {
    if shown_image(port).is_some() {
        return Some(InputKind::Image);
    }
    matches!(port.dims.as_slice(), [_, Dim::Fixed(_)]).then_some(InputKind::Features)
}

/// Layout and channels, where the file's dimensions tell them.
fn shown_image(port: &TensorSpec) -> Option<(TensorLayout, Channels)> {
    let channels = |dim: &Dim| match dim {
        Dim::Fixed(1) => Some(Channels::Gray),
        Dim::Fixed(3) => Some(Channels::Rgb),
        _ => None,
    };
    let [_, second, _, last] = port.dims.as_slice() else {
        return None;
    };
    let planes = channels(second).map(|channels| (TensorLayout::Nchw, channels));
    planes.or_else(|| channels(last).map(|channels| (TensorLayout::Nhwc, channels)))
}

fn fixed_size(layout: TensorLayout, port: &TensorSpec) -> Option<(usize, usize)> {
    match (layout, port.dims.as_slice()) {
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
        .find(|(place, name)| names[..*place].contains(name))
        .map(|(_, name)| name)
}
