//! The transform `encode`: runs the encoder to convert a tensor column to a latent, and optionally
//! the decoder to compute the reconstruction error.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model_columns::{
    check_pixels, field_like, find_column, holds_pixels, reject_model_failures, reject_not_finite,
    reject_unusable_rows,
};
use super::rows::RejectedRows;
use super::{ImagePreview, Transform, TransformConfig, TransformPlan};
use crate::batch::{Batch, RejectCode, RejectCollector};
use crate::error::{ConfigError, RecordFaults, StageError};
use crate::image::PixelFormat;
use crate::model::session::SessionChain;
use crate::model::tensor_spec::{TensorSpec, element_count};
use crate::model::{Model, ModelPath, same_layout};
use crate::plan_context::PlanContext;
use crate::tensor::{TensorShape, fixed_column, fixed_values, vector_field};

/// The name of the column of the reconstruction error.
pub const RECONSTRUCTION_ERROR: &str = "reconstruction_error";
/// The name of the column of the reconstruction.
const RECONSTRUCTION: &str = "reconstruction";

/// Options of `encode`: the model, and the columns to add or keep.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct EncodeConfig {
    /// The model, as declared under `models`.
    // The digest of the model is part of the fingerprint instead of its name.
    #[schemars(extend("x-changes-rows" = false))]
    pub model: String,
    /// The tensor column to encode. Default: the only one that fits the model.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub column: Option<String>,
    /// The name of the new column of codes. Default: latent.
    #[serde(default = "latent")]
    #[schemars(extend("x-changes-rows" = true))]
    pub to: String,
    /// Whether to run the decoder as well, and add the column `reconstruction_error`, the loss of
    /// the model per record. Default: false.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub reconstruct: bool,
    /// Whether to add the output of the decoder as the column `reconstruction`; requires
    /// `reconstruct`. Default: false.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub keep_reconstruction: bool,
    /// Whether to keep the input tensor column. Default: false.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub keep: bool,
}

fn latent() -> String {
    "latent".to_owned()
}

impl TransformConfig for EncodeConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let model = context.model(&self.model)?;
        if let Some(question) = model.code_ambiguity() {
            let message = format!("the model `{}`: {question}", model.name());
            return Err(vec![ConfigError::new("model", message)]);
        }
        let mut faults = Vec::new();
        if self.keep_reconstruction && !self.reconstruct {
            faults.push(ConfigError::new(
                "keep_reconstruction",
                "requires `reconstruct = true`",
            ));
        }
        let fits = |field: &Field, shape: &TensorShape| fit(&model, field, shape).map(|_| ());
        let found = faults.record(find_column(input, self.column.as_deref(), fits));
        let Some((column, field, shape)) = found else {
            return Err(faults);
        };
        let (row, code) = fit(&model, field, &shape)
            .map_err(|reason| vec![ConfigError::new("column", reason)])?;
        if self.reconstruct
            && let Err(reason) = check_reconstruction(&model, &row)
        {
            faults.push(ConfigError::new("reconstruct", reason));
        }
        let kept: Vec<usize> = (0..input.fields().len())
            .filter(|&index| self.keep || index != column)
            .collect();
        let added = self
            .added(field, &shape, code)
            .map_err(|fault| vec![fault])?;
        for (key, added_field) in &added {
            if kept
                .iter()
                .any(|&index| input.field(index).name() == added_field.name())
            {
                let message = format!(
                    "the input already has a column `{}`; choose another name",
                    added_field.name()
                );
                faults.push(ConfigError::new(*key, message));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        self.column = Some(field.name().clone());
        let fields = kept
            .iter()
            .map(|&index| Arc::new(input.field(index).clone()));
        let fields: Vec<Arc<Field>> = fields
            .chain(
                added
                    .into_iter()
                    .map(|(_, added_field)| Arc::new(added_field)),
            )
            .collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()));
        let reconstruct = match (self.reconstruct, self.keep_reconstruction) {
            (false, _) => ReconstructionMode::No,
            (true, false) => ReconstructionMode::Error,
            (true, true) => ReconstructionMode::Keep,
        };
        Ok(Box::new(EncodePlan(Arc::new(EncodeParams {
            pixels: holds_pixels(&model, field),
            model,
            schema,
            column,
            row,
            code,
            kept,
            reconstruct,
        }))))
    }
}

