//! Unit tests of the module `memory`.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::plan::memory::estimate::MemoryEstimate;

fn requirements(per_worker: u64) -> MemoryRequirements {
    MemoryRequirements {
        footprint: Footprint {
            per_record: 1000,
            per_pixel: 12,
        },
        per_worker,
        shared: 0,
    }
}

#[test]
fn memory_limit_reduces_workers_before_batches() {
    let workers = |mib: u64, workers| {
        requirements(40 << 20)
            .allocate(Some(ByteSize(mib << 20)), workers)
            .map(|allocation| allocation.workers)
    };
    assert_eq!(workers(1024, 4), Ok(4));
    assert_eq!(workers(512, 4), Ok(3));
    assert_eq!(workers(60, 4), Ok(1));
    let message = workers(50, 4).unwrap_err().message;
    assert_eq!(
        message,
        "50.0 MiB is too little; models and one batch require 56.0 MiB"
    );
    assert_eq!(
        requirements(1 << 60).allocate(None, 4).unwrap().workers,
        4,
        "without `limits.memory`, the number of workers is not reduced"
    );
}

#[test]
fn shared_sessions_reduce_the_budget_of_batches_once() {
    let budget = |shared, workers| {
        let requirements = MemoryRequirements {
            shared,
            ..requirements(10 << 20)
        };
        requirements
            .allocate(Some(ByteSize(1 << 30)), workers)
            .unwrap()
            .budget
    };
    assert_eq!(budget(0, 4) - budget(200 << 20, 4), 200 << 20);
    assert_eq!(budget(0, 1) - budget(200 << 20, 1), 200 << 20);
    let fault = MemoryRequirements {
        shared: 60 << 20,
        ..requirements(1 << 20)
    }
    .allocate(Some(ByteSize(64 << 20)), 1)
    .unwrap_err();
    assert_eq!(
        fault.message,
        "64.0 MiB is too little; models and one batch require 77.0 MiB"
    );
}

#[test]
fn batch_cap_and_limits_do_not_depend_on_the_workers() {
    let allocation = |workers| {
        requirements(1 << 20)
            .allocate(Some(ByteSize(512 << 20)), workers)
            .unwrap()
    };
    let (one, many) = (allocation(1), allocation(64));
    assert_ne!(one.budget, many.budget);
    assert_eq!(one.batch_cap(), many.batch_cap());
    assert_eq!(
        one.limits(PipelineLimits::default()),
        many.limits(PipelineLimits::default())
    );
}

#[test]
fn peak_above_the_limit_of_the_control_group_is_a_warning() {
    let memory = MemoryEstimate {
        expected: 150 << 20,
        fixed: 100 << 20,
        workers: 0,
        batch: 100 << 20,
        slots: 4,
        budget: 300 << 20,
    };
    assert_eq!(
        memory.warning(Some(384 << 20)).unwrap(),
        "memory: about 150.0 MiB is expected, but records of the largest allowed size may \
             require 400.0 MiB; the control group (the container) allows 384.0 MiB, and the kernel \
             kills the process if it requires more; set limits.memory = \"284MiB\", or raise the \
             limit of the container"
    );
    assert!(memory.warning(Some(400 << 20)).is_none() && memory.warning(None).is_none());
}

#[test]
fn estimate_states_the_expected_memory_before_the_maximum() {
    let memory = MemoryEstimate {
        expected: 150 << 20,
        fixed: 100 << 20,
        workers: 0,
        batch: 100 << 20,
        slots: 4,
        budget: 300 << 20,
    };
    assert_eq!(
        memory.to_string(),
        "about 150.0 MiB is expected, with records of ordinary size\n          \
             at most 400.0 MiB, if all records have the largest allowed size; `limits.memory` \
             lowers it"
    );
}

#[test]
fn full_batch_and_largest_image_fit_into_the_memory() {
    for mib in [64, 256, 1024] {
        let allocation = requirements(1 << 20)
            .allocate(Some(ByteSize(mib << 20)), 2)
            .unwrap();
        let (cap, footprint) = (allocation.batch_cap(), allocation.requirements.footprint);
        let batch = footprint.cost(cap.records.into(), cap.bytes, cap.bytes / 3);
        assert!(
            batch <= allocation.total / LARGEST_BATCHES,
            "{mib}: {batch}"
        );
        let limits = allocation.limits(PipelineLimits {
            pixels: u64::MAX,
            record_bytes: ByteSize(u64::MAX),
            memory: None,
        });
        // The columns of fixed width, a kilobyte here, are not included.
        assert!(
            footprint.cost(0, limits.record_bytes.0, limits.pixels) <= allocation.budget,
            "{mib}"
        );
    }
}
