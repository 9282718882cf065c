//! The marker of an output that is divided into the folders of shards. It keeps outputs of another
//! number of shards, and of runs without shards, out of the same folder, where readers would find
//! rows twice.
//!
//! The marker is the file `_latentflow/_shards.json` below the configured path. The first shard
//! creates it exclusively. A run without shards takes its writer lease first and then looks for the
//! marker; in a bucket it looks for it again before each commit. A shard creates the marker first
//! and then looks for a run without shards. So at least one of two runs that start at the same time
//! finds the other.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::fs_durable::{create_dir_all_synced, create_temp, fsync_dir, temp_path};
use crate::json::to_json;
use crate::shard::{Shard, first_and_last_folder};
use crate::sink::STATE_DIR;
use crate::sink::coverage_snapshot::CoverageSnapshot;
use crate::sink::data_files::data_files;
use crate::sink::fencing_epoch::abort_stale_uploads;
use crate::sink::file_lock::LOCK;
use crate::sink::images::NAMES;
use crate::sink::writer_lease::part_number;
use crate::storage::Location;

/// The name of the marker in the folder of the state. The underscore hides it from readers of the
/// glob `<path>/*/`, which matches the folder of the state as well.
pub(super) const MARKER: &str = "_shards.json";

/// Number of attempts to read a marker that another process is writing, and the wait between them.
const READ_ATTEMPTS: u32 = 20;
const READ_WAIT: Duration = Duration::from_millis(50);

/// The content of the marker.
#[derive(Debug, Serialize, Deserialize)]
struct ShardMarker {
    /// The number of shards.
    shards: u32,
}

/// The number of shards whose folders are in `folder`; `None` if it has no marker.
///
/// # Errors
/// If the marker cannot be read.
pub fn shard_count(folder: &Location) -> Result<Option<u32>, StageError> {
    let marker = marker(folder);
    let mut attempts = 0;
    loop {
        let text = match marker.read() {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            // The run reports a file in place of the folder itself.
            Err(StageError::Io { source, .. }) if source.kind() == ErrorKind::NotADirectory => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        attempts += 1;
        match serde_json::from_slice::<ShardMarker>(&text) {
            Ok(found) => return Ok(Some(found.shards)),
            Err(_) if attempts < READ_ATTEMPTS => sleep(READ_WAIT),
            Err(error) => {
                return Err(StageError::Other(format!(
                    "{marker}: invalid record of the number of shards: {error}; remove it if no \
                     shard is being started"
                )));
            }
        }
    }
}

/// Checks that a run without shards may write to `folder`.
///
/// # Errors
/// [`StageError::Refused`] if the folder holds the folders of shards; other errors if that cannot
/// be determined.
pub fn check_undivided(folder: &Location) -> Result<(), StageError> {
    match shard_count(folder)? {
        None => Ok(()),
        Some(count) => Err(refused_by_shards(folder, count)),
    }
}

/// The refusal of a folder that holds the folders of shards.
fn refused_by_shards(folder: &Location, count: u32) -> StageError {
    let (first, last) = first_and_last_folder(count);
    StageError::Refused(format!(
        "{folder}: holds the output of {count} shards (`{first}` to `{last}`), and readers would find \
         rows twice; run with `--shard 0/{count}` to `--shard {}/{count}`, use another path, or delete \
         the folder",
        count.saturating_sub(1)
    ))
}

/// The folder that holds the folder of a shard; `None` if `folder` is not the folder of a shard,
/// such as that of rejects within one.
#[must_use]
pub fn parent(folder: &Location, shard: Shard) -> Option<Location> {
    match folder {
        Location::Local(path) => {
            let is_of_shard = path.file_name()? == shard.folder().as_str();
            let above = path.parent().filter(|_| is_of_shard)?;
            Some(Location::Local(above.to_path_buf()))
        }
        Location::Remote(prefix) => {
            let (above, name) = prefix.parent()?;
            (name == shard.folder()).then_some(Location::Remote(above))
        }
    }
}

/// Checks that a shard may write to its folder in `parent`. Changes nothing.
///
/// # Errors
/// [`StageError::Refused`] if `parent` belongs to another number of shards or to a run without
/// shards; other errors if that cannot be determined.
pub fn check_shard(parent: &Location, shard: Shard) -> Result<(), StageError> {
    match shard_count(parent)? {
        Some(count) if count != shard.count() => {
            return Err(StageError::Refused(format!(
                "{parent}: holds the output of {count} shards, and this run is shard {shard}, so \
                 readers would find rows twice; use {count} shards, use another path, or delete the \
                 folder",
            )));
        }
        _ => {}
    }
    if is_undivided(parent)? {
        return Err(StageError::Refused(format!(
            "{parent}: holds the output of a run without `--shard`, and this run is shard {shard}, so \
             readers would find rows twice; use another path, or delete that output with `latentflow \
             reset`"
        )));
    }
    Ok(())
}

/// Makes `parent` the folder of this number of shards, before the folder of `shard` is written.
/// Shards may do so at the same time.
///
/// # Errors
/// Those of [`check_shard`], and an error if the marker cannot be written.
pub fn claim(parent: &Location, shard: Shard) -> Result<(), StageError> {
    // A refused shard must not stop the run that owns the folder, so it is refused before it
    // creates the marker.
    check_shard(parent, shard)?;
    let shards = shard.count();
    let is_new = create(&marker(parent), &to_json(&ShardMarker { shards })?)?;
    if let Location::Remote(prefix) = parent {
        let aborted = abort_stale_uploads(&prefix.join(STATE_DIR));
        aborted.map_err(|error| parent.io_error(error))?;
    }
    let checked = check_shard(parent, shard);
    if checked.is_err() && is_new {
        marker(parent).remove()?;
    }
    checked
}

fn marker(folder: &Location) -> Location {
    folder.join(STATE_DIR).join(MARKER)
}

/// Whether a folder holds the output of a run without shards, or such a run is writing to it.
fn is_undivided(folder: &Location) -> Result<bool, StageError> {
    let state = folder.join(STATE_DIR);
    let is_part = |name: &str| part_number(name).is_some();
    Ok(state.local().map_or(Ok(false), is_locked)?
        || !CoverageSnapshot::load(folder)?.history.writers.is_empty()
        || data_files(folder)?
            .iter()
            .any(|file| is_part(&file.entry.name))
        || state
            .local()
            .is_some_and(|state| state.join(NAMES).exists()))
}

/// Whether a writer holds the lock of a folder.
fn is_locked(state: &Path) -> Result<bool, StageError> {
    let path = state.join(LOCK);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        file => file.map_err(StageError::io(&path))?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(StageError::io(&path)(error)),
    }
}

