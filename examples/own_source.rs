//! A source of one's own: a wave of numbers, which a pipeline filters like any other records.
//!
//! ```sh
//! cargo run --example own_source
//! ```

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use latentflow::batch::Batch;
use latentflow::batch::provenance::{Provenance, Split};
use latentflow::config;
use latentflow::coverage::ResumeState;
use latentflow::error::StageError;
use latentflow::error::config_error::ConfigError;
use latentflow::metrics::Metrics;
use latentflow::plan::{Kinds, resolve_with_kinds};
use latentflow::plan_context::PlanContext;
use latentflow::sink::ChangePolicy;
use latentflow::source::batch_size::BatchSize;
use latentflow::source::origin::{add_origin, with_origin};
use latentflow::source::{Source, SourceConfig, SourceHandle};
use latentflow::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The options, as written in `[stages.NAME]`. Each states whether it changes rows: a change of such
/// an option makes another output.
#[derive(Deserialize, Serialize, JsonSchema)]
struct WaveConfig {
    /// Number of records.
    #[schemars(extend("x-changes-rows" = true))]
    records: u64,
    /// Height of the wave. Default: 0.5.
    #[serde(default = "half")]
    #[schemars(extend("x-changes-rows" = true))]
    height: f32,
}

fn half() -> f32 {
    0.5
}

impl SourceConfig for WaveConfig {
    /// Checks the options and fixes the columns; nothing is read.
    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        _: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        if !(self.height.is_finite() && self.height > 0.0) {
            let message = format!("must be above 0; met {}", self.height);
            return Err(vec![ConfigError::new("height", message)]);
        }
        Ok(Box::new(Wave {
            split: Split::new(name),
            records: self.records,
            height: self.height,
            batch: batch.records_or(1024) as u64,
        }))
    }
}

struct Wave {
    /// The identity of a record is its split and its row. Equal rows must have equal records in every
    /// run, so that a killed run resumes without losing or repeating records.
    split: Arc<Split>,
    records: u64,
    height: f32,
    batch: u64,
}

impl Source for Wave {
    fn schema(&self) -> SchemaRef {
        // `source` and `row` are added before the own columns.
        with_origin(&Schema::new(vec![Field::new(
            "x",
            DataType::Float32,
            false,
        )]))
    }

    fn open(self: Box<Self>, resume: &ResumeState) -> Result<SourceHandle, StageError> {
        let (schema, resume, total) = (self.schema(), resume.clone(), self.records);
        let batches = (0..total.div_ceil(self.batch)).filter_map(move |number| {
            let rows = number * self.batch..((number + 1) * self.batch).min(total);
            // Every sink has these rows from an earlier run.
            if resume.is_committed(self.split.name(), &rows) {
                return None;
            }
            let values = rows
                .clone()
                .map(|row| self.height * (row as f32 * 0.1).sin());
            let x: ArrayRef = Arc::new(Float32Array::from_iter_values(values));
            let records = add_origin(&schema, "wave", rows.clone(), &[x]);
            let provenance = Provenance::rows(Arc::clone(&self.split), rows);
            Some(records.map(|records| Batch::new(records, provenance).into()))
        });
        let batches = tokio_stream::iter(batches);
        Ok(SourceHandle::new(Box::pin(batches), Some(total)))
    }
}

const PIPELINE: &str = "
[stages.wave]
kind = 'wave'
records = 1000
[stages.high]
kind = 'filter'
inputs = ['wave']
column = 'x'
above = 0.25
[stages.out]
kind = 'discard'
inputs = ['high']
";

#[expect(clippy::print_stdout, reason = "the program prints its result")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{} records are above 0.25", run()?);
    Ok(())
}

/// Runs the pipeline, and returns the number of records that the sink received.
pub fn run() -> Result<u64, Box<dyn std::error::Error>> {
    let kinds = Kinds::default().with_source::<WaveConfig>("wave", "a wave of numbers");
    let read = config::parse(
        Path::new("own_source.toml"),
        PIPELINE,
        std::iter::empty(),
        &[],
    )?;
    let metrics = Arc::new(Metrics::new());
    let plan = resolve_with_kinds(read, &kinds, &metrics)?;
    let topology = Topology::open(plan, Arc::clone(&metrics), ChangePolicy::Refuse)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(topology.run(None, std::future::pending()));
    let received = metrics.records_in.with_label_values(&["out", "discard"]);
    Ok(received.get())
}
