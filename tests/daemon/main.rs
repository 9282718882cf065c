//! Runs without an end, through the binary: folders that are watched, requests over HTTP, models that are exchanged.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod blocked;
mod bodies;
mod client;
mod compact;
mod failing;
mod malformed_bodies;
mod http;
mod listeners;
mod page;
mod process;
mod rotation;
mod hot_reload;
mod watch;
mod watch_faults;
mod watch_model;
