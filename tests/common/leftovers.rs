//! Files that a run leaves when it ends before its time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::outputs::below;

/// A file as it was at some moment: its place, and the time of its last change.
pub type Trace = (PathBuf, SystemTime);

/// Files below a folder that bear a temporary name.
pub fn unfinished(folder: &Path) -> Vec<Trace> {
    traces(folder, |path| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with(".latentflow-")
    })
}

/// Notes below a folder of batches that were being worked on when the process ended.
pub fn in_flight(folder: &Path) -> Vec<Trace> {
    traces(folder, |path| {
        path.ends_with("attempts/in-flight")
            && fs::read(path)
                .unwrap()
                .iter()
                .any(|byte| !byte.is_ascii_whitespace())
    })
}

fn traces(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<Trace> {
    let wanted = below(folder).into_iter().filter(|path| wanted(path));
    wanted
        .map(|path| (path.clone(), path.metadata().unwrap().modified().unwrap()))
        .collect()
}
