//! The transform `ensemble`: one anomaly score from the reconstruction errors of several
//! autoencoders, each relative to its mean error on normal records.
//!
//! The score is the average combination of normalized detectors (Aggarwal and Sathe, *Outlier
//! Ensembles*, 2017, chapter 5), with the mean error of a card as the unit of each detector.

pub(crate) mod config;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::model_columns::{reject_model_failures, reject_unusable_rows};
use super::rows::RejectedRows;
use super::{Transform, TransformPlan};
use crate::batch::Batch;
use crate::batch::reject::{RejectCode, RejectCollector};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::model::files::ModelPath;
use crate::model::session::chain::SessionChain;
use crate::model::tensor_spec::element_count;
use crate::model::{Loss, Model};
use crate::tensor::{TensorShape, fixed_values};

/// A model of an ensemble.
struct EnsembleMember {
    model: Arc<Model>,
    /// The mean error in the card of the model.
    mean_error: f64,
}

struct EnsembleParams {
    members: Vec<EnsembleMember>,
    column: usize,
    /// The shape of a record.
    row: Vec<usize>,
    /// Whether the column holds pixels.
    pixels: bool,
    schema: SchemaRef,
}

struct EnsemblePlan(Arc<EnsembleParams>);

impl TransformPlan for EnsemblePlan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        let open = |member: &EnsembleMember| {
            Ok::<_, StageError>(MemberSession {
                name: member.model.name().to_owned(),
                chain: member
                    .model
                    .chain(ModelPath::Reconstruct)?
                    .with_pixels(self.0.pixels),
                loss: member.model.loss(),
                mean_error: member.mean_error,
            })
        };
        let sessions = self.0.members.iter().map(open);
        Ok(Box::new(EnsembleTransform {
            params: Arc::clone(&self.0),
            sessions: sessions.collect::<Result<_, _>>()?,
            reconstructions: Vec::new(),
        }))
    }

    fn depends_on(&self) -> Option<String> {
        let means = self.0.members.iter().map(|member| member.mean_error);
        Some(format!("errors {:?}", means.collect::<Vec<_>>()))
    }

    fn scratch_bytes(&self) -> u64 {
        let len = element_count(&self.0.row).unwrap_or_default();
        let members = self.0.members.iter();
        members
            .map(|member| member.model.scratch_bytes(ModelPath::Reconstruct, len))
            .fold(0, u64::saturating_add)
    }

    fn summary(&self) -> String {
        let members = self.0.members.iter().map(|member| {
            let (name, loss) = (member.model.name(), member.model.loss().as_str());
            format!("{name} ({loss} / {:.6})", member.mean_error)
        });
        let members: Vec<String> = members.collect();
        format!("models {}: mean of their errors", members.join(", "))
    }
}

struct EnsembleTransform {
    params: Arc<EnsembleParams>,
    sessions: Vec<MemberSession>,
    /// The reconstructions of the current slice by one model.
    reconstructions: Vec<f32>,
}

/// The open sessions of a model, and the unit of its errors.
struct MemberSession {
    name: String,
    chain: SessionChain,
    loss: Loss,
    mean_error: f64,
}

impl Transform for EnsembleTransform {
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let plan = Arc::clone(&self.params);
        let shape = TensorShape::Fixed(plan.row.clone());
        let batch = reject_unusable_rows(batch, plan.column, &shape, rejects, |_| Ok(()))?;
        let values = fixed_values(batch.records.column(plan.column)).ok_or_else(|| {
            StageError::new(
                ErrorCode::Internal,
                "the column does not hold tensors, contrary to the plan",
            )
        })?;
        let mut rejected = RejectedRows::default();
        let scores = self.score(values, &mut rejected);
        rejected.check_model(batch.records.num_rows())?;
        let mut columns = batch.records.columns().to_vec();
        columns.push(Arc::new(Float32Array::from(scores)) as ArrayRef);
        let records = RecordBatch::try_new(Arc::clone(&plan.schema), columns)?;
        rejected.remove_from(batch.with_records(records), rejects)
    }

    fn warm_up(&mut self) -> Result<(), StageError> {
        let zeros = vec![0.0; element_count(&self.params.row).unwrap_or_default()];
        for MemberSession { name, chain, .. } in &mut self.sessions {
            let run = chain.run(&zeros, &self.params.row, &mut Vec::new());
            run.map_err(|reason| {
                StageError::Model(format!("the model `{name}` fails on zeros: {reason}"))
            })?;
        }
        Ok(())
    }
}

impl EnsembleTransform {
    /// The score of each record. Models run slice by slice, so that discarded reconstructions take
    /// little memory.
    fn score(&mut self, records: &[f32], rejected: &mut RejectedRows) -> Vec<f32> {
        let row = &self.params.row;
        let len = element_count(row).unwrap_or_default().max(1);
        let mut scores = vec![0.0; records.len() / len];
        let models = self.sessions.len() as f64;
        for session in &mut self.sessions {
            let slice_rows = session.chain.slice_rows(len);
            let slices = records
                .chunks(slice_rows * len)
                .zip(scores.chunks_mut(slice_rows));
            for (slice, (slice_records, slice_scores)) in slices.enumerate() {
                let output = &mut self.reconstructions;
                output.clear();
                let failures = session.chain.run_rows(slice_records, row, len, output);
                reject_model_failures(failures, slice * slice_rows, rejected);
                let pairs = slice_records
                    .chunks_exact(len)
                    .zip(output.chunks_exact(len));
                for (score, (target, reconstruction)) in slice_scores.iter_mut().zip(pairs) {
                    *score += session.loss.error(target, reconstruction) / session.mean_error;
                }
            }
        }
        let scores: Vec<f32> = scores
            .iter()
            .map(|sum: &f64| (sum / models) as f32)
            .collect();
        for (at, score) in scores.iter().enumerate() {
            if !score.is_finite() {
                let reason = "the anomaly score is not finite".to_owned();
                rejected.add(at, (RejectCode::NotFinite, reason));
            }
        }
        scores
    }
}

#[cfg(test)]
mod tests;
