//! Kinds of stages that a program adds: a source, a transform and a sink, each of one type and one
//! row, run in a pipeline as the kinds of latentflow do.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{AsArray, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Float32Type, Schema, SchemaRef};
use latentflow::batch::Batch;
use latentflow::batch::provenance::{Provenance, Split};
use latentflow::batch::reject::{RejectCode, RejectCollector};
use latentflow::config::{self, Diagnostics};
use latentflow::coverage::ResumeState;
use latentflow::error::StageError;
use latentflow::error::config_error::ConfigError;
use latentflow::metrics::Metrics;
use latentflow::plan::pipeline::Plan;
use latentflow::plan::stage::StageOperator;
use latentflow::plan::{Kinds, resolve_with_kinds};
use latentflow::plan_context::PlanContext;
use latentflow::sink::{
    ChangePolicy, CommitProgress, CommitStats, OutputIdentity, Sink, SinkConfig, SinkWriter,
};
use latentflow::source::batch_size::BatchSize;
use latentflow::source::origin::{add_origin, with_origin};
use latentflow::source::{Source, SourceConfig, SourceHandle};
use latentflow::storage::Location;
use latentflow::topology::Topology;
use latentflow::topology::outcome::RunOutcome;
use latentflow::transform::{Transform, TransformConfig, TransformPlan};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A source of the numbers `0..records`.
#[derive(Deserialize, Serialize, JsonSchema)]
struct CountConfig {
    #[schemars(extend("x-changes-rows" = true, "x-former-name" = "rows"))]
    records: u64,
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    comment: String,
}

impl SourceConfig for CountConfig {
    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        _: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        Ok(Box::new(Count {
            split: Split::new(name),
            records: self.records,
            batch: batch.records_or(4) as u64,
        }))
    }
}

struct Count {
    split: Arc<Split>,
    records: u64,
    batch: u64,
}

impl Source for Count {
    fn schema(&self) -> SchemaRef {
        with_origin(&Schema::new(vec![Field::new(
            "x",
            DataType::Float32,
            false,
        )]))
    }

    fn open(self: Box<Self>, _: &ResumeState) -> Result<SourceHandle, StageError> {
        let (schema, total) = (self.schema(), self.records);
        let starts = (0..self.records).step_by(usize::try_from(self.batch).unwrap_or(1));
        let batches: Vec<_> = starts
            .map(|start| {
                let rows = start..(start + self.batch).min(self.records);
                let values = Float32Array::from_iter_values(rows.clone().map(|row| row as f32));
                let records = add_origin(&schema, "count", rows.clone(), &[Arc::new(values)])?;
                Ok(Batch::new(records, Provenance::rows(Arc::clone(&self.split), rows)).into())
            })
            .collect();
        Ok(SourceHandle::new(
            Box::pin(tokio_stream::iter(batches)),
            Some(total),
        ))
    }
}

/// A transform that adds the square root of `x`, and rejects numbers above `most`.
#[derive(Deserialize, Serialize, JsonSchema)]
struct RootConfig {
    #[schemars(extend("x-changes-rows" = true))]
    most: f32,
}

impl TransformConfig for RootConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        _: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let mut fields = input.fields().to_vec();
        fields.push(Arc::new(Field::new("root", DataType::Float32, false)));
        Ok(Box::new(Root {
            schema: Arc::new(Schema::new(fields)),
            most: self.most,
        }))
    }
}

#[derive(Clone)]
struct Root {
    schema: SchemaRef,
    most: f32,
}

impl TransformPlan for Root {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        Ok(Box::new(self.clone()))
    }
}

impl Transform for Root {
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let x = batch.records["x"].as_primitive::<Float32Type>().clone();
        let keep: Vec<bool> = x.values().iter().map(|x| *x <= self.most).collect();
        for index in (0..x.len()).filter(|index| !keep[*index]) {
            let reason = format!("{} is above {}", x.value(index), self.most);
            rejects.push(batch.row_ordinals[index], RejectCode::Mismatch, reason);
        }
        let kept = batch.filter(&keep.into())?;
        let values = kept.records["x"].as_primitive::<Float32Type>();
        let root: Float32Array = values.unary(f32::sqrt);
        let mut columns = kept.records.columns().to_vec();
        columns.push(Arc::new(root));
        let records = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        Ok(kept.with_records(records))
    }
}

