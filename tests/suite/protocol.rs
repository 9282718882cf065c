//! The commit protocol against a plain model: whatever the graph and whenever the process dies,
//! each sink, and the rejects, end up with each record that is theirs, once.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use latentflow::batch::{Batch, RejectCode};
use latentflow::coverage::Coverage;
use latentflow::error::StageError;
use latentflow::metrics::Metrics;
use latentflow::plan::StageRole;
use latentflow::sink::{
    ChangePolicy, CommitProgress, CommitStats, OutputHistory, OutputIdentity, Sink, SinkWriter,
    StageIdentity,
};
use latentflow::storage::Location;
use latentflow::topology::{RunOutcome, Topology};
use proptest::prelude::*;

use crate::common::stages::{Map, plan, source, stage, transform};

/// What a process that may die shares with its sinks.
#[derive(Default)]
struct Life {
    steps: u64,
    dies_at: Option<u64>,
}

impl Life {
    /// One step further: an error from the moment of death on.
    fn step(&mut self) -> Result<(), StageError> {
        self.steps += 1;
        match self.dies_at {
            Some(at) if self.steps > at => Err(StageError::Other("dead".to_owned())),
            _ => Ok(()),
        }
    }
}

/// A record as it was kept: the stage that refused it (empty for a sink's), its source and its row.
type Kept = (String, String, u64);

/// Who wrote a file, which source rows it stands for, and its records.
type File = (OutputIdentity, Coverage, Vec<Kept>);

/// A sink's files, which outlive the process.
#[derive(Clone, Default)]
struct Disk {
    files: Arc<Mutex<Vec<File>>>,
}

struct DiskSink {
    disk: Disk,
    life: Arc<Mutex<Life>>,
    /// Batches after which it commits on its own.
    pace: usize,
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
    rows: Vec<Kept>,
    batches: usize,
}

impl SinkWriter for DiskWriter {
    fn write(&mut self, batch: &Batch) -> Result<CommitProgress, StageError> {
        self.sink.life.lock().unwrap().step()?;
        self.rows.extend(kept(&batch.records));
        self.coverage.insert(&batch.provenance);
        self.batches += 1;
        if !self.batches.is_multiple_of(self.sink.pace) {
            return Ok(CommitProgress::Nothing);
        }
        self.commit()?;
        Ok(CommitProgress::All)
    }

    fn commit(&mut self) -> Result<(), StageError> {
        // Death before the file has its name, and death after: nobody is told of the second either.
        let mut life = self.sink.life.lock().unwrap();
        life.step()?;
        let file = (
            self.identity.clone(),
            std::mem::take(&mut self.coverage),
            std::mem::take(&mut self.rows),
        );
        self.sink.disk.files.lock().unwrap().push(file);
        life.step()
    }

    fn stats(&self) -> CommitStats {
        CommitStats::default()
    }
}

