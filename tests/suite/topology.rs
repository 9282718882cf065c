//! Tests of a running topology with stages for tests: order of records, isolation of failing
//! records, committed prefixes, and no duplicated record.

use std::future::pending;
use std::sync::{Arc, Mutex, OnceLock};

use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::{SchemaRef, UInt64Type};
use latentflow::batch::Batch;
use latentflow::batch::provenance::{Provenance, Split};
use latentflow::batch::reject::{RejectCode, RejectCollector};
use latentflow::error::StageError;
use latentflow::error::code::ErrorCode;
use latentflow::error::failure::StageFailure;
use latentflow::metrics::Metrics;
use latentflow::plan::pipeline::Plan;
use latentflow::plan::stage::StageOperator;
use latentflow::sink::{
    BatchEncoder, ChangePolicy, CommitProgress, CommitStats, OutputIdentity, Sink, SinkWriter,
};
use latentflow::source::batch_size::BatchSize;
use latentflow::storage::Location;
use latentflow::topology::outcome::RunOutcome;
use latentflow::topology::{RunStats, Topology};

use crate::common::stages::{
    Map, MemorySink, Numbers, identity, plan, schema, sink, source, stage, transform,
};

fn run(plan: Plan) -> RunOutcome {
    run_limited(plan, None)
}

fn run_limited(plan: Plan, limit: Option<u64>) -> RunOutcome {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let topology = Topology::open(plan, Arc::new(Metrics::new()), ChangePolicy::Refuse)
        .map_err(|failure| failure.error)
        .unwrap();
    runtime.block_on(topology.run(limit, pending()))
}

/// A transform of varying duration, so that workers overtake each other.
fn uneven() -> Map {
    Map::new(|batch, _| {
        let first = batch.provenance.row(0).map_or(0, |(_, row)| row);
        std::thread::sleep(std::time::Duration::from_micros(first * 7919 % 1500));
        Ok(batch)
    })
}

/// A filter by row.
fn keep(is_kept: impl Fn(u64) -> bool + Send + Sync + 'static) -> Map {
    Map::new(move |batch, _| {
        let mask: BooleanArray = batch
            .records
            .column(1)
            .as_primitive::<UInt64Type>()
            .values()
            .iter()
            .map(|&row| Some(is_kept(row)))
            .collect();
        Ok(batch.filter(&mask)?)
    })
}

#[test]
fn sinks_get_records_in_source_order_with_any_workers() {
    for workers in [1, 2, 7] {
        let memory = MemorySink::new();
        let stages = vec![
            source("a", 1000, 7),
            transform("t", vec![0], uneven()),
            sink("s", vec![1], &memory),
        ];
        assert!(matches!(run(plan(stages, workers)), RunOutcome::Finished));
        assert_eq!(
            memory.rows(),
            (0..1000).collect::<Vec<_>>(),
            "with {workers} workers"
        );
        assert_eq!(memory.committed().len(), 1000);
    }
}

#[test]
fn records_are_done_once_every_sink_has_received_them() {
    let (memory, metrics) = (MemorySink::new(), Arc::new(Metrics::new()));
    let seen: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let counters: Arc<OnceLock<Arc<RunStats>>> = Arc::default();
    let (noted, counted) = (Arc::clone(&seen), Arc::clone(&counters));
    let note = Map::new(move |batch, _| {
        let stats = counted.get().unwrap();
        noted.lock().unwrap().push((stats.records(), stats.done()));
        Ok(batch)
    });
    let stages = vec![
        source("a", 100, 10),
        transform("half", vec![0], keep(|row| row % 2 == 0)),
        transform("note", vec![1], note),
        sink("s", vec![2], &memory),
    ];
    let topology = Topology::open(plan(stages, 1), metrics, ChangePolicy::Refuse)
        .map_err(|failure| failure.error)
        .unwrap();
    let stats = topology.stats();
    counters.set(Arc::clone(&stats)).ok().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let outcome = runtime.block_on(topology.run(None, pending()));
    assert!(matches!(outcome, RunOutcome::Finished));
    for (number, &(read, done)) in (0..).zip(seen.lock().unwrap().iter()) {
        let before = 10 * number;
        assert!(
            read > before && done <= before,
            "batch {number}: {read} read, {done} done"
        );
    }
    assert_eq!(
        (stats.records(), stats.done(), memory.rows().len()),
        (100, 100, 50)
    );
}

