//! The operations between an encoded image and a tensor, for display.

use std::fmt;

use crate::image::color_space::ColorSpace;
use crate::image::pixel_format::{Channels, PixelFormat, TensorLayout};
use crate::image::pixels::DecodeMode;
use crate::image::prepared::{ImagePreparation, Sizing};
use crate::image::preprocess::KnownSize;
use crate::image::resize::ResizeMode;
use crate::image::target_size::TargetSize;

/// An operation, and the images after it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PreparationStep {
    /// The operation, in one phrase.
    pub operation: String,
    /// The shape of the result: height and width, or the dimensions of the tensor.
    pub shape: String,
    /// The smallest and the largest value that a channel can have.
    pub range: [f32; 2],
}

/// The operations in their order, as a table.
pub(crate) struct PreparationSteps(pub Vec<PreparationStep>);

impl ImagePreparation {
    /// The operations in their order, for images of any size or of one height and width.
    pub(crate) fn steps(&self, from: Option<(usize, usize)>) -> PreparationSteps {
        let format = &self.format;
        let mut size = from.map_or(KnownSize::Any, KnownSize::Fixed);
        let mut steps = vec![self.decode_step(size)];
        let mut add = |operation: String, shape: String, range: [f32; 2]| {
            steps.push(PreparationStep {
                operation,
                shape,
                range,
            });
        };
        let bytes = [0.0, 255.0];
        match &self.sizing {
            Sizing::Original => {}
            Sizing::Resize { size: to, fit, .. } => {
                size = KnownSize::Fixed(*to);
                let fit = match fit {
                    ResizeMode::Stretch => "stretch",
                    ResizeMode::Crop => "crop",
                    ResizeMode::Pad => "pad",
                };
                add(
                    format!("resize ({fit}, bilinear of pillow)"),
                    size.to_string(),
                    bytes,
                );
            }
            Sizing::Steps(preprocessor) => {
                for (step, after) in preprocessor.steps().iter().zip(preprocessor.sizes(size)) {
                    size = after;
                    add(step.to_string(), size.to_string(), bytes);
                }
            }
        }
        if format.channels == Channels::Bgr {
            add(
                "reverse channels to bgr".to_owned(),
                size.to_string(),
                bytes,
            );
        }
        let [low, high] = format.range;
        if format.range != bytes {
            add(
                format!("scale to [{low}, {high}]"),
                size.to_string(),
                format.range,
            );
        }
        let plain = PixelFormat {
            mean: Vec::new(),
            std: Vec::new(),
            ..format.clone()
        };
        let centered = PixelFormat {
            mean: format.mean.clone(),
            ..plain
        };
        if !format.mean.is_empty() {
            let mean = format!("subtract mean {:?}", format.mean);
            add(mean, size.to_string(), value_range(&centered));
        }
        if !format.std.is_empty() {
            let std = format!("divide by std {:?}", format.std);
            add(std, size.to_string(), value_range(format));
        }
        let (height, width) = match self.sizing.size() {
            TargetSize::Fixed(height, width) => (height.to_string(), width.to_string()),
            TargetSize::Original => match from {
                Some((height, width)) => (height.to_string(), width.to_string()),
                None => ("height".to_owned(), "width".to_owned()),
            },
        };
        let channels = format.channels.count().to_string();
        let shape = match format.layout {
            TensorLayout::Nchw => [channels, height, width],
            TensorLayout::Nhwc => [height, width, channels],
        };
        add(
            "float32 tensor".to_owned(),
            shape.join(" x "),
            value_range(format),
        );
        PreparationSteps(steps)
    }

    fn decode_step(&self, size: KnownSize) -> PreparationStep {
        let channels = match self.format.channels {
            Channels::Rgb | Channels::Bgr => "rgb",
            Channels::Gray => "gray",
        };
        let range = self
            .value_range
            .map_or_else(String::new, |range| format!(", values {range}"));
        let scaled = match self.sizing {
            Sizing::Resize {
                decode: DecodeMode::Scaled,
                ..
            } => ", JPEGs at a fraction of their size",
            _ => "",
        };
        let converted = match self.color_space {
            ColorSpace::Stored => "",
            ColorSpace::Srgb => ", color profiles to sRGB",
        };
        PreparationStep {
            operation: format!("decode to {channels}{range}{scaled}{converted}"),
            shape: size.to_string(),
            range: [0.0, 255.0],
        }
    }
}

/// The range of the values of all channels.
fn value_range(format: &PixelFormat) -> [f32; 2] {
    let ends = (0..format.channels.count()).map(|channel| {
        let (scale, offset) = format.affine(channel);
        [offset, 255.0 * scale + offset]
    });
    ends.reduce(|[low, high], [other_low, other_high]| [low.min(other_low), high.max(other_high)])
        .unwrap_or_default()
}

/// A value with at most four decimals.
pub(crate) fn rounded(value: f32) -> f64 {
    // Adding 0 turns -0 into 0.
    (f64::from(value) * 1e4).round() / 1e4 + 0.0
}

impl PreparationStep {
    /// The range as text.
    pub(crate) fn values(&self) -> String {
        let [low, high] = self.range.map(rounded);
        format!("{low} to {high}")
    }
}

impl fmt::Display for PreparationSteps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = |text: fn(&PreparationStep) -> &str| {
            self.0
                .iter()
                .map(|step| text(step).len())
                .max()
                .unwrap_or(0)
        };
        let (operations, shapes) = (longest(|step| &step.operation), longest(|step| &step.shape));
        for step in &self.0 {
            writeln!(
                f,
                "  {:<operations$}  {:<shapes$}  {}",
                step.operation,
                step.shape,
                step.values()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
