//! Parses arbitrary bytes as a request of the source `http`: a refusal, or records within the limits
//! that the journal keeps.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: latentflow_fuzz::allow_caught_panics(), |bytes: &[u8]| {
    latentflow::fuzzing::request_body(bytes);
});
