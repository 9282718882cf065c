//! Reads arbitrary bytes as a text file whose first line chooses the options of the source `csv`:
//! every row is a record or a reject.
#![no_main]

use latentflow_fuzz::{file, read_with};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(init: latentflow_fuzz::allow_caught_panics(), |bytes: &[u8]| {
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let Ok(Value::Object(mut options)) = serde_json::from_slice(&bytes[..end]) else {
        return;
    };
    let text = bytes.get(end + 1..).unwrap_or_default();
    let path = file("options/in.csv", text);
    options.insert("path".to_owned(), path.to_str().expect("a name that is text").into());
    read_with("csv", Value::Object(options));
});
