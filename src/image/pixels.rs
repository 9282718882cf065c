//! Decoded pixels, and what decoders and resizers share: the mode of decoding, and the limit of its memory.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::image::pixel_format::Channels;

/// A decoded image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// The number of columns.
    pub width: usize,
    /// The number of rows.
    pub height: usize,
    /// The channels of a pixel.
    pub channels: Channels,
    /// The interleaved bytes, row by row: `height * width * channels.count()` bytes.
    pub data: Vec<u8>,
}

/// How an image is decoded that is resized afterwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DecodeMode {
    /// In its size.
    #[default]
    Full,
    /// JPEGs at 1/2, 1/4 or 1/8 of their size, if that leaves at least twice the rows and columns of
    /// the target. Resized pixels differ by about 0.4 steps of 255 in the mean.
    Scaled,
}
