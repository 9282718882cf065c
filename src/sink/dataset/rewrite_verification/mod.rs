//! The verification of a rewritten file, which is read back before it replaces other files.

use arrow::array::RecordBatch;

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::sink::dataset::data_files::DataFile;
use crate::sink::dataset::dataset_file::{
    DatasetFile, DatasetRecords, MergeKey, RecordsError, RewriteCandidate,
};
use crate::sink::parquet::stored_types::store;
use crate::storage::Location;

/// Reads the file at `written` back, and compares its schema, its provenance and all of its values
/// with those of `files` after `change`.
///
/// # Errors
/// If it differs, or if a file cannot be read.
pub(crate) fn verify(
    written: &Location,
    kind: &MergeKey,
    files: &[DatasetFile],
    change: &impl Fn(RecordBatch) -> Result<RecordBatch, StageError>,
) -> Result<(), StageError> {
    let differs = |what: &str| {
        StageError::new(
            ErrorCode::Internal,
            format!(
                "{written}: {what}; no file was replaced; report this error with one of the files"
            ),
        )
    };
    let entry = written
        .file()?
        .ok_or_else(|| differs("the rewritten file is missing"))?;
    let file = DataFile {
        location: written.clone(),
        entry,
    };
    let found = RewriteCandidate::read(file)?
        .ok_or_else(|| differs("the rewritten file has no provenance"))?;
    if found.kind.schema.fields() != kind.schema.fields() {
        return Err(differs(
            "the rewritten file has another schema than its inputs",
        ));
    }
    let mut coverage = files.iter().map(|input| &input.coverage);
    if !coverage.all(|rows| found.file.coverage.intersection(rows) == *rows) {
        return Err(differs(
            "the provenance of the rewritten file is incomplete",
        ));
    }
    let expected = files
        .iter()
        .flat_map(|input| DatasetRecords::open(&input.file, None))
        .map(|records| store(&change(records.map_err(failure)?)?, &kind.schema));
    let found =
        DatasetRecords::open(&found.file.file, None).map(|records| records.map_err(failure));
    match first_difference(expected, found)? {
        None => Ok(()),
        Some(difference) => Err(differs(&format!(
            "the rewritten file differs from its inputs: {difference}"
        ))),
    }
}

fn failure(error: RecordsError) -> StageError {
    match error {
        RecordsError::Unreadable(reason) => StageError::new(
            ErrorCode::Internal,
            format!("{reason}; no file was replaced"),
        ),
        RecordsError::Unavailable(error) => error,
    }
}

/// Compares two sequences of batches, which may be cut at different rows.
fn first_difference(
    mut expected: impl Iterator<Item = Result<RecordBatch, StageError>>,
    mut found: impl Iterator<Item = Result<RecordBatch, StageError>>,
) -> Result<Option<String>, StageError> {
    let (mut left, mut right) = (None, None);
    let mut row = 0;
    loop {
        let next = (
            rest_or_next(&mut left, &mut expected)?,
            rest_or_next(&mut right, &mut found)?,
        );
        let (one, other) = match next {
            (Some(one), Some(other)) => (one, other),
            (None, None) => return Ok(None),
            (Some(_), None) => return Ok(Some(format!("it ends after {row} records"))),
            (None, Some(_)) => return Ok(Some(format!("it has more than {row} records"))),
        };
        let rows = one.num_rows().min(other.num_rows());
        let schema = one.schema();
        let pairs = one.columns().iter().zip(other.columns());
        for (field, (mine, theirs)) in schema.fields().iter().zip(pairs) {
            if mine.slice(0, rows) != theirs.slice(0, rows) {
                let (name, end) = (field.name(), row + rows);
                return Ok(Some(format!("column `{name}`, records {row} to {end}")));
            }
        }
        row += rows;
        left = Some(one.slice(rows, one.num_rows() - rows));
        right = Some(other.slice(rows, other.num_rows() - rows));
    }
}

/// The rest of a batch, or the next batch that has rows.
fn rest_or_next(
    rest: &mut Option<RecordBatch>,
    batches: &mut impl Iterator<Item = Result<RecordBatch, StageError>>,
) -> Result<Option<RecordBatch>, StageError> {
    let mut next = rest.take();
    while next.as_ref().is_none_or(|batch| batch.num_rows() == 0) {
        match batches.next() {
            Some(batch) => next = Some(batch?),
            None => return Ok(None),
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests;
