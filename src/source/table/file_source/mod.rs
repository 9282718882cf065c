//! A source over files of records: lists the files, reads them in order, and sends their batches.

mod batch_output;
pub(crate) mod count;
pub(crate) mod read_end;
pub(crate) mod rejected_rows;
pub(crate) mod source;
#[cfg(test)]
pub(crate) mod testing;

use arrow::datatypes::{Field, SchemaRef};

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::unavailable::UnreadInputs;
use crate::schema_unification::TypeConflict;
use crate::source::discovery::hive_partitions::HivePartitions;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::listed_file::RecordError;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::table::file_source::source::ReadPolicy;
use crate::storage::FileReader;

pub(crate) use batch_output::{BatchOutput, FileRecords, ROWS_PER_BYTE};

/// The reader of one kind of file.
pub(crate) trait FileFormat: Send + Sync + 'static {
    /// The extensions of the files that are read from a folder.
    const EXTENSIONS: &'static [&'static str];

    /// Reads one opened file into `output`, batch by batch. The ends of batches depend on the file
    /// alone.
    fn read(
        &self,
        file: &InputFile,
        input: FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd>;

    /// Whether a file is text that is read from its beginning and to which records may be appended.
    fn is_appendable(&self, _file: &InputFile) -> bool {
        false
    }

    /// Whether the reader itself selects the parts of a file that belong to a shard. Otherwise a
    /// shard reads whole files.
    fn divides_files(&self) -> bool {
        false
    }

    /// Whether a part of an opened file belongs to the shard, if the format divides files.
    fn has_part(&self, _file: &InputFile, _input: &FileReader) -> Result<bool, ReadEnd> {
        Ok(true)
    }

    /// Whether the records were rejected by an earlier run.
    fn reads_rejects(&self) -> bool {
        false
    }

    /// Called when all files have been read.
    fn finish(&self, _stage: &str) {}

    /// Completes the split of a listed file with the other inputs that decide its records.
    fn listed(&self, file: InputFile) -> Result<InputFile, StageError> {
        Ok(file)
    }

    /// Maximum memory in bytes, in addition to batches, while a file is read.
    fn buffer_bytes(&self) -> u64 {
        0
    }

    /// The number of rows of a file, if it is cheap to determine. A file that cannot be read counts
    /// as one row.
    fn count_rows(&self, _file: &InputFile) -> Option<u64> {
        None
    }
}

/// Whether a source continues with its next file after it has read one. An unavailable file is
/// recorded in `unread`.
///
/// # Errors
/// The error that ends the source.
pub(crate) fn continues(
    read: Result<(), ReadEnd>,
    unread: &mut UnreadInputs,
) -> Result<bool, StageError> {
    match read {
        Ok(()) => Ok(true),
        Err(ReadEnd::Unavailable(unavailable)) => unread.leave(unavailable).map(|()| true),
        Err(ReadEnd::Cancelled) => Ok(false),
        // A caller that can send a reject has sent it before.
        Err(ReadEnd::Rejected(RecordError { reason, .. }, _)) => {
            Err(StageError::new(ErrorCode::InputInvalid, reason))
        }
        Err(ReadEnd::Failed(error)) => Err(error),
    }
}

/// What to do about a file whose columns differ from the plan.
const SEPARATE: &str = "correct the file, or read files of this schema with a separate source";

/// The reject reason for a file that has a planned column with another type.
pub(crate) fn different_column(conflict: &TypeConflict) -> String {
    format!("{conflict}, as in the other files; {SEPARATE}")
}

/// The reject reason for a file that lacks a planned column.
pub(crate) fn absent_column(field: &Field) -> String {
    format!(
        "column `{}` ({}) of the other files is missing; {SEPARATE}",
        field.name(),
        field.data_type()
    )
}

/// Checks that the names of columns are unique and that there is at least one.
///
/// # Errors
/// A sentence that states the problem.
pub(in crate::source) fn check_names<'a>(
    names: impl Iterator<Item = &'a String>,
) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("duplicate column `{name}`; names must be unique"));
        }
    }
    if seen.is_empty() {
        Err("expected at least one column".to_owned())
    } else {
        Ok(())
    }
}

/// A planned source over files.
pub(crate) struct FileSource<F> {
    /// The stage's name.
    pub(super) stage: String,
    /// A file, a folder or a glob.
    pub(super) path: String,
    /// The columns of every batch, including its origin.
    pub(super) schema: SchemaRef,
    /// The reader of a file.
    pub(crate) format: F,
    /// The policy for changed files.
    pub(super) policy: ReadPolicy,
    /// Sentences about files that differ from the plan.
    pub(super) notes: Vec<String>,
    /// The last columns, whose values are in the names of folders.
    pub(super) partitions: HivePartitions,
}

#[cfg(test)]
mod tests;
