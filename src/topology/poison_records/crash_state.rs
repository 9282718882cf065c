//! The crash state of a pipeline: how earlier starts ended, which rows were in flight, and which
//! rows are quarantined.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fmt, fs};

use serde::{Deserialize, Serialize};

use crate::system::OomKills;

/// Starts without progress after which the suspected rows are processed one at a time.
pub(crate) const STARTS: u32 = 2;
/// Kills for lack of memory after which a row that was processed alone is quarantined. The kernel's
/// counter is of all processes of the machine, so one kill is not enough. One abort is enough.
pub(crate) const MEMORY_KILLS: u32 = 3;
/// Other kills after which a row that was processed alone is quarantined. Such a kill can have any
/// cause, such as a probe with a short timeout. Without this limit, a row that causes kills would
/// block all others forever.
pub(crate) const OTHER_KILLS: u32 = 20;

/// The crash state as stored in `attempts/notes.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct CrashState {
    /// The number of consecutive starts that crashed without progress.
    pub(crate) starts: u32,
    /// The number of source rows that the sinks had committed at the last start.
    pub(crate) done: u64,
    /// Rows that were in flight when the process crashed: split, first row, end.
    pub(crate) suspects: Vec<(u64, u64, u64)>,
    /// The number of kills of unknown cause while a row was processed alone: split, row, kills.
    pub(crate) kills: Vec<(u64, u64, u32)>,
    /// The number of kills for lack of memory while a row was processed alone: split, row, kills.
    #[serde(default)]
    pub(crate) memory_kills: Vec<(u64, u64, u32)>,
    /// Rows that crash the process and are rejected: split, row.
    #[serde(rename = "condemned")]
    pub(crate) quarantined: Vec<(u64, u64)>,
    /// The quarantined rows that need more memory than is available.
    #[serde(default)]
    pub(crate) too_large: Vec<(u64, u64)>,
    /// The kernel's count of kills for lack of memory at the last start.
    #[serde(default)]
    pub(crate) kernel: Option<OomKills>,
}

/// How a start crashed, as far as the cause can be determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEnd {
    /// The process aborted, most often in a native library.
    Aborted,
    /// The process was killed, and the kernel has killed a process for lack of memory since the
    /// start.
    OutOfMemory,
    /// The process was killed, and the kernel has killed none for lack of memory since the start.
    Killed,
    /// The process was killed, and the machine was restarted, is another machine, or has no such
    /// count.
    Unknown,
}

impl RunEnd {
    fn of(folder: &Path, before: Option<&OomKills>, now: Option<&OomKills>) -> Self {
        if fs::metadata(folder.join("aborted")).is_ok_and(|file| file.len() > 0) {
            return Self::Aborted;
        }
        match (before, now) {
            (Some(before), Some(now)) if before.boot == now.boot && now.kills > before.kills => {
                Self::OutOfMemory
            }
            (Some(before), Some(now)) if before.boot == now.boot => Self::Killed,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for RunEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aborted => "the process aborted, most likely in a native library",
            Self::OutOfMemory => {
                "the process was killed, and the kernel has killed a process for lack of memory \
                 since the start; lower `limits.memory`, or raise the memory limit of the container"
            }
            Self::Killed => {
                "the process was killed from outside, and not for lack of memory; check for a \
                 probe or a time limit that is too short"
            }
            Self::Unknown => "the process was killed, or the machine was restarted",
        })
    }
}

impl CrashState {
    /// Loads the crash state from `folder`, updates it by the files that the last start left there,
    /// and returns it with the cause if that start crashed. `done` is the number of source rows
    /// that the sinks have committed, `kernel` the kernel's present count of kills for lack of
    /// memory.
    pub(crate) fn load(
        folder: &Path,
        done: u64,
        kernel: Option<OomKills>,
    ) -> (Self, Option<RunEnd>) {
        let state = fs::read(folder.join("notes.json")).ok();
        // A damaged file is treated as absent: it only helps to isolate a poison record.
        let state: Option<Self> = state.and_then(|text| serde_json::from_slice(&text).ok());
        let Some(mut state) = state else {
            return (
                Self {
                    done,
                    kernel,
                    ..Self::default()
                },
                None,
            );
        };
        if !folder.join("in-flight").exists() {
            let Self {
                quarantined,
                too_large,
                ..
            } = state;
            return (
                Self {
                    done,
                    kernel,
                    quarantined,
                    too_large,
                    ..Self::default()
                },
                None,
            );
        }
        let in_flight = ranges(&folder.join("in-flight"));
        let alone = ranges(&folder.join("alone"))
            .first()
            .map(|&(split, row, _)| (split, row));
        let run_end = RunEnd::of(folder, state.kernel.as_ref(), kernel.as_ref());
        if done > state.done {
            (
                state.starts,
                state.suspects,
                state.kills,
                state.memory_kills,
            ) = Default::default();
        }
        state.starts = state.starts.saturating_add(1);
        state.done = done;
        state.kernel = kernel;
        state.suspects.extend(in_flight);
        state.suspects.sort_unstable();
        state.suspects.dedup();
        if let Some(row) = alone {
            state.crashed_on(row, run_end);
        }
        (state, Some(run_end))
    }

    /// Records that the process crashed while this row was processed alone.
    fn crashed_on(&mut self, row: (u64, u64), run_end: RunEnd) {
        let is_poison = match run_end {
            RunEnd::Aborted => true,
            RunEnd::OutOfMemory => count(&mut self.memory_kills, row) >= MEMORY_KILLS,
            RunEnd::Killed | RunEnd::Unknown => count(&mut self.kills, row) >= OTHER_KILLS,
        };
        if is_poison {
            self.quarantined.push(row);
            self.too_large
                .extend((run_end == RunEnd::OutOfMemory).then_some(row));
        }
    }
}

/// Increments the number of kills of a row and returns it.
fn count(kills: &mut Vec<(u64, u64, u32)>, (split, row): (u64, u64)) -> u32 {
    let mut all: BTreeMap<(u64, u64), u32> =
        kills.iter().map(|&(s, r, times)| ((s, r), times)).collect();
    let entry = all.entry((split, row)).or_default();
    *entry = entry.saturating_add(1);
    let counted = *entry;
    *kills = all
        .into_iter()
        .map(|((s, r), times)| (s, r, times))
        .collect();
    counted
}

/// Reads the row ranges of a file: split, first row, end.
fn ranges(path: &Path) -> Vec<(u64, u64, u64)> {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let range = |line: &str| {
        let mut numbers = line
            .trim_matches(|c: char| !c.is_ascii_digit())
            .split(' ')
            .map(str::parse::<u64>);
        Some((
            numbers.next()?.ok()?,
            numbers.next()?.ok()?,
            numbers.next()?.ok()?,
        ))
    };
    text.lines().filter_map(range).collect()
}
