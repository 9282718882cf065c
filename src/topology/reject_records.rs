//! Joins rejects with the source records that they come from, for the rejects dataset.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::UInt64Type;
use arrow::ipc::writer::StreamWriter;

use super::telemetry::tap::RecentReject;
use crate::batch::Batch;
use crate::batch::provenance::Provenance;
use crate::batch::reject::{RecordLayout, Reject, RejectCode};
use crate::columns::{IMAGE, ROW, SOURCE};
use crate::error::StageError;
use crate::plan::pipeline::Plan;
use crate::sink::dataset::rejects;
use crate::sink::dataset::rejects::RejectEntry;
use crate::source::rejects::format::OriginalFormat;
use crate::text_excerpt::shorten;
use crate::units::unix_seconds;

/// Whether the original record of a reject is stored in addition to its source and its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OriginalsPolicy {
    Kept,
    Dropped,
}

impl OriginalsPolicy {
    /// `None` if the plan does not store rejects.
    pub(super) fn from_plan(plan: &Plan) -> Option<Self> {
        plan.rejects.as_ref().map(|_| {
            if plan.keeps_originals {
                Self::Kept
            } else {
                Self::Dropped
            }
        })
    }
}

/// The rejects of one batch, and the batch as read from its source.
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

    /// Logs the records that were rejected because the stage failed or panicked.
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
            let (source, reason) = (shorten(source), shorten(reason));
            tracing::warn!(
                stage,
                source,
                row,
                code = code.as_str(),
                reason,
                "the stage failed on a record"
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

    /// The rejects, each with the name of its stage.
    pub(super) fn into_list(self) -> Vec<(Arc<str>, Reject)> {
        self.list
    }

    /// The last `max` rejects, for the tap.
    pub(super) fn recent(&self, max: usize) -> Vec<RecentReject> {
        let last = &self.list[self.list.len().saturating_sub(max)..];
        let recent = |(stage, reject): &(Arc<str>, Reject)| {
            let entry = entry(&self.source, stage, reject, None);
            RecentReject {
                unix_seconds: unix_seconds(),
                stage: Arc::clone(stage),
                code: entry.code.as_str(),
                reason: shorten(entry.reason),
                source: shorten(entry.source),
                row: entry.row,
                records: entry.records,
            }
        };
        last.iter().map(recent).collect()
    }

    /// The rejects as records, in the order of their source rows; empty if there are none.
    pub(super) fn batch(&mut self, policy: OriginalsPolicy) -> Result<Batch, StageError> {
        self.list.sort_by_key(|(_, reject)| reject.ordinal);
        let batch = &self.source;
        let kept = self.list.iter().map(|(stage, reject)| match policy {
            OriginalsPolicy::Kept => original_or_none(batch, stage, reject),
            OriginalsPolicy::Dropped => None,
        });
        let originals: Vec<_> = kept.collect();
        let entries = self.list.iter().zip(&originals);
        let mut entries: Vec<_> = entries
            .map(|((stage, reject), original)| entry(batch, stage, reject, borrowed(original)))
            .collect();
        let records = rejects::records(&entries).or_else(|error| {
            tracing::warn!(
                rejects = entries.len(),
                %error,
                "cannot store the original records; the rejects are stored without them"
            );
            entries.iter_mut().for_each(|entry| entry.record = None);
            rejects::records(&entries)
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
    let (split, split_row) = match batch.provenance.identity(reject.ordinal) {
        Some(identity) => (identity.split, identity.row),
        None => ("", u64::from(reject.ordinal)),
    };
    let index = row_index(batch, reject);
    let source = index.and_then(|index| {
        let column = batch
            .records
            .column_by_name(SOURCE)?
            .as_string_opt::<i32>()?;
        Some(column.value(index))
    });
    let row = index.and_then(|index| {
        let column = batch
            .records
            .column_by_name(ROW)?
            .as_primitive_opt::<UInt64Type>()?;
        Some(column.value(index))
    });
    let origin = reject.source.as_ref();
    RejectEntry {
        source: source
            .or(origin.map(|(origin_source, _)| origin_source.as_str()))
            .unwrap_or(split),
        row: row
            .or(origin.map(|(_, origin_row)| *origin_row))
            .unwrap_or(split_row),
        split,
        split_row,
        stage,
        code: reject.code,
        reason: &reject.reason,
        record,
        records: reject.records,
    }
}

/// The name of the file or request of the record with this ordinal, shortened for display.
pub(super) fn source_of(batch: &Batch, ordinal: u32) -> String {
    let index = batch
        .row_ordinals
        .iter()
        .position(|&origin| origin == ordinal);
    let column = batch
        .records
        .column_by_name(SOURCE)
        .and_then(|column| column.as_string_opt::<i32>());
    match (index, column) {
        (Some(index), Some(column)) => shorten(column.value(index)),
        _ => batch
            .provenance
            .row(ordinal)
            .map_or(String::new(), |(split, _)| shorten(split.name())),
    }
}

fn borrowed<'a>(original: &'a Option<Original<'_>>) -> Option<(OriginalFormat, &'a [u8])> {
    original.as_ref().map(|(format, bytes)| (*format, &**bytes))
}

/// The index of the record in the batch of its source; `None` if the source could not read it.
fn row_index(batch: &Batch, reject: &Reject) -> Option<usize> {
    batch.row_ordinals.binary_search(&reject.ordinal).ok()
}

/// The format of an original record, and its bytes.
type Original<'a> = (OriginalFormat, Cow<'a, [u8]>);

/// As [`original`], but logs a warning and returns `None` if the record cannot be encoded, which
/// must not end the run.
fn original_or_none<'a>(batch: &'a Batch, stage: &str, reject: &'a Reject) -> Option<Original<'a>> {
    let attempt = catch_unwind(AssertUnwindSafe(|| original(batch, reject)));
    let error = match attempt {
        Ok(Ok(original)) => return original,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the encoder panicked".to_owned(),
    };
    let RejectEntry { source, row, .. } = entry(batch, stage, reject, None);
    tracing::warn!(
        stage,
        source = shorten(source),
        row,
        error,
        "cannot store the original record; the reject is stored without it"
    );
    None
}

/// The original record: the bytes of an image, a line that could not be parsed, or else all columns
/// of the source as an Arrow IPC stream.
fn original<'a>(batch: &'a Batch, reject: &'a Reject) -> Result<Option<Original<'a>>, StageError> {
    if let Some(record) = &reject.record {
        return Ok(Some(match &reject.layout {
            RecordLayout::Unparsed => (OriginalFormat::Line, Cow::Borrowed(record)),
            RecordLayout::Json => (OriginalFormat::Json, Cow::Borrowed(record)),
            RecordLayout::Csv(description) => {
                let stored = [description.as_bytes(), b"\n", record].concat();
                (OriginalFormat::Csv, Cow::Owned(stored))
            }
        }));
    }
    if let Some(reference) = &reject.reference {
        return Ok(Some((OriginalFormat::File, Cow::Borrowed(reference))));
    }
    let Some(index) = row_index(batch, reject) else {
        return Ok(None);
    };
    let schema = batch.records.schema();
    let image = batch
        .records
        .column_by_name(IMAGE)
        .and_then(|image| image.as_binary_opt::<i32>());
    match image {
        // An image that has further columns, such as a caption, is stored with all columns.
        Some(image)
            if schema.fields().len() == 3
                && schema.field(0).name() == SOURCE
                && image.is_valid(index) =>
        {
            Ok(Some((
                OriginalFormat::Image,
                Cow::Borrowed(image.value(index)),
            )))
        }
        _ => {
            let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
            writer.write(&batch.records.slice(index, 1))?;
            Ok(Some((
                OriginalFormat::Arrow,
                Cow::Owned(writer.into_inner()?),
            )))
        }
    }
}
