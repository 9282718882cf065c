//! Any bytes as a CSV file: every row is a record or a reject.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| latentflow_fuzz::read("csv", &latentflow_fuzz::file("in.csv", bytes)));
