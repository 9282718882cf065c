//! Writes and damages a journal of requests, from arbitrary bytes: no acknowledged request is lost or
//! returned twice without an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    latentflow::fuzzing::request_log(&latentflow_fuzz::empty_folder("requests"), bytes);
});
