//! The transform `denoise`: runs a complete autoencoder or a denoiser, on images of any size in
//! overlapping tiles.

pub(crate) mod config;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::model_columns::{reject_model_failures, reject_not_finite, reject_unusable_rows};
use super::rows::{RejectedRows, TensorRows};
use super::tile::{PlacedImage, TileCut, Tiling};
use super::{ImagePreview, Transform, TransformPlan};
use crate::batch::Batch;
use crate::batch::reject::RejectCollector;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::image::pixel_format::PixelFormat;
use crate::model::Model;
use crate::model::files::ModelPath;
use crate::model::session::chain::SessionChain;
use crate::model::tensor_spec::element_count;
use crate::tensor::{TensorShape, fixed_column, fixed_values, variable_column};
use crate::transform::denoise::config::DenoiseMode;

struct DenoiseParams {
    model: Arc<Model>,
    schema: SchemaRef,
    column: usize,
    /// Whether the column holds pixels.
    pixels: bool,
    output_index: usize,
    shape: TensorShape,
    mode: DenoiseMode,
    /// The share of the model's change that is applied.
    strength: f32,
}

struct DenoisePlan(Arc<DenoiseParams>);

impl TransformPlan for DenoisePlan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        Ok(Box::new(DenoiseTransform {
            params: Arc::clone(&self.0),
            chain: self
                .0
                .model
                .chain(ModelPath::Reconstruct)?
                .with_pixels(self.0.pixels),
        }))
    }

    fn bytes_per_pixel(&self) -> u64 {
        match (&self.0.mode, &self.0.shape) {
            (DenoiseMode::Tiles { format, .. }, TensorShape::Variable(_)) => {
                (format.channels.count() * size_of::<f32>()) as u64
            }
            _ => 0,
        }
    }

    fn scratch_bytes(&self) -> u64 {
        let len = match (&self.0.mode, &self.0.shape) {
            (DenoiseMode::Tiles { format, cut }, _) => {
                element_count(&format.shape(cut.tile, cut.tile))
            }
            (DenoiseMode::Records, shape) => shape.len(),
        };
        self.0
            .model
            .scratch_bytes(ModelPath::Reconstruct, len.unwrap_or_default())
    }

    fn summary(&self) -> String {
        let name = self.0.model.name();
        match &self.0.mode {
            DenoiseMode::Records => format!("model {name}: {}", self.0.shape),
            DenoiseMode::Tiles { cut, .. } => {
                format!(
                    "model {name}: images above {0}x{0} in tiles that overlap by {1}",
                    cut.tile, cut.overlap
                )
            }
        }
    }
}

struct DenoiseTransform {
    params: Arc<DenoiseParams>,
    chain: SessionChain,
}

impl Transform for DenoiseTransform {
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let plan = Arc::clone(&self.params);
        let is_image = |shape: &[usize]| match &plan.mode {
            DenoiseMode::Tiles { format, .. }
                if format
                    .size(shape)
                    .is_none_or(|(height, width)| height * width == 0) =>
            {
                Err(format!(
                    "the shape {shape:?} is not that of a non-empty image in {}",
                    format.describe()
                ))
            }
            _ => Ok(()),
        };
        let batch = reject_unusable_rows(batch, plan.column, &plan.shape, rejects, is_image)?;
        let mut rejected = RejectedRows::default();
        let column = match (&plan.mode, &plan.shape) {
            (DenoiseMode::Tiles { format, cut }, _) => {
                self.run_tiles(&batch, format, *cut, &mut rejected)?
            }
            (DenoiseMode::Records, shape) => {
                self.run_records(&batch, shape.len().unwrap_or_default(), &mut rejected)?
            }
        };
        rejected.check_model(batch.records.num_rows())?;
        let mut columns = batch.records.columns().to_vec();
        columns.splice(
            plan.output_index..columns.len().min(plan.output_index + 1),
            [column],
        );
        let records = RecordBatch::try_new(Arc::clone(&plan.schema), columns)?;
        rejected.remove_from(batch.with_records(records), rejects)
    }

    fn preview(&mut self, input: &Batch, output: &Batch) -> Option<ImagePreview> {
        let plan = &self.params;
        let ordinal = *output.row_ordinals.first()?;
        let index = input
            .row_ordinals
            .iter()
            .position(|&origin| origin == ordinal)?;
        let format = PixelFormat::from_field(input.records.schema_ref().field(plan.column))?;
        let (before, shape) = TensorRows::new(input, plan.column, &plan.shape)
            .get(index)
            .ok()?;
        let (after, _) = TensorRows::new(output, plan.output_index, &plan.shape)
            .get(0)
            .ok()?;
        ImagePreview::new(ordinal, &format, &shape, [before, after])
    }

    fn warm_up(&mut self) -> Result<(), StageError> {
        let shape = match (&self.params.mode, &self.params.shape) {
            (DenoiseMode::Records, TensorShape::Fixed(row)) => row.clone(),
            // The benefit depends on the size of the images, which is unknown.
            _ => return Ok(()),
        };
        let zeros = vec![0.0; element_count(&shape).unwrap_or_default()];
        let name = self.params.model.name();
        let run = self.chain.run(&zeros, &shape, &mut Vec::new());
        run.map(|_| ()).map_err(|reason| {
            StageError::Model(format!("the model `{name}` fails on zeros: {reason}"))
        })
    }
}

