//! What is known of earlier starts: how each ended, which rows were on their way, and what that
//! says about a row.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::system::OomKills;

/// Starts that came to nothing before the suspects run one by one.
pub(super) const STARTS: u32 = 2;
/// The kernel killed a process of the machine for lack of memory so many times while the same row
/// ran alone: it is taken for the row's doing. One abort is enough.
pub(super) const MEMORY_KILLS: u32 = 3;
/// A process that is killed otherwise may have been killed for any reason, such as a probe that has
/// no patience. So many kills while the same row ran alone are taken for its doing: else it would
/// hold up all others for ever.
pub(super) const OTHER_KILLS: u32 = 20;

/// The notes, as they lie on the disk.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct CrashState {
    /// Starts in a row that ended without a word and without progress.
    pub(super) starts: u32,
    /// Source rows that the sinks had at the last start.
    pub(super) done: u64,
    /// Rows that were being worked on when the process ended: split, first row, end.
    pub(super) suspects: Vec<(u64, u64, u64)>,
    /// How often the process was killed while a row ran alone, for no reason that is known: split,
    /// row, times.
    pub(super) kills: Vec<(u64, u64, u32)>,
    /// The same, for lack of memory.
    #[serde(default)]
    pub(super) memory_kills: Vec<(u64, u64, u32)>,
    /// Rows that took the process down: split, row.
    pub(super) condemned: Vec<(u64, u64)>,
    /// Those of them that took more memory than there is.
    #[serde(default)]
    pub(super) too_large: Vec<(u64, u64)>,
    /// What the kernel had counted when the last start began.
    #[serde(default)]
    pub(super) kernel: Option<OomKills>,
}

/// How a start ended without a word, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunEnd {
    /// It aborted: a native library, most often.
    Aborted,
    /// It was killed, and the kernel killed a process for lack of memory meanwhile.
    OutOfMemory,
    /// It was killed, and the kernel killed none for lack of memory.
    Killed,
    /// The machine was started anew, it is another machine, or the kernel does not tell.
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
            Self::Aborted => "it aborted, as a native library does",
            Self::OutOfMemory => {
                "it was killed, and the kernel killed a process for lack of memory meanwhile: lower `limits.memory`, or allow the container more"
            }
            Self::Killed => {
                "it was killed from outside, and not for lack of memory: look for a probe or a time limit that is too short"
            }
            Self::Unknown => "it was killed, or the machine was started anew",
        })
    }
}

impl CrashState {
    /// What the last start left behind in `folder`, put together with what was known before it, and
    /// how it ended where it did so without a word. `done`: source rows that the sinks have now;
    /// `kernel`: what the kernel has counted by now.
    pub(super) fn load(
        folder: &Path,
        done: u64,
        kernel: Option<OomKills>,
    ) -> (Self, Option<RunEnd>) {
        let notes = fs::read(folder.join("notes.json")).ok();
        // Damaged notes are as good as none: they only help to find a culprit.
        let notes: Option<Self> = notes.and_then(|text| serde_json::from_slice(&text).ok());
        let Some(mut notes) = notes else {
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
                condemned,
                too_large,
                ..
            } = notes;
            return (
                Self {
                    done,
                    kernel,
                    condemned,
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
        let ending = RunEnd::of(folder, notes.kernel.as_ref(), kernel.as_ref());
        if done > notes.done {
            (
                notes.starts,
                notes.suspects,
                notes.kills,
                notes.memory_kills,
            ) = Default::default();
        }
        notes.starts += 1;
        notes.done = done;
        notes.kernel = kernel;
        notes.suspects.extend(in_flight);
        notes.suspects.sort_unstable();
        notes.suspects.dedup();
        if let Some(row) = alone {
            notes.ended_alone(row, ending);
        }
        (notes, Some(ending))
    }

    /// The process ended while this row was the only one on its way.
    fn ended_alone(&mut self, row: (u64, u64), ending: RunEnd) {
        let is_culprit = match ending {
            RunEnd::Aborted => true,
            RunEnd::OutOfMemory => count(&mut self.memory_kills, row) >= MEMORY_KILLS,
            RunEnd::Killed | RunEnd::Unknown => count(&mut self.kills, row) >= OTHER_KILLS,
        };
        if is_culprit {
            self.condemned.push(row);
            self.too_large
                .extend((ending == RunEnd::OutOfMemory).then_some(row));
        }
    }
}

/// Counts one more kill of a row; returns how many there were.
fn count(kills: &mut Vec<(u64, u64, u32)>, (split, row): (u64, u64)) -> u32 {
    let mut all: BTreeMap<(u64, u64), u32> =
        kills.iter().map(|&(s, r, times)| ((s, r), times)).collect();
    let times = all.entry((split, row)).or_default();
    *times += 1;
    let counted = *times;
    *kills = all
        .into_iter()
        .map(|((s, r), times)| (s, r, times))
        .collect();
    counted
}

/// The ranges that a file notes: split, first row, end.
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