#[test]
fn diamond_concatenates_its_arms_in_declared_order() {
    let memory = MemorySink::new();
    let odd = transform("odd", vec![0], keep(|row| row % 2 == 1));
    let even = transform("even", vec![0], keep(|row| row % 2 == 0));
    let stages = vec![source("a", 6, 4), odd, even, sink("s", vec![2, 1], &memory)];
    assert!(matches!(run(plan(stages, 2)), RunOutcome::Finished));
    assert_eq!(memory.rows(), [0, 2, 1, 3, 4, 5]);
}

#[test]
fn filtered_rows_are_committed() {
    let memory = MemorySink::new();
    let stages = vec![
        source("a", 50, 8),
        transform("none", vec![0], keep(|_| false)),
        sink("s", vec![1], &memory),
    ];
    assert!(matches!(run(plan(stages, 2)), RunOutcome::Finished));
    assert_eq!((memory.rows().len(), memory.committed().len()), (0, 50));
}

#[test]
fn sources_are_read_one_after_the_other() {
    let memory = MemorySink::new();
    let stages = vec![
        source("a", 5, 2),
        source("b", 3, 2),
        sink("s", vec![0, 1], &memory),
    ];
    assert!(matches!(run(plan(stages, 2)), RunOutcome::Finished));
    assert_eq!(memory.rows(), [0, 1, 2, 3, 4, 0, 1, 2]);
    assert_eq!(
        memory.committed().splits().keys().collect::<Vec<_>>(),
        ["a", "b"]
    );
}

#[test]
fn panic_rejects_only_the_record_that_caused_it() {
    let memory = MemorySink::new();
    let panics = Map::new(|batch, _| {
        let rows = batch.records.column(1).as_primitive::<UInt64Type>();
        assert!(
            !rows.values().iter().any(|&row| row == 13 || row == 40),
            "injected panic"
        );
        Ok(batch)
    });
    let stages = vec![
        source("a", 64, 16),
        transform("t", vec![0], panics),
        sink("s", vec![1], &memory),
    ];
    let topology = Topology::open(
        plan(stages, 2),
        Arc::new(Metrics::new()),
        ChangePolicy::Refuse,
    )
    .map_err(|failure| failure.error)
    .unwrap();
    let stats = topology.stats();
    let outcome = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(topology.run(None, pending()));
    assert!(matches!(outcome, RunOutcome::Finished));
    assert_eq!(
        memory.rows(),
        (0..64)
            .filter(|row| ![13, 40].contains(row))
            .collect::<Vec<_>>()
    );
    assert_eq!(
        stats.stages[1].codes().into_iter().collect::<Vec<_>>(),
        [(RejectCode::Panicked, 2)]
    );
}

