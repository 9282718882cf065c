//! A pipeline inside another program, which reads and writes the records itself: the stages between
//! the source and the sink, on the threads of the caller. `python/` is built on it.

mod output_rows;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;

use crate::batch::reject::RejectCode;
use crate::config::Diagnostics;
use crate::config::settings::PipelineConfig;
use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::error::failure::StageFailure;
use crate::metrics::Metrics;
use crate::plan::{self, EmbeddedEnds, EmbeddedModelFiles, EmbeddedPlan};
use crate::source::InferenceResponse;
use crate::source::embedded::supplied::{SuppliedBatch, SuppliedRecords};
use crate::topology::{EmbeddedGraph, RunStats};

pub use output_rows::{rejects_schema, with_rejected_schema};

/// A pipeline between its source and its sink. Several threads can process records at the same
/// time; each has its own sessions of the models.
pub struct EmbeddedPipeline {
    graph: EmbeddedGraph,
    supplied: SuppliedRecords,
    input: SchemaRef,
    output: SchemaRef,
    digest: String,
    models: BTreeMap<String, String>,
    files: BTreeMap<String, EmbeddedModelFiles>,
}

/// A part of the input, and the result.
#[derive(Debug, Clone)]
pub struct ProcessedRecords {
    /// The supplied records.
    pub input: RecordBatch,
    /// The records that the sink would write, in the order of the input.
    pub records: RecordBatch,
    /// For each of them, the row of `input` that it comes from.
    pub rows: Vec<u32>,
    /// The rejected rows, in the order of `input`.
    pub rejects: Vec<RejectedRow>,
}

/// A rejected row of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    /// The row of the part.
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
            has_source,
            output,
            digest,
            models,
            files,
        } = plan::resolve_embedded(spec, ends, &metrics)?;
        let graph =
            EmbeddedGraph::open(&plan, metrics).map_err(|StageFailure { stage, error }| {
                let fault = ConfigError::new(format!("stages.{stage}"), error.to_string());
                Diagnostics::new(&key_spans, vec![fault])
            })?;
        Ok(Self {
            graph,
            supplied: SuppliedRecords::new(
                SchemaRef::clone(&input),
                has_source,
                batch,
                plan.limits,
            ),
            input,
            output,
            digest,
            models,
            files,
        })
    }

    /// The columns that the records have to have. `row` may be absent, and so may `source` if it was
    /// not declared.
    pub fn input_schema(&self) -> &SchemaRef {
        &self.input
    }

    /// The columns of the processed records.
    pub fn output_schema(&self) -> &SchemaRef {
        &self.output
    }

    /// The digest of the options and models of all stages before the sink.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The digests of the models by their names.
    pub fn models(&self) -> &BTreeMap<String, String> {
        &self.models
    }

    /// The files of the models by their names.
    pub fn model_files(&self) -> &BTreeMap<String, EmbeddedModelFiles> {
        &self.files
    }

    /// The counters of all stages.
    pub fn stats(&self) -> &Arc<RunStats> {
        self.graph.stats()
    }

    /// Processes records on the present thread, in parts of bounded size, which are returned in the
    /// order of the input. The records do not depend on the parts.
    ///
    /// # Errors
    /// If a column is missing or has another type than planned, or a stage fails for a reason other
    /// than a record.
    pub fn process(&self, records: &RecordBatch) -> Result<Vec<ProcessedRecords>, StageFailure> {
        let in_input = |error| StageFailure::new("input", error);
        let parts = self.supplied.batches(records).map_err(in_input)?;
        let part = |SuppliedBatch { rows, batch }| {
            let response = self.graph.process(batch)?;
            let input = records.slice(rows.start, rows.len());
            ProcessedRecords::new(input, response, &self.output).map_err(in_input)
        };
        parts.into_iter().map(part).collect()
    }
}

impl ProcessedRecords {
    /// Selects the columns of `output`, and sorts the records by their rows: stages with several
    /// inputs concatenate their records, so the order would depend on the parts.
    fn new(
        input: RecordBatch,
        InferenceResponse { batch, rejected }: InferenceResponse,
        output: &SchemaRef,
    ) -> Result<Self, StageError> {
        let (mut rows, columns) = (batch.row_ordinals, batch.records.schema());
        let own = output.fields().iter();
        let indices: Vec<usize> = own
            .filter_map(|field| columns.index_of(field.name()).ok())
            .collect();
        let mut records = batch.records.project(&indices)?;
        if !rows.is_sorted() {
            let mut order: Vec<u32> = (0..).take(rows.len()).collect();
            order.sort_by_key(|&index| rows[index as usize]);
            rows = order.iter().map(|&index| rows[index as usize]).collect();
            records = take_record_batch(&records, &UInt32Array::from(order))?;
        }
        let mut rejects: Vec<RejectedRow> = rejected
            .into_iter()
            .map(|(stage, reject)| RejectedRow {
                row: reject.ordinal,
                stage,
                code: reject.code,
                reason: reject.reason,
            })
            .collect();
        rejects.sort_by_key(|reject| reject.row);
        Ok(Self {
            input,
            records,
            rows,
            rejects,
        })
    }
}
