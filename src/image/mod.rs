//! Images: decode, orient, resize, normalise into tensors, and back.

pub mod error;
pub mod format;
pub mod header;
mod jpeg;

pub use error::ImageError;
pub use header::{Format, Header, read_header};
