//! A property test of the commit protocol against a plain model: for random graphs and crashes,
//! each sink and the rejects end up with each of their records once.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use latentflow::batch::Batch;
use latentflow::batch::reject::RejectCode;
use latentflow::coverage::Coverage;
use latentflow::error::StageError;
use latentflow::error::code::ErrorCode;
use latentflow::metrics::Metrics;
use latentflow::plan::stage::StageOperator;
use latentflow::sink::{
    ChangePolicy, CommitProgress, CommitStats, OutputHistory, OutputIdentity, Sink, SinkWriter,
    StageIdentity,
};
use latentflow::storage::Location;
use latentflow::topology::Topology;
use latentflow::topology::outcome::RunOutcome;
use proptest::prelude::*;

use crate::common::stages::{Map, plan, source, stage, transform};

/// The state that a simulated process shares with its sinks.
#[derive(Default)]
struct ProcessState {
    steps: u64,
    crashes_at: Option<u64>,
}

impl ProcessState {
    /// Counts a step; returns an error from the crash on.
    fn step(&mut self) -> Result<(), StageError> {
        self.steps += 1;
        match self.crashes_at {
            Some(at) if self.steps > at => Err(StageError::new(
                ErrorCode::Internal,
                "the process has crashed".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

/// A stored record: the stage that rejected it (empty in the output of a sink), its source and its
/// row.
type StoredRecord = (String, String, u64);

/// The identity of the writer of a file, the source rows that it covers, and its records.
type File = (OutputIdentity, Coverage, Vec<StoredRecord>);

/// The files of a sink, which remain after a crash.
#[derive(Clone, Default)]
struct Disk {
    files: Arc<Mutex<Vec<File>>>,
}

struct DiskSink {
    disk: Disk,
    process: Arc<Mutex<ProcessState>>,
    /// Number of batches after which the sink commits.
    commit_interval: usize,
}

impl Sink for DiskSink {
    fn folder(&self) -> Option<Location> {
        Some(Location::Local("disk".into()))
    }

    fn history(&self) -> Result<OutputHistory, StageError> {
        let mut history = OutputHistory::default();
        self.disk
            .files
            .lock()
            .unwrap()
            .iter()
            .for_each(|(identity, coverage, _)| history.add(identity, coverage));
        Ok(history)
    }

    fn open(self: Box<Self>, identity: OutputIdentity) -> Result<Box<dyn SinkWriter>, StageError> {
        let (coverage, rows) = (Coverage::default(), Vec::new());
        Ok(Box::new(DiskWriter {
            sink: *self,
            identity,
            coverage,
            rows,
            batches: 0,
        }))
    }
}

struct DiskWriter {
    sink: DiskSink,
    identity: OutputIdentity,
    coverage: Coverage,
    rows: Vec<StoredRecord>,
    batches: usize,
}

impl SinkWriter for DiskWriter {
    fn write(&mut self, batch: &Batch) -> Result<CommitProgress, StageError> {
        self.sink.process.lock().unwrap().step()?;
        self.rows.extend(stored_records(&batch.records));
        self.coverage.insert(&batch.provenance);
        self.batches += 1;
        if !self.batches.is_multiple_of(self.sink.commit_interval) {
            return Ok(CommitProgress::Nothing);
        }
        self.commit()?;
        Ok(CommitProgress::All)
    }

    fn commit(&mut self) -> Result<(), StageError> {
        // A crash before the rename and one after it: neither reports the commit.
        let mut process = self.sink.process.lock().unwrap();
        process.step()?;
        let file = (
            self.identity.clone(),
            std::mem::take(&mut self.coverage),
            std::mem::take(&mut self.rows),
        );
        self.sink.disk.files.lock().unwrap().push(file);
        process.step()
    }

    fn stats(&self) -> CommitStats {
        CommitStats::default()
    }
}

fn stored_records(records: &RecordBatch) -> Vec<StoredRecord> {
    let source = records.column(0).as_string::<i32>();
    let row = records.column(1).as_primitive::<UInt64Type>();
    let stage = records
        .column_by_name("stage")
        .map(|stage| stage.as_string::<i32>());
    let name = |at: usize| stage.map_or_else(String::new, |stage| stage.value(at).to_owned());
    (0..records.num_rows())
        .map(|at| (name(at), source.value(at).to_owned(), row.value(at)))
        .collect()
}

/// A transform that rejects every `rejects`-th row and drops every `drops`-th.
#[derive(Debug, Clone, Copy)]
struct Sieve {
    rejects: u64,
    drops: u64,
}

impl Sieve {
    fn rejects(self, row: u64) -> bool {
        row % self.rejects == self.rejects - 1
    }

    fn drops(self, row: u64) -> bool {
        row % self.drops == self.drops - 1
    }

    fn map(self) -> Map {
        Map::new(move |batch, rejects| {
            let rows: Vec<u64> = batch
                .records
                .column(1)
                .as_primitive::<UInt64Type>()
                .values()
                .to_vec();
            for (&row, &ordinal) in rows
                .iter()
                .zip(&batch.row_ordinals)
                .filter(|(row, _)| self.rejects(**row))
            {
                rejects.push(ordinal, RejectCode::Model, format!("rejected row {row}"));
            }
            let keep: BooleanArray = rows
                .iter()
                .map(|&row| Some(!self.rejects(row) && !self.drops(row)))
                .collect();
            Ok(batch.filter(&keep)?)
        })
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A graph: sources (rows, batch), transforms (inputs, sieve), sinks (inputs, commit interval,
/// first start that has the sink). Inputs are chosen among the stages before.
#[derive(Debug, Clone)]
struct Shape {
    sources: Vec<(u64, u64)>,
    transforms: Vec<(Vec<usize>, Sieve)>,
    sinks: Vec<(Vec<usize>, usize, usize)>,
    rejects_commit_interval: usize,
}

fn shape() -> impl Strategy<Value = Shape> {
    let inputs = || prop::collection::vec(0_usize..100, 1..3);
    let sieve = (2_u64..9, 2_u64..9).prop_map(|(rejects, drops)| Sieve { rejects, drops });
    let parts = (
        prop::collection::vec((0_u64..50, 1_u64..9), 1..=3),
        prop::collection::vec((inputs(), sieve), 0..4),
        prop::collection::vec((inputs(), 1_usize..6, 0_usize..3), 1..4),
        1_usize..6,
    );
    parts.prop_map(
        |(sources, transforms, mut sinks, rejects_commit_interval)| {
            // The first start has at least one sink.
            sinks[0].2 = 0;
            Shape {
                sources,
                transforms,
                sinks,
                rejects_commit_interval,
            }
        },
    )
}

/// Indices among the `count` stages before, each once.
fn choose(indices: &[usize], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = indices.iter().map(|place| place % count).collect();
    places.dedup();
    if places.len() == 2 && places[0] == places[1] {
        places.truncate(1)
    }
    places
}

impl Shape {
    /// Whether each source and transform is upstream of a sink of this start.
    fn used_stages(&self, start: usize) -> Vec<bool> {
        let fixed = self.sources.len();
        let mut used = vec![false; fixed + self.transforms.len()];
        used[..fixed].fill(true);
        for (inputs, _, _) in self.sinks.iter().filter(|(_, _, from)| *from <= start) {
            choose(inputs, used.len())
                .into_iter()
                .for_each(|place| used[place] = true);
        }
        for at in (0..self.transforms.len()).rev() {
            if used[fixed + at] {
                choose(&self.transforms[at].0, fixed + at)
                    .into_iter()
                    .for_each(|place| used[place] = true);
            }
        }
        used
    }

    /// Runs one simulated process; returns false if it crashed.
    fn run_process(
        &self,
        start: usize,
        crashes_at: Option<u64>,
        workers: usize,
        disks: &[Disk],
    ) -> bool {
        let process = Arc::new(Mutex::new(ProcessState {
            steps: 0,
            crashes_at,
        }));
        let sink = |disk: &Disk, commit_interval| DiskSink {
            disk: disk.clone(),
            process: Arc::clone(&process),
            commit_interval,
        };
        let used = self.used_stages(start);
        let mut places = BTreeMap::new();
        let mut stages = Vec::new();
        for (at, (rows, batch)) in self.sources.iter().enumerate() {
            places.insert(at, stages.len());
            stages.push(source(NAMES[at], *rows, *batch));
        }
        for (at, (inputs, sieve)) in self.transforms.iter().enumerate() {
            let at = self.sources.len() + at;
            if used[at] {
                let inputs = choose(inputs, at)
                    .into_iter()
                    .map(|place| places[&place])
                    .collect();
                places.insert(at, stages.len());
                stages.push(transform(&format!("t{at}"), inputs, sieve.map()));
            }
        }
        let mut rejects = OutputIdentity {
            digest: format!("{start}"),
            ..OutputIdentity::default()
        };
        for made in &stages {
            let identity = StageIdentity {
                digest: made.name.to_string(),
                ..StageIdentity::default()
            };
            rejects.stages.insert(made.name.to_string(), identity);
        }
        for (at, (inputs, commit_interval, _)) in self
            .sinks
            .iter()
            .enumerate()
            .filter(|(_, (_, _, from))| *from <= start)
        {
            let inputs = choose(inputs, used.len())
                .into_iter()
                .map(|place| places[&place])
                .collect();
            let operator = StageOperator::Sink(
                Box::new(sink(&disks[at], *commit_interval)),
                OutputIdentity::default(),
            );
            stages.push(stage(&format!("sink{at}"), inputs, operator));
        }
        let mut plan = plan(stages, workers);
        plan.rejects = Some((
            Box::new(sink(&disks[self.sinks.len()], self.rejects_commit_interval)),
            rejects,
        ));
        let topology = Topology::open(plan, Arc::new(Metrics::new()), ChangePolicy::Refuse)
            .map_err(|failure| failure.error);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        matches!(
            runtime.block_on(topology.unwrap().run(None, pending())),
            RunOutcome::Finished
        )
    }

    /// The records of each sink and the rejects, computed row by row without batches.
    fn expected(&self) -> (Vec<Vec<StoredRecord>>, Vec<StoredRecord>) {
        let mut out: Vec<Vec<StoredRecord>> = Vec::new();
        let mut rejected = Vec::new();
        for (at, (rows, _)) in self.sources.iter().enumerate() {
            out.push(
                (0..*rows)
                    .map(|row| (String::new(), NAMES[at].to_owned(), row))
                    .collect(),
            );
        }
        let used = self.used_stages(usize::MAX);
        for (at, (inputs, sieve)) in self.transforms.iter().enumerate() {
            let at = self.sources.len() + at;
            let arrived = choose(inputs, at)
                .into_iter()
                .flat_map(|place| out[place].clone())
                .collect::<Vec<_>>();
            if used[at] {
                let failing = arrived.iter().filter(|(_, _, row)| sieve.rejects(*row));
                rejected.extend(
                    failing.map(|(_, source, row)| (format!("t{at}"), source.clone(), *row)),
                );
            }
            out.push(
                arrived
                    .into_iter()
                    .filter(|(_, _, row)| !sieve.rejects(*row) && !sieve.drops(*row))
                    .collect(),
            );
        }
        let sinks = self.sinks.iter().map(|(inputs, _, _)| {
            choose(inputs, out.len())
                .into_iter()
                .flat_map(|place| out[place].clone())
                .collect()
        });
        (sinks.collect(), rejected)
    }
}

fn disk_records(disk: &Disk) -> Vec<StoredRecord> {
    let mut rows: Vec<StoredRecord> = disk
        .files
        .lock()
        .unwrap()
        .iter()
        .flat_map(|(_, _, rows)| rows.clone())
        .collect();
    rows.sort();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn crashes_lose_no_record_and_duplicate_none(
        shape in shape(),
        crashes in prop::collection::vec((0_u64..60, 1_usize..4), 0..6),
    ) {
        let disks: Vec<Disk> = (0..=shape.sinks.len()).map(|_| Disk::default()).collect();
        for (start, (crashes_at, workers)) in crashes.iter().enumerate() {
            shape.run_process(start, Some(*crashes_at), *workers, &disks);
        }
        // Two complete runs, the second of which has nothing to do.
        prop_assert!(
            shape.run_process(usize::MAX, None, 2, &disks),
            "a run without a crash must finish"
        );
        prop_assert!(
            shape.run_process(usize::MAX, Some(2 * disks.len() as u64), 1, &disks),
            "the last run must have nothing to do"
        );
        let (mut sinks, mut rejected) = shape.expected();
        for (at, expected) in sinks.iter_mut().enumerate() {
            expected.sort();
            prop_assert_eq!(&disk_records(&disks[at]), expected, "sink {}", at);
        }
        rejected.sort();
        prop_assert_eq!(disk_records(&disks[shape.sinks.len()]), rejected, "rejects");
    }
}
