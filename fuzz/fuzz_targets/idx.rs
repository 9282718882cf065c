//! Reads arbitrary bytes as an IDX file, and those behind a separator as its labels: every row is a
//! record or a reject.
#![no_main]

use latentflow_fuzz::{file, parts, read_with};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(init: latentflow_fuzz::allow_caught_panics(), |bytes: &[u8]| {
    let parts = parts(bytes, 2);
    let mut options = json!({ "path": file("records/in.idx", parts[0]) });
    if let Some(labels) = parts.get(1) {
        options["labels"] = json!(file("labels/in.idx", labels));
    }
    read_with("idx", options);
});
