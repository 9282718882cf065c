//! The transform `corrupt`: adds noise or a watermark to a tensor column, to test or train
//! denoisers.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rows::{RejectReason, RejectedRows, TensorRows, append, find_tensor, with_columns};
use super::{Transform, TransformConfig, TransformPlan};
use crate::batch::Batch;
use crate::batch::reject::{RejectCode, RejectCollector};
use crate::corruption::spec::{CorruptionKind, CorruptionSpec};
use crate::corruption::{Corruption, Strength};
use crate::error::StageError;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::image::pixel_format::PixelFormat;
use crate::plan_context::PlanContext;
use crate::tensor::{TensorShape, fixed_column, variable_column, variable_field, vector_field};

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
    /// means 25/255 of the range; for other columns, in the units of the column.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub sigma: Option<Strength>,
    /// For `masking` and `salt_and_pepper`: the probability, 0 to 1, that a value (for
    /// `salt_and_pepper`, a pixel) is changed; or a range from which the value of each record is
    /// drawn.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub rate: Option<Strength>,
    /// For `watermark_text`: the text. Default: latentflow.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub text: Option<String>,
    /// For watermarks: the opacity from 0 (invisible) to 1 (hides the image), or a range from which
    /// the value of each record is drawn. Default: 0.5; [0.2, 0.8] for `watermark`.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub opacity: Option<Strength>,
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
        if let Some(reason) = spec
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
        let CorruptionSpec { text, opacity, .. } = spec.with_defaults();
        (self.column, self.text, self.opacity) = (Some(field.name().clone()), text, opacity);
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
        let Self {
            noise,
            sigma,
            rate,
            opacity,
            ..
        } = *self;
        CorruptionSpec {
            noise,
            sigma,
            rate,
            opacity,
            text: self.text.clone(),
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

#[derive(Clone)]
struct CorruptTransform {
    corruption: Corruption,
    seed: u64,
    index: usize,
    shape: TensorShape,
    format: Option<PixelFormat>,
    replaces: bool,
    schema: SchemaRef,
}

impl TransformPlan for CorruptTransform {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn depends_on_identity(&self) -> bool {
        true
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        Ok(Box::new(self.clone()))
    }

    fn summary(&self) -> String {
        self.corruption.summary()
    }

    fn bytes_per_pixel(&self) -> u64 {
        let channels = self
            .format
            .as_ref()
            .map_or(3, |format| format.channels.count());
        match self.shape {
            TensorShape::Fixed(_) => 0,
            TensorShape::Variable(_) => (channels * size_of::<f32>()) as u64,
        }
    }
}

impl Transform for CorruptTransform {
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let rows = TensorRows::new(&batch, self.index, &self.shape);
        let (mut values, mut shapes, mut rejected) =
            (Vec::new(), Vec::new(), RejectedRows::default());
        for (row, &ordinal) in batch.row_ordinals.iter().enumerate() {
            let read = rows
                .get(row)
                .and_then(|(clean, shape)| Ok((clean, self.size(&shape)?, shape)));
            match read {
                Err(reason) => rejected.add(row, reason),
                Ok((clean, size, shape)) => {
                    let start = values.len();
                    values.extend_from_slice(clean);
                    let seed = batch.provenance.seed(ordinal, self.seed);
                    self.corruption
                        .apply(&mut values[start..], size, self.format.as_ref(), seed);
                    shapes.push(shape.into_owned());
                }
            }
        }
        let batch = rejected.remove_from(batch, rejects)?;
        let column: ArrayRef = match &self.shape {
            TensorShape::Fixed(shape) => fixed_column(shape.iter().product(), values)?,
            TensorShape::Variable(dims) => variable_column(*dims, values, &shapes)?,
        };
        if !self.replaces {
            return with_columns(batch, &self.schema, vec![column]);
        }
        let mut columns = batch.records.columns().to_vec();
        columns[self.index] = column;
        let records = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        Ok(batch.with_records(records))
    }
}

impl CorruptTransform {
    /// The height and width of an image. A row of a column without pixels counts as an image of
    /// height 1.
    fn size(&self, shape: &[usize]) -> Result<(usize, usize), RejectReason> {
        let Some(format) = &self.format else {
            return Ok((1, shape.iter().product()));
        };
        format.size(shape).ok_or_else(|| {
            (
                RejectCode::Mismatch,
                format!("the shape {shape:?} does not match the pixel format"),
            )
        })
    }
}

#[cfg(test)]
mod tests;