/// The values that sinks have received, by the names that their options state.
static RECEIVED: Mutex<BTreeMap<String, Vec<f32>>> = Mutex::new(BTreeMap::new());

fn received(name: &str) -> Vec<f32> {
    let all = RECEIVED.lock().unwrap_or_else(PoisonError::into_inner);
    all.get(name).cloned().unwrap_or_default()
}

/// A sink that keeps the column `root` in memory.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
struct KeepConfig {
    #[schemars(extend("x-changes-rows" = false))]
    name: String,
}

impl SinkConfig for KeepConfig {
    fn plan(&mut self, _: &SchemaRef, _: &PlanContext) -> Result<Box<dyn Sink>, Vec<ConfigError>> {
        Ok(Box::new(self.clone()))
    }
}

impl Sink for KeepConfig {
    fn folder(&self) -> Option<Location> {
        None
    }

    fn open(self: Box<Self>, _: OutputIdentity) -> Result<Box<dyn SinkWriter>, StageError> {
        Ok(self)
    }
}

impl SinkWriter for KeepConfig {
    fn write(&mut self, batch: &Batch) -> Result<CommitProgress, StageError> {
        let root = batch.records["root"].as_primitive::<Float32Type>();
        let mut all = RECEIVED.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(self.name.clone())
            .or_default()
            .extend(root.values());
        Ok(CommitProgress::All)
    }

    fn commit(&mut self) -> Result<(), StageError> {
        Ok(())
    }

    fn stats(&self) -> CommitStats {
        CommitStats::default()
    }
}

fn kinds() -> Kinds {
    Kinds::default()
        .with_source::<CountConfig>("count", "the numbers from 0")
        .with_transform::<RootConfig>("root", "adds the square root of `x`")
        .with_sink::<KeepConfig>("keep", "keeps the roots in memory")
}

fn resolve(count: &str, keep: &str) -> Result<Plan, Diagnostics> {
    let text = format!(
        "[stages.in]\nkind = 'count'\n{count}\n[stages.it]\nkind = 'root'\ninputs = ['in']\nmost = 16\n\
         [stages.out]\nkind = 'keep'\ninputs = ['it']\nname = '{keep}'\n"
    );
    let read = config::parse(Path::new("own.toml"), &text, std::iter::empty(), &[])?;
    resolve_with_kinds(read, &kinds(), &Arc::new(Metrics::new()))
}

#[test]
fn own_source_transform_and_sink_run_in_a_pipeline() {
    let plan = resolve("records = 20\nbatch = { records = 3 }", "run").unwrap();
    let topology = Topology::open(plan, Arc::new(Metrics::new()), ChangePolicy::Refuse)
        .map_err(|failure| failure.error)
        .unwrap();
    let stats = topology.stats();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let outcome = runtime.block_on(topology.run(None, pending()));
    assert!(matches!(outcome, RunOutcome::Finished), "{outcome:?}");
    let roots: Vec<f32> = (0..17).map(|x| (x as f32).sqrt()).collect();
    assert_eq!(received("run"), roots);
    assert_eq!(stats.rejects(), 3);
}

#[test]
fn faults_of_own_kinds_are_located_and_former_keys_explained() {
    let faults = |count: &str| resolve(count, "unused").err().unwrap().to_string();
    assert_eq!(
        faults("rows = 20"),
        "own.toml:1: stages.in: missing field `records`\n\
         own.toml:3: stages.in.rows: `rows` was renamed; use `records`"
    );
    assert_eq!(
        faults("records = 'many'"),
        "own.toml:3: stages.in.records: invalid type: string \"many\", expected u64"
    );
}

#[test]
fn identity_depends_on_the_options_that_change_rows() {
    let digest = |count: &str, keep: &str| {
        let plan = resolve(count, keep).unwrap();
        let mut sinks = plan
            .stages
            .into_iter()
            .filter_map(|stage| match stage.operator {
                StageOperator::Sink(_, identity) => Some(identity.digest),
                _ => None,
            });
        sinks.next().unwrap()
    };
    let first = digest("records = 5", "a");
    assert_eq!(digest("records = 5\ncomment = 'x'", "b"), first);
    assert_ne!(digest("records = 6", "a"), first);
}
