//! Finds the record that takes the whole process down: notes what is being worked on, and, after starts that came to
//! nothing, lets the suspects through one by one.
//!
//! A native library that aborts, or a record that needs more memory than there is, ends the process without a word. The
//! notes outlive it: they are written as batches begin and end, without waiting for the disk, which a dying process does
//! not need. An orderly end removes them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::batch::Provenance;
use crate::durable::{create_folders, write_atomically};
use crate::error::StageError;
use crate::json::to_json;

/// Starts that came to nothing before the suspects run one by one.
const STARTS: u32 = 2;
/// A process that is killed may have been killed for any reason: so many kills while the same record ran alone, and no
/// other did, are taken for its doing. One abort is enough.
const KILLS: u32 = 3;
/// Bytes of a place in the file of batches in flight; batches of more ranges than fit note the first ones.
const PLACE: usize = 256;

/// The folder of the notes.
const ATTEMPTS: &str = "attempts";

/// What is known from earlier starts.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Notes {
    /// Starts in a row that ended without a word and without progress.
    starts: u32,
    /// Source rows that the sinks had at the last start.
    done: u64,
    /// Rows that were being worked on when the process ended: split, first row, end.
    suspects: Vec<(u64, u64, u64)>,
    /// How often the process was killed while a row ran alone: split, row, times.
    kills: Vec<(u64, u64, u32)>,
    /// Rows that took the process down: split, row.
    condemned: Vec<(u64, u64)>,
}

/// How a part of a batch is to be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// Beside others.
    Usual,
    /// While nothing else is: if the process ends now, this row did it.
    Alone,
    /// Not at all: it is a reject.
    Condemned,
}

/// The notes of a running pipeline; does nothing where there is no place for them.
pub(super) struct Suspects {
    folder: Option<PathBuf>,
    notes: Notes,
    places: u64,
    file: Option<Mutex<File>>,
    carried: watch::Sender<u64>,
}

impl Suspects {
    /// Reads what earlier starts noted under `state`, and begins anew; `done` is how many source rows the sinks have,
    /// `places` how many batches can be in flight.
    ///
    /// # Errors
    /// When the notes cannot be written.
    pub(super) fn open(state: Option<&Path>, done: u64, places: usize) -> Result<Self, StageError> {
        let (places, carried) = (places.max(1) as u64, watch::Sender::new(0));
        let Some(folder) = state.map(|state| state.join(ATTEMPTS)) else {
            return Ok(Self { folder: None, notes: Notes::default(), places, file: None, carried });
        };
        create_folders(&folder)?;
        let notes = learn(&folder, done);
        write_atomically(&folder.join("notes.json"), &to_json(&notes)?)?;
        remove(&folder.join("alone"))?;
        remove(&folder.join("aborted"))?;
        let path = folder.join("in-flight");
        let file = File::create(&path).map_err(StageError::io(&path))?;
        let suspects = Self { folder: Some(folder), notes, places, file: Some(Mutex::new(file)), carried };
        suspects.hear_aborts();
        if suspects.is_careful() {
            tracing::warn!(
                "{} starts in a row ended without a word: the records that were being worked on run one by one now",
                suspects.notes.starts
            );
        }
        Ok(suspects)
    }

    fn is_careful(&self) -> bool {
        self.notes.starts >= STARTS
    }

    /// Has an abort leave a byte behind. A kill leaves nothing.
    fn hear_aborts(&self) {
        #[cfg(unix)]
        if let Some(folder) = &self.folder {
            let file = OpenOptions::new().create(true).append(true).open(folder.join("aborted"));
            let heard =
                file.and_then(|file| signal_hook::low_level::pipe::register(signal_hook::consts::SIGABRT, file));
            if let Err(error) = heard {
                tracing::debug!(%error, "aborts cannot be heard: they are taken for kills");
            }
        }
    }

    /// The parts of a batch, as ranges of its ordinals, and how each is to be carried.
    pub(super) fn parts(&self, provenance: &Provenance, part: Range<u64>) -> Vec<(Range<u64>, Care)> {
        if !self.is_careful() && self.notes.condemned.is_empty() {
            return vec![(part, Care::Usual)];
        }
        let mut parts: Vec<(Range<u64>, Care)> = Vec::new();
        for ordinal in part {
            let care = self.care(provenance, ordinal);
            match parts.last_mut() {
                Some((last, Care::Usual)) if care == Care::Usual => last.end += 1,
                _ => parts.push((ordinal..ordinal + 1, care)),
            }
        }
        parts
    }

    fn care(&self, provenance: &Provenance, ordinal: u64) -> Care {
        let Some((split, row)) = u32::try_from(ordinal).ok().and_then(|ordinal| provenance.row(ordinal)) else {
            return Care::Usual;
        };
        let split = split.id();
        if self.notes.condemned.contains(&(split, row)) {
            return Care::Condemned;
        }
        let suspected = |&(of, start, end): &(u64, u64, u64)| of == split && (start..end).contains(&row);
        if self.is_careful() && self.notes.suspects.iter().any(suspected) { Care::Alone } else { Care::Usual }
    }

    /// Notes that a batch is on its way.
    pub(super) fn begin(&self, number: u64, provenance: &Provenance) {
        let ranges = provenance.ranges().iter();
        let ranges = ranges.map(|range| format!("{} {} {}\n", range.split.id(), range.rows.start, range.rows.end));
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
        let _ = file.seek(SeekFrom::Start(place)).and_then(|_| file.write_all(format!("{text:PLACE$}").as_bytes()));
    }

