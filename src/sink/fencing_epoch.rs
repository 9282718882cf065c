//! The epoch of an output in a bucket, where there are no locks: each run claims the next number,
//! and the highest writes.
//!
//! An epoch is an object that the store lets one writer create: `_latentflow/epoch-000003`. The
//! number is part of the name of whatever a run writes, so no two runs ever write the same object.
//! The highest is never removed: a number that was given is not given again.
//!
//! A request may still be on its way when its run is dead. So an upload is noted before it is begun
//! to be sent, and who claims the next epoch gives up all that are noted, before it looks at what
//! is there: they cannot be finished any more.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::time::SystemTime;

use crate::error::StageError;
use crate::sink::STATE_DIR;
use crate::storage::{Location, S3Path};

/// A run's claim.
#[derive(Debug)]
pub struct FencingEpoch {
    prefix: S3Path,
    number: u32,
}

const NAME: &str = "epoch-";
const UPLOAD: &str = "upload-";

/// Claims that may be lost to others before this one gives up.
const TRIES: u32 = 100;

impl FencingEpoch {
    /// Claims the next epoch of a prefix: whoever wrote there before may write no more.
    ///
    /// # Errors
    /// When the store refuses, or cannot be asked.
    pub fn claim(prefix: &S3Path) -> Result<Self, StageError> {
        let failed = |error: io::Error| Location::Remote(prefix.clone()).io_error(error);
        let state = prefix.join(STATE_DIR);
        let text = text();
        for _ in 0..TRIES {
            let known = numbers(&state).map_err(failed)?;
            let number = known.iter().max().copied().unwrap_or(0).checked_add(1);
            let number = number
                .ok_or_else(|| StageError::Other(format!("{prefix}: there is no epoch left")))?;
            let claim = state.join(&name(number));
            if claim.put_if_absent(text.as_bytes()).map_err(failed)? {
                // A store that lets it be created once more would let another run do so.
                if claim
                    .put_if_absent(self::text().as_bytes())
                    .map_err(failed)?
                {
                    return Err(StageError::Other(format!(
                        "{prefix}: this store does not keep two writers apart (it ignores `If-None-Match: *` on PUT); \
                         write to a folder, and copy it"
                    )));
                }
                // While answers were lost, others may have claimed later epochs: theirs are to go
                // on.
                if numbers(&state)
                    .map_err(failed)?
                    .iter()
                    .any(|&other| other > number)
                {
                    continue;
                }
                // From here on no file of an earlier run can appear: who notes an upload later sees
                // the claim first.
                abort_stale_uploads(&state).map_err(failed)?;
                // They say nothing that this one does not say.
                for before in known {
                    if let Err(error) = state.join(&name(before)).remove() {
                        tracing::debug!("{prefix}: epoch {before} could not be removed: {error}");
                    }
                }
                return Ok(Self {
                    prefix: prefix.clone(),
                    number,
                });
            }
        }
        Err(StageError::Other(format!(
            "{prefix}: other runs begin to write here again and again; stop them first"
        )))
    }

    /// Where the upload that goes on is noted; a run has one at a time.
    pub fn upload_record(&self) -> S3Path {
        self.prefix
            .join(STATE_DIR)
            .join(&format!("{UPLOAD}{:06}", self.number))
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Looks whether a later run has claimed the prefix.
    ///
    /// # Errors
    /// When one has, or the store cannot be asked.
    pub fn check(&self) -> Result<(), StageError> {
        let known = numbers(&self.prefix.join(STATE_DIR));
        let known = known.map_err(|error| Location::Remote(self.prefix.clone()).io_error(error))?;
        match known.into_iter().max() {
            Some(highest) if highest > self.number => Err(StageError::Other(format!(
                "{}: another run, or another sink of this one, has begun to write here (epoch {highest}, this is {}); \
                 what was not committed is left to it",
                self.prefix, self.number
            ))),
            _ => Ok(()),
        }
    }
}

/// What a claim says. It differs from that of every other run, so that a claim whose answer was
/// lost is recognized.
fn text() -> String {
    let begun = humantime::format_rfc3339_seconds(SystemTime::now());
    // Each state has random keys of its own.
    let nonce = RandomState::new().hash_one(std::process::id());
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{{\"writer\":\"latentflow {version}\",\"begun\":\"{begun}\",\"nonce\":\"{nonce:016x}\"}}\n"
    )
}

/// What earlier runs were sending when they ended, or still are.
fn abort_stale_uploads(state: &S3Path) -> io::Result<()> {
    let names = state.children()?.into_iter().map(|entry| entry.name);
    names
        .filter(|name| name.starts_with(UPLOAD))
        .try_for_each(|name| state.join(&name).abort_recorded_upload())
}

fn name(number: u32) -> String {
    format!("{NAME}{number:06}")
}

fn numbers(state: &S3Path) -> io::Result<Vec<u32>> {
    let names = state.children()?.into_iter().map(|entry| entry.name);
    Ok(names
        .filter_map(|name| name.strip_prefix(NAME)?.parse().ok())
        .collect())
}
