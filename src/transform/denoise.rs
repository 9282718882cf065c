//! The transform `denoise`: runs a complete autoencoder or a denoiser, on images of any size in
//! overlapping tiles.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model_columns::{
    check_pixels, field_like, find_column, holds_pixels, reject_model_failures, reject_not_finite,
    reject_unusable_rows,
};
use super::rows::{RejectedRows, TensorRows};
use super::tile::{OVERLAP, PlacedImage, TILE, TileCut, Tiling};
use super::{ImagePreview, Transform, TransformConfig, TransformPlan};
use crate::batch::{Batch, RejectCollector};
use crate::error::{ConfigError, RecordFaults, StageError};
use crate::image::pixel_format::PixelFormat;
use crate::model::session::SessionChain;
use crate::model::tensor_spec::element_count;
use crate::model::{ImageInput, Model, ModelPath, same_layout};
use crate::plan_context::PlanContext;
use crate::tensor::{TensorShape, fixed_column, fixed_values, variable_column};

/// Options of `denoise`: the model, and, for images of any size, the tiles.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct DenoiseConfig {
    /// The model, as declared under `models`.
    // The digest of the model is part of the fingerprint instead of its name.
    #[schemars(extend("x-changes-rows" = false))]
    pub model: String,
    /// The tensor column to process. Default: the only one that fits the model.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub column: Option<String>,
    /// The name of a new column for the result. Default: the result replaces the input column.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub to: Option<String>,
    /// For models that take images of any size: the side of the tiles into which larger images are
    /// cut, in pixels. Default: 512.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub tile: Option<NonZeroUsize>,
    /// The overlap of adjacent tiles, in pixels: at least the receptive field of the model around a
    /// pixel. Default: 32.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub overlap: Option<usize>,
}

impl TransformConfig for DenoiseConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let model = context.model(&self.model)?;
        if model.files(ModelPath::Reconstruct).is_none() {
            let message = format!(
                "the model `{}` has no decoder: it returns codes, not images",
                model.name()
            );
            return Err(vec![ConfigError::new("model", message)]);
        }
        let mut faults = Vec::new();
        let mode = faults.record_all(self.mode(&model));
        let fits = |field: &Field, shape: &TensorShape| match model.image_input() {
            Some(ImageInput {
                format, size: None, ..
            }) => fit_any_size(&model, &format, field, shape),
            _ => fit_fixed(&model, field, shape),
        };
        let found = faults.record(find_column(input, self.column.as_deref(), fits));
        let (Some(mode), Some((column, field, shape))) = (mode, found) else {
            return Err(faults);
        };
        if let Err(reason) = check_output(&model, &mode, &shape) {
            faults.push(ConfigError::new("model", reason));
        }
        let name = self.to.as_ref().unwrap_or(field.name());
        let output_index = if self.to.is_some() {
            input.fields().len()
        } else {
            column
        };
        if self.to.is_some() && input.column_with_name(name).is_some() {
            faults.push(ConfigError::new(
                "to",
                format!("the input already has a column `{name}`; choose another name"),
            ));
        }
        let output = faults.record(field_like(field, &shape, name));
        let (Some(output), true) = (output, faults.is_empty()) else {
            return Err(faults);
        };
        self.column = Some(field.name().clone());
        if let DenoiseMode::Tiles { cut, .. } = &mode {
            (self.tile, self.overlap) = (NonZeroUsize::new(cut.tile), Some(cut.overlap));
        }
        let mut fields: Vec<Arc<Field>> = input.fields().iter().cloned().collect();
        fields.truncate(fields.len().max(output_index));
        fields.splice(
            output_index..fields.len().min(output_index + 1),
            [Arc::new(output)],
        );
        let schema = Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()));
        Ok(Box::new(DenoisePlan(Arc::new(DenoiseParams {
            pixels: holds_pixels(&model, field),
            model,
            schema,
            column,
            output_index,
            shape,
            mode,
        }))))
    }
}

