//! One session for all workers, as a device wants it: what several ask for at the same time goes
//! into one call.
//!
//! No thread of its own: whoever finds the session idle runs what has been gathered, his own and
//! that of others; meanwhile the next call is gathered. So while the device computes, the workers
//! that it doesn't keep waiting decode.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::model::batch_limits::InferenceBatchLimits;

/// What runs one call.
pub trait RunBatch: Send {
    /// Runs one batch of the shape `dims`, records first, and appends the output of its first
    /// `rows` records to `out`. Returns the shape of one record's output.
    ///
    /// # Errors
    /// When the model fails, or what it gives has not one part per record; `out` is as before then.
    fn run_batch(
        &mut self,
        dims: &[usize],
        values: &[f32],
        rows: usize,
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, String>;
}

/// A session that many threads call at a time.
pub struct DynamicBatcher<E> {
    state: Mutex<BatcherState<E>>,
    changed: Condvar,
    limits: InferenceBatchLimits,
    /// Records of every call, where the file fixes that: then nothing can be gathered.
    batch: Option<usize>,
}

struct BatcherState<E> {
    /// `None` while it runs.
    engine: Option<E>,
    /// The next call.
    gathering: Option<PendingBatch>,
    /// Memory for the one after that.
    spare: Vec<f32>,
}

/// What is gathered for one call.
struct PendingBatch {
    /// The shape of one record.
    row: Vec<usize>,
    /// Records as they go in, padding among them.
    records: usize,
    values: Vec<f32>,
    parts: Vec<BatchSlot>,
    answers: Arc<OnceLock<BatchOutput>>,
}

/// What one caller gave.
#[derive(Clone, Copy)]
struct BatchSlot {
    /// Records as they go in, padding among them.
    records: usize,
    /// Records whose output is wanted.
    rows: usize,
}

/// What came of a call.
#[derive(Default)]
struct BatchOutput {
    /// The outputs of all records.
    values: Vec<f32>,
    parts: Vec<SlotOutput>,
}

/// The shape of one record's output, and where those of a part lie.
type SlotOutput = Result<(Vec<usize>, Range<usize>), String>;

impl<E: RunBatch> DynamicBatcher<E> {
    /// No more than `limits` say goes into a call, unless one caller alone gives more; and no other
    /// number than `batch`, where the file fixes that.
    pub fn new(engine: E, limits: InferenceBatchLimits, batch: Option<usize>) -> Self {
        let state = BatcherState {
            engine: Some(engine),
            gathering: None,
            spare: Vec::new(),
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            limits,
            batch,
        }
    }

    /// As [`RunBatch::run_batch`]; waits for its turn, and goes together with what others ask for
    /// meanwhile.
    ///
    /// # Errors
    /// When the model fails on these records. What it fails on for others is theirs: a call that
    /// fails is made again for each caller alone.
    pub fn run(
        &self,
        dims: &[usize],
        values: &[f32],
        rows: usize,
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, String> {
        let Some((&records, row)) = dims.split_first() else {
            return Err("a call without a dimension that counts its records".to_owned());
        };
        let most = self
            .batch
            .unwrap_or_else(|| self.limits.rows(row.iter().product()));
        let mut state = self.lock();
        while state
            .gathering
            .as_ref()
            .is_some_and(|group| !group.has_room(row, records, most))
        {
            state = self.wait_or_execute(state);
        }
        let BatcherState {
            gathering, spare, ..
        } = &mut *state;
        let group = gathering.get_or_insert_with(|| PendingBatch::new(row, std::mem::take(spare)));
        let (place, answers) = (group.parts.len(), Arc::clone(&group.answers));
        group.add(BatchSlot { records, rows }, values);
        loop {
            if let Some(answers) = answers.get() {
                // Nobody is to wait while this is copied.
                drop(state);
                let (shape, place) = answers.parts[place].as_ref().map_err(String::clone)?;
                out.extend_from_slice(&answers.values[place.clone()]);
                return Ok(shape.clone());
            }
            state = self.wait_or_execute(state);
        }
    }

    /// Runs what is gathered where the session is idle, or waits until something has changed.
    fn wait_or_execute<'a>(
        &'a self,
        mut state: MutexGuard<'a, BatcherState<E>>,
    ) -> MutexGuard<'a, BatcherState<E>> {
        let Some(mut engine) = state.engine.take() else {
            return self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        };
        let group = state.gathering.take();
        drop(state);
        // There is room again.
        self.changed.notify_all();
        let spare = group.map(|group| {
            let answers = group.run(&mut engine);
            // Nobody else sets it: the group was taken out.
            let _ = group.answers.set(answers);
            group.values
        });
        let mut state = self.lock();
        state.engine = Some(engine);
        state.spare = spare.unwrap_or_default();
        state.spare.clear();
        self.changed.notify_all();
        state
    }

