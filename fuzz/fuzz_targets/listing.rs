//! Removes unusable keys from arbitrary bytes as a listing of a bucket: an error, or a listing of
//! usable keys that lacks only the counted ones.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    latentflow::fuzzing::listing(bytes);
});