/// Creates a file that does not exist yet. Returns `false` if it exists.
fn create(marker: &Location, text: &[u8]) -> Result<bool, StageError> {
    match marker {
        Location::Local(path) => create_local(path, text),
        Location::Remote(object) => object
            .put_if_absent(text)
            .map_err(|error| marker.io_error(error)),
    }
}

fn create_local(path: &Path, text: &[u8]) -> Result<bool, StageError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    create_dir_all_synced(folder)?;
    // Shards on other machines may create the marker at the same time.
    let nonce = RandomState::new().hash_one(std::process::id());
    let temporary = temp_path(&path.with_file_name(format!("{MARKER}-{nonce:016x}")));
    let write = |mut file: File| {
        file.write_all(text)?;
        file.sync_all()
    };
    create_temp(&temporary)
        .and_then(write)
        .map_err(StageError::io(&temporary))?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary).map_err(StageError::io(&temporary))?;
    let created = match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            // Some file systems have no hard links. Readers wait until the file is complete.
            let options = OpenOptions::new().write(true).create_new(true).open(path);
            options.and_then(write)
        }
        linked => linked,
    };
    match created {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        created => {
            created.map_err(StageError::io(path))?;
            fsync_dir(folder)?;
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::sink::file_lock::FileLock;

    fn shard(text: &str) -> Shard {
        text.parse().unwrap()
    }

    #[test]
    fn first_shard_decides_the_number_of_shards() {
        let folder = tempfile::tempdir().unwrap();
        let out = Location::from(folder.path().join("a/out").as_path());
        assert_eq!(shard_count(&out).unwrap(), None);
        claim(&out, shard("1/3")).unwrap();
        claim(&out, shard("2/3")).unwrap();
        assert_eq!(shard_count(&out).unwrap(), Some(3));
        let refused = claim(&out, shard("2/4"));
        assert!(
            matches!(refused, Err(StageError::Refused(_))),
            "{refused:?}"
        );
        assert!(matches!(check_undivided(&out), Err(StageError::Refused(_))));
        let left: Vec<_> = fs::read_dir(out.join(STATE_DIR).to_path())
            .unwrap()
            .collect();
        assert_eq!(left.len(), 1, "only the marker is left");
    }

    #[test]
    fn threads_that_create_the_marker_agree_on_one() {
        let folder = tempfile::tempdir().unwrap();
        let out = Location::from(folder.path());
        let claimed = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..=8)
                .map(|count| {
                    let (out, own) = (&out, shard(&format!("0/{count}")));
                    scope.spawn(move || (count, claim(out, own).is_ok()))
                })
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join().unwrap());
            joined
                .filter(|(_, is_claimed)| *is_claimed)
                .collect::<Vec<_>>()
        });
        let count = shard_count(&out).unwrap().unwrap();
        assert_eq!(claimed, [(count, true)]);
    }

    #[test]
    fn running_writer_without_shards_keeps_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let out = Location::from(folder.path());
        let lock = FileLock::acquire(folder.path()).unwrap();
        let refused = claim(&out, shard("0/2")).unwrap_err().to_string();
        assert!(refused.contains("a run without `--shard`"), "{refused}");
        assert_eq!(shard_count(&out).unwrap(), None);
        drop(lock);
        claim(&out, shard("0/2")).unwrap();
        let locked = FileLock::acquire(folder.path());
        assert!(matches!(locked, Err(StageError::Refused(_))), "{locked:?}");
    }

    #[test]
    fn incomplete_marker_is_reported_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let out = Location::from(folder.path());
        fs::create_dir(folder.path().join(STATE_DIR)).unwrap();
        fs::write(marker(&out).to_path(), "").unwrap();
        let error = claim(&out, shard("0/2")).unwrap_err().to_string();
        assert!(
            error.contains("_latentflow/_shards.json: invalid record"),
            "{error}"
        );
    }

    #[test]
    fn parent_is_that_of_the_folder_of_the_shard() {
        let own = shard("3/16");
        let parent = |path: &str| parent(&Location::Local(path.into()), own);
        assert_eq!(
            parent("out/shard-03-of-16"),
            Some(Location::Local("out".into()))
        );
        assert_eq!(parent("out/shard-03-of-16/_latentflow/rejects"), None);
        assert_eq!(parent("out/shard-04-of-16"), None);
    }
}