impl EncodeConfig {
    /// The new columns, each with the option that adds it.
    fn added(
        &self,
        field: &Field,
        shape: &TensorShape,
        code: usize,
    ) -> Result<Vec<(&'static str, Field)>, ConfigError> {
        let mut added = vec![("to", vector_field(&self.to, code))];
        if self.reconstruct {
            added.push((
                "reconstruct",
                Field::new(RECONSTRUCTION_ERROR, DataType::Float32, false),
            ));
        }
        if self.keep_reconstruction {
            added.push((
                "keep_reconstruction",
                field_like(field, shape, RECONSTRUCTION)?,
            ));
        }
        Ok(added)
    }
}

/// Checks that the column fits the model, and returns the shape of a record and the size of its
/// code.
fn fit(model: &Model, field: &Field, shape: &TensorShape) -> Result<(Vec<usize>, usize), String> {
    let TensorShape::Fixed(row) = shape else {
        return Err(
            "its records have different shapes, but an encoder takes one shape; set `size` in the \
             `pixels` stage"
                .to_owned(),
        );
    };
    check_pixels(model, field)?;
    if let Some(expected) = model.input_shape()
        && !same_layout(row, &expected)
    {
        return Err(format!(
            "its records have the shape {row:?}, but the model `{}` takes {expected:?}",
            model.name()
        ));
    }
    let code = model.output_shape(ModelPath::Encode, row)?;
    match element_count(&code).filter(|&size| size > 0 && i32::try_from(size).is_ok()) {
        Some(size) => Ok((row.clone(), size)),
        None => Err(format!(
            "the model returns the shape {code:?} for a record, which is not a valid code"
        )),
    }
}

fn check_reconstruction(model: &Model, row: &[usize]) -> Result<(), String> {
    let reason = match model.output_shape(ModelPath::Reconstruct, row) {
        Ok(output) if same_layout(&output, row) => return Ok(()),
        Ok(output) => format!(
            "the model returns the shape {output:?} for records of shape {row:?}, which is not a \
             reconstruction"
        ),
        Err(reason) => reason,
    };
    match model.files(ModelPath::Encode).as_deref() {
        Some([file]) if file.outputs.len() > 1 => {
            let outputs: Vec<String> = file.outputs.iter().map(TensorSpec::to_string).collect();
            let outputs = outputs.join(", ");
            Err(format!(
                "{reason}; set `reconstruction` of the model to one of its outputs: {outputs}"
            ))
        }
        _ => Err(reason),
    }
}

/// The treatment of the reconstruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReconstructionMode {
    /// The decoder is not run.
    No,
    /// Only the error is added.
    Error,
    /// The error and the reconstruction are added.
    Keep,
}

struct EncodeParams {
    model: Arc<Model>,
    schema: SchemaRef,
    column: usize,
    /// Whether the column holds pixels.
    pixels: bool,
    row: Vec<usize>,
    code: usize,
    kept: Vec<usize>,
    reconstruct: ReconstructionMode,
}

struct EncodePlan(Arc<EncodeParams>);

impl TransformPlan for EncodePlan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        let plan = &self.0;
        let reconstruct = plan.reconstruct != ReconstructionMode::No;
        let has = |path| reconstruct && plan.model.files(path).is_some();
        let returns_both = has(ModelPath::EncodeAndReconstruct);
        let path = match returns_both {
            true => ModelPath::EncodeAndReconstruct,
            false => ModelPath::Encode,
        };
        // A network in one file has no decoder: one of its outputs is the reconstruction.
        let decoder = has(ModelPath::Decode).then(|| plan.model.chain(ModelPath::Decode));
        Ok(Box::new(EncodeTransform {
            params: Arc::clone(plan),
            encoder: plan.model.chain(path)?.with_pixels(plan.pixels),
            returns_both,
            decoder: decoder.transpose()?,
            decoded: Vec::new(),
        }))
    }

    fn depends_on(&self) -> Option<String> {
        let name = self.0.model.inferred_code_output()?;
        Some(format!("output {name:?}"))
    }

    fn model(&self) -> Option<&str> {
        (self.0.reconstruct != ReconstructionMode::No).then(|| self.0.model.name())
    }

    fn scratch_bytes(&self) -> u64 {
        let pass = if self.0.reconstruct == ReconstructionMode::No {
            ModelPath::Encode
        } else {
            ModelPath::Reconstruct
        };
        self.0
            .model
            .scratch_bytes(pass, element_count(&self.0.row).unwrap_or_default())
    }

    fn summary(&self) -> String {
        let EncodeParams {
            model,
            row,
            code,
            reconstruct,
            ..
        } = &*self.0;
        let error = match reconstruct {
            ReconstructionMode::No => String::new(),
            _ => format!(", {RECONSTRUCTION_ERROR} in {}", model.loss().as_str()),
        };
        format!("model {}: {row:?} to a code of {code}{error}", model.name())
    }
}

