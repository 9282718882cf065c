//! Stages for tests: a source of numbers, a transform from a closure, a sink into memory.

use std::sync::{Arc, Mutex};

use arrow::array::{AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{Schema, SchemaRef, UInt64Type};
use latentflow::batch::provenance::{Provenance, Split};
use latentflow::batch::reject::RejectCollector;
use latentflow::batch::{Batch, SourceBatch};
use latentflow::coverage::{Coverage, ResumeState};
use latentflow::error::StageError;
use latentflow::error::code::ErrorCode;
use latentflow::plan::pipeline::{Plan, RejectLimits};
use latentflow::plan::stage::{Stage, StageOperator};
use latentflow::plan::{Footprint, MemoryEstimate};
use latentflow::plan_context::PipelineLimits;
use latentflow::sink::{
    CommitProgress, CommitStats, OutputHistory, OutputIdentity, Sink, SinkWriter,
};
use latentflow::source::batch_size::BatchSize;
use latentflow::source::origin::origin_fields;
use latentflow::source::{Source, SourceHandle};
use latentflow::storage::Location;
use latentflow::transform::{Transform, TransformPlan};

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(origin_fields().to_vec()))
}

/// A source of the rows `0..rows` of split `name` in batches of `batch` rows, which fails after
/// `fails_after` batches.
pub struct Numbers {
    pub name: &'static str,
    pub rows: u64,
    pub batch: u64,
    pub fails_after: Option<u64>,
}

impl Source for Numbers {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn open(self: Box<Self>, _: &ResumeState) -> Result<SourceHandle, StageError> {
        let (name, rows, size) = (self.name, self.rows, self.batch);
        let split = Split::new(name);
        let batches = (0..rows.div_ceil(size)).map(move |n| {
            if self.fails_after == Some(n) {
                return Err(StageError::new(
                    ErrorCode::Internal,
                    "the disk is gone".to_owned(),
                ));
            }
            let range = n * size..((n + 1) * size).min(rows);
            let source = StringArray::from_iter_values(range.clone().map(|_| name));
            let row = UInt64Array::from_iter_values(range.clone());
            let records = RecordBatch::try_new(schema(), vec![Arc::new(source), Arc::new(row)])?;
            let batch = Batch::new(records, Provenance::rows(Arc::clone(&split), range));
            Ok(SourceBatch {
                batch,
                rejects: Vec::new(),
                pixels: 0,
            })
        });
        Ok(SourceHandle::new(
            Box::pin(tokio_stream::iter(batches)),
            Some(rows),
        ))
    }
}

type Apply = dyn Fn(Batch, &mut RejectCollector) -> Result<Batch, StageError> + Send + Sync;

/// A transform that keeps the schema.
#[derive(Clone)]
pub struct Map(pub Arc<Apply>);

impl Map {
    pub fn new(
        apply: impl Fn(Batch, &mut RejectCollector) -> Result<Batch, StageError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(apply))
    }
}

impl TransformPlan for Map {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        Ok(Box::new(self.clone()))
    }
}

impl Transform for Map {
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        (self.0)(batch, rejects)
    }
}

/// The state of a [`MemorySink`]: rows in the order of arrival, and the committed coverage.
#[derive(Debug, Clone, Default)]
pub struct StoredRows {
    pub rows: Vec<(String, u64)>,
    pub committed: Coverage,
    pub batches: u64,
}

/// A sink that keeps rows in memory. It reports a folder, so that it counts as durable.
#[derive(Clone)]
pub struct MemorySink {
    pub stored: Arc<Mutex<StoredRows>>,
    pub fails_at: Option<u64>,
    pub slow: bool,
}

impl MemorySink {
    pub fn new() -> Self {
        Self {
            stored: Arc::default(),
            fails_at: None,
            slow: false,
        }
    }

    pub fn rows(&self) -> Vec<u64> {
        self.stored
            .lock()
            .unwrap()
            .rows
            .iter()
            .map(|(_, row)| *row)
            .collect()
    }

