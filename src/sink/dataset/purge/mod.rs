//! Purging: the removal of originals from a rejects dataset, whose rows and provenance are kept.
//!
//! Each file with such originals is replaced by a copy without them, in the same way as by a
//! compaction. The footer stays the same, so that no run reads the rows again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use globset::{GlobBuilder, GlobMatcher};

use crate::columns::SOURCE;
use crate::columns::rejects::{FORMAT, RECORD};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::fs_durable::{fsync_dir, remove_stale_temp_files};
use crate::sink::dataset::data_files::DataFile;
use crate::sink::dataset::dataset_file::RewriteCandidate;
use crate::sink::dataset::rejects;
use crate::sink::dataset::rewrite::DatasetRewrite;
use crate::sink::ownership::file_lock::FileLock;

/// The originals to remove: those that meet all given conditions.
#[derive(Debug, Default)]
pub struct PurgeFilter {
    /// The originals in files that were committed before this time.
    pub before: Option<SystemTime>,
    /// The originals of records from these sources.
    pub source: Option<SourcePattern>,
}

/// A pattern of names in the column `source`.
#[derive(Debug, Clone)]
pub struct SourcePattern {
    name: String,
    glob: GlobMatcher,
}

impl SourcePattern {
    /// The pattern that matches the literal `name` and the names that match it as a glob.
    ///
    /// # Errors
    /// If `name` is not a valid glob.
    pub fn new(name: &str) -> Result<Self, globset::Error> {
        let glob = GlobBuilder::new(name).literal_separator(true).build()?;
        Ok(Self {
            name: name.to_owned(),
            glob: glob.compile_matcher(),
        })
    }

    fn matches(&self, source: &str) -> bool {
        source == self.name || self.glob.is_match(source)
    }
}

/// The result of a purge or of a dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PurgeSummary {
    /// Number of rejects in all readable files.
    pub rejects: u64,
    /// Number of removed originals.
    pub originals: u64,
    /// Size of the removed originals in bytes.
    pub bytes: u64,
    /// Number of files with removed originals.
    pub files: u64,
    /// Files that were skipped because they cannot be read or belong to another program, each with
    /// the reason.
    pub left: Vec<String>,
}

/// Removes the originals that match `filter` from the rejects in `folder`. Calls `on_progress` after
/// each file with the bytes of the files that are examined or rewritten, and the bytes of all files to
/// examine or rewrite. With `dry` no file is changed.
///
/// # Errors
/// If a run or a compaction is using the folder, if a file cannot be read or written, or if the
/// files are not rejects. Files that were already replaced stay replaced.
pub fn purge(
    folder: &Path,
    filter: &PurgeFilter,
    dry: bool,
    on_progress: &mut dyn FnMut(u64, u64),
) -> Result<PurgeSummary, StageError> {
    // A file that a running pipeline writes could also hold originals.
    let _lock = FileLock::acquire(folder)?;
    let rewrite = DatasetRewrite::begin(folder)?;
    let mut purged = PurgeSummary::default();
    let mut with_originals = Vec::new();
    let files = rewrite.files()?;
    let mut total: u64 = files.iter().map(|file| file.entry.size).sum();
    let mut done = 0;
    for file in files {
        done += file.entry.size;
        match examine(file.clone(), filter, &mut purged)? {
            Ok(true) => with_originals.push(file),
            Ok(false) => {}
            Err(reason) => purged.left.push(reason),
        }
        on_progress(done, total);
    }
    if !dry {
        remove_stale_temp_files(folder, 1)?;
        total += with_originals
            .iter()
            .map(|file| file.entry.size)
            .sum::<u64>();
        for file in with_originals {
            done += file.entry.size;
            // A file of another program cannot occur here, since the file was examined before.
            let Some(RewriteCandidate { kind, file }) = RewriteCandidate::read(file)? else {
                continue;
            };
            let sources = filter.source.as_ref();
            let replaced = rewrite.replace(&kind, &[file], |records| {
                without_originals(&records, sources)
            })?;
            replaced.map_err(|unreadable| {
                StageError::new(ErrorCode::DatasetCorrupt, unreadable.reason)
            })?;
            on_progress(done, total);
        }
        fsync_dir(folder)?;
    }
    rewrite.end()?;
    Ok(purged)
}

