//! Why an image cannot be used, in the words of rejects.

use std::error::Error as _;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

use crate::batch::RejectCode;
use crate::image::probe::{DECODING, ImageFormat, ImageInfo};

/// Where an image ends whose decoder ran out of bytes.
pub(super) const UNFINISHED: &str = "before its image is complete";

/// Why an image cannot be decoded or encoded; each holds a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImageError {
    /// Its bytes are not what its format demands.
    #[error("{0}")]
    Malformed(String),
    /// It ends before its format says it should.
    #[error("{0}")]
    Truncated(String),
    /// It may be sound, but is of a kind that is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// It exceeds a limit.
    #[error("{0}")]
    TooLarge(String),
}

impl ImageError {
    /// The code that rejects and metrics use.
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

    pub(super) fn truncated(format: ImageFormat, bytes: &[u8], place: &str) -> Self {
        Self::Truncated(format!(
            "{} ends after {} bytes, {place}",
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
                "{name} of {width} x {height} pixels, more than the limit of {max_pixels} pixels"
            ));
        }
        let bytes = max_pixels.saturating_mul(DECODING);
        Self::TooLarge(format!(
            "{name} of {width} x {height} pixels whose decoding takes {bytes_per_pixel} bytes per pixel, more than {bytes} bytes, \
             which {max_pixels} pixels of {DECODING} bytes take (limits.pixels)"
        ))
    }

    pub(super) fn too_hungry(format: ImageFormat) -> Self {
        Self::TooLarge(format!(
            "{} that takes more memory than an image of its size may",
            format.name()
        ))
    }

    pub(super) fn unknown(bytes: &[u8]) -> Self {
        match bytes {
            [] => Self::Truncated("no image: there are no bytes".to_owned()),
            _ => {
                let start: Vec<String> = bytes
                    .iter()
                    .take(8)
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                let known = "JPEG, PNG, WebP, BMP, GIF, TIFF or PNM";
                Self::Unsupported(format!(
                    "no {known} image: it begins with the bytes {}",
                    start.join(" ")
                ))
            }
        }
    }

    /// What the `image` library said, without the words that it puts around the decoder's own.
    pub(super) fn of_library(format: ImageFormat, bytes: &[u8], error: &image::ImageError) -> Self {
        use image::error::UnsupportedErrorKind;
        let reason = error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string);
        match error {
            image::ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
                Self::truncated(format, bytes, UNFINISHED)
            }
            // The variant of the `gif` library is out of reach, its words are not.
            _ if reason == "Unexpected End of File" => Self::truncated(format, bytes, UNFINISHED),
            _ if format == ImageFormat::WebP && webp_bytes(bytes) > bytes.len() as u64 => {
                Self::truncated(format, bytes, UNFINISHED)
            }
            image::ImageError::Limits(_) => Self::too_hungry(format),
            image::ImageError::Unsupported(error) => match error.kind() {
                UnsupportedErrorKind::GenericFeature(feature) => Self::unsupported(format, feature),
                UnsupportedErrorKind::Color(color) => {
                    Self::unsupported(format, format_args!("colour type {color:?}"))
                }
                _ => Self::unsupported(format, error),
            },
            _ => Self::malformed(format, reason),
        }
    }

    /// Runs a decoder; its panic is the fault of the bytes that it was given.
    pub(super) fn catch<T>(
        format: ImageFormat,
        decode: impl FnOnce() -> Result<T, Self>,
    ) -> Result<T, Self> {
        let outcome = catch_unwind(AssertUnwindSafe(decode));
        outcome.unwrap_or_else(|_| Err(Self::malformed(format, "its decoder gave up on it")))
    }
}

/// How long a WebP file says that it is.
fn webp_bytes(bytes: &[u8]) -> u64 {
    match bytes {
        [_, _, _, _, a, b, c, d, ..] => u64::from(u32::from_le_bytes([*a, *b, *c, *d])) + 8,
        _ => 0,
    }
}
