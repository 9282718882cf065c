//! Finds the record that takes the whole process down: notes what is being worked on, and, after
//! starts that came to nothing, lets the suspects through one by one.
//!
//! A native library that aborts, or a record that needs more memory than there is, ends the process
//! without a word. The notes outlive it: they are written as batches begin and end, without waiting
//! for the disk, which a dying process does not need. An orderly end removes them.

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

/// Bytes of a place in the file of batches in flight; batches of more ranges than fit note the
/// first ones.
const PLACE: usize = 256;

/// The folder of the notes.
const ATTEMPTS: &str = "attempts";

/// How a part of a batch is to be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    /// Beside others.
    None,
    /// While nothing else is: if the process ends now, this row did it.
    Single,
    /// Not at all: it is a reject.
    Quarantined(QuarantineReason),
}

/// What a row did to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuarantineReason {
    /// The process aborted, or was killed too often, while the row was the only one on its way.
    Crashed,
    /// The kernel killed it for lack of memory.
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
                "the process ended whenever this record was worked on alone: a native library may have aborted on it, or \
                 the process was killed {OTHER_KILLS} times"
            ),
            Self::TooLarge => format!(
                "the kernel killed the process for lack of memory {MEMORY_KILLS} times while this record was worked on alone; \
                 replay it where the process may have more memory"
            ),
        }
    }
}

/// The notes of a running pipeline; does nothing where there is no place for them.
pub(super) struct PoisonRecordTracker {
    folder: Option<PathBuf>,
    state: CrashState,
    places: u64,
    file: Option<Mutex<File>>,
    carried: watch::Sender<u64>,
    /// Whoever works for somebody who waits has a share of it; a row that runs alone has all of it.
    turns: Arc<RwLock<()>>,
}

impl PoisonRecordTracker {
    /// Reads what earlier starts noted under `state`, and begins anew; `done` is how many source
    /// rows the sinks have, `places` how many batches can be in flight.
    ///
    /// # Errors
    /// When the notes cannot be written.
    pub(super) fn open(state: Option<&Path>, done: u64, places: usize) -> Result<Self, StageError> {
        Self::open_by(state, done, places, system::oom_kills())
    }

    /// As [`Self::open`], with what the kernel has counted.
    fn open_by(
        state: Option<&Path>,
        done: u64,
        places: usize,
        kernel: Option<OomKills>,
    ) -> Result<Self, StageError> {
        let (places, carried, turns) =
            (places.max(1) as u64, watch::Sender::new(0), Arc::default());
        let Some(folder) = state.map(|state| state.join(ATTEMPTS)) else {
            return Ok(Self {
                folder: None,
                state: CrashState::default(),
                places,
                file: None,
                carried,
                turns,
            });
        };
        create_dir_all_synced(&folder)?;
        let (notes, ending) = CrashState::load(&folder, done, kernel);
        write_atomically(&folder.join("notes.json"), &to_json(&notes)?)?;
        remove(&folder.join("alone"))?;
        remove(&folder.join("aborted"))?;
        let path = folder.join("in-flight");
        let file = File::create(&path).map_err(StageError::io(&path))?;
        let suspects = Self {
            folder: Some(folder),
            state: notes,
            places,
            file: Some(Mutex::new(file)),
            carried,
            turns,
        };
        suspects.install_abort_marker();
        if let Some(ending) = ending {
            suspects.log(&ending);
        }
        Ok(suspects)
    }

    fn log(&self, ending: &crash_state::RunEnd) {
        if !self.is_careful() {
            tracing::warn!("the last start ended without a word: {ending}");
            return;
        }
        tracing::warn!(
            "{} starts in a row ended without a word and without progress (the last one: {ending}): the records that were \
             being worked on run one by one now. One becomes a reject after an abort, {MEMORY_KILLS} kills for lack of \
             memory, or {OTHER_KILLS} other kills while nothing else was worked on",
            self.state.starts
        );
    }

