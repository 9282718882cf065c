//! An array of an archive, with its header.

use arrow::datatypes::Field;
use rawzip::{CompressionMethod, ZipArchiveEntryWayfinder};

use crate::source::table::arrays::header::ArrayHeader;

/// The name of the array of a .npy file.
pub(super) const ONLY: &str = "array";

/// An array in a file.
#[derive(Debug, Clone)]
pub(super) struct FoundArray {
    pub(super) name: String,
    pub(super) header: ArrayHeader,
    /// Its member, if the file is an archive.
    pub(super) member: Option<ArchiveMember>,
}

impl FoundArray {
    pub(super) fn field(&self) -> Field {
        self.header.field(&self.name)
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ArchiveMember {
    pub(super) at: ZipArchiveEntryWayfinder,
    pub(super) method: CompressionMethod,
    pub(super) is_encrypted: bool,
}
