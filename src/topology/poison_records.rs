//! Isolates records that crash the process: the rows in flight are recorded on disk, and after two
//! starts without progress they are processed one at a time.
//!
//! A native library that aborts, or a record that needs more memory than is available, ends the
//! process without an error message. The files of this module survive such a crash. They are
//! written when a batch begins and ends, without a sync, since a crash of the process does not lose
//! the page cache. An orderly end of the run deletes them.

mod crash_state;

use std::fs::{self, File};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

use crate::batch::{Provenance, RejectCode};
use crate::error::StageError;
use crate::fs_durable::{create_dir_all_synced, state_file, write_atomically};
use crate::json::to_json;
use crate::system::{self, OomKills};

use crash_state::{CrashState, MEMORY_KILLS, OTHER_KILLS, STARTS};

/// The number of bytes of a slot in the file of batches in flight. If a batch has more row ranges
/// than fit, its first ranges are recorded.
const SLOT_BYTES: usize = 256;

/// The name of the folder of these files.
const ATTEMPTS: &str = "attempts";

/// How a part of a batch is processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    /// Concurrently with other batches.
    None,
    /// While no other record is in flight: if the process crashes, this row is the cause.
    Single,
    /// Not at all: it is rejected.
    Quarantined(QuarantineReason),
}

/// Why a row is rejected without being processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuarantineReason {
    /// The process aborted, or was killed [`OTHER_KILLS`] times, while the row was processed alone.
    Crashed,
    /// The kernel killed the process for lack of memory [`MEMORY_KILLS`] times.
    TooLarge,
}

impl QuarantineReason {
    pub(super) fn code(self) -> RejectCode {
        match self {
            Self::Crashed => RejectCode::Crashed,
            Self::TooLarge => RejectCode::TooLarge,
        }
    }

    pub(super) fn reason(self) -> String {
        match self {
            Self::Crashed => format!(
                "the process crashed when only this record was in flight: a native library \
                 aborted, or the process was killed {OTHER_KILLS} times"
            ),
            Self::TooLarge => format!(
                "the kernel killed the process for lack of memory {MEMORY_KILLS} times while only \
                 this record was in flight; replay it with a higher memory limit"
            ),
        }
    }
}

/// Records the rows in flight of a running pipeline. Does nothing if the pipeline has no local
/// state folder.
pub(super) struct PoisonRecordTracker {
    folder: Option<PathBuf>,
    state: CrashState,
    slots: u64,
    file: Option<Mutex<File>>,
    /// The number of batches that have been processed.
    processed: watch::Sender<u64>,
    /// Held shared by inference requests, and exclusively by a row that is processed alone.
    access: Arc<RwLock<()>>,
}

impl PoisonRecordTracker {
    /// Loads the crash state that earlier starts left under `state`, and starts an empty record of
    /// rows in flight. `done` is the number of source rows that the sinks have committed, `slots`
    /// the maximum number of batches in flight.
    ///
    /// # Errors
    /// When the crash state cannot be written.
    pub(super) fn open(state: Option<&Path>, done: u64, slots: usize) -> Result<Self, StageError> {
        Self::open_with_kills(state, done, slots, system::oom_kills())
    }

    /// As [`Self::open`], with the kernel's count of processes killed for lack of memory.
    fn open_with_kills(
        state: Option<&Path>,
        done: u64,
        slots: usize,
        kernel: Option<OomKills>,
    ) -> Result<Self, StageError> {
        let (slots, processed, access) =
            (slots.max(1) as u64, watch::Sender::new(0), Arc::default());
        let Some(folder) = state.map(|state| state.join(ATTEMPTS)) else {
            return Ok(Self {
                folder: None,
                state: CrashState::default(),
                slots,
                file: None,
                processed,
                access,
            });
        };
        create_dir_all_synced(&folder)?;
        let (crash_state, run_end) = CrashState::load(&folder, done, kernel);
        write_atomically(&folder.join("notes.json"), &to_json(&crash_state)?)?;
        remove(&folder.join("alone"))?;
        remove(&folder.join("aborted"))?;
        let path = folder.join("in-flight");
        let file = File::create(&path).map_err(StageError::io(&path))?;
        let tracker = Self {
            folder: Some(folder),
            state: crash_state,
            slots,
            file: Some(Mutex::new(file)),
            processed,
            access,
        };
        tracker.install_abort_marker();
        if let Some(run_end) = run_end {
            tracker.log(&run_end);
        }
        Ok(tracker)
    }

    fn log(&self, run_end: &crash_state::RunEnd) {
        if !self.is_isolating() {
            tracing::warn!(cause = %run_end, "the previous run crashed");
            return;
        }
        tracing::warn!(
            crashes = self.state.starts,
            last_cause = %run_end,
            max_aborts = 1,
            max_memory_kills = MEMORY_KILLS,
            max_other_kills = OTHER_KILLS,
            "the previous runs crashed without progress; the records that were in flight are \
             processed one at a time, and a record that reaches a maximum is rejected"
        );
    }

