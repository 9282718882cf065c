//! Joins what was refused with the records it came from, for the rejects dataset.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::UInt64Type;
use arrow::ipc::writer::StreamWriter;

use super::tap::RecentReject;
use crate::batch::{Batch, Provenance, Reject, RejectCode};
use crate::error::StageError;
use crate::plan::Plan;
use crate::sink::rejects_dataset::{self, RejectEntry};
use crate::source::rejects::OriginalFormat;
use crate::source::{IMAGE, ROW, SOURCE};
use crate::units::unix_seconds;

/// Whether the original of a reject is kept beside where it came from and why it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OriginalsPolicy {
    Kept,
    Dropped,
}

impl OriginalsPolicy {
    /// `None` where a plan keeps no rejects at all.
    pub(super) fn of(plan: &Plan) -> Option<Self> {
        plan.rejects.as_ref().map(|_| {
            if plan.keeps_originals {
                Self::Kept
            } else {
                Self::Dropped
            }
        })
    }
}

/// The rejects of one batch, and the batch as its source gave it.
pub(super) struct BatchRejects {
    source: Batch,
    list: Vec<(Arc<str>, Reject)>,
}

impl BatchRejects {
    pub(super) fn new(source: Batch) -> Self {
        Self {
            source,
            list: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, stage: &Arc<str>, rejects: Vec<Reject>) {
        self.list.extend(
            rejects
                .into_iter()
                .map(|reject| (Arc::clone(stage), reject)),
        );
    }

    /// Logs the records that a stage failed on: such a failure is a fault of the stage.
    pub(super) fn log(&self, stage: &str, rejects: &[Reject]) {
        let failed =
            |reject: &&Reject| matches!(reject.code, RejectCode::Internal | RejectCode::Panicked);
        for reject in rejects.iter().filter(failed) {
            let RejectEntry {
                source,
                row,
                code,
                reason,
                ..
            } = entry(&self.source, stage, reject, None);
            let (source, reason) = (shortened(source), shortened(reason));
            tracing::warn!(
                stage,
                source,
                row,
                code = code.as_str(),
                "the stage failed on this record: {reason}"
            );
        }
    }

    /// The source rows of the batch.
    pub(super) fn provenance(&self) -> &Provenance {
        &self.source.provenance
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What was refused, and by which stage.
    pub(super) fn into_list(self) -> Vec<(Arc<str>, Reject)> {
        self.list
    }

    /// The last `most` of them, to be looked at.
    pub(super) fn seen(&self, most: usize) -> Vec<RecentReject> {
        let last = &self.list[self.list.len().saturating_sub(most)..];
        let seen = |(stage, reject): &(Arc<str>, Reject)| {
            let entry = entry(&self.source, stage, reject, None);
            RecentReject {
                unix_seconds: unix_seconds(),
                stage: Arc::clone(stage),
                code: entry.code.as_str(),
                reason: shortened(entry.reason),
                source: shortened(entry.source),
                row: entry.row,
                records: entry.records,
            }
        };
        last.iter().map(seen).collect()
    }

    /// The rejects as records, in the order of their source rows; empty where nothing was refused.
    pub(super) fn batch(&mut self, originals: OriginalsPolicy) -> Result<Batch, StageError> {
        self.list.sort_by_key(|(_, reject)| reject.ordinal);
        let batch = &self.source;
        let kept = self.list.iter().map(|(stage, reject)| match originals {
            OriginalsPolicy::Kept => original_or_none(batch, stage, reject),
            OriginalsPolicy::Dropped => None,
        });
        let originals: Vec<_> = kept.collect();
        let entries = self.list.iter().zip(&originals);
        let mut entries: Vec<_> = entries
            .map(|((stage, reject), original)| entry(batch, stage, reject, borrowed(original)))
            .collect();
        let records = rejects_dataset::records(&entries).or_else(|error| {
            tracing::warn!(
                "{} rejects are kept without their records: {error}",
                entries.len()
            );
            entries.iter_mut().for_each(|entry| entry.record = None);
            rejects_dataset::records(&entries)
        });
        let row_ordinals = self.list.iter().map(|(_, reject)| reject.ordinal).collect();
        Ok(Batch {
            records: records?,
            row_ordinals,
            provenance: Arc::clone(&batch.provenance),
        })
    }
}

fn entry<'a>(
    batch: &'a Batch,
    stage: &'a str,
    reject: &'a Reject,
    record: Option<(OriginalFormat, &'a [u8])>,
) -> RejectEntry<'a> {
    let (split, split_row) = match batch.provenance.row(reject.ordinal) {
        Some((split, row)) => (split.name(), row),
        None => ("", u64::from(reject.ordinal)),
    };
    let place = place(batch, reject);
    let source = place.and_then(|place| {
        let column = batch
            .records
            .column_by_name(SOURCE)?
            .as_string_opt::<i32>()?;
        Some(column.value(place))
    });
    let row = place.and_then(|place| {
        let column = batch
            .records
            .column_by_name(ROW)?
            .as_primitive_opt::<UInt64Type>()?;
        Some(column.value(place))
    });
    let told = reject.source.as_ref();
    RejectEntry {
        source: source
            .or(told.map(|(source, _)| source.as_str()))
            .unwrap_or(split),
        row: row.or(told.map(|(_, row)| *row)).unwrap_or(split_row),
        split,
        split_row,
        stage,
        code: reject.code,
        reason: &reject.reason,
        record,
        records: reject.records,
    }
}

/// The name of the file or request that the record with this ordinal came from, for people.
pub(super) fn source_of(batch: &Batch, ordinal: u32) -> String {
    let place = batch
        .row_ordinals
        .iter()
        .position(|&origin| origin == ordinal);
    let column = batch
        .records
        .column_by_name(SOURCE)
        .and_then(|column| column.as_string_opt::<i32>());
    match (place, column) {
        (Some(place), Some(column)) => shortened(column.value(place)),
        _ => batch
            .provenance
            .row(ordinal)
            .map_or(String::new(), |(split, _)| shortened(split.name())),
    }
}

/// Texts that people see at a glance: as many characters as that takes.
fn shortened(text: &str) -> String {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn borrowed<'a>(original: &'a Option<Original<'_>>) -> Option<(OriginalFormat, &'a [u8])> {
    original.as_ref().map(|(format, bytes)| (*format, &**bytes))
}

/// Where the record stands in its source's batch; `None` where the source could not read it.
fn place(batch: &Batch, reject: &Reject) -> Option<usize> {
    batch.row_ordinals.binary_search(&reject.ordinal).ok()
}

/// What a record's bytes are, and the bytes.
type Original<'a> = (OriginalFormat, Cow<'a, [u8]>);

