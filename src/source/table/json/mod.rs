//! Values of JSON: a strict scan of lines, the types of values, and decoders without loss.

pub(crate) mod decoders;
pub(crate) mod scan;
pub(crate) mod types;
