//! A batch of records of text, which is halved until the records that fail to parse are isolated.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use crate::batch::reject::{RecordLayout, Reject, RejectCode};
use crate::source::table::file_source::read_end::catch_panic;
use crate::source::table::text::{DecodeError, LineAction, TextFormat};
use crate::text_excerpt::shorten;

/// The text of records that become one batch.
#[derive(Default)]
pub(crate) struct TextBatch {
    pub(super) text: Vec<u8>,
    pub(super) records: Vec<(u32, Range<usize>)>,
    pub(super) rejects: Vec<Reject>,
    pub(super) rows: u32,
    pub(super) weight: u64,
}

/// The parsed records and the rejects of a block.
pub(crate) struct ParsedText {
    /// The records that were parsed.
    pub(crate) records: RecordBatch,
    /// Their ordinals in the block.
    pub(crate) origin: Vec<u32>,
    /// The records that were not parsed.
    pub(crate) rejects: Vec<Reject>,
}

/// Rejects a record of more than `limit` bytes.
pub(crate) fn too_long(limit: u64) -> LineAction {
    let limit = crate::units::ByteSize(limit);
    LineAction::Refuse(
        RejectCode::TooLarge,
        format!("the record exceeds {limit}; increase limits.record_bytes to read it"),
    )
}

impl TextBatch {
    pub(super) fn push(&mut self, start: usize, action: LineAction) {
        match action {
            LineAction::Skip => return self.text.truncate(start),
            LineAction::Parse(_) => {
                self.text.push(b'\n');
                self.records.push((self.rows, start..self.text.len()));
            }
            LineAction::Refuse(code, reason) => {
                let record = self.text.split_off(start);
                let record = (!record.is_empty()).then_some(record);
                self.rejects.push(Reject {
                    record,
                    ..Reject::new(self.rows, code, reason)
                });
            }
        }
        self.rows += 1;
    }

    /// The number of its rows, including those of rejects.
    pub(crate) fn rows(&self) -> u32 {
        self.rows
    }

    /// Upper bound on the Arrow memory of its records plus the size of its rejected text, in bytes.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// The ordinals and texts of the records to be parsed, without line ends.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.records
            .iter()
            .map(|(ordinal, range)| (*ordinal, &self.text[range.start..range.end - 1]))
    }

    /// Parses all records. A record that fails to parse is found by halving and becomes a reject.
    pub(crate) fn parse(
        mut self,
        format: &impl TextFormat,
    ) -> Result<ParsedText, arrow::error::ArrowError> {
        let mut batches = Vec::new();
        let mut bad = std::mem::take(&mut self.rejects);
        self.halve(0..self.records.len(), format, &mut batches, &mut bad);
        bad.sort_by_key(|reject| reject.ordinal);
        let refused = |ordinal: &u32| {
            bad.binary_search_by_key(ordinal, |reject| reject.ordinal)
                .is_ok()
        };
        let origin = (0..self.rows).filter(|ordinal| !refused(ordinal)).collect();
        let records = match batches.as_slice() {
            [one] => one.clone(),
            many => concat_batches(format.schema(), many)?,
        };
        Ok(ParsedText {
            records,
            origin,
            rejects: bad,
        })
    }

    fn halve(
        &self,
        part: Range<usize>,
        format: &impl TextFormat,
        good: &mut Vec<RecordBatch>,
        bad: &mut Vec<Reject>,
    ) {
        let (Some((ordinal, first)), Some((_, last))) = (
            self.records.get(part.start),
            self.records[part.clone()].last(),
        ) else {
            return;
        };
        let text = &self.text[first.start..last.end];
        let rows_match = |batch: RecordBatch| match batch.num_rows() {
            rows if rows == part.len() => Ok(batch),
            rows => Err(DecodeError::from(format!(
                "the parser returned {rows} records; expected {}",
                part.len()
            ))),
        };
        let mut misfit = None;
        let decoded = catch_panic(|| {
            let decoded = format.decode(text, part.len()).and_then(rows_match);
            decoded.map_err(|error| {
                misfit = error.misfit;
                error.reason
            })
        });
        match decoded {
            Ok(batch) => good.push(batch),
            Err((code, reason)) if part.len() == 1 => {
                let layout =
                    misfit.map_or(RecordLayout::Unparsed, |misfit| format.rejected(&misfit));
                bad.push(Reject {
                    record: Some(text[..text.len() - 1].to_vec()),
                    layout,
                    ..Reject::new(*ordinal, code, shorten(&reason))
                });
            }
            Err(_) => {
                let middle = part.start + part.len() / 2;
                self.halve(part.start..middle, format, good, bad);
                self.halve(middle..part.end, format, good, bad);
            }
        }
    }
}
