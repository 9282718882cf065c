//! A pipeline that processes the records of Python.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use latentflow::config::{self, Diagnostics, Override};
use latentflow::embed::{EmbeddedPipeline, rejects_schema, with_rejected_schema};
use latentflow::error::failure::StageFailure;
use latentflow::plan::EmbeddedEnds;
use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::capsule::{PyBatches, PySchema, import_batches, import_schema};

create_exception!(_latentflow, NativePipelineError, PyValueError);
create_exception!(_latentflow, NativeRunError, PyRuntimeError);

/// A pipeline between its source and its sink.
#[pyclass(frozen, module = "latentflow")]
pub struct Engine {
    pipeline: EmbeddedPipeline,
    with_rejected: SchemaRef,
    /// The process that has created the sessions, which do not survive a fork.
    process: u32,
}

/// The counters of a stage: its kind, records in, records out, rejects, and busy seconds.
type StageCounters = (String, u64, u64, u64, f64);

#[pymethods]
impl Engine {
    /// Reads a pipeline from its text and opens its models.
    #[new]
    #[pyo3(signature = (name, text, set, columns=None, source=None, sink=None, base=None))]
    #[expect(clippy::too_many_arguments, reason = "Python calls it with keywords")]
    fn new(
        py: Python<'_>,
        name: &str,
        text: &str,
        set: Vec<String>,
        columns: Option<&Bound<'_, PyAny>>,
        source: Option<String>,
        sink: Option<String>,
        base: Option<PathBuf>,
    ) -> PyResult<Self> {
        let columns = columns.map(import_schema).transpose()?;
        let ends = EmbeddedEnds {
            columns,
            source,
            sink,
        };
        let overrides: Vec<Override> = set.iter().map(|pair| Override::set(pair)).collect();
        let opened = py.detach(|| {
            let spec = config::parse(Path::new(name), text, std::iter::empty(), &overrides)?;
            EmbeddedPipeline::open(spec, &ends, base.as_deref())
        });
        let pipeline = opened.map_err(|faults| pipeline_error(&faults))?;
        let with_rejected = with_rejected_schema(pipeline.output_schema());
        Ok(Self {
            pipeline,
            with_rejected,
            process: std::process::id(),
        })
    }

    /// The columns that the records have to have.
    fn input_schema(&self) -> PySchema {
        PySchema(SchemaRef::clone(self.pipeline.input_schema()))
    }

    /// The columns of the result, with or without the column `rejected`.
    fn output_schema(&self, rejected: bool) -> PySchema {
        PySchema(SchemaRef::clone(self.schema(rejected)))
    }

    /// The columns of the table of rejects.
    fn rejects_schema(&self) -> PySchema {
        PySchema(rejects_schema())
    }

    /// The digest of the options and models of all stages before the sink.
    #[getter]
    fn digest(&self) -> &str {
        self.pipeline.digest()
    }

    /// The digests of the models by their names.
    #[getter]
    fn models(&self) -> BTreeMap<String, String> {
        self.pipeline.models().clone()
    }

    /// The files of the models by their names: the options with paths, and the paths of all files.
    #[getter]
    fn model_files(&self) -> BTreeMap<String, (BTreeMap<String, PathBuf>, Vec<PathBuf>)> {
        let models = self.pipeline.model_files().iter();
        let files = models.map(|(name, files)| {
            let paths = files.paths.iter().cloned().collect();
            (name.clone(), (files.options.clone(), paths))
        });
        files.collect()
    }

    /// Processes records. Returns the records, with the rejects as a column if `rejected` is set,
    /// and the rejects as a table.
    fn process(
        &self,
        py: Python<'_>,
        records: &Bound<'_, PyAny>,
        rejected: bool,
    ) -> PyResult<(PyBatches, PyBatches)> {
        if self.process != std::process::id() {
            return Err(PyRuntimeError::new_err(
                "this pipeline was created before the process was forked, and a forked process \
                 cannot use its models; create the pipeline in this process, or start processes \
                 with the method `spawn`",
            ));
        }
        let (_, batches) = import_batches(records)?;
        let processed = py.detach(|| self.process_batches(&batches, rejected));
        let (records, rejects) = processed.map_err(|StageFailure { stage, error }| {
            NativeRunError::new_err((error.to_string(), stage.to_string()))
        })?;
        let records = PyBatches {
            schema: SchemaRef::clone(self.schema(rejected)),
            batches: records,
        };
        let rejects = PyBatches {
            schema: rejects_schema(),
            batches: rejects,
        };
        Ok((records, rejects))
    }

    /// The counters of all stages by their names.
    fn stats(&self) -> Vec<(String, StageCounters)> {
        let stages = self.pipeline.stats().stages.iter();
        let counters = stages.map(|stage| {
            let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
            let nanos = count(&stage.busy) + count(&stage.prepared);
            let counters = (
                stage.kind.to_owned(),
                count(&stage.records_in),
                count(&stage.records_out),
                count(&stage.rejects),
                nanos as f64 / 1e9,
            );
            (stage.name.to_string(), counters)
        });
        counters.collect()
    }
}

impl Engine {
    fn schema(&self, rejected: bool) -> &SchemaRef {
        if rejected {
            &self.with_rejected
        } else {
            self.pipeline.output_schema()
        }
    }

    /// Returns the records and the rejects, in parts.
    fn process_batches(
        &self,
        batches: &[RecordBatch],
        rejected: bool,
    ) -> Result<(Vec<RecordBatch>, Vec<RecordBatch>), StageFailure> {
        let in_output = |error| StageFailure::new("output", error);
        let (mut records, mut rejects, mut first) = (Vec::new(), Vec::new(), 0);
        for batch in batches {
            for part in self.pipeline.process(batch)? {
                if !part.rejects.is_empty() {
                    rejects.push(part.rejects_table(first).map_err(in_output)?);
                }
                first += part.input.num_rows() as u64;
                records.push(if rejected {
                    part.with_rejected(&self.with_rejected).map_err(in_output)?
                } else {
                    part.records
                });
            }
        }
        Ok((records, rejects))
    }
}

/// An error with the text of all faults, and each of them: key, place and message.
pub fn pipeline_error(faults: &Diagnostics) -> PyErr {
    NativePipelineError::new_err((faults.to_string(), faults.list()))
}
