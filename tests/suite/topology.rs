//! What a running topology promises, whatever its stages do: order, isolation, prefixes, and no
//! record twice.

use std::future::pending;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::{SchemaRef, UInt64Type};
use latentflow::batch::{Batch, Provenance, RejectCode, RejectCollector, Split};
use latentflow::error::StageError;
use latentflow::metrics::Metrics;
use latentflow::plan::{Plan, StageRole};
use latentflow::sink::{BatchEncoder, ChangePolicy, OutputIdentity, Sink, SinkWriter};
use latentflow::source::BatchSize;
use latentflow::storage::Location;
use latentflow::topology::{RunOutcome, RunStats, Topology};

use crate::common::stages::{
    Map, Memo, Numbers, identity, plan, schema, sink, source, stage, transform,
};

fn run(plan: Plan) -> RunOutcome {
    run_some(plan, None)
}

fn run_some(plan: Plan, limit: Option<u64>) -> RunOutcome {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let topology = Topology::open(plan, Arc::new(Metrics::new()), ChangePolicy::Refuse)
        .map_err(|(_, error)| error)
        .unwrap();
    runtime.block_on(topology.run(limit, pending()))
}

/// Takes longer for some batches than for others, so that workers overtake each other.
fn uneven() -> Map {
    Map::new(|batch, _| {
        let first = batch.provenance.row(0).map_or(0, |(_, row)| row);
        std::thread::sleep(std::time::Duration::from_micros(first * 7919 % 1500));
        Ok(batch)
    })
}

fn keep(keep: impl Fn(u64) -> bool + Send + Sync + 'static) -> Map {
    Map::new(move |batch, _| {
        let mask: BooleanArray = batch
            .records
            .column(1)
            .as_primitive::<UInt64Type>()
            .values()
            .iter()
            .map(|&row| Some(keep(row)))
            .collect();
        Ok(batch.filter(&mask)?)
    })
}

#[test]
fn sinks_get_every_record_in_the_source_s_order_whatever_the_workers() {
    for workers in [1, 2, 7] {
        let memo = Memo::new();
        let stages = vec![
            source("a", 1000, 7),
            transform("t", vec![0], uneven()),
            sink("s", vec![1], &memo),
        ];
        assert!(matches!(run(plan(stages, workers)), RunOutcome::Finished));
        assert_eq!(
            memo.rows(),
            (0..1000).collect::<Vec<_>>(),
            "with {workers} workers"
        );
        assert_eq!(memo.committed().len(), 1000);
    }
}

#[test]
fn a_diamond_concatenates_its_arms_in_declared_order() {
    let memo = Memo::new();
    let odd = transform("odd", vec![0], keep(|row| row % 2 == 1));
    let even = transform("even", vec![0], keep(|row| row % 2 == 0));
    let stages = vec![source("a", 6, 4), odd, even, sink("s", vec![2, 1], &memo)];
    assert!(matches!(run(plan(stages, 2)), RunOutcome::Finished));
    assert_eq!(memo.rows(), [0, 2, 1, 3, 4, 5]);
}

#[test]
fn rows_that_a_filter_drops_are_done_all_the_same() {
    let memo = Memo::new();
    let stages = vec![
        source("a", 50, 8),
        transform("none", vec![0], keep(|_| false)),
        sink("s", vec![1], &memo),
    ];
    assert!(matches!(run(plan(stages, 2)), RunOutcome::Finished));
    assert_eq!((memo.rows().len(), memo.committed().len()), (0, 50));
}

#[test]
fn several_sources_are_read_one_after_the_other() {
    let memo = Memo::new();
    let stages = vec![
        source("a", 5, 2),
        source("b", 3, 2),
        sink("s", vec![0, 1], &memo),
    ];
    assert!(matches!(run(plan(stages, 2)), RunOutcome::Finished));
    assert_eq!(memo.rows(), [0, 1, 2, 3, 4, 0, 1, 2]);
    assert_eq!(
        memo.committed().splits().keys().collect::<Vec<_>>(),
        ["a", "b"]
    );
}

