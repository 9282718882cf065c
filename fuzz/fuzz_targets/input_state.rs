//! Reads a text file with arbitrary bytes as the checkpoints of earlier runs: an error, or the same
//! rows in every run.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use latentflow_fuzz::{empty_folder, file, parts, read_twice};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

/// The files of the state folder, in the order of the parts of the input.
const FILES: [&str; 2] = ["inputs/in.ndjson", "inputs/in.reading"];

fuzz_target!(init: latentflow_fuzz::allow_caught_panics(), |bytes: &[u8]| {
    let state = empty_folder("input_state");
    let path = file("texts/in.csv", b"a,b\n1,x\n2,y\n3,z\n");
    let opened = std::fs::File::options().write(true).open(&path).expect("the file");
    opened.set_modified(UNIX_EPOCH + Duration::from_secs(1)).expect("a time");
    for (name, part) in FILES.iter().zip(parts(bytes, FILES.len())) {
        if !part.is_empty() {
            file(&format!("input_state/{name}"), part);
        }
    }
    read_twice("csv", json!({ "path": path }), &state);
});