#[test]
fn error_rejects_only_the_record_that_caused_it() {
    let memory = MemorySink::new();
    let fails = Map::new(|batch, _| {
        let rows = batch.records.column(1).as_primitive::<UInt64Type>();
        match rows.values().iter().find(|&&row| row == 0 || row == 40) {
            Some(row) => Err(StageError::new(
                ErrorCode::Internal,
                format!("cannot process row {row}"),
            )),
            None => Ok(batch),
        }
    });
    let positive = keep(|row| row > 0);
    let stages = vec![
        source("a", 64, 16),
        transform("p", vec![0], positive),
        transform("t", vec![1], fails),
        sink("s", vec![2], &memory),
    ];
    let topology = Topology::open(
        plan(stages, 2),
        Arc::new(Metrics::new()),
        ChangePolicy::Refuse,
    )
    .map_err(|failure| failure.error)
    .unwrap();
    let stats = topology.stats();
    let outcome = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(topology.run(None, pending()));
    assert!(matches!(outcome, RunOutcome::Finished));
    assert_eq!(
        memory.rows(),
        (1..64).filter(|&row| row != 40).collect::<Vec<_>>()
    );
    assert_eq!(memory.committed().len(), 64);
    assert_eq!(
        stats.stages[2].codes().into_iter().collect::<Vec<_>>(),
        [(RejectCode::Internal, 1)]
    );
}

/// A sink whose batch encoder fails on some rows.
struct EncodingSink(MemorySink, fn(u64) -> Result<(), StageError>);

impl Sink for EncodingSink {
    fn folder(&self) -> Option<Location> {
        self.0.folder()
    }

    fn open(self: Box<Self>, identity: OutputIdentity) -> Result<Box<dyn SinkWriter>, StageError> {
        let writer = Box::new(self.0).open(identity)?;
        Ok(Box::new(EncodingWriter(writer, self.1)))
    }
}

struct EncodingWriter(Box<dyn SinkWriter>, fn(u64) -> Result<(), StageError>);

impl SinkWriter for EncodingWriter {
    fn batch_encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        Some(Arc::new(RowEncoder(self.1)))
    }

    fn write(&mut self, batch: &Batch) -> Result<CommitProgress, StageError> {
        self.0.write(batch)
    }

    fn commit(&mut self) -> Result<(), StageError> {
        self.0.commit()
    }

    fn stats(&self) -> CommitStats {
        self.0.stats()
    }
}

struct RowEncoder(fn(u64) -> Result<(), StageError>);

impl BatchEncoder for RowEncoder {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn encode(&self, batch: Batch, _: &mut RejectCollector) -> Result<Batch, StageError> {
        let rows = batch.records.column(1).as_primitive::<UInt64Type>();
        rows.values().iter().try_for_each(|&row| (self.0)(row))?;
        Ok(batch)
    }
}

fn run_encoder(
    fails: fn(u64) -> Result<(), StageError>,
) -> (MemorySink, Arc<RunStats>, RunOutcome) {
    let memory = MemorySink::new();
    let encoding = StageOperator::Sink(Box::new(EncodingSink(memory.clone(), fails)), identity());
    let stages = vec![source("a", 64, 16), stage("s", vec![0], encoding)];
    let topology = Topology::open(
        plan(stages, 2),
        Arc::new(Metrics::new()),
        ChangePolicy::Refuse,
    )
    .map_err(|failure| failure.error)
    .unwrap();
    let stats = topology.stats();
    let outcome = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(topology.run(None, pending()));
    (memory, stats, outcome)
}

#[test]
fn record_that_cannot_be_encoded_is_a_reject_of_the_sink() {
    let (memory, stats, outcome) = run_encoder(|row| match row {
        13 => Err(StageError::new(
            ErrorCode::Internal,
            "13 cannot be encoded".to_owned(),
        )),
        40 => panic!("injected panic"),
        _ => Ok(()),
    });
    assert!(matches!(outcome, RunOutcome::Finished));
    assert_eq!(
        memory.rows(),
        (0..64)
            .filter(|row| ![13, 40].contains(row))
            .collect::<Vec<_>>()
    );
    assert_eq!(memory.committed().len(), 64);
    let codes: Vec<_> = stats.stages[1].codes().into_iter().collect();
    assert_eq!(
        codes,
        [(RejectCode::Internal, 1), (RejectCode::Panicked, 1)]
    );
}

