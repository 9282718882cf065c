//! Tests of isolation: the record that is blamed for an error or a panic, and stages that are
//! broken.

#![allow(clippy::unwrap_used)]

use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;

use super::*;
use crate::transform::testing::{batch, floats, reasons};

/// The result of a transform for the value of a record; an error is an error of the whole batch.
type Verdict = fn(f64) -> Result<(), StageError>;

/// Passes records on, unless the verdict on one of them is an error.
struct Picky {
    schema: SchemaRef,
    verdict: Verdict,
    /// Fails on everything from now on.
    broken: Arc<AtomicBool>,
    built: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

struct Instance {
    verdict: Verdict,
    broken: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl TransformPlan for Picky {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        self.built.fetch_add(1, Relaxed);
        let (broken, calls) = (Arc::clone(&self.broken), Arc::clone(&self.calls));
        Ok(Box::new(Instance {
            verdict: self.verdict,
            broken,
            calls,
        }))
    }
}

impl Transform for Instance {
    fn apply(&mut self, batch: Batch, _: &mut RejectCollector) -> Result<Batch, StageError> {
        self.calls.fetch_add(1, Relaxed);
        if self.broken.load(Relaxed) {
            return Err(StageError::Other("it is broken".to_owned()));
        }
        batch
            .records
            .column(0)
            .as_primitive::<Float64Type>()
            .values()
            .iter()
            .try_for_each(|&x| (self.verdict)(x))?;
        Ok(batch)
    }

