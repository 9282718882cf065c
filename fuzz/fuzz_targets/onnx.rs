//! Reads arbitrary bytes as an ONNX file: an error, or the fields that also two files after one
//! another have.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    latentflow::fuzzing::onnx(bytes);
});