    pub fn committed(&self) -> Coverage {
        self.stored.lock().unwrap().committed.clone()
    }
}

impl Sink for MemorySink {
    fn folder(&self) -> Option<Location> {
        Some(Location::Local("memory".into()))
    }

    fn history(&self) -> Result<OutputHistory, StageError> {
        let mut history = OutputHistory::default();
        history.add(&identity(), &self.stored.lock().unwrap().committed);
        Ok(history)
    }

    fn open(self: Box<Self>, _: OutputIdentity) -> Result<Box<dyn SinkWriter>, StageError> {
        Ok(Box::new(MemorySinkWriter {
            sink: *self,
            pending: Coverage::default(),
            batches: 0,
        }))
    }
}

struct MemorySinkWriter {
    sink: MemorySink,
    pending: Coverage,
    batches: u64,
}

impl SinkWriter for MemorySinkWriter {
    fn write(&mut self, batch: &Batch) -> Result<CommitProgress, StageError> {
        if self.sink.fails_at == Some(self.batches) {
            return Err(StageError::new(
                ErrorCode::Internal,
                "the disk is full".to_owned(),
            ));
        }
        if self.sink.slow {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        self.batches += 1;
        let mut stored = self.sink.stored.lock().unwrap();
        stored.batches += 1;
        let source = batch.records.column(0).as_string::<i32>();
        let row = batch.records.column(1).as_primitive::<UInt64Type>();
        for place in 0..batch.records.num_rows() {
            stored
                .rows
                .push((source.value(place).to_owned(), row.value(place)));
        }
        self.pending.insert(&batch.provenance);
        Ok(CommitProgress::Nothing)
    }

    fn commit(&mut self) -> Result<(), StageError> {
        self.sink
            .stored
            .lock()
            .unwrap()
            .committed
            .union(&self.pending);
        Ok(())
    }

    fn stats(&self) -> CommitStats {
        CommitStats::default()
    }
}

pub fn source(name: &'static str, rows: u64, batch: u64) -> Stage {
    let source = Numbers {
        name,
        rows,
        batch,
        fails_after: None,
    };
    stage(
        name,
        vec![],
        StageOperator::Source(Box::new(source), BatchSize::default()),
    )
}

pub fn transform(name: &str, inputs: Vec<usize>, map: Map) -> Stage {
    stage(name, inputs, StageOperator::Transform(Arc::new(map)))
}

pub fn sink(name: &str, inputs: Vec<usize>, memory: &MemorySink) -> Stage {
    stage(
        name,
        inputs,
        StageOperator::Sink(Box::new(memory.clone()), identity()),
    )
}

pub fn stage(name: &str, inputs: Vec<usize>, operator: StageOperator) -> Stage {
    Stage {
        name: Arc::from(name),
        kind: "test",
        inputs,
        operator,
    }
}

pub fn identity() -> OutputIdentity {
    OutputIdentity {
        pipeline: "test".into(),
        stage: "test".into(),
        digest: "d".into(),
        ..OutputIdentity::default()
    }
}

pub fn plan(stages: Vec<Stage>, workers: usize) -> Plan {
    Plan {
        name: "test".to_owned(),
        stages,
        models: vec![],
        limits: PipelineLimits::default(),
        workers,
        footprint: Footprint::default(),
        memory: MemoryEstimate {
            expected: 0,
            fixed: 0,
            workers: 0,
            batch: 0,
            slots: 0,
            budget: 1 << 20,
        },
        state: None,
        rejects: None,
        keeps_originals: true,
        reject_limits: RejectLimits {
            share: None,
            number: None,
        },
        commit_age: None,
        admin: Default::default(),
        listeners: Default::default(),
        effective: serde_json::Value::Null,
        shutdown_timeout: None,
        shard: None,
        key_spans: Default::default(),
    }
}