#[test]
fn a_panic_costs_the_record_that_caused_it_and_no_other() {
    let memo = Memo::new();
    let panics = Map::new(|batch, _| {
        let rows = batch.records.column(1).as_primitive::<UInt64Type>();
        assert!(
            !rows.values().iter().any(|&row| row == 13 || row == 40),
            "made to panic"
        );
        Ok(batch)
    });
    let stages = vec![
        source("a", 64, 16),
        transform("t", vec![0], panics),
        sink("s", vec![1], &memo),
    ];
    let topology = Topology::open(
        plan(stages, 2),
        Arc::new(Metrics::new()),
        ChangePolicy::Refuse,
    )
    .map_err(|(_, error)| error)
    .unwrap();
    let stats = topology.stats();
    let outcome = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(topology.run(None, pending()));
    assert!(matches!(outcome, RunOutcome::Finished));
    assert_eq!(
        memo.rows(),
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
fn an_error_costs_the_record_that_caused_it_and_no_other() {
    let memo = Memo::new();
    let fails = Map::new(|batch, _| {
        let rows = batch.records.column(1).as_primitive::<UInt64Type>();
        match rows.values().iter().find(|&&row| row == 0 || row == 40) {
            Some(row) => Err(StageError::Other(format!("{row} has no place"))),
            None => Ok(batch),
        }
    });
    let positive = keep(|row| row > 0);
    let stages = vec![
        source("a", 64, 16),
        transform("p", vec![0], positive),
        transform("t", vec![1], fails),
        sink("s", vec![2], &memo),
    ];
    let topology = Topology::open(
        plan(stages, 2),
        Arc::new(Metrics::new()),
        ChangePolicy::Refuse,
    )
    .map_err(|(_, error)| error)
    .unwrap();
    let stats = topology.stats();
    let outcome = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(topology.run(None, pending()));
    assert!(matches!(outcome, RunOutcome::Finished));
    assert_eq!(
        memo.rows(),
        (1..64).filter(|&row| row != 40).collect::<Vec<_>>()
    );
    assert_eq!(memo.committed().len(), 64);
    assert_eq!(
        stats.stages[2].codes().into_iter().collect::<Vec<_>>(),
        [(RejectCode::Internal, 1)]
    );
}

/// A sink that leaves it to workers to fail on some rows.
struct Preparing(Memo, fn(u64) -> Result<(), StageError>);

impl Sink for Preparing {
    fn folder(&self) -> Option<Location> {
        self.0.folder()
    }

    fn batch_encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        Some(Arc::new(Rows(self.1)))
    }

    fn open(self: Box<Self>, identity: OutputIdentity) -> Result<Box<dyn SinkWriter>, StageError> {
        Box::new(self.0).open(identity)
    }
}

struct Rows(fn(u64) -> Result<(), StageError>);

impl BatchEncoder for Rows {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn encode(&self, batch: Batch, _: &mut RejectCollector) -> Result<Batch, StageError> {
        let rows = batch.records.column(1).as_primitive::<UInt64Type>();
        rows.values().iter().try_for_each(|&row| (self.0)(row))?;
        Ok(batch)
    }
}

fn prepared(fails: fn(u64) -> Result<(), StageError>) -> (Memo, Arc<RunStats>, RunOutcome) {
    let memo = Memo::new();
    let preparing = StageRole::Sink(Box::new(Preparing(memo.clone(), fails)), identity());
    let stages = vec![source("a", 64, 16), stage("s", vec![0], preparing)];
    let topology = Topology::open(
        plan(stages, 2),
        Arc::new(Metrics::new()),
        ChangePolicy::Refuse,
    )
    .map_err(|(_, error)| error)
    .unwrap();
    let stats = topology.stats();
    let outcome = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(topology.run(None, pending()));
    (memo, stats, outcome)
}

#[test]
fn a_record_that_cannot_be_prepared_is_a_reject_of_the_sink() {
    let (memo, stats, outcome) = prepared(|row| match row {
        13 => Err(StageError::Other("13 has no name".to_owned())),
        40 => panic!("made to panic"),
        _ => Ok(()),
    });
    assert!(matches!(outcome, RunOutcome::Finished));
    assert_eq!(
        memo.rows(),
        (0..64)
            .filter(|row| ![13, 40].contains(row))
            .collect::<Vec<_>>()
    );
    assert_eq!(memo.committed().len(), 64);
    let codes: Vec<_> = stats.stages[1].codes().into_iter().collect();
    assert_eq!(
        codes,
        [(RejectCode::Internal, 1), (RejectCode::Panicked, 1)]
    );
}

#[test]
fn a_sink_that_can_prepare_no_record_ends_the_run() {
    let (memo, _, outcome) = prepared(|row| Err(StageError::Other(format!("{row} has no name"))));
    let RunOutcome::Failed { stage, error } = outcome else {
        panic!("it must fail")
    };
    assert_eq!(&*stage, "s");
    assert!(error.to_string().ends_with("has no name"), "{error}");
    assert!(memo.rows().is_empty());
}

#[test]
fn a_full_disk_under_a_stage_is_not_narrowed_down() {
    let memo = Memo::new();
    let full = Map::new(|batch, _| match batch.provenance.row(0).unwrap().1 {
        40 => Err(StageError::io("scratch")(
            std::io::ErrorKind::StorageFull.into(),
        )),
        _ => Ok(batch),
    });
    let stages = vec![
        source("a", 1000, 10),
        transform("t", vec![0], full),
        sink("s", vec![1], &memo),
    ];
    let RunOutcome::Failed { stage, error } = run(plan(stages, 3)) else {
        panic!("it must fail")
    };
    assert_eq!(&*stage, "t");
    assert!(error.to_string().starts_with("scratch: "), "{error}");
    assert_eq!(
        memo.rows(),
        (0..40).collect::<Vec<_>>(),
        "a prefix without a gap"
    );
}

#[test]
fn a_broken_stage_ends_the_run_and_what_came_before_is_committed() {
    let memo = Memo::new();
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(false));
    // Batches before it may be on their way in another worker.
    let fails = Map::new(move |batch, _| {
        let first = batch.provenance.row(0).unwrap().1;
        if first == 40 {
            broken.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        if first == 40
            || batch.records.num_rows() == 1 && broken.load(std::sync::atomic::Ordering::SeqCst)
        {
            return Err(StageError::Other("no more".to_owned()));
        }
        Ok(batch)
    });
    let stages = vec![
        source("a", 1000, 10),
        transform("t", vec![0], fails),
        sink("s", vec![1], &memo),
    ];
    let RunOutcome::Failed { stage, error } = run(plan(stages, 3)) else {
        panic!("it must fail")
    };
    assert_eq!((&*stage, error.to_string().as_str()), ("t", "no more"));
    assert_eq!(
        memo.rows(),
        (0..40).collect::<Vec<_>>(),
        "a prefix without a gap"
    );
    assert_eq!(memo.committed().len(), 40);
}

#[test]
fn a_failing_source_ends_the_run_and_what_came_before_is_committed() {
    let memo = Memo::new();
    let broken = Numbers {
        name: "a",
        rows: 100,
        batch: 10,
        fails_after: Some(3),
    };
    let broken = stage(
        "a",
        vec![],
        StageRole::Source(Box::new(broken), BatchSize::default()),
    );
    let RunOutcome::Failed { stage, error } = run(plan(vec![broken, sink("s", vec![0], &memo)], 2))
    else {
        panic!("it must fail")
    };
    assert_eq!(
        (&*stage, error.to_string().as_str()),
        ("a", "the disk is gone")
    );
    assert_eq!(memo.committed().len(), memo.rows().len() as u64);
}

#[test]
fn a_failing_sink_commits_nothing_more_and_does_not_hang_the_others() {
    let (bad, good) = (
        Memo {
            fails_at: Some(3),
            ..Memo::new()
        },
        Memo::new(),
    );
    let stages = vec![
        source("a", 10_000, 10),
        sink("bad", vec![0], &bad),
        sink("good", vec![0], &good),
    ];
    let RunOutcome::Failed { stage, error } = run(plan(stages, 2)) else {
        panic!("it must fail")
    };
    assert_eq!(
        (&*stage, error.to_string().as_str()),
        ("bad", "the disk is full")
    );
    assert!(bad.committed().is_empty());
    assert_eq!(good.committed().len(), good.rows().len() as u64);
}

#[test]
fn each_sink_gets_what_it_lacks_and_nothing_twice() {
    let (ahead, behind) = (Memo::new(), Memo::new());
    ahead
        .kept
        .lock()
        .unwrap()
        .committed
        .insert(&Provenance::rows(Split::new("a"), 0..25));
    ahead
        .kept
        .lock()
        .unwrap()
        .committed
        .insert(&Provenance::rows(Split::new("a"), 31..33));
    behind
        .kept
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
fn a_limit_takes_so_many_new_records_and_the_next_run_the_rest() {
    let memo = Memo::new();
    let stages = || vec![source("a", 30, 8), sink("s", vec![0], &memo)];
    assert!(matches!(
        run_some(plan(stages(), 2), Some(13)),
        RunOutcome::Finished
    ));
    assert_eq!(memo.rows(), (0..13).collect::<Vec<_>>());
    assert!(matches!(
        run_some(plan(stages(), 2), Some(5)),
        RunOutcome::Finished
    ));
    assert!(matches!(run(plan(stages(), 2)), RunOutcome::Finished));
    assert_eq!(memo.rows(), (0..30).collect::<Vec<_>>());
}

#[test]
fn a_request_to_stop_commits_what_was_read() {
    let memo = Memo {
        slow: true,
        ..Memo::new()
    };
    let stages = vec![source("a", 1_000_000, 10), sink("s", vec![0], &memo)];
    let topology = Topology::open(
        plan(stages, 2),
        Arc::new(Metrics::new()),
        ChangePolicy::Refuse,
    )
    .map_err(|(_, error)| error)
    .unwrap();
    let kept = Arc::clone(&memo.kept);
    let asked = async move {
        while kept.lock().unwrap().batches < 5 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    let outcome = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(topology.run(None, asked));
    assert!(matches!(outcome, RunOutcome::Drained));
    let rows = memo.rows();
    assert!(rows.len() >= 50 && rows.len() < 1_000_000);
    assert_eq!(rows, (0..rows.len() as u64).collect::<Vec<_>>());
    assert_eq!(memo.committed().len(), rows.len() as u64);
}

#[test]
fn a_slow_sink_holds_the_source_back() {
    let memo = Memo {
        slow: true,
        ..Memo::new()
    };
    let seen = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (counter, kept) = (Arc::clone(&seen), Arc::clone(&memo.kept));
    let gap = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let widest = Arc::clone(&gap);
    let counts = Map::new(move |batch, _| {
        let ahead = counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        let behind = kept.lock().unwrap().batches;
        widest.fetch_max(
            ahead.saturating_sub(behind),
            std::sync::atomic::Ordering::SeqCst,
        );
        Ok(batch)
    });
    let stages = vec![
        source("a", 300, 1),
        transform("t", vec![0], counts),
        sink("s", vec![1], &memo),
    ];
    assert!(matches!(run(plan(stages, 2)), RunOutcome::Finished));
    let slots = latentflow::plan::max_in_flight_batches(2) as u64;
    assert!(
        gap.load(std::sync::atomic::Ordering::SeqCst) <= slots,
        "more batches in flight than permits"
    );
}
