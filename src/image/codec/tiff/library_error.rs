//! The errors of the `tiff` library as errors of an image.

use std::io::ErrorKind;

use tiff::TiffError;

use crate::image::error::{ImageError, UNFINISHED};
use crate::image::info::ImageFormat;

/// Converts an error of the library.
pub(super) fn map_error(bytes: &[u8], error: &TiffError) -> ImageError {
    match error {
        TiffError::IoError(io) if io.kind() == ErrorKind::UnexpectedEof => {
            ImageError::truncated(ImageFormat::Tiff, bytes, UNFINISHED)
        }
        TiffError::UnsupportedError(kind) => ImageError::unsupported(ImageFormat::Tiff, kind),
        TiffError::LimitsExceeded => ImageError::memory_exceeded(ImageFormat::Tiff),
        TiffError::FormatError(kind) => ImageError::malformed(ImageFormat::Tiff, kind),
        error => ImageError::malformed(ImageFormat::Tiff, error),
    }
}