impl DenoiseConfig {
    /// Selects whether images are processed unchanged or in tiles.
    fn mode(&self, model: &Model) -> Result<DenoiseMode, Vec<ConfigError>> {
        let Some(image) = model.image_input().filter(|image| image.size.is_none()) else {
            let set = [
                ("tile", self.tile.is_some()),
                ("overlap", self.overlap.is_some()),
            ];
            let set = set.into_iter().filter(|(_, set)| *set);
            let message = "has no effect, since the model takes records of one shape; leave it out";
            let faults: Vec<ConfigError> =
                set.map(|(key, _)| ConfigError::new(key, message)).collect();
            return if faults.is_empty() {
                Ok(DenoiseMode::Records)
            } else {
                Err(faults)
            };
        };
        let cut = TileCut {
            tile: self.tile.map_or(TILE, NonZeroUsize::get),
            overlap: self.overlap.unwrap_or(OVERLAP),
            multiple: model.size_multiple(),
        };
        let mut faults = Vec::new();
        if !cut.tile.is_multiple_of(cut.multiple) {
            let message = format!(
                "{} is not a multiple of {}, which the model requires",
                cut.tile, cut.multiple
            );
            faults.push(ConfigError::new("tile", message));
        }
        if cut.overlap > cut.tile / 2 {
            let message = format!(
                "{} is more than half of the side of a tile, {}",
                cut.overlap, cut.tile
            );
            faults.push(ConfigError::new("overlap", message));
        }
        if element_count(&image.format.shape(cut.tile, cut.tile))
            .is_none_or(|len| len > MAX_TILE_VALUES)
        {
            faults.push(ConfigError::new(
                "tile",
                format!(
                    "{} is too large: a tile has at most {MAX_TILE_VALUES} values, to bound memory",
                    cut.tile
                ),
            ));
        }
        if faults.is_empty() {
            Ok(DenoiseMode::Tiles {
                format: image.format,
                cut,
            })
        } else {
            Err(faults)
        }
    }
}

/// The maximum number of values of a tile: 8192 x 8192 color pixels, which bounds one call of a
/// model.
const MAX_TILE_VALUES: usize = 3 << 26;

/// The mode in which records are processed.
#[derive(Debug)]
enum DenoiseMode {
    /// Records are unchanged: all have the shape that the model takes.
    Records,
    /// Images of any size are cut into tiles.
    Tiles { format: PixelFormat, cut: TileCut },
}

fn fit_fixed(model: &Model, field: &Field, shape: &TensorShape) -> Result<(), String> {
    check_pixels(model, field)?;
    let expected = model.input_shape();
    match (shape, expected) {
        (TensorShape::Fixed(row), Some(expected)) if !same_layout(row, &expected) => Err(format!(
            "its records have the shape {row:?}, but the model `{}` takes {expected:?}",
            model.name()
        )),
        (TensorShape::Fixed(row), _) => model.output_shape(ModelPath::Reconstruct, row).map(|_| ()),
        (TensorShape::Variable(_), _) => {
            let name = model.name();
            Err(format!(
                "its records have different shapes, but the model `{name}` takes one shape; set \
                 `size` in the `pixels` stage"
            ))
        }
    }
}

fn fit_any_size(
    model: &Model,
    format: &PixelFormat,
    field: &Field,
    shape: &TensorShape,
) -> Result<(), String> {
    check_pixels(model, field)?;
    let fits = match shape {
        TensorShape::Fixed(row) => format.size(row).is_some(),
        TensorShape::Variable(dims) => *dims == 3,
    };
    let kind = format.describe();
    if fits {
        Ok(())
    } else {
        Err(format!(
            "its records have the shape {shape}, but the model takes {kind}"
        ))
    }
}

/// Checks that the output has the shape of the input; for images of any size, with one test image.
fn check_output(model: &Model, mode: &DenoiseMode, shape: &TensorShape) -> Result<(), String> {
    let record = match (mode, shape) {
        (DenoiseMode::Records, TensorShape::Fixed(row)) => row.clone(),
        (DenoiseMode::Records, TensorShape::Variable(_)) => return Ok(()),
        (DenoiseMode::Tiles { format, cut }, _) => {
            let side = PROBE_SIDE.next_multiple_of(cut.multiple).min(cut.tile);
            format.shape(side, side)
        }
    };
    let output = model.output_shape(ModelPath::Reconstruct, &record)?;
    if same_layout(&output, &record) {
        return Ok(());
    }
    let name = model.name();
    Err(format!(
        "the model `{name}` returns the shape {output:?} for a record of shape {record:?}; \
         `denoise` requires equal shapes"
    ))
}

/// The side of the test image during planning, in pixels.
const PROBE_SIDE: usize = 32;

