//! What a run reports while it works: counters, gauges, reconstruction errors and samples.

pub(crate) mod activity;
pub(crate) mod drift;
pub(crate) mod error_history;
pub(crate) mod gauge_sampler;
pub(crate) mod reconstruction_error;
pub(crate) mod records;
pub(crate) mod stage_stats;
pub(crate) mod stats;
pub(crate) mod tap;