    /// Waits until no row is processed alone, and keeps such rows waiting while the guard lives.
    /// For inference requests, which are not among the numbered batches.
    pub(super) async fn shared_access(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.access).read_owned().await
    }

    /// Waits until no inference request is in flight, and keeps new ones waiting while the guard
    /// lives. For a row that is processed alone.
    pub(super) async fn exclusive_access(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.access).write_owned().await
    }

    fn is_isolating(&self) -> bool {
        self.state.starts >= STARTS
    }

    /// Installs a signal handler that writes one byte to the file `aborted` when the process
    /// aborts. A kill leaves the file empty.
    fn install_abort_marker(&self) {
        #[cfg(unix)]
        if let Some(folder) = &self.folder {
            let file = state_file()
                .create(true)
                .append(true)
                .open(folder.join("aborted"));
            let registered = file.and_then(|file| {
                signal_hook::low_level::pipe::register(signal_hook::consts::SIGABRT, file)
            });
            if let Err(error) = registered {
                tracing::debug!(
                    %error,
                    "cannot install a handler for SIGABRT; aborts are counted as kills"
                );
            }
        }
    }

    /// Splits a part of a batch into ranges of its ordinals, each with its isolation.
    pub(super) fn parts(
        &self,
        provenance: &Provenance,
        part: Range<u64>,
    ) -> Vec<(Range<u64>, Isolation)> {
        if !self.is_isolating() && self.state.quarantined.is_empty() {
            return vec![(part, Isolation::None)];
        }
        let mut parts: Vec<(Range<u64>, Isolation)> = Vec::new();
        for ordinal in part {
            let isolation = self.isolation(provenance, ordinal);
            match parts.last_mut() {
                Some((last, Isolation::None)) if isolation == Isolation::None => last.end += 1,
                _ => parts.push((ordinal..ordinal + 1, isolation)),
            }
        }
        parts
    }

    fn isolation(&self, provenance: &Provenance, ordinal: u64) -> Isolation {
        let Some((split, row)) = u32::try_from(ordinal)
            .ok()
            .and_then(|ordinal| provenance.row(ordinal))
        else {
            return Isolation::None;
        };
        let split = split.id();
        if self.state.quarantined.contains(&(split, row)) {
            let is_too_large = self.state.too_large.contains(&(split, row));
            return Isolation::Quarantined(if is_too_large {
                QuarantineReason::TooLarge
            } else {
                QuarantineReason::Crashed
            });
        }
        let suspected =
            |&(of, start, end): &(u64, u64, u64)| of == split && (start..end).contains(&row);
        if self.is_isolating() && self.state.suspects.iter().any(suspected) {
            Isolation::Single
        } else {
            Isolation::None
        }
    }

    /// Records that a batch is in flight.
    pub(super) fn begin(&self, number: u64, provenance: &Provenance) {
        let ranges = provenance.ranges().iter();
        let ranges = ranges.map(|range| {
            format!(
                "{} {} {}\n",
                range.split.id(),
                range.rows.start,
                range.rows.end
            )
        });
        let mut text = String::new();
        for range in ranges.take_while(|range| range.len() < SLOT_BYTES) {
            if text.len() + range.len() <= SLOT_BYTES {
                text.push_str(&range);
            }
        }
        self.write_slot(number, &text);
    }

    /// Records that a batch has been processed, whether it failed or not.
    pub(super) fn end(&self, number: u64) {
        self.write_slot(number, "");
        self.processed.send_modify(|processed| *processed += 1);
    }

    fn write_slot(&self, number: u64, text: &str) {
        let Some(file) = &self.file else { return };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (number % self.slots) * SLOT_BYTES as u64;
        // A failed write only hinders the isolation of a poison record, so it does not end the run.
        let _ = file
            .seek(SeekFrom::Start(start))
            .and_then(|_| file.write_all(format!("{text:SLOT_BYTES$}").as_bytes()));
    }

    /// Waits until `numbers` batches have been processed, which means that none is in flight.
    pub(super) async fn wait_idle(&self, numbers: u64) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self
            .processed
            .subscribe()
            .wait_for(|&processed| processed >= numbers)
            .await;
    }

    /// Records that the one row of `provenance` is processed alone from now on, or, for `None`,
    /// that it has been processed.
    pub(super) fn record_single(&self, provenance: Option<&Provenance>) {
        let Some(folder) = &self.folder else { return };
        let path = folder.join("alone");
        let row = provenance.and_then(|provenance| provenance.row(0));
        let written = match row {
            Some((split, row)) => fs::write(&path, format!("{} {row} {}\n", split.id(), row + 1)),
            None => fs::remove_file(&path),
        };
        if let Err(error) = written {
            tracing::debug!(%error, "cannot record which row is processed alone");
        }
    }

    /// Ends the tracking after a run that has not crashed, so that no row is suspected any more.
    /// Unless the run has `finished`, the quarantined rows are kept for the next run.
    pub(super) fn close(&self, finished: bool) {
        let Some(folder) = &self.folder else { return };
        let cleared = if finished || self.state.quarantined.is_empty() {
            fs::remove_dir_all(folder)
        } else {
            fs::remove_file(folder.join("in-flight"))
        };
        if let Err(error) = cleared {
            tracing::debug!(
                folder = %folder.display(),
                %error,
                "cannot delete the crash state"
            );
        }
    }
}

/// Deletes the crash state under `state`, for example because rows get other numbers from now on.
///
/// # Errors
/// When the crash state cannot be deleted.
pub fn clear_crash_state(state: &Path) -> Result<(), StageError> {
    let folder = state.join(ATTEMPTS);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StageError::io(folder)(error)),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), StageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StageError::io(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
