//! A pipeline inside another program, which reads and writes the records itself: the stages between
//! the source and the sink, on the threads of the caller. `python/` is built on it.

mod output_rows;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;

use crate::batch::RejectCode;
use crate::config::{Diagnostics, PipelineConfig};
use crate::error::{ConfigError, StageError};
use crate::metrics::Metrics;
use crate::plan::{self, EmbeddedEnds, EmbeddedPlan};
use crate::source::InferenceResponse;
use crate::source::embedded::SuppliedRecords;
use crate::topology::{EmbeddedGraph, RunStats};

pub use output_rows::{REJECTED, rejects_schema, with_rejected_schema};

/// A pipeline between its source and its sink. Several threads can process records at the same
/// time; each has its own sessions of the models.
pub struct EmbeddedPipeline {
    graph: EmbeddedGraph,
    supplied: SuppliedRecords,
    input: SchemaRef,
    output: SchemaRef,
    digest: String,
    models: BTreeMap<String, String>,
}

/// The name of the stage that failed, and the cause.
pub type EmbeddedError = (Arc<str>, StageError);

/// The processed records of a call.
#[derive(Debug, Clone)]
pub struct ProcessedRecords {
    /// The records that the sink would write, in the order of the input.
    pub records: RecordBatch,
    /// For each of them, the row of the input that it comes from.
    pub rows: Vec<u32>,
    /// The rejected rows, in the order of the input.
    pub rejects: Vec<RejectedRow>,
}

/// A rejected row of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    /// The row of the input.
    pub row: u32,
    /// The stage that rejected it.
    pub stage: Arc<str>,
    /// The cause.
    pub code: RejectCode,
    /// The reason, for users.
    pub reason: String,
}

impl EmbeddedPipeline {
    /// Opens the models and checks the pipeline. `base` is the folder that relative paths of models
    /// refer to; `None`: the working folder of the process.
    ///
    /// # Errors
    /// Every fault of the pipeline, of the models, and of the columns.
    pub fn open(
        mut spec: PipelineConfig,
        ends: &EmbeddedEnds,
        base: Option<&Path>,
    ) -> Result<Self, Diagnostics> {
        if let Some(base) = base {
            let models = spec.models.iter_mut();
            models.for_each(|model| model.resolve_paths(base));
        }
        let key_spans = spec.key_spans.clone();
        let metrics = Arc::new(Metrics::new());
        let EmbeddedPlan {
            plan,
            input: (input, batch),
            output,
            digest,
            models,
        } = plan::resolve_embedded(spec, ends, &metrics)?;
        let graph = EmbeddedGraph::open(&plan, metrics).map_err(|(stage, error)| {
            let fault = ConfigError::new(format!("stages.{stage}"), error.to_string());
            Diagnostics::new(&key_spans, vec![fault])
        })?;
        Ok(Self {
            graph,
            supplied: SuppliedRecords::new(SchemaRef::clone(&input), batch, plan.limits),
            input,
            output,
            digest,
            models,
        })
    }

    /// The columns that the records have to have. `source` and `row` may be absent.
    pub fn input_schema(&self) -> &SchemaRef {
        &self.input
    }

    /// The columns of the processed records.
    pub fn output_schema(&self) -> &SchemaRef {
        &self.output
    }

    /// The digest of all options and models that change the result.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The digests of the models by their names.
    pub fn models(&self) -> &BTreeMap<String, String> {
        &self.models
    }

    /// The counters of all stages.
    pub fn stats(&self) -> &Arc<RunStats> {
        self.graph.stats()
    }

    /// Processes records on the present thread. The result does not depend on the number of records
    /// of a call.
    ///
    /// # Errors
    /// If a column is missing or has another type than planned, or a stage fails for a reason other
    /// than a record.
    pub fn process(&self, records: &RecordBatch) -> Result<ProcessedRecords, EmbeddedError> {
        let in_input = |error: StageError| (Arc::<str>::from("input"), error);
        let (mut parts, mut rows, mut rejects) = (Vec::new(), Vec::new(), Vec::new());
        for supplied in self.supplied.batches(records).map_err(in_input)? {
            let first = u32::try_from(supplied.rows.start).unwrap_or(u32::MAX);
            let InferenceResponse { batch, rejected } = self.graph.process(supplied.batch)?;
            let columns = batch.records.schema();
            let own = self.output.fields().iter();
            let indices: Vec<usize> = own
                .filter_map(|field| columns.index_of(field.name()).ok())
                .collect();
            let part = batch.records.project(&indices);
            parts.push(part.map_err(|error| in_input(error.into()))?);
            rows.extend(batch.row_ordinals.iter().map(|ordinal| first + ordinal));
            rejects.extend(rejected.into_iter().map(|(stage, reject)| RejectedRow {
                row: first + reject.ordinal,
                stage,
                code: reject.code,
                reason: reject.reason,
            }));
        }
        let output = concat_batches(&self.output, &parts);
        let output = output.map_err(|error| in_input(error.into()))?;
        rejects.sort_by_key(|reject| reject.row);
        let processed = ProcessedRecords {
            records: output,
            rows,
            rejects,
        };
        processed.sorted().map_err(in_input)
    }
}

impl ProcessedRecords {
    /// Sorts the records by their rows. Stages with several inputs concatenate their records, so the
    /// order would depend on the cuts between batches.
    fn sorted(self) -> Result<Self, StageError> {
        if self.rows.is_sorted() {
            return Ok(self);
        }
        let mut order: Vec<u32> = (0..self.rows.len() as u32).collect();
        order.sort_by_key(|&index| self.rows[index as usize]);
        let rows = order.iter().map(|&index| self.rows[index as usize]);
        Ok(Self {
            rows: rows.collect(),
            records: take_record_batch(&self.records, &UInt32Array::from(order))?,
            rejects: self.rejects,
        })
    }
}
