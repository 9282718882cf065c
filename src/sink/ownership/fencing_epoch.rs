//! The epoch of an output in a bucket, which replaces a lock: each run claims the next number, and
//! only the run with the highest number may write.
//!
//! An epoch is an object that the store lets only one writer create: `_latentflow/epoch-000003`.
//! The number is part of the name of every object that a run writes, so two runs never write the
//! same object. The object of the highest epoch is never removed, so that no number is used twice.
//!
//! A request may still be in flight after its run has ended. An upload is therefore recorded before
//! its run checks the epoch and completes the upload. A run that claims an epoch aborts all recorded
//! uploads before it lists the output, so that they can no longer be finished.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::time::SystemTime;

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::sink::STATE_DIR;
use crate::sink::ownership::shard_marker;
use crate::sink::ownership::shard_marker::MARKER;
use crate::storage::{Location, ObjectPath};

/// The epoch that a run has claimed.
#[derive(Debug)]
pub struct FencingEpoch {
    prefix: ObjectPath,
    number: u32,
}

const NAME: &str = "epoch-";
const UPLOAD: &str = "upload-";

/// Maximum number of attempts to claim an epoch.
const MAX_ATTEMPTS: u32 = 100;

impl FencingEpoch {
    /// Claims the next epoch of a prefix, after which runs with an earlier epoch may no longer
    /// write.
    ///
    /// # Errors
    /// If a request fails, if the prefix holds the prefixes of shards, if the store does not
    /// support conditional creation, or if other runs claim each attempted epoch first.
    pub fn claim(prefix: &ObjectPath) -> Result<Self, StageError> {
        let failed = |error: io::Error| Location::Remote(prefix.clone()).io_error(error);
        let state = prefix.join(STATE_DIR);
        let text = text();
        for _ in 0..MAX_ATTEMPTS {
            let known = self::known(prefix)?;
            let number = known.iter().max().copied().unwrap_or(0).checked_add(1);
            let number = number.ok_or_else(|| {
                StageError::new(
                    ErrorCode::OutputExhausted,
                    format!("{prefix}: all epoch numbers are used"),
                )
            })?;
            let claim = state.join(&name(number));
            if claim.put_if_absent(text.as_bytes()).map_err(failed)? {
                // A store that lets this run create the object twice would let another run create
                // it.
                if claim
                    .put_if_absent(self::text().as_bytes())
                    .map_err(failed)?
                {
                    return Err(StageError::new(
                        ErrorCode::StoreUnsupported,
                        format!(
                            "{prefix}: the store does not support exclusive creation (it ignores \
                         `If-None-Match: *` on PUT); write to a local folder, and copy it"
                        ),
                    ));
                }
                // If responses were lost, other runs may have claimed later epochs, which have
                // precedence.
                if self::known(prefix)?.iter().any(|&other| other > number) {
                    continue;
                }
                // Afterwards no file of an earlier run can appear, since a run that records an
                // upload later checks the epoch first.
                abort_stale_uploads(&state).map_err(failed)?;
                // Earlier epochs are redundant.
                for earlier in known {
                    if let Err(error) = state.join(&name(earlier)).remove() {
                        tracing::debug!(
                            location = %prefix, epoch = earlier, %error,
                            "cannot remove an earlier epoch"
                        );
                    }
                }
                return Ok(Self {
                    prefix: prefix.clone(),
                    number,
                });
            }
        }
        Err(StageError::new(
            ErrorCode::OutputFenced,
            format!(
                "{prefix}: other runs have claimed each of {MAX_ATTEMPTS} epochs first; stop these runs"
            ),
        ))
    }

    /// The location of the record of the current upload. A run has one upload at a time.
    pub(crate) fn upload_record(&self) -> ObjectPath {
        self.prefix
            .join(STATE_DIR)
            .join(&format!("{UPLOAD}{:06}", self.number))
    }

    /// The number of the epoch.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Checks that no later run has claimed the prefix.
    ///
    /// # Errors
    /// If a later run has claimed it, if shards have claimed it, or if the request fails.
    pub fn check(&self) -> Result<(), StageError> {
        match known(&self.prefix)?.into_iter().max() {
            Some(highest) if highest > self.number => Err(StageError::new(
                ErrorCode::OutputFenced,
                format!(
                    "{}: another run or another sink of this run has started to write here (its \
                 epoch is {highest}, the epoch of this sink is {}); that run processes the \
                 uncommitted rows",
                    self.prefix, self.number
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// The content of an epoch object. It is unique to the run, so that a run recognizes its own object
/// if the response to its creation was lost.
fn text() -> String {
    let begun = humantime::format_rfc3339_seconds(SystemTime::now());
    // Each `RandomState` has its own random keys.
    let nonce = RandomState::new().hash_one(std::process::id());
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{{\"writer\":\"latentflow {version}\",\"begun\":\"{begun}\",\"nonce\":\"{nonce:016x}\"}}\n"
    )
}

/// Aborts the uploads of earlier runs, which have ended or are still running.
pub(crate) fn abort_stale_uploads(state: &ObjectPath) -> io::Result<()> {
    let names = state.children()?.into_iter().map(|entry| entry.name);
    names
        .filter(|name| name.starts_with(UPLOAD))
        .try_for_each(|name| state.join(&name).abort_recorded_upload())
}

fn name(number: u32) -> String {
    format!("{NAME}{number:06}")
}

/// The numbers of the epochs of a prefix.
///
/// # Errors
/// If the prefix holds the prefixes of shards, or if the request fails.
fn known(prefix: &ObjectPath) -> Result<Vec<u32>, StageError> {
    let location = Location::Remote(prefix.clone());
    let listed = prefix.join(STATE_DIR).children();
    let listed = listed.map_err(|error| location.io_error(error))?;
    if listed.iter().any(|entry| entry.name == MARKER) {
        shard_marker::check_undivided(&location)?;
    }
    let names = listed.iter().map(|entry| entry.name.as_str());
    Ok(names
        .filter_map(|name| name.strip_prefix(NAME)?.parse().ok())
        .collect())
}