struct DenoiseParams {
    model: Arc<Model>,
    schema: SchemaRef,
    column: usize,
    /// Whether the column holds pixels.
    pixels: bool,
    output_index: usize,
    shape: TensorShape,
    mode: DenoiseMode,
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
            return Err(StageError::Other(
                "the column does not hold tensors, contrary to the plan".to_owned(),
            ));
        };
        let mut out = Vec::with_capacity(records.len());
        let failures = self.chain.run_rows(records, shape, len, &mut out);
        reject_model_failures(failures, 0, rejected);
        reject_not_finite(&out, len, "result", 0, rejected);
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
                .map_err(|(_, reason)| StageError::Other(reason))?;
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
        match &self.params.shape {
            TensorShape::Fixed(shape) => {
                Ok(fixed_column(element_count(shape).unwrap_or_default(), out)?)
            }
            TensorShape::Variable(dims) => Ok(variable_column(*dims, out, &shapes)?),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use expect_test::{Expect, expect};

    use super::*;
    use crate::tensor::variable_row;
    use crate::transform::model_columns::testing::{column, faults, images, plan, run, tensors};
    use crate::transform::testing::{part, reasons};

    const BLUR: &str = "model = 'blur.onnx'";
    const HALVE: &str = "encoder = 'halve.onnx'\ndecoder = 'double.onnx'\nmultiple = 2";

    fn row(batch: &Batch, column: &str, row: usize) -> (Vec<f32>, Vec<usize>) {
        let (values, shape) =
            variable_row(batch.records.column_by_name(column).unwrap(), row).unwrap();
        (values.to_vec(), shape)
    }

    /// The mean over the pixels of the 3x3 window that are within the image, for interleaved
    /// colors.
    fn blur(image: &[f32], height: usize, width: usize) -> Vec<f32> {
        let value = |at: usize| {
            let (center_y, center_x, channel) = (at / 3 / width, at / 3 % width, at % 3);
            let rows = center_y.saturating_sub(1)..(center_y + 2).min(height);
            let near = rows.flat_map(|y| {
                (center_x.saturating_sub(1)..(center_x + 2).min(width)).map(move |x| (y, x))
            });
            let near: Vec<f32> = near
                .map(|(y, x)| image[(y * width + x) * 3 + channel])
                .collect();
            near.iter().sum::<f32>() / near.len() as f32
        };
        (0..image.len()).map(value).collect()
    }

    #[test]
    fn images_of_any_size_keep_their_order_and_shapes() {
        let sizes = [[5, 7, 3], [3, 2, 3], [5, 7, 3], [40, 9, 3]];
        let batch = images(&sizes, |row, at| ((row * 31 + at * 7) % 17) as f32);
        let (out, rejects) =
            run::<DenoiseConfig>(BLUR, r#"{"to": "y", "tile": 16, "overlap": 6}"#, batch);
        assert!(rejects.is_empty());
        for (index, size) in sizes.iter().enumerate() {
            let (before, _) = row(&out, "x", index);
            let (after, shape) = row(&out, "y", index);
            assert_eq!(shape, size);
            let expected = blur(&before, size[0], size[1]);
            let worst = after
                .iter()
                .zip(&expected)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            // The border of a tile lacks one pixel of context; its weight there is 1 / 7.
            assert!(
                worst < if size[0] > 16 { 2.0 } else { 1e-4 },
                "{size:?} off by {worst}"
            );
        }
    }

    #[test]
    fn images_of_one_size_are_replaced_by_the_result() {
        let image: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let (out, _) = run::<DenoiseConfig>(BLUR, "{}", tensors(&[2, 2, 3], &image));
        assert_eq!(out.records.num_columns(), 1);
        assert_eq!(column(&out, "x"), blur(&image, 2, 2));
    }

    #[test]
    fn sides_that_the_model_cannot_halve_are_padded() {
        let batch = images(&[[1, 3, 3], [1, 2, 2]], |_, at| at as f32);
        let (out, rejects) = run::<DenoiseConfig>(HALVE, "{}", batch.clone());
        assert!(rejects.is_empty());
        assert_eq!(
            row(&out, "x", 0),
            (vec![2., 2., 3.5, 2., 2., 3.5, 6.5, 6.5, 8.], vec![1, 3, 3])
        );
        assert_eq!(row(&out, "x", 1), (vec![1.5; 4], vec![1, 2, 2]));
        let (unpadded, mismatches) =
            run::<DenoiseConfig>(&HALVE.replace("multiple = 2", ""), "{}", batch);
        assert_eq!(unpadded.row_ordinals, [1]);
        expect![
            "0: model: the model returned the shape [1, 2, 2] for a record of shape [1, 3, 3]; \
             expected 9 values"
        ]
        .assert_eq(&reasons(&mismatches));
    }

    #[test]
    fn records_of_one_shape_are_not_tiled() {
        let pairs = "encoder = 'encoder.onnx'\ndecoder = 'decoder.onnx'";
        let (out, _) = run::<DenoiseConfig>(pairs, "{}", tensors(&[4], &[1., 3., 5., 5.]));
        assert_eq!(column(&out, "x"), [2., 2., 5., 5.]);
        let (logarithms, rejects) =
            run::<DenoiseConfig>("model = 'log.onnx'", "{}", tensors(&[2], &[1., 1., 0., 1.]));
        assert_eq!(column(&logarithms, "x"), [0., 0.]);
        expect!["1: not_finite: the model returned a result that is not finite"]
            .assert_eq(&reasons(&rejects));
    }

    #[test]
    fn empty_images_and_other_channels_are_rejected() {
        let batch = images(&[[2, 2, 3], [0, 2, 3], [2, 2, 1]], |_, _| 1.0);
        let (out, rejects) = run::<DenoiseConfig>(BLUR, "{}", batch);
        assert_eq!(out.row_ordinals, [0]);
        expect![[r#"
        1: mismatch: the shape [0, 2, 3] is not that of a non-empty image in rgb nhwc in [0, 1]
        2: mismatch: the shape [2, 2, 1] is not that of a non-empty image in rgb nhwc in [0, 1]"#]]
        .assert_eq(&reasons(&rejects));
    }

    #[test]
    fn empty_batch_stays_empty() {
        let empty = part(&images(&[[2, 2, 3]], |_, _| 0.0), 0, 0);
        let (out, _) = run::<DenoiseConfig>(BLUR, r#"{"to": "y"}"#, empty);
        assert_eq!((out.records.num_rows(), out.records.num_columns()), (0, 2));
    }

    #[test]
    fn faults_of_options_are_reported_by_key() {
        let check = |model: &str, options: &str, batch: &Batch, expected: Expect| {
            expected.assert_eq(&faults::<DenoiseConfig>(model, options, batch));
        };
        let any = images(&[[2, 2, 3]], |_, _| 0.0);
        check(
            BLUR,
            r#"{"tile": 8, "overlap": 5, "to": "x"}"#,
            &any,
            expect![[r#"
                overlap: 5 is more than half of the side of a tile, 8"#]],
        );
        check(
            BLUR,
            r#"{"tile": 1000000, "overlap": 5, "column": "y"}"#,
            &any,
            expect![[r#"
            tile: 1000000 is too large: a tile has at most 201326592 values, to bound memory
            column: no column `y`; the input has: x"#]],
        );
        check(
            HALVE,
            r#"{"tile": 33}"#,
            &any,
            expect![[r#"
                tile: 33 is not a multiple of 2, which the model requires
                overlap: 32 is more than half of the side of a tile, 33"#]],
        );
        check(
            "model = 'double.onnx'",
            "{}",
            &any,
            expect![
                "model: the model `tested` returns the shape [1, 64, 64] for a record of shape \
                 [1, 32, 32]; `denoise` requires equal shapes"
            ],
        );
        check(
            "model = 'log.onnx'",
            r#"{"tile": 8, "overlap": 2}"#,
            &tensors(&[2], &[0.; 2]),
            expect![[r#"
            tile: has no effect, since the model takes records of one shape; leave it out
            overlap: has no effect, since the model takes records of one shape; leave it out"#]],
        );
        check(
            "model = 'log.onnx'",
            "{}",
            &any,
            expect![
                "column: column `x`: its records have different shapes, but the model `tested` \
                 takes one shape; set `size` in the `pixels` stage"
            ],
        );
        check(
            "encoder = 'encoder.onnx'",
            "{}",
            &tensors(&[4], &[0.; 4]),
            expect!["model: the model `tested` has no decoder: it returns codes, not images"],
        );
        check(
            "model = 'encoder.onnx'",
            "{}",
            &tensors(&[4], &[0.; 4]),
            expect![
                "model: the model `tested` returns the shape [2] for a record of shape [4]; \
                 `denoise` requires equal shapes"
            ],
        );
        check(
            BLUR,
            "{}",
            &tensors(&[4], &[0.; 4]),
            expect![
                "column: column `x`: its records have the shape [4], but the model takes rgb nhwc \
                 in [0, 1]"
            ],
        );
    }

    #[test]
    fn memory_and_summary_of_tiled_plan_are_correct() {
        let any = plan::<DenoiseConfig>(BLUR, "{}", &images(&[[2, 2, 3]], |_, _| 0.0)).unwrap();
        assert_eq!(any.bytes_per_pixel(), 12);
        assert!(any.scratch_bytes() >= 512 * 512 * 3 * 4);
        assert_eq!(
            any.summary(),
            "model tested: images above 512x512 in tiles that overlap by 32"
        );
    }
}
