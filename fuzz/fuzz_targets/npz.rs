//! Reads arbitrary bytes as a NumPy archive or file: every row is a record or a reject.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: latentflow_fuzz::allow_caught_panics(), |bytes: &[u8]| {
    latentflow_fuzz::read("npz", &latentflow_fuzz::file("in.npz", bytes));
});