    /// Waits until `numbers` batches have been carried: then nothing is in flight.
    pub(super) async fn idle(&self, numbers: u64) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.carried.subscribe().wait_for(|&carried| carried >= numbers).await;
    }

    /// Notes that the one row of `provenance` is alone from now on, or, for `None`, that it has come through.
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

    /// The run has ended in an orderly way: nobody is suspected any more. Where it has not finished, what was found
    /// out is kept until it has.
    pub(super) fn close(&self, finished: bool) {
        let Some(folder) = &self.folder else { return };
        let cleared = if finished || self.notes.condemned.is_empty() {
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

/// What the last start left behind, put together with what was known before it.
fn learn(folder: &Path, done: u64) -> Notes {
    let notes = fs::read(folder.join("notes.json")).ok();
    // Damaged notes are as good as none: they only help to find a culprit.
    let notes: Option<Notes> = notes.and_then(|text| serde_json::from_slice(&text).ok());
    let Some(mut notes) = notes else { return Notes { done, ..Notes::default() } };
    if !folder.join("in-flight").exists() {
        return Notes { done, condemned: notes.condemned, ..Notes::default() };
    }
    let in_flight = ranges(&folder.join("in-flight"));
    let alone = ranges(&folder.join("alone")).first().map(|&(split, row, _)| (split, row));
    let aborted = fs::metadata(folder.join("aborted")).is_ok_and(|file| file.len() > 0);
    if done > notes.done {
        (notes.starts, notes.suspects, notes.kills) = (0, Vec::new(), Vec::new());
    }
    notes.starts += 1;
    notes.done = done;
    notes.suspects.extend(in_flight);
    notes.suspects.sort_unstable();
    notes.suspects.dedup();
    if let Some((split, row)) = alone {
        let mut kills: BTreeMap<(u64, u64), u32> = notes.kills.iter().map(|&(s, r, times)| ((s, r), times)).collect();
        let times = kills.entry((split, row)).or_default();
        *times += if aborted { KILLS } else { 1 };
        if *times >= KILLS {
            notes.condemned.push((split, row));
        }
        notes.kills = kills.into_iter().map(|((s, r), times)| (s, r, times)).collect();
    }
    notes
}

/// The ranges that a file notes: split, first row, end.
fn ranges(path: &Path) -> Vec<(u64, u64, u64)> {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let range = |line: &str| {
        let mut numbers = line.trim_matches(|c: char| !c.is_ascii_digit()).split(' ').map(str::parse::<u64>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    text.lines().filter_map(range).collect()
}

fn remove(path: &Path) -> Result<(), StageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StageError::io(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;
    use crate::batch::Split;

    fn rows(rows: Range<u64>) -> Provenance {
        Provenance::rows(Split::new("s"), rows)
    }

    /// A start that finds `done` rows, works on `0..4`, and ends without a word, perhaps while row 2 is alone.
    fn start(state: &Path, done: u64, dies: Option<bool>) -> Vec<(Range<u64>, Care)> {
        let suspects = Suspects::open(Some(state), done, 3).unwrap();
        let parts = suspects.parts(&rows(0..6), 0..6);
        suspects.begin(0, &rows(4..6));
        suspects.begin(1, &rows(0..4));
        suspects.end(0);
        if let Some(aborts) = dies {
            suspects.alone(Some(&rows(1..2)));
            suspects.alone(None);
            suspects.alone(Some(&rows(2..3)));
            if aborts {
                fs::write(state.join("attempts/aborted"), "X").unwrap();
            }
        }
        parts
    }

    fn singles() -> Vec<(Range<u64>, Care)> {
        vec![(0..1, Care::Alone), (1..2, Care::Alone), (2..3, Care::Alone), (3..4, Care::Alone), (4..6, Care::Usual)]
    }

    fn found() -> Vec<(Range<u64>, Care)> {
        singles()
            .into_iter()
            .map(|(row, care)| if row == (2..3) { (row, Care::Condemned) } else { (row, care) })
            .collect()
    }

    #[test]
    fn the_third_start_without_progress_runs_the_suspects_one_by_one_and_an_abort_gives_the_culprit_away() {
        let state = tempfile::tempdir().unwrap();
        let usual = vec![(0..6, Care::Usual)];
        assert_eq!(start(state.path(), 7, None), usual);
        assert_eq!(start(state.path(), 7, None), usual);
        assert_eq!(start(state.path(), 7, Some(true)), singles());
        assert_eq!(start(state.path(), 7, None), found());
    }

    #[test]
    fn kills_count_only_when_they_hit_the_same_record_again_and_again() {
        let state = tempfile::tempdir().unwrap();
        (0..2).for_each(|_| drop(start(state.path(), 7, None)));
        for _ in 0..KILLS {
            assert_eq!(start(state.path(), 7, Some(false)), singles());
        }
        assert_eq!(start(state.path(), 7, None), found());
    }

    #[test]
    fn progress_and_an_orderly_end_clear_all_suspicion() {
        let state = tempfile::tempdir().unwrap();
        (0..3).for_each(|_| drop(start(state.path(), 7, None)));
        assert_eq!(start(state.path(), 8, None), vec![(0..6, Care::Usual)]);
        (0..3).for_each(|_| drop(start(state.path(), 8, None)));
        Suspects::open(Some(state.path()), 8, 3).unwrap().close(true);
        assert_eq!(start(state.path(), 8, None), vec![(0..6, Care::Usual)]);
    }

    #[test]
    fn nothing_is_in_flight_once_as_many_have_come_through_as_were_sent() {
        let suspects = Arc::new(Suspects::open(None, 0, 2).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        suspects.end(0);
        suspects.end(1);
        runtime.block_on(suspects.idle(2));
    }
}