#[test]
fn sink_that_encodes_no_record_ends_the_run() {
    let (memory, _, outcome) = run_encoder(|row| {
        Err(StageError::new(
            ErrorCode::Internal,
            format!("{row} cannot be encoded"),
        ))
    });
    let RunOutcome::Failed(StageFailure { stage, error }) = outcome else {
        panic!("the run must fail")
    };
    assert_eq!(&*stage, "s");
    assert!(error.to_string().ends_with("cannot be encoded"), "{error}");
    assert!(memory.rows().is_empty());
}

#[test]
fn full_disk_of_a_stage_does_not_start_isolation() {
    let memory = MemorySink::new();
    let full = Map::new(|batch, _| match batch.provenance.row(0).unwrap().1 {
        40 => Err(StageError::io("scratch")(
            std::io::ErrorKind::StorageFull.into(),
        )),
        _ => Ok(batch),
    });
    let stages = vec![
        source("a", 1000, 10),
        transform("t", vec![0], full),
        sink("s", vec![1], &memory),
    ];
    let RunOutcome::Failed(StageFailure { stage, error }) = run(plan(stages, 3)) else {
        panic!("the run must fail")
    };
    assert_eq!(&*stage, "t");
    assert!(error.to_string().starts_with("scratch: "), "{error}");
    assert_eq!(
        memory.rows(),
        (0..40).collect::<Vec<_>>(),
        "expected a prefix without a gap"
    );
}

#[test]
fn failing_transform_ends_the_run_with_a_committed_prefix() {
    let memory = MemorySink::new();
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(false));
    // Another worker may still process earlier batches when row 40 fails.
    let fails = Map::new(move |batch, _| {
        let first = batch.provenance.row(0).unwrap().1;
        if first == 40 {
            broken.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        if first == 40
            || batch.records.num_rows() == 1 && broken.load(std::sync::atomic::Ordering::SeqCst)
        {
            return Err(StageError::new(
                ErrorCode::Internal,
                "the stage is broken".to_owned(),
            ));
        }
        Ok(batch)
    });
    let stages = vec![
        source("a", 1000, 10),
        transform("t", vec![0], fails),
        sink("s", vec![1], &memory),
    ];
    let RunOutcome::Failed(StageFailure { stage, error }) = run(plan(stages, 3)) else {
        panic!("the run must fail")
    };
    assert_eq!(
        (&*stage, error.to_string().as_str()),
        ("t", "the stage is broken")
    );
    assert_eq!(
        memory.rows(),
        (0..40).collect::<Vec<_>>(),
        "expected a prefix without a gap"
    );
    assert_eq!(memory.committed().len(), 40);
}

#[test]
fn failing_source_ends_the_run_with_a_committed_prefix() {
    let memory = MemorySink::new();
    let broken = Numbers {
        name: "a",
        rows: 100,
        batch: 10,
        fails_after: Some(3),
    };
    let broken = stage(
        "a",
        vec![],
        StageOperator::Source(Box::new(broken), BatchSize::default()),
    );
    let RunOutcome::Failed(StageFailure { stage, error }) =
        run(plan(vec![broken, sink("s", vec![0], &memory)], 2))
    else {
        panic!("the run must fail")
    };
    assert_eq!(
        (&*stage, error.to_string().as_str()),
        ("a", "the disk is gone")
    );
    assert_eq!(memory.committed().len(), memory.rows().len() as u64);
}

#[test]
fn failing_sink_stops_committing_and_does_not_block_others() {
    let (bad, good) = (
        MemorySink {
            fails_at: Some(3),
            ..MemorySink::new()
        },
        MemorySink::new(),
    );
    let stages = vec![
        source("a", 10_000, 10),
        sink("bad", vec![0], &bad),
        sink("good", vec![0], &good),
    ];
    let RunOutcome::Failed(StageFailure { stage, error }) = run(plan(stages, 2)) else {
        panic!("the run must fail")
    };
    assert_eq!(
        (&*stage, error.to_string().as_str()),
        ("bad", "the disk is full")
    );
    assert!(bad.committed().is_empty());
    assert_eq!(good.committed().len(), good.rows().len() as u64);
}