fn kept(records: &RecordBatch) -> Vec<Kept> {
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

/// What a transform does with a row: refuses one in so many, drops one in so many.
#[derive(Debug, Clone, Copy)]
struct Sieve {
    refuses: u64,
    drops: u64,
}

impl Sieve {
    fn refuses(self, row: u64) -> bool {
        row % self.refuses == self.refuses - 1
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
                .filter(|(row, _)| self.refuses(**row))
            {
                rejects.push(ordinal, RejectCode::Model, format!("refused {row}"));
            }
            let keep: BooleanArray = rows
                .iter()
                .map(|&row| Some(!self.refuses(row) && !self.drops(row)))
                .collect();
            Ok(batch.filter(&keep)?)
        })
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A graph: sources (rows, batch), transforms (inputs, sieve), sinks (inputs, pace, the start at
/// which they are there). Inputs are chosen among what stands before.
#[derive(Debug, Clone)]
struct Shape {
    sources: Vec<(u64, u64)>,
    transforms: Vec<(Vec<usize>, Sieve)>,
    sinks: Vec<(Vec<usize>, usize, usize)>,
    rejects_pace: usize,
}

fn shape() -> impl Strategy<Value = Shape> {
    let inputs = || prop::collection::vec(0_usize..100, 1..3);
    let sieve = (2_u64..9, 2_u64..9).prop_map(|(refuses, drops)| Sieve { refuses, drops });
    let parts = (
        prop::collection::vec((0_u64..50, 1_u64..9), 1..=3),
        prop::collection::vec((inputs(), sieve), 0..4),
        prop::collection::vec((inputs(), 1_usize..6, 0_usize..3), 1..4),
        1_usize..6,
    );
    parts.prop_map(|(sources, transforms, mut sinks, rejects_pace)| {
        // One sink is there from the beginning.
        sinks[0].2 = 0;
        Shape {
            sources,
            transforms,
            sinks,
            rejects_pace,
        }
    })
}

/// Places among the `count` stages before, each once.
fn choose(wanted: &[usize], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = wanted.iter().map(|place| place % count).collect();
    places.dedup();
    if places.len() == 2 && places[0] == places[1] {
        places.truncate(1)
    }
    places
}

impl Shape {
    /// The stages that are upstream of what is there at a start, sinks left out.
    fn alive(&self, start: usize) -> Vec<bool> {
        let fixed = self.sources.len();
        let mut alive = vec![false; fixed + self.transforms.len()];
        alive[..fixed].fill(true);
        for (inputs, _, _) in self.sinks.iter().filter(|(_, _, from)| *from <= start) {
            choose(inputs, alive.len())
                .into_iter()
                .for_each(|place| alive[place] = true);
        }
        for at in (0..self.transforms.len()).rev() {
            if alive[fixed + at] {
                choose(&self.transforms[at].0, fixed + at)
                    .into_iter()
                    .for_each(|place| alive[place] = true);
            }
        }
        alive
    }

    /// One life of the process. `false`: it died.
    fn live(&self, start: usize, dies_at: Option<u64>, workers: usize, disks: &[Disk]) -> bool {
        let life = Arc::new(Mutex::new(Life { steps: 0, dies_at }));
        let sink = |disk: &Disk, pace| DiskSink {
            disk: disk.clone(),
            life: Arc::clone(&life),
            pace,
        };
        let alive = self.alive(start);
        let mut places = BTreeMap::new();
        let mut stages = Vec::new();
        for (at, (rows, batch)) in self.sources.iter().enumerate() {
            places.insert(at, stages.len());
            stages.push(source(NAMES[at], *rows, *batch));
        }
        for (at, (inputs, sieve)) in self.transforms.iter().enumerate() {
            let at = self.sources.len() + at;
            if alive[at] {
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
        for (at, (inputs, pace, _)) in self
            .sinks
            .iter()
            .enumerate()
            .filter(|(_, (_, _, from))| *from <= start)
        {
            let inputs = choose(inputs, alive.len())
                .into_iter()
                .map(|place| places[&place])
                .collect();
            let role =
                StageRole::Sink(Box::new(sink(&disks[at], *pace)), OutputIdentity::default());
            stages.push(stage(&format!("sink{at}"), inputs, role));
        }
        let mut plan = plan(stages, workers);
        plan.rejects = Some((
            Box::new(sink(&disks[self.sinks.len()], self.rejects_pace)),
            rejects,
        ));
        let topology = Topology::open(plan, Arc::new(Metrics::new()), ChangePolicy::Refuse)
            .map_err(|(_, error)| error);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        matches!(
            runtime.block_on(topology.unwrap().run(None, pending())),
            RunOutcome::Finished
        )
    }

    /// Per stage, what comes out of it; and what is refused; told row by row, without batches.
    fn expected(&self) -> (Vec<Vec<Kept>>, Vec<Kept>) {
        let mut out: Vec<Vec<Kept>> = Vec::new();
        let mut refused = Vec::new();
        for (at, (rows, _)) in self.sources.iter().enumerate() {
            out.push(
                (0..*rows)
                    .map(|row| (String::new(), NAMES[at].to_owned(), row))
                    .collect(),
            );
        }
        let alive = self.alive(usize::MAX);
        for (at, (inputs, sieve)) in self.transforms.iter().enumerate() {
            let at = self.sources.len() + at;
            let arrived = choose(inputs, at)
                .into_iter()
                .flat_map(|place| out[place].clone())
                .collect::<Vec<_>>();
            if alive[at] {
                let bad = arrived.iter().filter(|(_, _, row)| sieve.refuses(*row));
                refused
                    .extend(bad.map(|(_, source, row)| (format!("t{at}"), source.clone(), *row)));
            }
            out.push(
                arrived
                    .into_iter()
                    .filter(|(_, _, row)| !sieve.refuses(*row) && !sieve.drops(*row))
                    .collect(),
            );
        }
        let sinks = self.sinks.iter().map(|(inputs, _, _)| {
            choose(inputs, out.len())
                .into_iter()
                .flat_map(|place| out[place].clone())
                .collect()
        });
        (sinks.collect(), refused)
    }
}

fn held(disk: &Disk) -> Vec<Kept> {
    let mut rows: Vec<Kept> = disk
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
    fn whatever_the_graph_and_whenever_it_dies_nothing_is_lost_and_nothing_twice(
        shape in shape(),
        deaths in prop::collection::vec((0_u64..60, 1_usize..4), 0..6),
    ) {
        let disks: Vec<Disk> = (0..=shape.sinks.len()).map(|_| Disk::default()).collect();
        for (start, (dies_at, workers)) in deaths.iter().enumerate() {
            shape.live(start, Some(*dies_at), *workers, &disks);
        }
        // Twice to the end: the second run has nothing left to do.
        prop_assert!(shape.live(usize::MAX, None, 2, &disks), "a run that nobody kills finishes");
        prop_assert!(shape.live(usize::MAX, Some(2 * disks.len() as u64), 1, &disks), "nothing is left to do");
        let (mut sinks, mut refused) = shape.expected();
        for (at, expected) in sinks.iter_mut().enumerate() {
            expected.sort();
            prop_assert_eq!(&held(&disks[at]), expected, "sink {}", at);
        }
        refused.sort();
        prop_assert_eq!(held(&disks[shape.sinks.len()]), refused, "rejects");
    }
}