/// Counts the rejects of a file. Returns whether it has originals that match the filter, or the
/// reason why it cannot be read.
fn examine(
    file: DataFile,
    filter: &PurgeFilter,
    purged: &mut PurgeSummary,
) -> Result<Result<bool, String>, StageError> {
    let location = file.location.clone();
    let found = match RewriteCandidate::read(file) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Err(format!("{location}: was not written by latentflow"))),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let rejects_schema = rejects::schema();
    let column_names = [SOURCE, FORMAT, RECORD];
    let is_present = |name: &&str| {
        let (expected, actual) = (
            rejects_schema.field_with_name(name),
            found.kind.schema.field_with_name(name),
        );
        expected.is_ok_and(|field| {
            actual.is_ok_and(|found_field| found_field.data_type() == field.data_type())
        })
    };
    if !column_names.iter().all(is_present) {
        return Err(StageError::new(
            ErrorCode::InputInvalid,
            format!(
                "{location}: is not a file of rejects; expected the folder of a rejects dataset, or \
             the pipeline that wrote it"
            ),
        ));
    }
    let committed = UNIX_EPOCH
        + Duration::from_nanos(u64::try_from(found.file.file.entry.mtime_ns).unwrap_or(0));
    let is_old = filter.before.is_none_or(|before| committed < before);
    let (mut originals, mut bytes) = (0, 0);
    let read = found.file.read(Some(&column_names), |records| {
        let columns = RejectColumns::from_batch(&records)?;
        for row in (0..records.num_rows())
            .filter(|&row| is_old && columns.is_selected(row, filter.source.as_ref()))
        {
            originals += 1;
            bytes += columns.record.value(row).len() as u64;
        }
        Ok(())
    })?;
    if let Err(reason) = read {
        return Ok(Err(reason));
    }
    purged.rejects += found.file.rows;
    purged.originals += originals;
    purged.bytes += bytes;
    purged.files += u64::from(originals > 0);
    Ok(Ok(originals > 0))
}

/// The columns of originals and of their sources.
struct RejectColumns<'a> {
    source: &'a StringArray,
    format: &'a StringArray,
    record: &'a BinaryArray,
}

impl<'a> RejectColumns<'a> {
    fn from_batch(records: &'a RecordBatch) -> Result<Self, StageError> {
        let text = |name: &str| records.column_by_name(name)?.as_string_opt::<i32>();
        let record = records
            .column_by_name(RECORD)
            .and_then(|column| column.as_binary_opt::<i32>());
        match (text(SOURCE), text(FORMAT), record) {
            (Some(source), Some(format), Some(record)) => Ok(Self {
                source,
                format,
                record,
            }),
            _ => Err(StageError::new(
                ErrorCode::DatasetCorrupt,
                "the file has no columns of rejects, although its schema has them".to_owned(),
            )),
        }
    }

    fn is_selected(&self, row: usize, sources: Option<&SourcePattern>) -> bool {
        let has_original = self.record.is_valid(row) || self.format.is_valid(row);
        has_original && sources.is_none_or(|sources| sources.matches(self.source.value(row)))
    }
}

/// The rejects without the originals of the given sources.
fn without_originals(
    records: &RecordBatch,
    sources: Option<&SourcePattern>,
) -> Result<RecordBatch, StageError> {
    let columns = RejectColumns::from_batch(records)?;
    let is_kept = |row: &usize| !columns.is_selected(*row, sources);
    let rows = || 0..records.num_rows();
    let formats = rows().map(|row| {
        (is_kept(&row) && columns.format.is_valid(row)).then(|| columns.format.value(row))
    });
    let originals = rows().map(|row| {
        (is_kept(&row) && columns.record.is_valid(row)).then(|| columns.record.value(row))
    });
    let (formats, originals) = (
        formats.collect::<StringArray>(),
        originals.collect::<BinaryArray>(),
    );
    let schema = records.schema();
    let changed = schema
        .fields()
        .iter()
        .zip(records.columns())
        .map(|(field, column)| match field.name().as_str() {
            FORMAT => Arc::new(formats.clone()) as ArrayRef,
            RECORD => Arc::new(originals.clone()),
            _ => Arc::clone(column),
        });
    Ok(RecordBatch::try_new(
        Arc::clone(&schema),
        changed.collect(),
    )?)
}

#[cfg(test)]
mod tests;
