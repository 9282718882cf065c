//! The reasons that an image cannot be used, as texts of rejects.

use std::error::Error as _;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

use crate::batch::reject::RejectCode;
use crate::image::info::{DECODE_BYTES_PER_PIXEL, ImageFormat, ImageInfo};

/// The position in messages about an image whose decoder runs out of bytes.
pub(super) const UNFINISHED: &str = "before its image is complete";

/// The reason that an image cannot be decoded or encoded, with a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImageError {
    /// The bytes violate the format.
    #[error("{0}")]
    Malformed(String),
    /// The image ends before it is complete.
    #[error("{0}")]
    Truncated(String),
    /// The image is of a kind that is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// The image exceeds a limit.
    #[error("{0}")]
    TooLarge(String),
}

impl ImageError {
    /// The code for rejects and metrics.
    pub fn code(&self) -> RejectCode {
        match self {
            Self::Malformed(_) => RejectCode::Malformed,
            Self::Truncated(_) => RejectCode::Truncated,
            Self::Unsupported(_) => RejectCode::Unsupported,
            Self::TooLarge(_) => RejectCode::TooLarge,
        }
    }

    pub(super) fn malformed(format: ImageFormat, reason: impl Display) -> Self {
        Self::Malformed(format!("malformed {}: {reason}", format.name()))
    }

    pub(super) fn unsupported(format: ImageFormat, reason: impl Display) -> Self {
        Self::Unsupported(format!("unsupported {}: {reason}", format.name()))
    }

    /// Adds that the image is a part of a TIFF.
    pub(super) fn in_tiff(self) -> Self {
        let add = |message: String| format!("{message}, in a strip or tile of a TIFF");
        match self {
            Self::Malformed(message) => Self::Malformed(add(message)),
            Self::Truncated(message) => Self::Truncated(add(message)),
            Self::Unsupported(message) => Self::Unsupported(add(message)),
            Self::TooLarge(message) => Self::TooLarge(add(message)),
        }
    }

    pub(super) fn truncated(format: ImageFormat, bytes: &[u8], position: &str) -> Self {
        Self::Truncated(format!(
            "{} ends after {} bytes, {position}",
            format.name(),
            bytes.len()
        ))
    }

    pub(super) fn too_large(header: &ImageInfo, max_pixels: u64) -> Self {
        let ImageInfo {
            format,
            width,
            height,
            bytes_per_pixel,
        } = header;
        let name = format.name();
        if header.pixels() > max_pixels {
            return Self::TooLarge(format!(
                "{name} has {width} x {height} pixels, more than the limit of {max_pixels} pixels"
            ));
        }
        let needed = header.pixels().saturating_mul(*bytes_per_pixel);
        let allowed = max_pixels.saturating_mul(DECODE_BYTES_PER_PIXEL);
        Self::TooLarge(format!(
            "{name} of {width} x {height} pixels needs {needed} bytes to decode; the limit of \
             {max_pixels} pixels (limits.pixels) allows {allowed} ({DECODE_BYTES_PER_PIXEL} bytes \
             per pixel)"
        ))
    }

    pub(super) fn memory_exceeded(format: ImageFormat) -> Self {
        Self::TooLarge(format!(
            "the decoding of the {} takes more memory than allowed for its size",
            format.name()
        ))
    }

    pub(super) fn unknown(bytes: &[u8]) -> Self {
        match bytes {
            [] => Self::Truncated("the image is empty: it has 0 bytes".to_owned()),
            _ => {
                let start: Vec<String> = bytes
                    .iter()
                    .take(8)
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                let known = "JPEG, PNG, WebP, BMP, GIF, TIFF or PNM";
                Self::Unsupported(format!(
                    "not a {known} image: it begins with the bytes {}",
                    start.join(" ")
                ))
            }
        }
    }

    /// Converts an error of the `image` library, without the text that the library adds to that of
    /// the decoder.
    pub(super) fn from_library(
        format: ImageFormat,
        bytes: &[u8],
        error: &image::ImageError,
    ) -> Self {
        use image::error::UnsupportedErrorKind;
        let reason = error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string);
        match error {
            image::ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
                Self::truncated(format, bytes, UNFINISHED)
            }
            // The error variant of the `gif` library is not accessible, but its text is.
            _ if reason == "Unexpected End of File" => Self::truncated(format, bytes, UNFINISHED),
            _ if format == ImageFormat::WebP && webp_length(bytes) > bytes.len() as u64 => {
                Self::truncated(format, bytes, UNFINISHED)
            }
            image::ImageError::Limits(_) => Self::memory_exceeded(format),
            image::ImageError::Unsupported(error) => match error.kind() {
                UnsupportedErrorKind::GenericFeature(feature) => Self::unsupported(format, feature),
                UnsupportedErrorKind::Color(color) => {
                    Self::unsupported(format, format_args!("color type {color:?}"))
                }
                _ => Self::unsupported(format, error),
            },
            _ => Self::malformed(format, reason),
        }
    }

    /// Runs a decoder, and converts a panic to an error of the image.
    pub(super) fn catch<T>(
        format: ImageFormat,
        decode: impl FnOnce() -> Result<T, Self>,
    ) -> Result<T, Self> {
        let outcome = catch_unwind(AssertUnwindSafe(decode));
        outcome.unwrap_or_else(|_| Err(Self::malformed(format, "its decoder panicked")))
    }
}

/// The length that the header of a WebP file states, in bytes.
fn webp_length(bytes: &[u8]) -> u64 {
    match bytes {
        [_, _, _, _, a, b, c, d, ..] => u64::from(u32::from_le_bytes([*a, *b, *c, *d])) + 8,
        _ => 0,
    }
}