struct EncodeTransform {
    params: Arc<EncodeParams>,
    encoder: SessionChain,
    /// Whether the output of `encoder` is the code, followed by the reconstruction.
    returns_both: bool,
    decoder: Option<SessionChain>,
    /// The reconstructions of the current slice.
    decoded: Vec<f32>,
}

impl Transform for EncodeTransform {
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let plan = Arc::clone(&self.params);
        let shape = TensorShape::Fixed(plan.row.clone());
        let batch = reject_unusable_rows(batch, plan.column, &shape, rejects, |_| Ok(()))?;
        let records = fixed_values(batch.records.column(plan.column)).ok_or_else(|| {
            StageError::Other("the column does not hold tensors, contrary to the plan".to_owned())
        })?;
        let mut rejected = RejectedRows::default();
        let EncodedRows {
            codes,
            errors,
            reconstructions,
        } = self.run(records, batch.records.num_rows(), &mut rejected);
        rejected.check_model(batch.records.num_rows())?;
        let mut added = vec![fixed_column(plan.code, codes)?];
        if plan.reconstruct != ReconstructionMode::No {
            added.push(Arc::new(Float32Array::from(errors)) as ArrayRef);
        }
        if plan.reconstruct == ReconstructionMode::Keep {
            added.push(fixed_column(
                element_count(&plan.row).unwrap_or_default(),
                reconstructions,
            )?);
        }
        let kept = plan
            .kept
            .iter()
            .map(|&index| Arc::clone(batch.records.column(index)));
        let encoded = RecordBatch::try_new(Arc::clone(&plan.schema), kept.chain(added).collect())?;
        rejected.remove_from(batch.with_records(encoded), rejects)
    }

    fn preview(&mut self, input: &Batch, output: &Batch) -> Option<ImagePreview> {
        let plan = Arc::clone(&self.params);
        if plan.reconstruct == ReconstructionMode::No {
            return None;
        }
        // The first record that was not rejected. Its reconstruction is computed again, because it
        // is not kept.
        let ordinal = *output.row_ordinals.first()?;
        let index = input
            .row_ordinals
            .iter()
            .position(|&origin| origin == ordinal)?;
        let format = PixelFormat::from_field(input.records.schema_ref().field(plan.column))?;
        let len = element_count(&plan.row)?;
        let before =
            fixed_values(input.records.column(plan.column))?.get(index * len..(index + 1) * len)?;
        let (mut code, mut after) = (Vec::new(), Vec::new());
        self.encoder.run(before, &plan.row, &mut code).ok()?;
        match &mut self.decoder {
            Some(decoder) => decoder
                .run(&code, &[plan.code], &mut after)
                .map(|_| ())
                .ok()?,
            None if self.returns_both => after = code.split_off(plan.code.min(code.len())),
            None => after = code,
        }
        ImagePreview::new(ordinal, &format, &plan.row, [before, &after])
    }

    fn warm_up(&mut self) -> Result<(), StageError> {
        let name = self.params.model.name().to_owned();
        self.run_zeros().map_err(|reason| {
            StageError::Model(format!("the model `{name}` fails on zeros: {reason}"))
        })
    }
}

impl EncodeTransform {
    fn run_zeros(&mut self) -> Result<(), String> {
        let (row, mut codes) = (&self.params.row, Vec::new());
        self.encoder.run(
            &vec![0.0; element_count(row).unwrap_or_default()],
            row,
            &mut codes,
        )?;
        match &mut self.decoder {
            Some(decoder) => decoder
                .run(&codes, &[self.params.code], &mut Vec::new())
                .map(|_| ()),
            None => Ok(()),
        }
    }

