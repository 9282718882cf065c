//! The transform `corrupt`: adds noise or a watermark to a tensor column, to test or train
//! denoisers.

pub(crate) mod config;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::rows::{RejectReason, RejectedRows, TensorRows, with_columns};
use super::{Transform, TransformPlan};
use crate::batch::Batch;
use crate::batch::reject::{RejectCode, RejectCollector};
use crate::corruption::Corruption;
use crate::error::StageError;
use crate::image::pixel_format::PixelFormat;
use crate::tensor::{TensorShape, all_finite, fixed_column, variable_column};

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
                    let format = self.format.as_ref();
                    match self
                        .corruption
                        .apply(&mut values[start..], size, format, seed)
                    {
                        Ok(()) if all_finite(clean) && !all_finite(&values[start..]) => {
                            values.truncate(start);
                            let reason = "the corrupted values exceed the range of float32";
                            rejected.add(row, (RejectCode::NotFinite, reason.to_owned()));
                        }
                        Ok(()) => shapes.push(shape.into_owned()),
                        Err(error) => {
                            values.truncate(start);
                            rejected.add(row, (error.code(), error.to_string()));
                        }
                    }
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
