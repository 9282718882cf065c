//! Isolates records that crash the process: the rows in flight are recorded on disk, and after two
//! starts without progress they are processed one at a time.
//!
//! A native library that aborts, or a record that needs more memory than is available, ends the
//! process without an error message. The files of this module survive such a crash. They are
//! written when a batch begins and ends, without a sync, since a crash of the process does not lose
//! the page cache. An orderly end of the run deletes them.

pub(crate) mod crash_state;
pub(crate) mod isolation;
pub(crate) mod slots;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

use crate::batch::provenance::Provenance;
use crate::error::StageError;
use crate::fs_durable::{
    create_dir_all_synced, remove_file_if_exists, state_file, write_atomically,
};
use crate::json::to_json;
use crate::system::{self, OomKills};
use crate::topology::poison_records::isolation::{Isolation, QuarantineReason};

use crash_state::{CrashState, MEMORY_KILLS, OTHER_KILLS, STARTS};

/// The name of the folder of these files.
const ATTEMPTS: &str = "attempts";

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
        remove_file_if_exists(&folder.join("alone"))?;
        remove_file_if_exists(&folder.join("aborted"))?;
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
}

/// Deletes the crash state under `state`, for example because rows get other numbers from now on.
///
/// # Errors
/// When the crash state cannot be deleted.
pub(crate) fn clear_crash_state(state: &Path) -> Result<(), StageError> {
    let folder = state.join(ATTEMPTS);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StageError::io(folder)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