    /// Runs the model slice by slice, so that a record stays in the cache from its code to its
    /// error, and that discarded reconstructions take little memory.
    fn run(&mut self, records: &[f32], rows: usize, rejected: &mut RejectedRows) -> EncodedRows {
        let plan = Arc::clone(&self.params);
        let len = element_count(&plan.row).unwrap_or_default().max(1);
        let slice_rows = self.encoder.slice_rows(len);
        let mut results = EncodedRows {
            codes: Vec::with_capacity(rows * plan.code),
            ..EncodedRows::default()
        };
        for (slice, slice_records) in records.chunks(slice_rows * len).enumerate() {
            let (first, start) = (slice * slice_rows, results.codes.len());
            self.encode(slice_records, first, &mut results.codes, rejected);
            let codes = &results.codes[start..];
            reject_not_finite(codes, plan.code, "code", first, rejected);
            if plan.reconstruct != ReconstructionMode::No {
                self.decode(codes, first, rejected);
                self.compare(slice_records, first, &mut results.errors, rejected);
            }
            if plan.reconstruct == ReconstructionMode::Keep {
                results.reconstructions.extend_from_slice(&self.decoded);
            }
        }
        results
    }

    /// Appends the codes of a slice to `codes`. A model that returns the reconstructions as well
    /// writes them into `self.decoded`.
    fn encode(
        &mut self,
        records: &[f32],
        first: usize,
        codes: &mut Vec<f32>,
        rejected: &mut RejectedRows,
    ) {
        let (row, code) = (&self.params.row, self.params.code);
        if !self.returns_both {
            let failures = self.encoder.run_rows(records, row, code, codes);
            return reject_model_failures(failures, first, rejected);
        }
        let both_len = code + element_count(row).unwrap_or_default();
        let mut both = Vec::with_capacity(records.len() * 2);
        let failures = self.encoder.run_rows(records, row, both_len, &mut both);
        reject_model_failures(failures, first, rejected);
        self.decoded.clear();
        for output in both.chunks_exact(both_len) {
            codes.extend_from_slice(&output[..code]);
            self.decoded.extend_from_slice(&output[code..]);
        }
    }

    /// Decodes a slice into `self.decoded`, unless the encoder has returned its reconstructions.
    fn decode(&mut self, codes: &[f32], first: usize, rejected: &mut RejectedRows) {
        if self.returns_both {
            return;
        }
        let len = element_count(&self.params.row).unwrap_or_default().max(1);
        self.decoded.clear();
        match &mut self.decoder {
            Some(decoder) => {
                let failures = decoder.run_rows(codes, &[self.params.code], len, &mut self.decoded);
                reject_model_failures(failures, first, rejected);
            }
            None => self.decoded.extend_from_slice(codes),
        }
    }

    /// Appends the error of each record of a decoded slice to `errors`.
    fn compare(
        &self,
        records: &[f32],
        first: usize,
        errors: &mut Vec<f32>,
        rejected: &mut RejectedRows,
    ) {
        let (loss, len) = (
            self.params.model.loss(),
            element_count(&self.params.row).unwrap_or_default().max(1),
        );
        for (row, (target, output)) in records
            .chunks_exact(len)
            .zip(self.decoded.chunks_exact(len))
            .enumerate()
        {
            let error = loss.error(target, output) as f32;
            if !error.is_finite() {
                let reason = "the reconstruction error is not finite".to_owned();
                rejected.add(first + row, (RejectCode::NotFinite, reason));
            }
            errors.push(error);
        }
    }
}

/// The results of a batch, record by record.
#[derive(Default)]
struct EncodedRows {
    codes: Vec<f32>,
    errors: Vec<f32>,
    reconstructions: Vec<f32>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use expect_test::{Expect, expect};

    use super::*;
    use crate::image::pixel_format::PixelFormat;
    use crate::transform::model_columns::testing::{column, faults, images, plan, run, tensors};
    use crate::transform::testing::{of, part, reasons};

    const PAIRS: &str = "encoder = 'encoder.onnx'\ndecoder = 'decoder.onnx'";

    fn names(batch: &Batch) -> Vec<String> {
        batch
            .records
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect()
    }

