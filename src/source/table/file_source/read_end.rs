//! How the read of a file ends, and the isolation of panics.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::batch::reject::RejectCode;
use crate::text_excerpt::shorten;

/// Runs a reader and converts its error or its panic into a reject code and a reason.
pub(crate) fn catch_panic<T, E: ToString>(
    read: impl FnOnce() -> Result<T, E>,
) -> Result<T, (RejectCode, String)> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(outcome) => {
            outcome.map_err(|error| (RejectCode::Malformed, shorten(&error.to_string())))
        }
        Err(panic) => Err((RejectCode::Panicked, panicked(&*panic))),
    }
}

/// The reject reason for a panic of a reader.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    format!("the reader panicked: {}", shorten(message))
}