#[test]
fn each_sink_gets_only_its_uncommitted_rows() {
    let (ahead, behind) = (MemorySink::new(), MemorySink::new());
    ahead
        .stored
        .lock()
        .unwrap()
        .committed
        .insert(&Provenance::rows(Split::new("a"), 0..25));
    ahead
        .stored
        .lock()
        .unwrap()
        .committed
        .insert(&Provenance::rows(Split::new("a"), 31..33));
    behind
        .stored
        .lock()
        .unwrap()
        .committed
        .insert(&Provenance::rows(Split::new("a"), 0..10));
    let stages = vec![
        source("a", 50, 8),
        sink("ahead", vec![0], &ahead),
        sink("behind", vec![0], &behind),
    ];
    assert!(matches!(run(plan(stages, 2)), RunOutcome::Finished));
    assert_eq!(ahead.rows(), (25..31).chain(33..50).collect::<Vec<_>>());
    assert_eq!(behind.rows(), (10..50).collect::<Vec<_>>());
}

#[test]
fn limit_counts_new_records_and_the_next_run_continues() {
    let memory = MemorySink::new();
    let stages = || vec![source("a", 30, 8), sink("s", vec![0], &memory)];
    assert!(matches!(
        run_limited(plan(stages(), 2), Some(13)),
        RunOutcome::Finished
    ));
    assert_eq!(memory.rows(), (0..13).collect::<Vec<_>>());
    assert!(matches!(
        run_limited(plan(stages(), 2), Some(5)),
        RunOutcome::Finished
    ));
    assert!(matches!(run(plan(stages(), 2)), RunOutcome::Finished));
    assert_eq!(memory.rows(), (0..30).collect::<Vec<_>>());
}

#[test]
fn shutdown_commits_the_records_that_were_read() {
    let memory = MemorySink {
        slow: true,
        ..MemorySink::new()
    };
    let stages = vec![source("a", 1_000_000, 10), sink("s", vec![0], &memory)];
    let topology = Topology::open(
        plan(stages, 2),
        Arc::new(Metrics::new()),
        ChangePolicy::Refuse,
    )
    .map_err(|failure| failure.error)
    .unwrap();
    let stored = Arc::clone(&memory.stored);
    let shutdown = async move {
        while stored.lock().unwrap().batches < 5 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    let outcome = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(topology.run(None, shutdown));
    assert!(matches!(outcome, RunOutcome::Drained));
    let rows = memory.rows();
    assert!(rows.len() >= 50 && rows.len() < 1_000_000);
    assert_eq!(rows, (0..rows.len() as u64).collect::<Vec<_>>());
    assert_eq!(memory.committed().len(), rows.len() as u64);
}

#[test]
fn slow_sink_limits_batches_in_flight() {
    let memory = MemorySink {
        slow: true,
        ..MemorySink::new()
    };
    let seen = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (counter, stored) = (Arc::clone(&seen), Arc::clone(&memory.stored));
    let gap = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let widest = Arc::clone(&gap);
    let counts = Map::new(move |batch, _| {
        let ahead = counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        let behind = stored.lock().unwrap().batches;
        widest.fetch_max(
            ahead.saturating_sub(behind),
            std::sync::atomic::Ordering::SeqCst,
        );
        Ok(batch)
    });
    let stages = vec![
        source("a", 300, 1),
        transform("t", vec![0], counts),
        sink("s", vec![1], &memory),
    ];
    assert!(matches!(run(plan(stages, 2)), RunOutcome::Finished));
    let slots = latentflow::plan::max_in_flight_batches(2) as u64;
    assert!(
        gap.load(std::sync::atomic::Ordering::SeqCst) <= slots,
        "expected at most {slots} batches in flight"
    );
}
