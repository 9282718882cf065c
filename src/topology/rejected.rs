//! Joins what was refused with the records it came from, for the rejects dataset.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::UInt64Type;

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
        let batch = &self.source;
        let originals = self.list.iter().map(|(_, reject)| original(batch, reject)).collect::<Result<Vec<_>, _>>()?;
        let entries = self.list.iter().zip(&originals);
        let entries: Vec<_> =
            entries.map(|((stage, reject), original)| entry(batch, stage, reject, original.as_deref())).collect();
        let origin = self.list.iter().map(|(_, reject)| reject.ordinal).collect();
        Ok(Batch { records: rejects::records(&entries)?, origin, provenance: Arc::clone(&batch.provenance) })
    }
}

fn entry<'a>(batch: &'a Batch, stage: &'a str, reject: &'a Reject, record: Option<&'a [u8]>) -> RejectEntry<'a> {
    let (split, split_row) = match batch.provenance.row(reject.ordinal) {
        Some((split, row)) => (split.name(), row),
        None => ("", u64::from(reject.ordinal)),
    };
    let place = place(batch, reject);
    let source = place.and_then(|place| {
        let column = batch.records.column_by_name(SOURCE)?.as_string_opt::<i32>()?;
        Some(column.value(place))
    });
    let row = place.and_then(|place| {
        let column = batch.records.column_by_name(ROW)?.as_primitive_opt::<UInt64Type>()?;
        Some(column.value(place))
    });
    RejectEntry {
        source: source.unwrap_or(split),
        row: row.unwrap_or(split_row),
        split,
        split_row,
        stage,
        code: reject.code,
        reason: &reject.reason,
        record,
    }
}

/// Where the record stands in its source's batch; `None` where the source could not read it.
fn place(batch: &Batch, reject: &Reject) -> Option<usize> {
    batch.origin.binary_search(&reject.ordinal).ok()
}

/// The record as its source gave it: an image's bytes as they are, anything else as a line of JSON.
fn original<'a>(batch: &'a Batch, reject: &'a Reject) -> Result<Option<Cow<'a, [u8]>>, StageError> {
    if let Some(record) = &reject.record {
        return Ok(Some(Cow::Borrowed(record)));
    }
    let Some(place) = place(batch, reject) else { return Ok(None) };
    if let Some(image) = batch.records.column_by_name(IMAGE).and_then(|image| image.as_binary_opt::<i32>()) {
        return Ok(image.is_valid(place).then(|| Cow::Borrowed(image.value(place))));
    }
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write(&batch.records.slice(place, 1))?;
    writer.finish()?;
    Ok(Some(Cow::Owned(writer.into_inner())))
}
