//! The target of `pixels`: the size and the format of its tensors.

use crate::error::config_error::ConfigError;
use crate::image::prepared::{ImagePreparation, Sizing};
use crate::image::preprocess::Preprocessor;
use crate::image::preprocess::named::{checked_steps, replaced_by_steps, two_descriptions};
use crate::image::preprocess::preset::PreprocessingOptions;
use crate::image::{Channels, DecodeMode, PixelFormat, TargetSize, ValueRange};
use crate::model::ImageInput;
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::transform::pixels::config::PixelsConfig;

/// The limit of the options, bounded by the maximum length of an Arrow list, which is an `i32`.
pub(super) fn max_pixels(limits: &PipelineLimits, channels: Channels) -> u64 {
    limits.pixels.min(i32::MAX as u64 / channels.count() as u64)
}

impl PixelsConfig {
    /// Plans the target of the images, from the model if there is one.
    pub(super) fn target(
        &self,
        context: &PlanContext,
    ) -> Result<ImagePreparation, Vec<ConfigError>> {
        let base = self.base_options().map_err(|fault| vec![fault])?;
        let steps = self.steps(base.as_ref()).map_err(|fault| vec![fault])?;
        let (format, sizing) = match &self.model {
            Some(name) => {
                let input = context.model(name)?.image_input();
                let none = || {
                    vec![ConfigError::new(
                        "model",
                        format!("the model `{name}` does not take images"),
                    )]
                };
                self.as_trained(name, input.ok_or_else(none)?, steps)?
            }
            None => {
                let base = base.map_or_else(PixelFormat::default, |base| base.format);
                let sizing = self.sizing(steps, DecodeMode::default());
                (
                    self.written_format(base),
                    sizing.map_err(|fault| vec![fault])?,
                )
            }
        };
        let mut faults = Vec::new();
        if let Err(error) = format.check() {
            faults.push(ConfigError::new("", error.to_string()));
        }
        let value_range = self.value_range.map(ValueRange::new).transpose();
        if let Err(error) = &value_range {
            faults.push(ConfigError::new("value_range", error.to_string()));
        }
        if sizing == Sizing::Original && self.fit.is_some() {
            faults.push(ConfigError::new(
                "fit",
                "images of original size are not fitted; remove `fit`",
            ));
        }
        let max_pixels = max_pixels(&context.limits, format.channels);
        if let TargetSize::Fixed(height, width) = sizing.size()
            && (height as u64).saturating_mul(width as u64) > max_pixels
        {
            let message = format!(
                "{height} x {width} pixels exceed the limit of {max_pixels} pixels per image"
            );
            let key = match sizing {
                Sizing::Steps(_) => "steps",
                _ => "size",
            };
            faults.push(ConfigError::new(key, message));
        }
        if self.decode == Some(DecodeMode::Scaled) && sizing == Sizing::Original {
            faults.push(ConfigError::new(
                "decode",
                "images of original size are decoded in full; remove `decode`",
            ));
        }
        if faults.is_empty() {
            Ok(ImagePreparation {
                format,
                sizing,
                max_pixels,
                value_range: value_range.ok().flatten(),
                color_space: self.color_space.unwrap_or_default(),
            })
        } else {
            Err(faults)
        }
    }

    /// The options of the preset or of the file that comes with the model.
    fn base_options(&self) -> Result<Option<PreprocessingOptions>, ConfigError> {
        let named = [
            ("preset", self.preset.is_some()),
            ("preprocessor", self.preprocessor.is_some()),
        ];
        if let (Some((key, _)), true) = (
            named.into_iter().find(|(_, is_set)| *is_set),
            self.model.is_some(),
        ) {
            return Err(two_descriptions("model", key));
        }
        PreprocessingOptions::named(self.preset, self.preprocessor.as_ref())
    }

    /// The steps of the options, or of the preset or file unless `size` replaces them; checked.
    fn steps(
        &self,
        base: Option<&PreprocessingOptions>,
    ) -> Result<Option<Preprocessor>, ConfigError> {
        let inherited = || {
            base.map(|base| &base.steps)
                .filter(|steps| !steps.is_empty() && self.size.is_none())
        };
        let Some(steps) = self.steps.as_ref().or_else(inherited) else {
            return Ok(None);
        };
        if self.size.is_some() {
            return Err(replaced_by_steps("size"));
        }
        let checked = checked_steps(steps)?;
        self.options_without_effect().map_or(Ok(Some(checked)), Err)
    }

