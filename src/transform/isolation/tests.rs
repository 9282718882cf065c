//! Tests of the isolation: the rejected records of an error or a panic, and broken stages.

#![allow(clippy::unwrap_used)]

use std::io::{Error, ErrorKind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;

use super::*;
use crate::error::code::ErrorCode;
use crate::transform::testing::{batch, floats, reasons};

/// The result of the transform for the value of a record. An error fails the complete batch.
type Verdict = fn(f64) -> Result<(), StageError>;

/// A transform that returns its input, unless the verdict on a record is an error.
struct FakePlan {
    schema: SchemaRef,
    verdict: Verdict,
    /// Whether the transform fails on every batch.
    broken: Arc<AtomicBool>,
    built: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

struct FakeTransform {
    verdict: Verdict,
    broken: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl TransformPlan for FakePlan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        self.built.fetch_add(1, Relaxed);
        let (broken, calls) = (Arc::clone(&self.broken), Arc::clone(&self.calls));
        Ok(Box::new(FakeTransform {
            verdict: self.verdict,
            broken,
            calls,
        }))
    }
}

impl Transform for FakeTransform {
    fn apply(&mut self, batch: Batch, _: &mut RejectCollector) -> Result<Batch, StageError> {
        self.calls.fetch_add(1, Relaxed);
        if self.broken.load(Relaxed) {
            return Err(StageError::new(ErrorCode::Internal, "the stage is broken"));
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
        panic!("intended panic")
    }
}

struct Harness {
    isolated: IsolatedTransform,
    broken: Arc<AtomicBool>,
    built: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

fn harness_of(verdict: Verdict) -> Harness {
    let schema = batch([("x", floats(&[]))]).records.schema();
    let (broken, built, calls) = <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let plan = FakePlan {
        schema,
        verdict,
        broken: Arc::clone(&broken),
        built: Arc::clone(&built),
        calls: Arc::clone(&calls),
    };
    Harness {
        isolated: IsolatedTransform::build(Arc::new(plan)).unwrap(),
        broken,
        built,
        calls,
    }
}

impl Harness {
    /// Returns the values of the output, and the rejects, one per line.
    fn apply(&mut self, values: &[f64]) -> Result<(Vec<f64>, String), String> {
        let mut rejects = RejectCollector::default();
        let output = self
            .isolated
            .apply(&batch([("x", floats(values))]), &mut rejects);
        let output = output.map_err(|error| error.to_string())?;
        assert_eq!(output.records.num_rows(), output.row_ordinals.len());
        let kept = output
            .records
            .column(0)
            .as_primitive::<Float64Type>()
            .values()
            .to_vec();
        Ok((kept, reasons(&rejects.into_vec())))
    }
}

fn not_13(x: f64) -> Result<(), StageError> {
    if x == 13.0 {
        Err(StageError::new(ErrorCode::Internal, "13 has no index"))
    } else {
        Ok(())
    }
}

#[test]
fn only_failing_records_are_rejected() {
    let mut harness = harness_of(not_13);
    let (kept, rejects) = harness
        .apply(&[1.0, 2.0, 13.0, 4.0, 5.0, 13.0, 7.0])
        .unwrap();
    assert_eq!(kept, [1.0, 2.0, 4.0, 5.0, 7.0]);
    assert_eq!(
        rejects,
        "2: internal: 13 has no index\n5: internal: 13 has no index"
    );
    let alone = harness.apply(&[13.0]).unwrap();
    assert_eq!(alone, (vec![], "0: internal: 13 has no index".to_owned()));
    assert_eq!(
        harness.built.load(Relaxed),
        1,
        "an error does not rebuild the instance"
    );
}

#[test]
fn first_failing_record_is_compared_with_zeros() {
    assert_eq!(
        harness_of(not_13).apply(&[13.0]).unwrap().1,
        "0: internal: 13 has no index"
    );
}

#[test]
fn stage_that_fails_on_every_record_returns_first_error() {
    let never: Verdict = |x| {
        Err(StageError::new(
            ErrorCode::Internal,
            format!("{x} is invalid"),
        ))
    };
    let mut harness = harness_of(never);
    assert_eq!(
        harness.apply(&[1.0, 2.0, 3.0, 4.0]).unwrap_err(),
        "1 is invalid"
    );
    // The calls are the batch, its half, the record and zeros; a broken stage gets no further
    // records.
    assert_eq!(harness.calls.load(Relaxed), 4);
}

#[test]
fn stage_that_breaks_after_success_returns_its_error() {
    let mut harness = harness_of(not_13);
    harness.apply(&[1.0, 2.0]).unwrap();
    harness.broken.store(true, Relaxed);
    assert_eq!(
        harness.apply(&[3.0, 4.0]).unwrap_err(),
        "the stage is broken"
    );
}

#[test]
fn good_record_is_one_of_a_successful_batch() {
    // Zeros fail as well, so that without a good record of this run every failure appears to be a
    // broken stage.
    let positive: Verdict = |x| {
        if x > 0.0 {
            Ok(())
        } else {
            Err(StageError::new(ErrorCode::Internal, "not above 0"))
        }
    };
    assert_eq!(
        harness_of(positive).apply(&[-1.0]).unwrap_err(),
        "not above 0"
    );
    let mut harness = harness_of(positive);
    harness.apply(&[5.0]).unwrap();
    assert_eq!(
        harness.apply(&[-1.0]).unwrap().1,
        "0: internal: not above 0"
    );
    // The first record of the successful half is the good record.
    assert_eq!(
        harness_of(positive).apply(&[5.0, -1.0]).unwrap(),
        (vec![5.0], "1: internal: not above 0".to_owned())
    );
}

#[test]
fn error_of_the_environment_is_not_isolated() {
    let full: Verdict = |x| match x {
        13.0 => Err(StageError::io("disk")(Error::from(ErrorKind::StorageFull))),
        _ => Ok(()),
    };
    let mut harness = harness_of(full);
    harness.apply(&[1.0]).unwrap();
    assert!(
        harness
            .apply(&[1.0, 13.0, 2.0])
            .unwrap_err()
            .starts_with("disk: ")
    );
    assert_eq!(harness.calls.load(Relaxed), 2);
    let memory: Verdict = |_| Err(StageError::Memory("too little".to_owned()));
    let mut exhausted = harness_of(memory);
    assert_eq!(exhausted.apply(&[1.0, 2.0]).unwrap_err(), "too little");
    assert_eq!(exhausted.calls.load(Relaxed), 1);
}

#[test]
fn panic_is_isolated_as_an_error_is() {
    let panics: Verdict = |x| {
        assert!(x != 13.0, "13 is out of range");
        Ok(())
    };
    let mut harness = harness_of(panics);
    let (kept, rejects) = harness.apply(&[1.0, 13.0, 3.0]).unwrap();
    assert_eq!(kept, [1.0, 3.0]);
    assert_eq!(
        rejects,
        "1: panicked: the stage panicked on this record: 13 is out of range"
    );
    assert!(
        harness.built.load(Relaxed) > 1,
        "the instance is rebuilt after a panic"
    );
    let always: Verdict = |_| panic!("intended panic");
    assert_eq!(
        harness_of(always).apply(&[1.0, 2.0]).unwrap_err(),
        "the stage panicked: intended panic"
    );
}

#[test]
fn error_of_the_model_has_the_code_model() {
    let model: Verdict = |x| {
        if x == 13.0 {
            Err(StageError::Model("no such index".to_owned()))
        } else {
            Ok(())
        }
    };
    assert_eq!(
        harness_of(model).apply(&[13.0]).unwrap().1,
        "0: model: no such index"
    );
}

#[test]
fn error_on_empty_batch_is_returned() {
    let mut harness = harness_of(not_13);
    harness.broken.store(true, Relaxed);
    assert_eq!(harness.apply(&[]).unwrap_err(), "the stage is broken");
}

#[test]
fn record_above_the_maximum_size_is_not_kept() {
    use crate::transform::testing::strings;
    let large = "x".repeat(MAX_KEPT_BYTES + 1);
    let schema = batch([("x", floats(&[])), ("text", strings(&[]))])
        .records
        .schema();
    let plan = FakePlan {
        schema,
        verdict: not_13,
        broken: Arc::default(),
        built: Arc::default(),
        calls: Arc::default(),
    };
    let mut isolated = IsolatedTransform::build(Arc::new(plan)).unwrap();
    let apply = |transform: &mut IsolatedTransform, text: &str| {
        let columns = [("x", floats(&[1.0])), ("text", strings(&[text]))];
        transform
            .apply(&batch(columns), &mut RejectCollector::default())
            .unwrap();
    };
    apply(&mut isolated, &large);
    assert!(isolated.good.is_none());
    apply(&mut isolated, "small");
    assert!(isolated.good.is_some());
}

#[test]
fn panic_in_preview_only_omits_the_image() {
    let mut harness = harness_of(not_13);
    let batch = batch([("x", floats(&[1.0]))]);
    assert!(harness.isolated.preview(&batch, &batch).unwrap().is_none());
    assert_eq!(harness.built.load(Relaxed), 2);
    assert_eq!(harness.apply(&[1.0]).unwrap().0, [1.0]);
}
