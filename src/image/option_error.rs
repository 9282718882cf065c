//! The reasons that an option of images is invalid.

use thiserror::Error;

use crate::image::resample::options::{ResampleFilter, ResampleLibrary};

/// The reason that an option of images is invalid.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ImageOptionError {
    /// The number of values is not that of the channels.
    #[error("`{name}` has {count} values for {channels} channels")]
    ValueCount {
        /// The name of the option.
        name: &'static str,
        /// Number of its values.
        count: usize,
        /// Number of channels of a pixel.
        channels: usize,
    },
    /// A value is infinite or not a number.
    #[error("`{0}` holds a value that is not finite")]
    NotFinite(&'static str),
    /// A standard deviation is zero or negative.
    #[error("`std` must be above 0")]
    StdNotPositive,
    /// The range of normalized values does not ascend.
    #[error("`range` must ascend, such as [0.0, 1.0]; met {0:?}")]
    Range([f32; 2]),
    /// The values of black and white do not ascend.
    #[error(
        "[{0}, {1}] is not a range of sample values; expected the values of black and of white in \
         ascending order, such as [0, 4095]"
    )]
    ValueRange(f64, f64),
    /// A library does not have the filter.
    #[error("{library} does not offer the filter {filter}")]
    FilterNotOffered {
        /// The filter.
        filter: ResampleFilter,
        /// The library that is reproduced.
        library: ResampleLibrary,
    },
    /// A library has the filter with a fixed antialiasing.
    #[error("{library} offers the filter {filter} only without `antialias = {antialias}`")]
    AntialiasNotOffered {
        /// The filter.
        filter: ResampleFilter,
        /// The library that is reproduced.
        library: ResampleLibrary,
        /// The requested antialiasing.
        antialias: bool,
    },
    /// The steps give images of different sizes.
    #[error(
        "the steps give images of different sizes; end them with `center_crop`, or with `pad` after \
         `resize` of the longer side"
    )]
    VariableSize,
    /// A resize step sets one side, but has two lengths.
    #[error("`size` has two numbers, but `side` names one side; write one number")]
    TwoSides,
    /// The value of the padding is not a sample.
    #[error("`value` is {0}; expected a sample from 0 to 255")]
    NotASample(f32),
    /// An image is too long to be resized.
    #[error("{height} x {width} pixels have a side of more than 1048576 pixels")]
    SideTooLong {
        /// The height.
        height: usize,
        /// The width.
        width: usize,
    },
    /// A step of the preprocessing makes an image larger than the limit.
    #[error(
        "a step of the preprocessing makes {height} x {width} pixels, more than the limit of \
         {max_pixels} pixels"
    )]
    StepTooLarge {
        /// The height after the step.
        height: usize,
        /// The width after the step.
        width: usize,
        /// `limits.pixels` of the pipeline.
        max_pixels: u64,
    },
    /// The text of a watermark has no visible character.
    #[error("the text is blank; write at least one visible character")]
    BlankText,
    /// The text of a watermark has a character that the font lacks.
    #[error(
        "the font has no glyph for `{}`; it contains ASCII and Latin-1",
        .0.escape_debug()
    )]
    UnknownCharacter(char),
}
