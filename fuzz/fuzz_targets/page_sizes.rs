//! Sizes up arbitrary bytes as the pages of a Parquet column: no page that the library decodes
//! exceeds the sizes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: latentflow_fuzz::allow_caught_panics(), |bytes: &[u8]| {
    latentflow::fuzzing::page_sizes(&latentflow_fuzz::file("pages", bytes));
});
