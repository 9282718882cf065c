//! Reads images with arbitrary bytes as the journals of earlier runs: an error, or the same rows in
//! every run.
#![no_main]

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use latentflow_fuzz::{empty_folder, file, parts, read_twice};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

/// The files of the state folder, in the order of the parts of the input.
const FILES: [&str; 6] = [
    "listings/in-0.ndjson",
    "listings/in-1.ndjson",
    "watched/in/00000000000000000000.ndjson",
    "gone/in.ndjson",
    "digests/in.ndjson",
    "roots/in.json",
];

fuzz_target!(init: latentflow_fuzz::allow_caught_panics(), |bytes: &[u8]| {
    let (images, state) = (empty_folder("images"), empty_folder("image_state"));
    for name in ["a.pgm", "b.pgm"] {
        let path = file(&format!("images/{name}"), b"P5 1 1 255\n\0");
        set_time(&path);
    }
    for (name, part) in FILES.iter().zip(parts(bytes, FILES.len())) {
        if !part.is_empty() {
            file(&format!("image_state/{name}"), part);
        }
    }
    read_twice("images", json!({ "path": images }), &state);
});

/// Gives a file the time that the seeds state.
fn set_time(path: &Path) {
    let opened = std::fs::File::options()
        .write(true)
        .open(path)
        .expect("the file");
    opened
        .set_modified(UNIX_EPOCH + Duration::from_secs(1))
        .expect("a time");
}
