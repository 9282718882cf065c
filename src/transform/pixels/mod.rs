//! The transform `pixels`: decodes, orients, resizes and normalizes images into a tensor column.

pub(crate) mod config;
pub(crate) mod target;

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::{Field, SchemaRef};

use crate::batch::Batch;
use crate::batch::reject::{RejectCode, RejectCollector};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::image::TargetSize;
use crate::image::encoded_column::encoded_image;
use crate::image::prepared::{ImagePreparation, ImageReader, PreparedImage, Sizing};
use crate::tensor;
use crate::transform::{Transform, TransformPlan};

struct PixelsPlan {
    schema: SchemaRef,
    column: usize,
    /// The indices of the input columns that are kept.
    kept: Vec<usize>,
    target: ImagePreparation,
}

impl TransformPlan for PixelsPlan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        Ok(Box::new(PixelsTransform {
            schema: Arc::clone(&self.schema),
            column: self.column,
            kept: self.kept.clone(),
            target: self.target.clone(),
            reader: self.target.reader(),
        }))
    }

    fn bytes_per_pixel(&self) -> u64 {
        match self.target.sizing.size() {
            TargetSize::Original => (self.target.format.channels.count() * size_of::<f32>()) as u64,
            TargetSize::Fixed(..) => 0,
        }
    }

    // `scratch_bytes` is 0: the memory of decoding depends on the images, and is estimated from the
    // pixels of the batch.

    fn image_preparation(&self) -> Option<&ImagePreparation> {
        Some(&self.target)
    }
}

struct PixelsTransform {
    schema: SchemaRef,
    column: usize,
    kept: Vec<usize>,
    target: ImagePreparation,
    reader: ImageReader,
}

impl Transform for PixelsTransform {
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let images = Arc::clone(batch.records.column(self.column));
        let mut tensors = TensorBuilder {
            values: Vec::new(),
            shapes: Vec::new(),
        };
        if let TargetSize::Fixed(height, width) = self.target.sizing.size() {
            let rows = images.len() - images.null_count();
            tensors.reserve(
                rows.saturating_mul(height * width * self.target.format.channels.count()),
            )?;
        }
        let mut usable = Vec::with_capacity(images.len());
        for (row, &ordinal) in batch.row_ordinals.iter().enumerate() {
            let format = &self.target.format;
            let read = match encoded_image(&images, row) {
                None => Err((RejectCode::Missing, "the image is null".to_owned())),
                Some(image) => {
                    let prepared = self.reader.read(image);
                    prepared.map_err(|error| (error.code(), error.to_string()))
                }
            };
            usable.push(read.is_ok());
            match read {
                Ok(PreparedImage {
                    height,
                    width,
                    samples,
                }) => {
                    let shape = (self.target.sizing == Sizing::Original)
                        .then(|| format.shape(height, width));
                    let values = tensors.grow(shape, samples.len())?;
                    samples.normalize(format, values);
                }
                Err((code, reason)) => rejects.push(ordinal, code, reason),
            }
        }
        let batch = batch.filter(&BooleanArray::from(usable))?;
        let kept = self
            .kept
            .iter()
            .map(|&index| Arc::clone(batch.records.column(index)));
        let columns = kept.chain([tensors.column(&self.target)?]).collect();
        let records = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        Ok(batch.with_records(records))
    }
}

/// Collects the values of the column of tensors.
struct TensorBuilder {
    values: Vec<f32>,
    /// The shape of each row, if that of the column is not fixed.
    shapes: Vec<Vec<usize>>,
}

impl TensorBuilder {
    fn reserve(&mut self, more: usize) -> Result<(), StageError> {
        self.values.try_reserve(more).map_err(|_| {
            StageError::Memory(format!(
                "cannot allocate memory for {more} more values of a batch; reduce `batch` \
                 of the source"
            ))
        })
    }

    /// Adds a row of `len` values and returns them. `shape` is given if that of the column is not
    /// fixed.
    fn grow(&mut self, shape: Option<Vec<usize>>, len: usize) -> Result<&mut [f32], StageError> {
        let start = self.values.len();
        if let Some(shape) = shape {
            // The offsets of an Arrow list of variable length have 32 bits.
            if i32::try_from(start + len).is_err() {
                let message = "the images of a batch have more than 2^31 values; reduce `batch` of \
                               the source";
                return Err(StageError::new(ErrorCode::Internal, message.to_owned()));
            }
            self.shapes.push(shape);
        }
        self.reserve(len)?;
        self.values.resize(start + len, 0.0);
        Ok(&mut self.values[start..])
    }

    fn column(self, target: &ImagePreparation) -> Result<ArrayRef, StageError> {
        Ok(match target.sizing.size() {
            TargetSize::Fixed(height, width) => {
                tensor::fixed_column(height * width * target.format.channels.count(), self.values)?
            }
            TargetSize::Original => tensor::variable_column(3, self.values, &self.shapes)?,
        })
    }
}

/// The field of the tensors.
fn tensor_field(
    preparation: &ImagePreparation,
    name: &str,
) -> Result<Field, arrow::error::ArrowError> {
    let format = &preparation.format;
    let field = match preparation.sizing.size() {
        TargetSize::Fixed(height, width) => {
            tensor::tensor_field(name, &format.shape(height, width))?
        }
        TargetSize::Original => tensor::variable_field(name, 3)?,
    };
    Ok(preparation.color_space.annotate(format.annotate(field)))
}

#[cfg(test)]
mod tests;
