//! Tests that start and kill processes, trace them, or make their system calls fail.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod changed_model;
mod chaos;
#[path = "../common"]
mod common {
    pub mod inputs;
    pub mod leftovers;
    pub mod outputs;
    pub mod runs;
    pub mod scenarios;
}
mod compact;
mod compat;
mod crash_points;
mod daemon;
mod faults;
mod system_calls;
