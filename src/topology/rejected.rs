//! Joins what was refused with the records it came from, for the rejects dataset.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, UInt64Type};

use crate::batch::{Batch, Reject};
use crate::error::StageError;
use crate::sink::rejects::{self, RejectEntry};
use crate::source::{IMAGE, ROW, SOURCE};

/// The rejects of one batch, and the batch as its source gave it.
pub(super) struct Refused {
    source: Batch,
    list: Vec<(Arc<str>, Reject)>,
}

impl Refused {
    pub(super) fn new(source: Batch) -> Self {
        Self { source, list: Vec::new() }
    }

    pub(super) fn add(&mut self, stage: &Arc<str>, rejects: Vec<Reject>) {
        self.list.extend(rejects.into_iter().map(|reject| (Arc::clone(stage), reject)));
    }

    /// The rejects as records, in the order of their source rows; empty where nothing was refused.
    pub(super) fn into_batch(mut self) -> Result<Batch, StageError> {
        self.list.sort_by_key(|(_, reject)| reject.ordinal);
        let mut entries = Vec::with_capacity(self.list.len());
        let mut origin = Vec::with_capacity(self.list.len());
        for (stage, reject) in self.list {
            origin.push(reject.ordinal);
            entries.push(entry(&self.source, &stage, reject)?);
        }
        Ok(Batch { records: rejects::records(&entries)?, origin, provenance: self.source.provenance })
    }
}

fn entry(batch: &Batch, stage: &str, reject: Reject) -> Result<RejectEntry, StageError> {
    let place = batch.origin.binary_search(&reject.ordinal).ok();
    let (split, split_row) = match batch.provenance.row(reject.ordinal) {
        Some((split, row)) => (split.name().to_owned(), row),
        None => (String::new(), u64::from(reject.ordinal)),
    };
    let text = |name: &str| {
        let column = batch.records.column_by_name(name)?.as_string_opt::<i32>()?;
        place.map(|place| column.value(place).to_owned())
    };
    let row = || {
        let column = batch.records.column_by_name(ROW)?.as_primitive_opt::<UInt64Type>()?;
        place.map(|place| column.value(place))
    };
    let record = match (reject.record, place) {
        (Some(record), _) => Some(record),
        (None, Some(place)) => Some(original(&batch.records.slice(place, 1))?),
        (None, None) => None,
    };
    Ok(RejectEntry {
        source: text(SOURCE).unwrap_or_else(|| split.clone()),
        row: row().unwrap_or(split_row),
        split,
        split_row,
        stage: stage.to_owned(),
        code: reject.code.as_str().to_owned(),
        reason: reject.reason,
        record,
    })
}

/// The record as its source gave it: an image's bytes as they are, anything else as a line of JSON.
fn original(record: &RecordBatch) -> Result<Vec<u8>, StageError> {
    if let Some(image) = record.column_by_name(IMAGE).filter(|image| image.data_type() == &DataType::Binary) {
        let image = image.as_binary::<i32>();
        return Ok(if arrow::array::Array::is_null(image, 0) { Vec::new() } else { image.value(0).to_vec() });
    }
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write(record)?;
    writer.finish()?;
    Ok(writer.into_inner())
}