    fn lock(&self) -> MutexGuard<'_, BatcherState<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingBatch {
    fn new(row: &[usize], values: Vec<f32>) -> Self {
        Self {
            row: row.to_vec(),
            records: 0,
            values,
            parts: Vec::new(),
            answers: Arc::default(),
        }
    }

    fn has_room(&self, row: &[usize], records: usize, most: usize) -> bool {
        self.row == row && self.records + records <= most
    }

    fn add(&mut self, part: BatchSlot, values: &[f32]) {
        self.records += part.records;
        self.values.extend_from_slice(values);
        self.parts.push(part);
    }

    fn run<E: RunBatch>(&self, engine: &mut E) -> BatchOutput {
        let mut answers = BatchOutput::default();
        if self.parts.len() > 1
            && let Ok((shape, all)) = self.call(
                engine,
                self.records,
                &self.values,
                self.records,
                &mut answers.values,
            )
        {
            let places = self.places(all.len() / self.records.max(1));
            let places = places.map(|(part, all)| {
                all.start..all.start + all.len() / part.records.max(1) * part.rows
            });
            answers.parts = places.map(|place| Ok((shape.clone(), place))).collect();
            return answers;
        }
        // One alone; or somebody's records are to blame, and nobody else is to suffer.
        for (part, own) in self.places(self.values.len() / self.records.max(1)) {
            let answer = self.call(
                engine,
                part.records,
                &self.values[own],
                part.rows,
                &mut answers.values,
            );
            answers.parts.push(answer);
        }
        answers
    }

    /// Where what belongs to each part lies among values of which there are `len` for a record.
    fn places(&self, len: usize) -> impl Iterator<Item = (&BatchSlot, Range<usize>)> {
        let mut end = 0;
        self.parts.iter().map(move |part| {
            let start = end;
            end += part.records * len;
            (part, start..end)
        })
    }