    #[test]
    fn tensor_column_is_replaced_by_latent() {
        let (out, rejects) = run::<EncodeConfig>(
            PAIRS,
            "{}",
            tensors(&[4], &[1., 2., 3., 4., 5., 6., 7., 8.]),
        );
        assert_eq!(names(&out), ["latent"]);
        assert_eq!(column(&out, "latent"), [3., 7., 11., 15.]);
        assert!(rejects.is_empty());
    }

    #[test]
    fn error_is_the_loss_and_reconstruction_is_optional() {
        let options =
            r#"{"reconstruct": true, "keep_reconstruction": true, "keep": true, "to": "code"}"#;
        let batch = tensors(&[2, 2], &[1., 3., 5., 5.]);
        let before = batch.records.schema().field(0).clone();
        let (out, _) = run::<EncodeConfig>(PAIRS, options, batch);
        assert_eq!(
            names(&out),
            ["x", "code", "reconstruction_error", "reconstruction"]
        );
        assert_eq!(column(&out, "reconstruction"), [2., 2., 5., 5.]);
        assert_eq!(column(&out, "reconstruction_error"), [0.5]);
        assert_eq!(out.records.schema().field(3).metadata(), before.metadata());
        let bce = format!("{PAIRS}\nloss = 'bce'");
        let (with_bce, _) = run::<EncodeConfig>(
            &bce,
            r#"{"reconstruct": true}"#,
            tensors(&[4], &[1., 0., 0.5, 0.5]),
        );
        assert!(
            (column(&with_bce, "reconstruction_error")[0] - std::f32::consts::LN_2).abs() < 1e-6
        );
    }

    #[test]
    fn network_in_one_file_encodes_and_reconstructs() {
        let (out, _) = run::<EncodeConfig>(
            "model = 'picky.onnx'",
            r#"{"reconstruct": true}"#,
            tensors(&[2], &[1., 2.]),
        );
        assert_eq!(column(&out, "latent"), [1., 2.]);
        assert_eq!(column(&out, "reconstruction_error"), [0.]);
    }

    #[test]
    fn file_with_code_and_reconstruction_returns_both_in_one_pass() {
        let options = r#"{"reconstruct": true, "keep_reconstruction": true}"#;
        let values = [1., 3., 5., 5., 0., 0., 2., 8.];
        let (expected, _) = run::<EncodeConfig>(PAIRS, options, tensors(&[4], &values));
        let plain = "model = 'vae.onnx'";
        for model in [
            plain.to_owned(),
            plain.replace("model", "encoder"),
            format!("{plain}\noutput = 'mu'\nreconstruction = 'recon'"),
        ] {
            let (out, rejects) = run::<EncodeConfig>(&model, options, tensors(&[4], &values));
            assert_eq!(out.records, expected.records, "{model}");
            assert!(rejects.is_empty());
            let (alone, _) = run::<EncodeConfig>(&model, "{}", tensors(&[4], &values));
            assert_eq!(column(&alone, "latent"), column(&expected, "latent"));
        }
        let batch = tensors(&[4], &values);
        let planned = plan::<EncodeConfig>(plain, options, &batch).unwrap();
        assert_eq!(
            planned.depends_on().as_deref(),
            Some("output \"mu\""),
            "earlier versions selected the first output"
        );
        let named = format!("{plain}\noutput = 'mu'");
        let planned_as_named = plan::<EncodeConfig>(&named, options, &batch).unwrap();
        assert_eq!(planned_as_named.depends_on(), None);
    }

    #[test]
    fn only_failing_rows_of_both_outputs_are_rejected() {
        let mut values = [1., 3., 5., 5., f32::NAN, 0., 2., 8., 1., 1., 1., 1.];
        values[10] = f32::MAX;
        values[11] = f32::MAX;
        let (out, rejects) = run::<EncodeConfig>(
            "model = 'vae.onnx'",
            r#"{"reconstruct": true}"#,
            tensors(&[4], &values),
        );
        assert_eq!(out.row_ordinals, [0]);
        assert_eq!(column(&out, "latent"), [4., 10.]);
        assert_eq!(column(&out, "reconstruction_error"), [0.5]);
        assert_eq!(rejects.len(), 2);
    }

