//! Reads a source batch by batch until its end, a request to stop, or the end of interest.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_stream::StreamExt;

use crate::batch::SourceBatch;
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::source::{Source, SourceHandle};

/// Maximum time until a request to stop is noticed while a source reads.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// Calls `take` with the batches of a source, and the number of all its records once it is known,
/// until it breaks. Returns `false` if `stop` became true before.
///
/// # Errors
/// Returns an error if the source fails, or the error of `take`.
pub(super) fn each_batch(
    source: Box<dyn Source>,
    stop: &AtomicBool,
    mut take: impl FnMut(SourceBatch, Option<u64>) -> Result<ControlFlow<()>, StageError>,
) -> Result<bool, StageError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.map_err(|error| {
        StageError::new(
            ErrorCode::ThreadFailed,
            format!("cannot start the runtime that reads the sources: {error}"),
        )
    })?;
    let SourceHandle {
        mut batches,
        mut total,
        ..
    } = source.open(&ResumeState::default())?;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let next = async { tokio::time::timeout(STOP_INTERVAL, batches.next()).await };
        match runtime.block_on(next) {
            Ok(Some(batch)) => {
                if take(batch?, total.known())?.is_break() {
                    return Ok(true);
                }
            }
            Ok(None) => return Ok(true),
            // The source is still reading.
            Err(_) => {}
        }
    }
}
