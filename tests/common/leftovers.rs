//! Functions that find the files which a killed run leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::outputs::below;

/// The path of a file, and the time of its last change.
pub type Trace = (PathBuf, SystemTime);

/// Files below a folder that have a temporary name.
pub fn unfinished(folder: &Path) -> Vec<Trace> {
    traces(folder, |path| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with(".latentflow-")
    })
}

/// Files below a folder that list the batches in flight at the end of the process.
pub fn in_flight(folder: &Path) -> Vec<Trace> {
    traces(folder, |path| {
        path.ends_with("attempts/in-flight")
            && fs::read(path)
                .unwrap()
                .iter()
                .any(|byte| !byte.is_ascii_whitespace())
    })
}

fn traces(folder: &Path, is_trace: impl Fn(&Path) -> bool) -> Vec<Trace> {
    let paths = below(folder).into_iter().filter(|path| is_trace(path));
    paths
        .map(|path| (path.clone(), path.metadata().unwrap().modified().unwrap()))
        .collect()
}