    /// A share of the process, for work beside the numbered batches; while a row runs alone there
    /// is none.
    pub(super) async fn turn(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.turns).read_owned().await
    }

    /// The whole process, for a row that runs alone.
    pub(super) async fn whole(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.turns).write_owned().await
    }

    fn is_careful(&self) -> bool {
        self.state.starts >= STARTS
    }

    /// Has an abort leave a byte behind. A kill leaves nothing.
    fn install_abort_marker(&self) {
        #[cfg(unix)]
        if let Some(folder) = &self.folder {
            let file = state_file()
                .create(true)
                .append(true)
                .open(folder.join("aborted"));
            let heard = file.and_then(|file| {
                signal_hook::low_level::pipe::register(signal_hook::consts::SIGABRT, file)
            });
            if let Err(error) = heard {
                tracing::debug!(%error, "aborts cannot be heard: they are taken for kills");
            }
        }
    }

    /// The parts of a batch, as ranges of its ordinals, and how each is to be carried.
    pub(super) fn parts(
        &self,
        provenance: &Provenance,
        part: Range<u64>,
    ) -> Vec<(Range<u64>, Isolation)> {
        if !self.is_careful() && self.state.condemned.is_empty() {
            return vec![(part, Isolation::None)];
        }
        let mut parts: Vec<(Range<u64>, Isolation)> = Vec::new();
        for ordinal in part {
            let care = self.isolation(provenance, ordinal);
            match parts.last_mut() {
                Some((last, Isolation::None)) if care == Isolation::None => last.end += 1,
                _ => parts.push((ordinal..ordinal + 1, care)),
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
        if self.state.condemned.contains(&(split, row)) {
            let is_too_large = self.state.too_large.contains(&(split, row));
            return Isolation::Quarantined(if is_too_large {
                QuarantineReason::TooLarge
            } else {
                QuarantineReason::Crashed
            });
        }
        let suspected =
            |&(of, start, end): &(u64, u64, u64)| of == split && (start..end).contains(&row);
        if self.is_careful() && self.state.suspects.iter().any(suspected) {
            Isolation::Single
        } else {
            Isolation::None
        }
    }

    /// Notes that a batch is on its way.
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
        for range in ranges.take_while(|range| range.len() < PLACE) {
            if text.len() + range.len() <= PLACE {
                text.push_str(&range);
            }
        }
        self.note(number, &text);
    }

    /// Notes that a batch has been carried through the graph, well or not.
    pub(super) fn end(&self, number: u64) {
        self.note(number, "");
        self.carried.send_modify(|carried| *carried += 1);
    }

    fn note(&self, number: u64, text: &str) {
        let Some(file) = &self.file else { return };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (number % self.places) * PLACE as u64;
        // A note that cannot be written costs the search for a culprit, not the run.
        let _ = file
            .seek(SeekFrom::Start(place))
            .and_then(|_| file.write_all(format!("{text:PLACE$}").as_bytes()));
    }

    /// Waits until `numbers` batches have been carried: then nothing is in flight.
    pub(super) async fn wait_idle(&self, numbers: u64) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self
            .carried
            .subscribe()
            .wait_for(|&carried| carried >= numbers)
            .await;
    }

    /// Notes that the one row of `provenance` is alone from now on, or, for `None`, that it has
    /// come through.
    pub(super) fn alone(&self, provenance: Option<&Provenance>) {
        let Some(folder) = &self.folder else { return };
        let path = folder.join("alone");
        let row = provenance.and_then(|provenance| provenance.row(0));
        let noted = match row {
            Some((split, row)) => fs::write(&path, format!("{} {row} {}\n", split.id(), row + 1)),
            None => fs::remove_file(&path),
        };
        if let Err(error) = noted {
            tracing::debug!(%error, "cannot note which record runs alone");
        }
    }

    /// The run has ended in an orderly way: nobody is suspected any more. Where it has not
    /// finished, what was found out is kept until it has.
    pub(super) fn close(&self, finished: bool) {
        let Some(folder) = &self.folder else { return };
        let cleared = if finished || self.state.condemned.is_empty() {
            fs::remove_dir_all(folder)
        } else {
            fs::remove_file(folder.join("in-flight"))
        };
        if let Err(error) = cleared {
            tracing::debug!(%error, "cannot clear {}", folder.display());
        }
    }
}

/// Forgets who was suspected: rows may bear other numbers from now on.
///
/// # Errors
/// When the notes cannot be removed.
pub fn forget(state: &Path) -> Result<(), StageError> {
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
