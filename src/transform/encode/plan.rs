//! The plan of the transform `encode`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::columns::RECONSTRUCTION_ERROR;
use crate::error::StageError;
use crate::model::Model;
use crate::model::files::ModelPath;
use crate::model::session::DEFAULT_RECORD_VALUES;
use crate::model::tensor_spec::element_count;
use crate::transform::encode::EncodeTransform;
use crate::transform::encode::extra_outputs::ExtraOutputs;
use crate::transform::encode::input::RecordColumn;
use crate::transform::{Transform, TransformPlan};

pub(super) struct EncodeParams {
    pub(super) model: Arc<Model>,
    pub(super) schema: SchemaRef,
    pub(super) records: RecordColumn,
    pub(super) extras: ExtraOutputs,
    /// Whether the column holds pixels.
    pub(super) pixels: bool,
    pub(super) kept: Vec<usize>,
    pub(super) reconstruct: ReconstructionMode,
}

pub(crate) struct EncodePlan(pub(super) Arc<EncodeParams>);

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
            encoder: plan
                .model
                .chain_with(path, &plan.extras.tensors)?
                .with_pixels(plan.pixels),
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
        let row = self.0.records.row.as_deref();
        let len = row.map_or(Some(DEFAULT_RECORD_VALUES), element_count);
        self.0.model.scratch_bytes(pass, len.unwrap_or_default())
    }

    fn summary(&self) -> String {
        let EncodeParams {
            model,
            records,
            extras,
            reconstruct,
            ..
        } = &*self.0;
        let error = match reconstruct {
            ReconstructionMode::No => String::new(),
            _ => format!(", {RECONSTRUCTION_ERROR} in {}", model.loss().as_str()),
        };
        let row = match &records.row {
            Some(row) => format!("{row:?}"),
            None => "records of different shapes".to_owned(),
        };
        let more: String = extras
            .tensors
            .iter()
            .map(|tensor| format!(", {tensor}"))
            .collect();
        let (name, code) = (model.name(), records.code);
        format!("model {name}: {row} to a code of {code}{more}{error}")
    }
}

/// The treatment of the reconstruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReconstructionMode {
    /// The decoder is not run.
    No,
    /// Only the error is added.
    Error,
    /// The error and the reconstruction are added.
    Keep,
}
