//! Unit tests of the module `dynamic_batcher`.

#![allow(clippy::unwrap_used)]
use std::sync::Barrier;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::*;

/// A slow device: each call sends its number of records and waits for a permission. The output
/// is the sum of the values of a record. A negative value makes a call fail, and a value of
/// 1000 or more makes it panic.
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
            "the device fails"
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

fn limits(max_records: usize) -> InferenceBatchLimits {
    InferenceBatchLimits::new(
        &toml::from_str(&format!("max_batch_records = {max_records}")).unwrap(),
        false,
    )
}

fn device(max_records: usize) -> (Arc<DynamicBatcher<Device>>, Receiver<usize>, Sender<()>) {
    let (begun, calls) = channel();
    let (allow, go) = channel();
    (
        Arc::new(DynamicBatcher::new(
            Device { begun, go },
            limits(max_records),
            None,
        )),
        calls,
        allow,
    )
}

type Caller = thread::JoinHandle<Result<Vec<f32>, String>>;

fn call(shared: &Arc<DynamicBatcher<Device>>, records: Vec<f32>) -> Caller {
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

/// Waits until the pending batch has this number of slots while a call runs.
fn wait_for_pending(shared: &DynamicBatcher<Device>, slots: usize) {
    while shared
        .state
        .lock()
        .pending
        .as_ref()
        .map_or(0, |batch| batch.slots.len())
        < slots
    {
        thread::yield_now();
    }
}

#[test]
fn requests_during_a_call_are_combined_into_one_call() {
    let (shared, calls, go) = device(8);
    let first = call(&shared, vec![1.0, 2.0]);
    assert_eq!(calls.recv(), Ok(1));
    let others = [
        call(&shared, vec![3.0, 4.0, 5.0, 6.0]),
        call(&shared, vec![7.0, 8.0]),
    ];
    wait_for_pending(&shared, 2);
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
fn call_does_not_exceed_the_maximum_batch_size() {
    let (shared, calls, go) = device(2);
    let first = call(&shared, vec![0.0; 2]);
    assert_eq!(calls.recv(), Ok(1));
    let others: Vec<Caller> = (0..5).map(|_| call(&shared, vec![1.0; 2])).collect();
    // A single caller may exceed the maximum.
    let large = call(&shared, vec![1.0; 10]);
    let mut seen = Vec::new();
    go.send(()).unwrap();
    for _ in 0..3 {
        seen.push(calls.recv().unwrap());
        go.send(()).unwrap();
    }
    drop(first.join());
    // The number of further calls depends on the order of the callers: permit all of them.
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
fn batches_of_fixed_size_are_not_combined() {
    let ((begun, calls), (go, allowed)) = (channel(), channel());
    let shared = Arc::new(DynamicBatcher::new(
        Device { begun, go: allowed },
        limits(64),
        Some(2),
    ));
    let first = call(&shared, vec![1.0; 4]);
    assert_eq!(calls.recv(), Ok(2));
    let others = [call(&shared, vec![2.0; 4]), call(&shared, vec![3.0; 4])];
    wait_for_pending(&shared, 1);
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
fn failing_records_fail_only_their_caller() {
    let (shared, calls, go) = device(8);
    let first = call(&shared, vec![1.0, 2.0]);
    assert_eq!(calls.recv(), Ok(1));
    let others = [
        call(&shared, vec![3.0, 4.0]),
        call(&shared, vec![-1.0, 0.0]),
        call(&shared, vec![2000.0, 0.0]),
    ];
    wait_for_pending(&shared, 3);
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
fn records_of_different_shapes_are_not_combined() {
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
                    .map(|index| (number * 1000 + index) as f32)
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
