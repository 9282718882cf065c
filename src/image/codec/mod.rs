//! The decoders of the formats. Each reads the size of an image, and decodes its samples.

pub(crate) mod gif;
pub(crate) mod image_rs;
pub(crate) mod jpeg;
pub(crate) mod png;
pub(crate) mod png_text;
pub(crate) mod tiff;
