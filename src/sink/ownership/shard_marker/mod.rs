//! The marker of an output that is divided into the folders of shards. It keeps outputs of another
//! number of shards, and of runs without shards, out of the same folder, where readers would find
//! rows twice.
//!
//! The marker is the file `_latentflow/_shards.json` below the configured path. The first shard
//! creates it exclusively. A run without shards takes its writer lease first and then looks for the
//! marker; in a bucket it looks for it again before each commit. A shard creates the marker first
//! and then looks for a run without shards. So at least one of two runs that start at the same time
//! finds the other.

use std::io::ErrorKind;
use std::thread::sleep;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::shard::first_and_last_folder;
use crate::sink::STATE_DIR;
use crate::storage::Location;

/// The name of the marker in the folder of the state. The underscore hides it from readers of the
/// glob `<path>/*/`, which matches the folder of the state as well.
pub(crate) const MARKER: &str = "_shards.json";

/// Number of attempts to read a marker that another process is writing, and the wait between them.
const READ_ATTEMPTS: u32 = 20;
const READ_WAIT: Duration = Duration::from_millis(50);

/// The content of the marker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ShardMarker {
    /// The number of shards.
    pub(crate) shards: u32,
}

/// The number of shards whose folders are in `folder`; `None` if it has no marker.
///
/// # Errors
/// If the marker cannot be read.
pub(crate) fn shard_count(folder: &Location) -> Result<Option<u32>, StageError> {
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
                return Err(StageError::new(
                    ErrorCode::StateCorrupt,
                    format!(
                        "{marker}: invalid record of the number of shards: {error}; remove it if no \
                     shard is being started"
                    ),
                ));
            }
        }
    }
}

/// Checks that a run without shards may write to `folder`.
///
/// # Errors
/// A refusal if the folder holds the folders of shards; other errors if that cannot
/// be determined.
pub(crate) fn check_undivided(folder: &Location) -> Result<(), StageError> {
    match shard_count(folder)? {
        None => Ok(()),
        Some(count) => Err(refused_by_shards(folder, count)),
    }
}

/// The refusal of a folder that holds the folders of shards.
fn refused_by_shards(folder: &Location, count: u32) -> StageError {
    let (first, last) = first_and_last_folder(count);
    StageError::new(
        ErrorCode::OutputShards,
        format!(
            "{folder}: holds the output of {count} shards (`{first}` to `{last}`), and readers would find \
         rows twice; run with `--shard 0/{count}` to `--shard {}/{count}`, use another path, or delete \
         the folder",
            count.saturating_sub(1)
        ),
    )
}

pub(super) fn marker(folder: &Location) -> Location {
    folder.join(STATE_DIR).join(MARKER)
}

#[cfg(test)]
mod tests;
