//! Random access to the records of a file, without loading the file into memory.

pub(crate) mod read;
pub mod record;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::record_origin::{OriginReader, RecordOrigin};
use crate::error::StageError;
use crate::error::code::ErrorCode;

/// The file with the records of one part. Reads do not share a cursor, so that any number of
/// threads may read concurrently.
#[derive(Debug)]
pub struct RecordFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) len: usize,
    pub(super) offsets: OffsetIndex,
    pub(super) element: ElementType,
    pub(super) channels: usize,
    /// For each class number in the file, the index of the class among the sorted classes.
    pub(super) classes: Arc<[u32]>,
    /// `None` for files that an earlier version wrote.
    pub(super) origins: Option<OriginReader>,
}

/// The positions of the records in the file.
#[derive(Debug)]
pub(super) enum OffsetIndex {
    /// All records have this height and width.
    Same([usize; 2]),
    /// The end of each record, in bytes from the start of the file.
    Ends(Vec<u64>),
}

/// The type of the values of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementType {
    U8,
    F32,
    F64,
}

impl ElementType {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 => size_of::<u8>(),
            Self::F32 => size_of::<f32>(),
            Self::F64 => size_of::<f64>(),
        }
    }
}

impl RecordFile {
    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the file has no records.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns height, width and channels if they are the same for all records (feature records:
    /// `[1, 1, values]`); `None` if they differ or the file has no records.
    pub fn shape(&self) -> Option<[usize; 3]> {
        match self.offsets {
            OffsetIndex::Same([height, width]) if self.len > 0 => {
                Some([height, width, self.channels])
            }
            _ => None,
        }
    }

    /// Returns the number of values of a pixel, or of a feature record.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Returns the number of bytes of the largest record.
    pub fn max_record_bytes(&self) -> u64 {
        match &self.offsets {
            OffsetIndex::Same([height, width]) => {
                (height * width * self.channels * self.element.bytes()) as u64
            }
            OffsetIndex::Ends(ends) => {
                let starts = std::iter::once(&0).chain(ends);
                let lengths = ends
                    .iter()
                    .zip(starts)
                    .map(|(end, start)| end.saturating_sub(*start));
                lengths.max().unwrap_or(0)
            }
        }
    }

    /// Whether the values are pixels.
    pub(super) fn has_pixels(&self) -> bool {
        self.element == ElementType::U8
    }

    /// Returns the origin of a record; `None` if the file was written by a version that did not keep
    /// origins.
    ///
    /// # Errors
    /// Returns an error if `index` is out of range or the origin cannot be read.
    pub fn origin(&self, index: usize) -> Result<Option<RecordOrigin>, StageError> {
        self.origins
            .as_ref()
            .map(|origins| origins.read(index))
            .transpose()
    }

    fn failed(&self, message: String) -> StageError {
        StageError::new(
            ErrorCode::DataCorrupt,
            format!("{}: {message}", self.path.display()),
        )
    }
}