/// As [`original`]; `None`, with a warning, where the record cannot be written: that does not end
/// the run.
fn original_or_none<'a>(batch: &'a Batch, stage: &str, reject: &'a Reject) -> Option<Original<'a>> {
    let attempt = catch_unwind(AssertUnwindSafe(|| original(batch, reject)));
    let failed = match attempt {
        Ok(Ok(original)) => return original,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "its encoder panicked".to_owned(),
    };
    let RejectEntry { source, row, .. } = entry(batch, stage, reject, None);
    tracing::warn!(
        stage,
        source = shortened(source),
        row,
        "the reject is kept without its record: {failed}"
    );
    None
}

/// The record as its source gave it: an image's bytes, a line that could not be parsed, else all of
/// its columns.
fn original<'a>(batch: &'a Batch, reject: &'a Reject) -> Result<Option<Original<'a>>, StageError> {
    if let Some(record) = &reject.record {
        return Ok(Some((OriginalFormat::Line, Cow::Borrowed(record))));
    }
    if let Some(reference) = &reject.reference {
        return Ok(Some((OriginalFormat::File, Cow::Borrowed(reference))));
    }
    let Some(place) = place(batch, reject) else {
        return Ok(None);
    };
    let schema = batch.records.schema();
    let image = batch
        .records
        .column_by_name(IMAGE)
        .and_then(|image| image.as_binary_opt::<i32>());
    match image {
        // An image that came with more, such as a caption, is kept together with it.
        Some(image)
            if schema.fields().len() == 3
                && schema.field(0).name() == SOURCE
                && image.is_valid(place) =>
        {
            Ok(Some((
                OriginalFormat::Image,
                Cow::Borrowed(image.value(place)),
            )))
        }
        _ => {
            let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
            writer.write(&batch.records.slice(place, 1))?;
            Ok(Some((
                OriginalFormat::Arrow,
                Cow::Owned(writer.into_inner()?),
            )))
        }
    }
}
