//! Reads arbitrary bytes as a tar shard of images: every row is a record or a reject.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: latentflow_fuzz::allow_caught_panics(), |bytes: &[u8]| {
    latentflow_fuzz::read("tar", &latentflow_fuzz::file("in.tar", bytes));
});