    fn call<E: RunBatch>(
        &self,
        engine: &mut E,
        records: usize,
        values: &[f32],
        rows: usize,
        out: &mut Vec<f32>,
    ) -> SlotOutput {
        let dims: Vec<usize> = std::iter::once(records)
            .chain(self.row.iter().copied())
            .collect();
        let start = out.len();
        // A panic is the caller's to know, and must not leave the others waiting.
        let called = catch_unwind(AssertUnwindSafe(|| {
            engine.run_batch(&dims, values, rows, out)
        }));
        let called = called.unwrap_or_else(|_| Err("the session panicked".to_owned()));
        if called.is_err() {
            out.truncate(start);
        }
        called.map(|shape| (shape, start..out.len()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Barrier;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    use super::*;

    /// A device that is slow: each call says how many records it got, and waits until it may go on.
    /// Its output is the sum of a record; records with a negative value make it fail.
    struct Device {
        begun: Sender<usize>,
        go: Receiver<()>,
    }

    impl RunBatch for Device {
        fn run_batch(
            &mut self,
            dims: &[usize],
            values: &[f32],
            rows: usize,
            out: &mut Vec<f32>,
        ) -> Result<Vec<usize>, String> {
            self.begun.send(dims[0]).unwrap();
            self.go.recv().unwrap();
            if values.iter().any(|&value| value < 0.0) {
                return Err("negative".to_owned());
            }
            assert!(
                values.iter().all(|&value| value < 1000.0),
                "the device breaks"
            );
            out.extend(
                values
                    .chunks(dims[1])
                    .take(rows)
                    .map(|record| record.iter().sum::<f32>()),
            );
            Ok(vec![1])
        }
    }

    fn limits(most: usize) -> InferenceBatchLimits {
        InferenceBatchLimits::of(
            &toml::from_str(&format!("max_batch_records = {most}")).unwrap(),
            false,
        )
    }

    fn device(most: usize) -> (Arc<DynamicBatcher<Device>>, Receiver<usize>, Sender<()>) {
        let (begun, calls) = channel();
        let (allow, go) = channel();
        (
            Arc::new(DynamicBatcher::new(
                Device { begun, go },
                limits(most),
                None,
            )),
            calls,
            allow,
        )
    }

    type Asked = thread::JoinHandle<Result<Vec<f32>, String>>;

    fn ask(shared: &Arc<DynamicBatcher<Device>>, records: Vec<f32>) -> Asked {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let mut out = Vec::new();
            shared
                .run(
                    &[records.len() / 2, 2],
                    &records,
                    records.len() / 2,
                    &mut out,
                )
                .map(|_| out)
        })
    }

    /// Waits until so many callers have been gathered behind the call that runs.
    fn gathered(shared: &DynamicBatcher<Device>, parts: usize) {
        while shared
            .lock()
            .gathering
            .as_ref()
            .map_or(0, |group| group.parts.len())
            < parts
        {
            thread::yield_now();
        }
    }

    #[test]
    fn what_is_asked_for_while_the_device_works_goes_into_one_call() {
        let (shared, calls, go) = device(8);
        let first = ask(&shared, vec![1.0, 2.0]);
        assert_eq!(calls.recv(), Ok(1));
        let others = [
            ask(&shared, vec![3.0, 4.0, 5.0, 6.0]),
            ask(&shared, vec![7.0, 8.0]),
        ];
        gathered(&shared, 2);
        go.send(()).unwrap();
        assert_eq!(first.join().unwrap(), Ok(vec![3.0]));
        assert_eq!(calls.recv(), Ok(3));
        go.send(()).unwrap();
        assert_eq!(
            others.map(|other| other.join().unwrap()),
            [Ok(vec![7.0, 11.0]), Ok(vec![15.0])]
        );
    }

    #[test]
    fn a_call_takes_no_more_than_the_device_likes() {
        let (shared, calls, go) = device(2);
        let first = ask(&shared, vec![0.0; 2]);
        assert_eq!(calls.recv(), Ok(1));
        let others: Vec<Asked> = (0..5).map(|_| ask(&shared, vec![1.0; 2])).collect();
        // More than it likes, but one caller's own.
        let large = ask(&shared, vec![1.0; 10]);
        let mut seen = Vec::new();
        go.send(()).unwrap();
        for _ in 0..3 {
            seen.push(calls.recv().unwrap());
            go.send(()).unwrap();
        }
        drop(first.join());
        // Calls beyond the three depend on who came first; let them all go.
        for _ in 0..5 {
            let _ = go.send(());
        }
        for other in others {
            assert_eq!(other.join().unwrap(), Ok(vec![2.0]));
        }
        assert_eq!(large.join().unwrap(), Ok(vec![2.0; 5]));
        seen.extend(calls.try_iter());
        assert_eq!(seen.iter().sum::<usize>(), 10);
        assert!(
            seen.iter().all(|&records| records <= 2 || records == 5),
            "{seen:?}"
        );
    }

    #[test]
    fn batches_whose_size_the_file_fixes_go_one_by_one() {
        let ((begun, calls), (go, allowed)) = (channel(), channel());
        let shared = Arc::new(DynamicBatcher::new(
            Device { begun, go: allowed },
            limits(64),
            Some(2),
        ));
        let first = ask(&shared, vec![1.0; 4]);
        assert_eq!(calls.recv(), Ok(2));
        let others = [ask(&shared, vec![2.0; 4]), ask(&shared, vec![3.0; 4])];
        gathered(&shared, 1);
        for _ in 0..3 {
            go.send(()).unwrap();
        }
        assert_eq!(first.join().unwrap(), Ok(vec![2.0; 2]));
        assert_eq!(
            others.map(|other| other.join().unwrap()),
            [Ok(vec![4.0; 2]), Ok(vec![6.0; 2])]
        );
        assert_eq!(calls.iter().take(2).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn who_gives_what_it_fails_on_fails_alone() {
        let (shared, calls, go) = device(8);
        let first = ask(&shared, vec![1.0, 2.0]);
        assert_eq!(calls.recv(), Ok(1));
        let others = [
            ask(&shared, vec![3.0, 4.0]),
            ask(&shared, vec![-1.0, 0.0]),
            ask(&shared, vec![2000.0, 0.0]),
        ];
        gathered(&shared, 3);
        for _ in 0..5 {
            go.send(()).unwrap();
        }
        assert_eq!(first.join().unwrap(), Ok(vec![3.0]));
        let expected = [
            Ok(vec![7.0]),
            Err("negative".to_owned()),
            Err("the session panicked".to_owned()),
        ];
        assert_eq!(others.map(|other| other.join().unwrap()), expected);
        assert_eq!(calls.iter().take(4).collect::<Vec<_>>(), [3, 1, 1, 1]);
    }

    #[test]
    fn records_of_different_shapes_go_into_different_calls() {
        struct Echo;
        impl RunBatch for Echo {
            fn run_batch(
                &mut self,
                dims: &[usize],
                values: &[f32],
                _: usize,
                out: &mut Vec<f32>,
            ) -> Result<Vec<usize>, String> {
                assert_eq!(dims.iter().product::<usize>(), values.len());
                out.extend_from_slice(values);
                Ok(dims[1..].to_vec())
            }
        }
        let (shared, begin) = (
            Arc::new(DynamicBatcher::new(Echo, limits(64), None)),
            Arc::new(Barrier::new(8)),
        );
        let threads = (0..8).map(|number: usize| {
            let (shared, begin) = (Arc::clone(&shared), Arc::clone(&begin));
            thread::spawn(move || {
                begin.wait();
                for round in 0..200 {
                    let (rows, len) = (1 + (number + round) % 3, 1 + (number * round) % 5);
                    let values: Vec<f32> = (0..rows * len)
                        .map(|place| (number * 1000 + place) as f32)
                        .collect();
                    let mut out = vec![-1.0];
                    let shape = shared.run(&[rows, len], &values, rows, &mut out);
                    assert_eq!((shape, &out[1..]), (Ok(vec![len]), values.as_slice()));
                }
            })
        });
        threads
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    }
}