    /// The fault of an option that steps replace.
    fn options_without_effect(&self) -> Option<ConfigError> {
        let replaced = [
            ("fit", self.fit.is_some()),
            ("decode", self.decode == Some(DecodeMode::Scaled)),
        ];
        let mut replaced = replaced.into_iter().filter(|(_, is_set)| *is_set);
        replaced.next().map(|(key, _)| replaced_by_steps(key))
    }

    /// The sizing by steps, or by the written options. `decode` is the default of that option.
    fn sizing(
        &self,
        steps: Option<Preprocessor>,
        decode: DecodeMode,
    ) -> Result<Sizing, ConfigError> {
        match (steps, self.size) {
            (Some(steps), _) => Ok(Sizing::Steps(steps)),
            (None, Some(size)) => Ok(self.resized(size, decode)),
            (None, None) => {
                let expected = "is missing; set `size = [height, width]` or `size = \"original\"`, \
                                or name a `model`";
                Err(ConfigError::new("size", expected))
            }
        }
    }

    fn resized(&self, size: TargetSize, decode: DecodeMode) -> Sizing {
        match size {
            TargetSize::Original => Sizing::Original,
            TargetSize::Fixed(height, width) => Sizing::Resize {
                size: (height, width),
                fit: self.fit.unwrap_or_default(),
                decode: self.decode.unwrap_or(decode),
            },
        }
    }

    /// Returns the format and sizing of the model. The options can repeat them, but must not
    /// contradict them; `steps` are those of the options.
    pub(super) fn as_trained(
        &self,
        name: &str,
        input: ImageInput,
        steps: Option<Preprocessor>,
    ) -> Result<(PixelFormat, Sizing), Vec<ConfigError>> {
        let mut faults = Vec::new();
        let trained = input.format;
        let written = self.written_format(trained.clone());
        let contradictions = [
            ("channels", written.channels != trained.channels),
            ("layout", written.layout != trained.layout),
            ("range", written.range != trained.range),
            ("mean", written.mean != trained.mean),
            ("std", written.std != trained.std),
            (
                "steps",
                steps.is_some() && input.steps.is_some() && steps != input.steps,
            ),
        ];
        for (key, _) in contradictions
            .iter()
            .filter(|(_, contradicts)| *contradicts)
        {
            faults.push(ConfigError::new(
                *key,
                format!("the model `{name}` was trained with another `{key}`; remove it here"),
            ));
        }
        if input.steps.is_some() {
            faults.extend(self.options_without_effect());
        }
        let trained_size = input
            .size
            .map(|(height, width)| TargetSize::Fixed(height, width));
        let chosen = match &steps {
            Some(own) => Some(Sizing::Steps(own.clone()).size()),
            None => self.size,
        };
        if let (Some(expected), Some(chosen)) = (trained_size, chosen)
            && expected != chosen
            && faults.iter().all(|fault| fault.key != "steps")
        {
            let (key, advice) = match steps {
                None => ("size", "remove `size` here".to_owned()),
                Some(_) => ("steps", format!("the steps make {chosen}")),
            };
            let message = format!("the model `{name}` takes images of {expected}; {advice}");
            faults.push(ConfigError::new(key, message));
        }
        let size = trained_size.or(chosen).unwrap_or(TargetSize::Original);
        let sizing = match steps.or(input.steps) {
            Some(steps) => Sizing::Steps(steps),
            None => self.resized(size, input.decode),
        };
        if faults.is_empty() {
            Ok((trained, sizing))
        } else {
            Err(faults)
        }
    }

    /// Overrides `format` with the options that are set.
    fn written_format(&self, format: PixelFormat) -> PixelFormat {
        PixelFormat {
            channels: self.channels.unwrap_or(format.channels),
            layout: self.layout.unwrap_or(format.layout),
            range: self.range.unwrap_or(format.range),
            mean: self.mean.clone().unwrap_or(format.mean),
            std: self.std.clone().unwrap_or(format.std),
        }
    }
}