impl DenoiseTransform {
    fn run_records(
        &mut self,
        batch: &Batch,
        len: usize,
        rejected: &mut RejectedRows,
    ) -> Result<ArrayRef, StageError> {
        let plan = &self.params;
        let records = fixed_values(batch.records.column(plan.column));
        let (TensorShape::Fixed(shape), Some(records)) = (&plan.shape, records) else {
            return Err(StageError::new(
                ErrorCode::Internal,
                "the column does not hold tensors, contrary to the plan".to_owned(),
            ));
        };
        let mut out = Vec::with_capacity(records.len());
        let failures = self.chain.run_rows(records, shape, len, &mut out);
        reject_model_failures(failures, 0, rejected);
        reject_not_finite(&out, len, "result", 0, rejected);
        blend(&mut out, records, plan.strength);
        Ok(fixed_column(len, out)?)
    }

    /// Processes images of equal size together, tile by tile, and returns the results in the order
    /// of the rows.
    fn run_tiles(
        &mut self,
        batch: &Batch,
        format: &PixelFormat,
        cut: TileCut,
        rejected: &mut RejectedRows,
    ) -> Result<ArrayRef, StageError> {
        let tensors = TensorRows::new(batch, self.params.column, &self.params.shape);
        let (mut placed, mut shapes, mut len) = (Vec::new(), Vec::new(), 0);
        for row in 0..batch.records.num_rows() {
            let (values, shape) = tensors
                .get(row)
                .map_err(|(_, reason)| StageError::new(ErrorCode::Internal, reason))?;
            placed.push(PlacedImage { values, at: len });
            shapes.push(shape.into_owned());
            len += values.len();
        }
        let mut by_size: BTreeMap<(usize, usize), (Vec<usize>, Vec<PlacedImage<'_>>)> =
            BTreeMap::new();
        for (row, image) in placed.into_iter().enumerate() {
            let same = by_size
                .entry(format.size(&shapes[row]).unwrap_or_default())
                .or_default();
            same.0.push(row);
            same.1.push(image);
        }
        let mut out = vec![0.0; len];
        for (size, (rows, images)) in by_size {
            let mut reject = |image: usize, code, reason| rejected.add(rows[image], (code, reason));
            Tiling::new(format, size, cut).run(
                &mut self.chain,
                format,
                &images,
                &mut out,
                &mut reject,
            );
        }
        let mut start = 0;
        for row in 0..batch.records.num_rows() {
            if let Ok((values, _)) = tensors.get(row) {
                let end = start + values.len();
                blend(&mut out[start..end], values, self.params.strength);
                start = end;
            }
        }
        match &self.params.shape {
            TensorShape::Fixed(shape) => {
                Ok(fixed_column(element_count(shape).unwrap_or_default(), out)?)
            }
            TensorShape::Variable(dims) => Ok(variable_column(*dims, out, &shapes)?),
        }
    }
}

/// Replaces the results of a model by the sum of its inputs and a share of the change.
fn blend(results: &mut [f32], inputs: &[f32], strength: f32) {
    if strength < 1.0 {
        for (result, input) in results.iter_mut().zip(inputs) {
            *result = input + strength * (*result - input);
        }
    }
}

#[cfg(test)]
mod tests;
