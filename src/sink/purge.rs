//! Purging: the originals that a dataset of rejects holds are removed, while its rows and its
//! provenance stay.
//!
//! Each file that holds such originals is copied without them into one that takes its place, as
//! compaction does. Its footer stays the same, so that no run takes the rows again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use globset::{GlobBuilder, GlobMatcher};

use crate::error::StageError;
use crate::fs_durable::{fsync_dir, remove_stale_temp_files};
use crate::sink::data_files::DataFile;
use crate::sink::file_lock::FileLock;
use crate::sink::rejects_dataset;
use crate::sink::rewrite::{DatasetRewrite, RewriteCandidate};
use crate::source::SOURCE;
use crate::source::rejects::{FORMAT, RECORD};

/// Which originals are removed: those for which all holds that is given.
#[derive(Debug, Default)]
pub struct PurgeFilter {
    /// Those in files that were committed before this moment.
    pub before: Option<SystemTime>,
    /// Those of records from these sources.
    pub source: Option<SourcePattern>,
}

/// Sources by their names in the column `source`.
#[derive(Debug, Clone)]
pub struct SourcePattern {
    name: String,
    glob: GlobMatcher,
}

impl SourcePattern {
    /// Those of this very name, and those that it matches as a glob.
    ///
    /// # Errors
    /// When it is no glob.
    pub fn new(name: &str) -> Result<Self, String> {
        let glob = GlobBuilder::new(name)
            .literal_separator(true)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            name: name.to_owned(),
            glob: glob.compile_matcher(),
        })
    }

    fn holds(&self, source: &str) -> bool {
        source == self.name || self.glob.is_match(source)
    }
}

/// The result of a purge, or of one that only counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PurgeSummary {
    /// Rejects in all files that can be read.
    pub rejects: u64,
    /// Originals that are removed.
    pub originals: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that held them.
    pub files: u64,
    /// Files that were left alone since they cannot be read or are another program's, each with the
    /// reason.
    pub left: Vec<String>,
}

/// Removes the originals that are wanted from the rejects in `folder`. With `dry` nothing is
/// changed.
///
/// # Errors
/// When a run or a compaction is at work there, the system refuses, or these are no rejects; files
/// that were exchanged before stay exchanged.
pub fn purge(folder: &Path, wanted: &PurgeFilter, dry: bool) -> Result<PurgeSummary, StageError> {
    // A file that a run is writing could hold originals, too.
    let _lock = FileLock::take(folder)?;
    let rewrite = DatasetRewrite::begin(folder)?;
    let mut purged = PurgeSummary::default();
    let mut hold = Vec::new();
    for file in rewrite.files()? {
        match look(file.clone(), wanted, &mut purged)? {
            Ok(true) => hold.push(file),
            Ok(false) => {}
            Err(reason) => purged.left.push(reason),
        }
    }
    if !dry {
        remove_stale_temp_files(folder, 1)?;
        for file in hold {
            // It was readable a moment ago.
            let Some(RewriteCandidate { kind, file }) = RewriteCandidate::of(file)? else {
                continue;
            };
            let sources = wanted.source.as_ref();
            let replaced = rewrite.replace(&kind, &[file], |records| {
                without_originals(&records, sources)
            })?;
            replaced.map_err(|broken| StageError::Other(broken.reason))?;
        }
        fsync_dir(folder)?;
    }
    rewrite.end()?;
    Ok(purged)
}

/// Counts the rejects of a file; whether it holds originals that are wanted, or the reason why it
/// cannot be read.
fn look(
    file: DataFile,
    wanted: &PurgeFilter,
    purged: &mut PurgeSummary,
) -> Result<Result<bool, String>, StageError> {
    let place = file.location.clone();
    let found = match RewriteCandidate::of(file) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Err(format!("{place}: was not written by latentflow"))),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mine = rejects_dataset::schema();
    let columns = [SOURCE, FORMAT, RECORD];
    let is_mine = |name: &&str| {
        let (mine, theirs) = (
            mine.field_with_name(name),
            found.kind.schema.field_with_name(name),
        );
        mine.is_ok_and(|mine| theirs.is_ok_and(|theirs| theirs.data_type() == mine.data_type()))
    };
    if !columns.iter().all(is_mine) {
        let met =
            "holds no rejects; name the folder of a rejects dataset, or the pipeline that wrote it";
        return Err(StageError::Other(format!("{place}: {met}")));
    }
    let committed = UNIX_EPOCH
        + Duration::from_nanos(u64::try_from(found.file.file.entry.mtime_ns).unwrap_or(0));
    let is_old = wanted.before.is_none_or(|before| committed < before);
    let (mut originals, mut bytes) = (0, 0);
    let read = found.file.read(Some(&columns), |records| {
        let columns = RejectColumns::of(&records)?;
        for row in (0..records.num_rows())
            .filter(|&row| is_old && columns.is_wanted(row, wanted.source.as_ref()))
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

/// The columns of originals, and of the sources that they came from.
struct RejectColumns<'a> {
    source: &'a StringArray,
    format: &'a StringArray,
    record: &'a BinaryArray,
}

impl<'a> RejectColumns<'a> {
    fn of(records: &'a RecordBatch) -> Result<Self, StageError> {
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
            _ => Err(StageError::Other(
                "the columns of rejects were there a moment ago".to_owned(),
            )),
        }
    }

    fn is_wanted(&self, row: usize, sources: Option<&SourcePattern>) -> bool {
        let has_original = self.record.is_valid(row) || self.format.is_valid(row);
        has_original && sources.is_none_or(|sources| sources.holds(self.source.value(row)))
    }
}

/// The same rejects without the originals of those sources.
fn without_originals(
    records: &RecordBatch,
    sources: Option<&SourcePattern>,
) -> Result<RecordBatch, StageError> {
    let columns = RejectColumns::of(records)?;
    let stays = |row: &usize| !columns.is_wanted(*row, sources);
    let rows = || 0..records.num_rows();
    let formats = rows().map(|row| {
        (stays(&row) && columns.format.is_valid(row)).then(|| columns.format.value(row))
    });
    let originals = rows().map(|row| {
        (stays(&row) && columns.record.is_valid(row)).then(|| columns.record.value(row))
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
