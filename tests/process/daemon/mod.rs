//! Tests of unbounded runs through the binary: watched folders, requests over HTTP and hot reload.

mod blocked;
mod bodies;
mod client;
mod compact;
pub mod daemon_process;
mod dashboard;
mod failing_model;
mod hot_reload;
mod http;
mod listeners;
mod malformed_bodies;
mod rotation;
mod watch;
mod watch_faults;
mod watch_model;
