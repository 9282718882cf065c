//! Reads arbitrary bytes as smaller logs of the state folder: the keys of requests, the crash state,
//! and the names of image files. Valid entries are kept, and no other file is removed.
#![no_main]

use latentflow::fuzzing;
use latentflow_fuzz::{empty_folder, file, parts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, text)) = bytes.split_first() else {
        return;
    };
    let folder = empty_folder("state");
    match kind % 3 {
        0 => {
            for (name, part) in ["keys-2.log", "keys.log"].iter().zip(parts(text, 2)) {
                file(&format!("state/{name}"), part);
            }
            fuzzing::key_log(&folder);
        }
        1 => {
            let names = ["notes.json", "in-flight", "alone", "aborted"];
            for (name, part) in names.iter().zip(parts(text, 4)) {
                file(&format!("state/{name}"), part);
            }
            fuzzing::crash_state(&folder);
        }
        _ => {
            file("state/root/_latentflow/names", text);
            fuzzing::name_log(&folder.join("root"), u64::from(kind / 3));
        }
    }
});
