//! The options of the transform `corrupt`.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::corruption::Strength;
use crate::corruption::spec::{CorruptionKind, CorruptionSpec};
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::image::jpeg_encoding::ChromaSubsampling;
use crate::image::pixel_format::PixelFormat;
use crate::plan_context::PlanContext;
use crate::tensor::{TensorShape, variable_field, vector_field};
use crate::transform::corrupt::CorruptTransform;
use crate::transform::rows::{append, find_tensor};
use crate::transform::{TransformConfig, TransformPlan};

/// Options of `corrupt`. A record receives the same noise in every run.
// The options of `CorruptionSpec` are repeated here, because the faults of a flattened struct have
// no keys.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct CorruptConfig {
    /// The kind of corruption.
    #[schemars(extend("x-changes-rows" = true))]
    pub noise: CorruptionKind,
    /// For `gaussian`: the standard deviation, or a range such as [0, 55] from which the value of
    /// each record is drawn. For pixels, in 8-bit steps at any scale of the values, so that 25
    /// means 25/255 of the range; for other columns, in the units of the column. For `blur`: the
    /// standard deviation of the kernel, in pixels.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub sigma: Option<Strength>,
    /// For `gaussian`: the standard deviation, in pixels, of a Gaussian filter of the noise, or a
    /// range from which the value of each record is drawn. Neighboring pixels then have similar
    /// noise, as after demosaicing; its own standard deviation stays `sigma`. Default: independent
    /// noise.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub correlation: Option<Strength>,
    /// For `poisson`: the number of photons of a white pixel, or a range from which the value of
    /// each record is drawn. A smaller number gives more noise.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub peak: Option<Strength>,
    /// For `masking` and `salt_and_pepper`: the probability, 0 to 1, that a value (for
    /// `salt_and_pepper`, a pixel) is changed; or a range from which the value of each record is
    /// drawn.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub rate: Option<Strength>,
    /// For `downscale`: the factor by which height and width are reduced, or a range from which the
    /// value of each record is drawn.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub factor: Option<Strength>,
    /// For `jpeg`: the quality, 1 to 100, or a range from which the value of each record is drawn.
    /// Default: [30, 95].
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub quality: Option<Strength>,
    /// For `jpeg`: the resolutions of color, from which that of each record is drawn. Default:
    /// ["4:2:0", "4:4:4"].
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub subsampling: Option<Vec<ChromaSubsampling>>,
    /// For `watermark_text`: the text. Default: latentflow.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub text: Option<String>,
    /// For watermarks: the opacity from 0 (invisible) to 1 (hides the image), or a range from which
    /// the value of each record is drawn. Default: 0.5; [0.2, 0.8] for `watermark`.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub opacity: Option<Strength>,
    /// For `watermark`: the height of its letters in pixels, from 4 to 1000, or a range from which
    /// the value of each record is drawn, uniformly on a logarithmic scale. Watermarks are then
    /// words of letters that are drawn with strokes, or logos, of random color, angle and position,
    /// some with an outline, some tiled. Default: words of a font of dots or a grid, in white or
    /// black, whose size follows that of the image.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub size: Option<Strength>,
    /// The probability, above 0 and up to 1, that a record is corrupted; the others stay as they
    /// are. Default: 1.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub probability: Option<f64>,
    /// The seed of the noise. Two stages of a pipeline need different seeds for independent noise.
    /// Default: 0.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub seed: u64,
    /// The tensor column to corrupt. Default: the only one.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub column: Option<String>,
    /// The name of a new column for the result. Default: the result replaces the input column.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub to: Option<String>,
}

impl TransformConfig for CorruptConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        _context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let spec = self.corruption();
        let mut faults = spec.faults();
        let found = faults.record(find_tensor(input, "column", self.column.as_deref()));
        let Some((index, field, shape)) = found else {
            return Err(faults);
        };
        let format = faults.record(pixel_format(field, &shape)).flatten();
        if let Some((_, reason)) = spec
            .incompatibility(format.as_ref())
            .filter(|_| faults.is_empty())
        {
            faults.push(ConfigError::new(
                "column",
                format!("column `{}` holds {reason}", field.name()),
            ));
        }
        let schema = faults.record(self.schema(input, index, &shape));
        let (Some(schema), true) = (schema, faults.is_empty()) else {
            return Err(faults);
        };
        let corruption = spec.plan(format.as_ref())?;
        self.column = Some(field.name().clone());
        let resolved = spec.with_defaults();
        (self.text, self.opacity) = (resolved.text, resolved.opacity);
        (self.quality, self.subsampling) = (resolved.quality, resolved.subsampling);
        let replaces = self.to.is_none();
        Ok(Box::new(CorruptTransform {
            corruption,
            seed: self.seed,
            index,
            shape,
            format,
            replaces,
            schema,
        }))
    }
}

impl CorruptConfig {
    fn corruption(&self) -> CorruptionSpec {
        CorruptionSpec {
            noise: self.noise,
            sigma: self.sigma,
            correlation: self.correlation,
            peak: self.peak,
            rate: self.rate,
            factor: self.factor,
            quality: self.quality,
            subsampling: self.subsampling.clone(),
            text: self.text.clone(),
            opacity: self.opacity,
            size: self.size,
            probability: self.probability,
        }
    }

    /// The columns of the output. The corrupted column keeps its metadata, which include the pixel
    /// format.
    fn schema(
        &self,
        input: &Schema,
        index: usize,
        shape: &TensorShape,
    ) -> Result<SchemaRef, ConfigError> {
        let before = input.field(index);
        let name = self.to.as_deref().unwrap_or(before.name());
        let renamed = match shape {
            TensorShape::Fixed(shape) => vector_field(name, shape.iter().product()),
            TensorShape::Variable(dims) => variable_field(name, *dims)
                .map_err(|error| ConfigError::new("column", error.to_string()))?,
        };
        let field = renamed.with_metadata(before.metadata().clone());
        if self.to.is_some() {
            return append(input, "to", field);
        }
        let mut fields = input.fields().to_vec();
        fields[index] = Arc::new(field);
        Ok(Arc::new(Schema::new(fields)))
    }
}

/// Returns the pixel format of a column, if it has one, and checks that it is valid and matches the
/// shape of the column.
fn pixel_format(field: &Field, shape: &TensorShape) -> Result<Option<PixelFormat>, ConfigError> {
    let Some(format) = PixelFormat::from_field(field) else {
        return Ok(None);
    };
    let fits = match shape {
        TensorShape::Fixed(shape) => format.size(shape).is_some(),
        TensorShape::Variable(dims) => *dims == 3,
    };
    match format.check() {
        Err(message) => Err(ConfigError::new(
            "column",
            format!(
                "the pixel format of column `{}` is invalid: {message}",
                field.name()
            ),
        )),
        Ok(()) if !fits => {
            let message = format!(
                "column `{}` has the shape {shape}, which does not match its pixel format",
                field.name()
            );
            Err(ConfigError::new("column", message))
        }
        Ok(()) => Ok(Some(format)),
    }
}
