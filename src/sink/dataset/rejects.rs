//! The dataset of rejects, with their source, stage, reason and original.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::batch::reject::RejectCode;
use crate::columns::rejects::{CODE, FORMAT, REASON, RECORD, RECORDS, SPLIT, SPLIT_ROW, STAGE};
use crate::columns::{ROW, SOURCE};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;
use crate::sink::Sink;
use crate::sink::parquet::config::ParquetSinkConfig;
use crate::source::rejects::format::OriginalFormat;
use crate::storage::Location;

/// A reject in the form in which it is stored.
#[derive(Debug, Clone, Copy)]
pub struct RejectEntry<'a> {
    /// The source of the record.
    pub source: &'a str,
    /// The row of the record in the source.
    pub row: u64,
    /// The split that the record was read from.
    pub split: &'a str,
    /// The row of the record in the split.
    pub split_row: u64,
    /// The stage that rejected the record.
    pub stage: &'a str,
    /// The reject code.
    pub code: RejectCode,
    /// The text of the reason.
    pub reason: &'a str,
    /// The original of the record and its format; `None` if there is no original.
    pub record: Option<(OriginalFormat, &'a [u8])>,
    /// The number of records that the reject represents.
    pub records: u64,
}

/// The columns of the dataset.
pub fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let number = |name: &str| Field::new(name, DataType::UInt64, false);
    Arc::new(Schema::new(vec![
        text(SOURCE),
        number(ROW),
        text(SPLIT),
        number(SPLIT_ROW),
        text(STAGE),
        text(CODE),
        text(REASON),
        Field::new(FORMAT, DataType::Utf8, true),
        Field::new(RECORD, DataType::Binary, true),
        number(RECORDS),
    ]))
}

/// The entries as records of the dataset, in the same order.
///
/// # Errors
/// If their total size exceeds 2 GiB, which is the maximum of a column.
pub fn records<'a>(entries: &[RejectEntry<'a>]) -> Result<RecordBatch, StageError> {
    let bytes = |entry: &RejectEntry<'_>| {
        let texts = [entry.source, entry.split, entry.stage, entry.reason].map(str::len);
        texts.iter().sum::<usize>() + entry.record.map_or(0, |(_, bytes)| bytes.len())
    };
    let total = entries.iter().map(bytes).sum::<usize>();
    if i32::try_from(total).is_err() {
        return Err(StageError::new(
            ErrorCode::OutputUnwritable,
            format!(
                "the rejects of one batch take {total} bytes, but at most 2 GiB can be stored; make \
             batches smaller, or lower limits.record_bytes"
            ),
        ));
    }
    let text = |of: fn(&RejectEntry<'a>) -> &'a str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(entries.iter().map(of)))
    };
    let columns: Vec<ArrayRef> = vec![
        text(|entry| entry.source),
        Arc::new(UInt64Array::from_iter_values(
            entries.iter().map(|entry| entry.row),
        )),
        text(|entry| entry.split),
        Arc::new(UInt64Array::from_iter_values(
            entries.iter().map(|entry| entry.split_row),
        )),
        text(|entry| entry.stage),
        text(|entry| entry.code.as_str()),
        text(|entry| entry.reason),
        Arc::new(
            entries
                .iter()
                .map(|entry| Some(entry.record?.0.as_str()))
                .collect::<StringArray>(),
        ),
        Arc::new(
            entries
                .iter()
                .map(|entry| Some(entry.record?.1))
                .collect::<BinaryArray>(),
        ),
        Arc::new(UInt64Array::from_iter_values(
            entries.iter().map(|entry| entry.records),
        )),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// The sink of the dataset in `folder`.
///
/// # Errors
/// A fault at `path`, if `folder` is not a valid location.
pub fn plan(folder: &Location) -> Result<Box<dyn Sink>, Vec<ConfigError>> {
    ParquetSinkConfig::new(&folder.to_path()).sink(&schema())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{Array, AsArray};
    use arrow::datatypes::UInt64Type;

    use super::*;

    #[test]
    fn entries_become_records_with_optional_originals() {
        let line = RejectEntry {
            source: "a.ndjson",
            row: 7,
            split: "lines/a.ndjson",
            split_row: 7,
            stage: "lines",
            code: RejectCode::Malformed,
            reason: "invalid JSON",
            record: Some((OriginalFormat::Line, b"{")),
            records: 1,
        };
        let photo = RejectEntry {
            source: "b.png",
            code: RejectCode::Truncated,
            record: None,
            records: 70,
            ..line
        };
        let records = records(&[line, photo]).unwrap();
        assert_eq!(records.schema(), schema());
        let text = |name: &str, row| {
            records
                .column_by_name(name)
                .unwrap()
                .as_string::<i32>()
                .value(row)
                .to_owned()
        };
        assert_eq!(
            [text("source", 0), text("code", 0), text("reason", 0)],
            ["a.ndjson", "malformed", "invalid JSON"]
        );
        assert_eq!([text("source", 1), text("code", 1)], ["b.png", "truncated"]);
        assert_eq!(text("format", 0), "line");
        assert!(records.column_by_name("format").unwrap().is_null(1));
        let bytes: Vec<_> = records
            .column_by_name("record")
            .unwrap()
            .as_binary::<i32>()
            .iter()
            .collect();
        assert_eq!(bytes, [Some(b"{".as_slice()), None]);
        let counts = records
            .column_by_name("records")
            .unwrap()
            .as_primitive::<UInt64Type>();
        assert_eq!(counts.values(), &[1, 70]);
    }

    #[test]
    fn dataset_is_planned_and_empty_path_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            plan(&folder.path().into()).unwrap().folder(),
            Some(folder.path().into())
        );
        assert_eq!(
            plan(&Location::Local("".into())).err().unwrap()[0].key,
            "path"
        );
    }
}