    fn preview(&mut self, _: &Batch, _: &Batch) -> Option<ImagePreview> {
        panic!("made to panic")
    }
}

struct Tried {
    isolated: IsolatedTransform,
    broken: Arc<AtomicBool>,
    built: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

fn picky(verdict: Verdict) -> Tried {
    let schema = batch([("x", floats(&[]))]).records.schema();
    let (broken, built, calls) = <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let plan = Picky {
        schema,
        verdict,
        broken: Arc::clone(&broken),
        built: Arc::clone(&built),
        calls: Arc::clone(&calls),
    };
    Tried {
        isolated: IsolatedTransform::build(Arc::new(plan)).unwrap(),
        broken,
        built,
        calls,
    }
}

impl Tried {
    /// The values that came through, and the rejects, one a line.
    fn apply(&mut self, values: &[f64]) -> Result<(Vec<f64>, String), String> {
        let mut rejects = RejectCollector::default();
        let output = self
            .isolated
            .apply(&batch([("x", floats(values))]), &mut rejects);
        let output = output.map_err(|error| error.to_string())?;
        assert_eq!(output.records.num_rows(), output.row_ordinals.len());
        let values = output
            .records
            .column(0)
            .as_primitive::<Float64Type>()
            .values()
            .to_vec();
        Ok((values, reasons(&rejects.into_vec())))
    }
}

fn not_13(x: f64) -> Result<(), StageError> {
    if x == 13.0 {
        Err(StageError::Other("13 has no index".to_owned()))
    } else {
        Ok(())
    }
}

#[test]
fn one_failing_record_is_rejected_alone() {
    let mut tried = picky(not_13);
    let (kept, rejects) = tried.apply(&[1.0, 2.0, 13.0, 4.0, 5.0, 13.0, 7.0]).unwrap();
    assert_eq!(kept, [1.0, 2.0, 4.0, 5.0, 7.0]);
    assert_eq!(
        rejects,
        "2: internal: 13 has no index\n5: internal: 13 has no index"
    );
    let alone = tried.apply(&[13.0]).unwrap();
    assert_eq!(alone, (vec![], "0: internal: 13 has no index".to_owned()));
    assert_eq!(
        tried.built.load(Relaxed),
        1,
        "an error leaves the instance as it is"
    );
}

#[test]
fn a_first_record_that_fails_is_tried_against_zeros() {
    assert_eq!(
        picky(not_13).apply(&[13.0]).unwrap().1,
        "0: internal: 13 has no index"
    );
}

#[test]
fn a_stage_that_fails_on_every_record_is_broken() {
    let never: Verdict = |x| Err(StageError::Other(format!("{x} is refused")));
    let mut tried = picky(never);
    assert_eq!(
        tried.apply(&[1.0, 2.0, 3.0, 4.0]).unwrap_err(),
        "1 is refused"
    );
    // The whole, its half, the record, zeros: no record more is tried on a broken stage.
    assert_eq!(tried.calls.load(Relaxed), 4);
}

#[test]
fn a_stage_that_breaks_on_the_way_is_broken() {
    let mut tried = picky(not_13);
    tried.apply(&[1.0, 2.0]).unwrap();
    tried.broken.store(true, Relaxed);
    assert_eq!(tried.apply(&[3.0, 4.0]).unwrap_err(), "it is broken");
}

#[test]
fn the_record_known_to_be_good_is_one_that_went_through() {
    // Zeros fail as well: without a record of this run every failure would look like a broken
    // stage.
    let positive: Verdict = |x| {
        if x > 0.0 {
            Ok(())
        } else {
            Err(StageError::Other("not above 0".to_owned()))
        }
    };
    assert_eq!(picky(positive).apply(&[-1.0]).unwrap_err(), "not above 0");
    let mut tried = picky(positive);
    tried.apply(&[5.0]).unwrap();
    assert_eq!(tried.apply(&[-1.0]).unwrap().1, "0: internal: not above 0");
    // The first record of the half that passes will do.
    assert_eq!(
        picky(positive).apply(&[5.0, -1.0]).unwrap(),
        (vec![5.0], "1: internal: not above 0".to_owned())
    );
}

#[test]
fn an_error_of_the_environment_is_not_narrowed_down() {
    let full: Verdict = |x| match x {
        13.0 => Err(StageError::io("disk")(Error::from(ErrorKind::StorageFull))),
        _ => Ok(()),
    };
    let mut tried = picky(full);
    tried.apply(&[1.0]).unwrap();
    assert!(
        tried
            .apply(&[1.0, 13.0, 2.0])
            .unwrap_err()
            .starts_with("disk: ")
    );
    assert_eq!(tried.calls.load(Relaxed), 2);
    let memory: Verdict = |_| Err(StageError::Memory("too little".to_owned()));
    let mut tried = picky(memory);
    assert_eq!(tried.apply(&[1.0, 2.0]).unwrap_err(), "too little");
    assert_eq!(tried.calls.load(Relaxed), 1);
}

#[test]
fn a_panic_is_narrowed_down_as_an_error_is() {
    let panics: Verdict = |x| {
        assert!(x != 13.0, "13 is out of range");
        Ok(())
    };
    let mut tried = picky(panics);
    let (kept, rejects) = tried.apply(&[1.0, 13.0, 3.0]).unwrap();
    assert_eq!(kept, [1.0, 3.0]);
    assert_eq!(
        rejects,
        "1: panicked: the stage panicked on this record: 13 is out of range"
    );
    assert!(
        tried.built.load(Relaxed) > 1,
        "the instance is built again after a panic"
    );
    let always: Verdict = |_| panic!("made to panic");
    assert_eq!(
        picky(always).apply(&[1.0, 2.0]).unwrap_err(),
        "the stage panicked: made to panic"
    );
}

#[test]
fn an_error_of_the_model_keeps_its_code() {
    let model: Verdict = |x| {
        if x == 13.0 {
            Err(StageError::Model("no such index".to_owned()))
        } else {
            Ok(())
        }
    };
    assert_eq!(
        picky(model).apply(&[13.0]).unwrap().1,
        "0: model: no such index"
    );
}

#[test]
fn a_batch_without_records_that_fails_ends_the_run() {
    let mut tried = picky(not_13);
    tried.broken.store(true, Relaxed);
    assert_eq!(tried.apply(&[]).unwrap_err(), "it is broken");
}

#[test]
fn a_large_record_is_not_kept() {
    use crate::transform::testing::strings;
    let large = "x".repeat(KEPT_BYTES + 1);
    let schema = batch([("x", floats(&[])), ("text", strings(&[]))])
        .records
        .schema();
    let plan = Picky {
        schema,
        verdict: not_13,
        broken: Arc::default(),
        built: Arc::default(),
        calls: Arc::default(),
    };
    let mut isolated = IsolatedTransform::build(Arc::new(plan)).unwrap();
    let apply = |isolated: &mut IsolatedTransform, text: &str| {
        let columns = [("x", floats(&[1.0])), ("text", strings(&[text]))];
        isolated
            .apply(&batch(columns), &mut RejectCollector::default())
            .unwrap();
    };
    apply(&mut isolated, &large);
    assert!(isolated.good.is_none());
    apply(&mut isolated, "small");
    assert!(isolated.good.is_some());
}

#[test]
fn a_panic_while_looking_costs_the_image_alone() {
    let mut tried = picky(not_13);
    let batch = batch([("x", floats(&[1.0]))]);
    assert!(tried.isolated.preview(&batch, &batch).unwrap().is_none());
    assert_eq!(tried.built.load(Relaxed), 2);
    assert_eq!(tried.apply(&[1.0]).unwrap().0, [1.0]);
}
