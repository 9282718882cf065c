//! Reads arbitrary bytes as a text record that a reject stores: one record of its columns, or a
//! reason.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: latentflow_fuzz::allow_caught_panics(), |bytes: &[u8]| {
    latentflow::fuzzing::stored_text(bytes);
});