    #[test]
    fn rows_with_non_finite_input_or_code_are_rejected() {
        let log = "encoder = 'log.onnx'";
        let batch = tensors(
            &[2],
            &[1., 1., f32::NAN, 1., 0., 1., -1., 1., 1., f32::INFINITY],
        );
        let (out, rejects) = run::<EncodeConfig>(log, "{}", batch);
        assert_eq!(out.row_ordinals, [0]);
        assert_eq!(column(&out, "latent"), [0., 0.]);
        expect![[r#"
            1: not_finite: `x` holds a value that is not finite
            4: not_finite: `x` holds a value that is not finite
            2: not_finite: the model returned a code that is not finite
            3: not_finite: the model returned a code that is not finite"#]]
        .assert_eq(&reasons(&rejects));
    }

    #[test]
    fn values_outside_the_type_of_the_input_are_rejected() {
        let bytes = "encoder = 'bytes.onnx'";
        let mut values: Vec<f32> = (0..48_u8).map(f32::from).collect();
        (values[12], values[30], values[47]) = (-1., 300., 1.5);
        let batch = tensors(&[2, 2, 3], &values);
        let (out, rejects) = run::<EncodeConfig>(bytes, "{}", batch);
        assert_eq!(out.row_ordinals, [0]);
        assert_eq!(column(&out, "latent"), values[..12]);
        expect![[r#"
            1: mismatch: value 1 of the record is -1, but the input `x` of the model is uint8, which holds whole numbers from 0 to 255
            2: mismatch: value 7 of the record is 300, but the input `x` of the model is uint8, which holds whole numbers from 0 to 255
            3: mismatch: value 12 of the record is 1.5, but the input `x` of the model is uint8, which holds whole numbers from 0 to 255"#]]
        .assert_eq(&reasons(&rejects));
        // All records of a batch may be unfit, which is not a fault of the model.
        let (empty, all) = run::<EncodeConfig>(bytes, "{}", tensors(&[2, 2, 3], &[256.; 12]));
        assert_eq!((empty.row_ordinals.len(), all.len()), (0, 1));
        let (_, halves) = run::<EncodeConfig>(
            "encoder = 'float16.onnx'",
            "{}",
            tensors(&[4], &[1., 2., 3., 70_000.]),
        );
        expect!["0: mismatch: value 4 of the record is 70000, but the input `x` of the model is float16, which holds numbers from -65504 to 65504"]
            .assert_eq(&reasons(&halves));
    }

    #[test]
    fn pixels_of_a_uint8_input_are_rounded_and_bounded() {
        let format = open_bytes_format();
        let values = [0.4, 0.6, -3., 254.4, 400., 7., 0., 1., 2., 3., 4., 5.];
        let field = format.annotate(crate::tensor::tensor_field("x", &[2, 2, 3]).unwrap());
        let batch = of([(field, fixed_column(12, values.to_vec()).unwrap())]);
        let (out, rejects) = run::<EncodeConfig>("encoder = 'bytes.onnx'", "{}", batch);
        assert_eq!(reasons(&rejects), "");
        let expected = [0., 1., 0., 254., 255., 7., 0., 1., 2., 3., 4., 5.];
        assert_eq!(column(&out, "latent"), expected);
    }

    fn open_bytes_format() -> PixelFormat {
        let model = crate::model::testing::open("encoder = 'bytes.onnx'").unwrap();
        model.image_input().unwrap().format
    }

    #[test]
    fn only_rows_on_which_the_model_fails_are_rejected() {
        let batch = tensors(&[2], &[1., 2., 60., 0., 3., 4.]);
        let options = r#"{"reconstruct": true, "keep_reconstruction": true}"#;
        let (out, rejects) = run::<EncodeConfig>("model = 'picky.onnx'", options, batch);
        assert_eq!(out.row_ordinals, [0, 2]);
        assert_eq!(column(&out, "latent"), [1., 2., 3., 4.]);
        assert_eq!(
            (rejects.len(), rejects[0].ordinal, rejects[0].code),
            (1, 1, RejectCode::Model)
        );
    }

    #[test]
    fn empty_batch_stays_empty() {
        let empty = part(&tensors(&[4], &[0.; 4]), 0, 0);
        let (out, _) = run::<EncodeConfig>(
            PAIRS,
            r#"{"reconstruct": true, "keep_reconstruction": true}"#,
            empty,
        );
        assert_eq!(out.records.num_rows(), 0);
    }

    #[test]
    fn only_fitting_column_is_selected() {
        let (a, b) = (tensors(&[3], &[0.; 3]), tensors(&[4], &[1., 2., 3., 4.]));
        let of_two = of([
            (
                a.records.schema().field(0).clone().with_name("a"),
                Arc::clone(a.records.column(0)),
            ),
            (
                b.records.schema().field(0).clone().with_name("b"),
                Arc::clone(b.records.column(0)),
            ),
        ]);
        let (out, _) = run::<EncodeConfig>(PAIRS, "{}", of_two);
        assert_eq!(names(&out), ["a", "latent"]);
    }

    #[test]
    fn model_is_named_for_metrics_if_error_is_computed() {
        let batch = tensors(&[4], &[0.; 4]);
        assert_eq!(
            plan::<EncodeConfig>(PAIRS, "{}", &batch).unwrap().model(),
            None
        );
        let planned = plan::<EncodeConfig>(PAIRS, r#"{"reconstruct": true}"#, &batch).unwrap();
        assert_eq!(planned.model(), Some("tested"));
        assert_eq!(
            planned.summary(),
            "model tested: [4] to a code of 2, reconstruction_error in mse"
        );
    }

    #[test]
    fn faults_of_options_are_reported_by_key() {
        let check = |model: &str, options: &str, batch: &Batch, expected: Expect| {
            expected.assert_eq(&faults::<EncodeConfig>(model, options, batch));
        };
        let (four, three) = (tensors(&[4], &[0.; 4]), tensors(&[3], &[0.; 3]));
        check(
            PAIRS,
            "{}",
            &three,
            expect![
                "column: column `x`: its records have the shape [3], but the model `tested` \
                 takes [4]"
            ],
        );
        check(
            PAIRS,
            r#"{"column": "y", "keep_reconstruction": true}"#,
            &four,
            expect![[r#"
            keep_reconstruction: requires `reconstruct = true`
            column: no column `y`; the input has: x"#]],
        );
        check(
            PAIRS,
            r#"{"keep": true, "to": "x"}"#,
            &four,
            expect!["to: the input already has a column `x`; choose another name"],
        );
        check(
            "encoder = 'encoder.onnx'",
            r#"{"reconstruct": true}"#,
            &four,
            expect!["reconstruct: the model `tested` has no decoder"],
        );
        check(
            "model = 'encoder.onnx'",
            r#"{"reconstruct": true}"#,
            &four,
            expect![
                "reconstruct: the model returns the shape [2] for records of shape [4], which is \
                 not a reconstruction"
            ],
        );
        check(
            "model = 'unnamed.onnx'",
            "{}",
            &four,
            expect![[
                r#"model: the model `tested`: the file has several outputs, and it is not plain which of them is the code of `x` float32 [batch, 4]: `4` float32 [batch, 4], `5` float32 [batch, 2], `6` float32 [batch, 2]; select it, such as `output = "5"`"#
            ]],
        );
        // The reconstruction is random, so it is not taken without an option.
        check(
            "model = 'sampled.onnx'",
            r#"{"reconstruct": true}"#,
            &four,
            expect![
                "reconstruct: the model returns the shape [2] for records of shape [4], which is not a reconstruction; set `reconstruction` of the model to one of its outputs: `recon` float32 [batch, 4], `mu` float32 [batch, 2], `logvar` float32 [batch, 2]"
            ],
        );
        check(
            "model = 'blur.onnx'",
            "{}",
            &images(&[[2, 2, 3]], |_, _| 0.),
            expect![
                "column: column `x`: its records have different shapes, but an encoder takes one \
                 shape; set `size` in the `pixels` stage"
            ],
        );
        let pixels = tensors(&[2, 2, 3], &[0.; 12]);
        let field = PixelFormat::default().annotate(pixels.records.schema().field(0).clone());
        let pixels = of([(field, Arc::clone(pixels.records.column(0)))]);
        check(
            "model = 'blur.onnx'",
            "{}",
            &pixels,
            expect![
                "column: column `x`: its pixels are rgb nchw in [0, 1], but the model takes rgb \
                 nhwc in [0, 1]; set `model = \"tested\"` in its `pixels` stage"
            ],
        );
    }
}
