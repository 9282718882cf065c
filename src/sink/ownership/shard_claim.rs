//! The claim of an output by the runs of shards, which refuses folders with another output.

use std::fs;
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::fs_durable::{create_dir_all_synced, create_temp, fsync_dir, temp_path};
use crate::json::to_json;
use crate::shard::Shard;
use crate::sink::STATE_DIR;
use crate::sink::dataset::data_files::data_files;
use crate::sink::images::NAMES;
use crate::sink::ownership::fencing_epoch::abort_stale_uploads;
use crate::sink::ownership::file_lock::LOCK;
use crate::sink::ownership::shard_marker::{MARKER, ShardMarker, marker, shard_count};
use crate::sink::ownership::writer_lease::part_number;
use crate::sink::parquet::coverage_snapshot::CoverageSnapshot;
use crate::storage::Location;

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
/// A refusal if `parent` belongs to another number of shards or to a run without
/// shards; other errors if that cannot be determined.
pub(crate) fn check_shard(parent: &Location, shard: Shard) -> Result<(), StageError> {
    match shard_count(parent)? {
        Some(count) if count != shard.count() => {
            return Err(StageError::new(
                ErrorCode::OutputShards,
                format!(
                    "{parent}: holds the output of {count} shards, and this run is shard {shard}, so \
                 readers would find rows twice; use {count} shards, use another path, or delete the \
                 folder",
                ),
            ));
        }
        _ => {}
    }
    if is_undivided(parent)? {
        return Err(StageError::new(
            ErrorCode::OutputShards,
            format!(
                "{parent}: holds the output of a run without `--shard`, and this run is shard {shard}, so \
             readers would find rows twice; use another path, or delete that output with `latentflow \
             reset`"
            ),
        ));
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
