//! The errors of decoding.

use std::fmt;

/// The reason that an image cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The file ends before the image is complete.
    Truncated {
        /// The number of bytes of the file.
        bytes: usize,
        /// The part of the image in which the file ends, such as `in the middle of scan 1`.
        place: String,
    },
    /// The file violates the format.
    Malformed(String),
    /// The file is of a kind that is not supported.
    Unsupported(String),
    /// The image exceeds a limit.
    TooLarge(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { bytes, place } => write!(f, "ends after {bytes} bytes, {place}"),
            Self::Malformed(reason) | Self::Unsupported(reason) | Self::TooLarge(reason) => {
                f.write_str(reason)
            }
        }
    }
}

impl std::error::Error for Error {}

/// The kind of damage in the data of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScanError {
    InvalidCode,
    RunPastBlock,
    RunPastScan,
    EarlyEnd,
    LeftoverData,
    RestartMarkers,
    MissingTable,
}

impl ScanError {
    /// The error of an image for damage in the scan of this number, counted from 1.
    pub(crate) fn in_scan(self, number: usize) -> Error {
        let damage = match self {
            Self::InvalidCode => "its bits are not a Huffman code",
            Self::RunPastBlock => "a run of coefficients exceeds its block",
            Self::RunPastScan => "a run of empty blocks exceeds the scan or its restart interval",
            Self::EarlyEnd => "its data ends before its last block",
            Self::LeftoverData => "data is left after its last block",
            Self::RestartMarkers => "its restart markers are missing or out of order",
            Self::MissingTable => "it refers to a Huffman table that is missing",
        };
        Error::Malformed(format!("scan {number} is corrupt: {damage}"))
    }
}
