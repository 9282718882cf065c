//! Splits text into records, parses them in batches, and isolates the records that fail to parse.

pub(crate) mod batch;
pub(crate) mod collapse_delimiters;
pub(crate) mod column_type;
pub(crate) mod columns;
pub(crate) mod csv;
pub(crate) mod encoding;
pub(crate) mod framer;
pub(crate) mod ndjson;
pub(crate) mod sample;
pub(crate) mod seen_values;
pub(crate) mod values;

use std::io;
use std::io::Read;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::batch::reject::{RecordLayout, RejectCode};
use crate::source::batch_limits::BatchLimits;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::table::file_source::{BatchOutput, FileRecords};
use crate::source::table::text::batch::{TextBatch, too_long};
use crate::source::table::text::columns::Misfit;
use crate::source::table::text::framer::{Frame, Framer};

/// A text format: the check of a record before it is parsed, and the parser.
pub(crate) trait TextFormat {
    /// Checks one record, without its line end, before it is parsed.
    fn check(&self, record: &[u8]) -> LineAction;

    /// Parses `count` records, each followed by a line feed, into `count` rows.
    fn decode(&self, text: &[u8], count: usize) -> Result<RecordBatch, DecodeError>;

    /// The columns of decoded records.
    fn schema(&self) -> &SchemaRef;

    /// Counts a record that is valid except for a value that does not fit the type of its column,
    /// and returns how its original can be read again.
    fn rejected(&self, _misfit: &Misfit) -> RecordLayout {
        RecordLayout::Unparsed
    }
}

/// The reason why records cannot be parsed.
#[derive(Debug)]
pub(crate) struct DecodeError {
    reason: String,
    /// The value that does not fit the type of its column, if that is the reason.
    misfit: Option<Misfit>,
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl From<String> for DecodeError {
    fn from(reason: String) -> Self {
        Self {
            reason,
            misfit: None,
        }
    }
}

impl From<Misfit> for DecodeError {
    fn from(misfit: Misfit) -> Self {
        Self {
            reason: misfit.reason.clone(),
            misfit: Some(misfit),
        }
    }
}

/// How a record is processed further.
pub(crate) enum LineAction {
    /// Parse it; the value is the upper bound on its Arrow memory in bytes.
    Parse(u64),
    /// Ignore it: the line is blank and does not count as a record.
    Skip,
    /// Reject it, with the reason.
    Refuse(RejectCode, String),
}

/// Reads the remaining records of a file, numbers their rows from 0, and returns their number.
pub(crate) fn read_all<R: Read>(
    framer: Framer<R>,
    format: &impl TextFormat,
    cut: BatchLimits,
    output: &BatchOutput<'_>,
) -> Result<u64, ReadEnd> {
    let mut blocks = TextBatches::new(framer, cut);
    let mut row = 0;
    loop {
        let block = match blocks.next(format) {
            Ok(Some(block)) => block,
            Ok(None) => return output.end(row, blocks.ends_in_quotes).map(|()| row),
            Err(error) => return output.stop_at(row, error).map(|()| row + 1),
        };
        let rows = row..row + u64::from(block.rows);
        row = rows.end;
        if !output.done(&rows) {
            output.begin(row, blocks.ends_in_quotes)?;
            let parsed = block.parse(format)?;
            let (columns, origin) = (parsed.records.columns().to_vec(), parsed.origin);
            output.send(
                rows,
                FileRecords {
                    columns,
                    origin,
                    rejects: parsed.rejects,
                    ..FileRecords::default()
                },
            )?;
        }
    }
}

/// The records of a file in blocks.
pub(crate) struct TextBatches<R> {
    framer: Framer<R>,
    batch_limits: BatchLimits,
    /// A record that was read but did not fit into the last block.
    held: Option<(Frame, Vec<u8>)>,
    /// The error that follows the last block.
    failed: Option<io::Error>,
    /// Whether the input ends within a quoted value, as far as it was read.
    ends_in_quotes: bool,
}

impl<R: Read> TextBatches<R> {
    /// Creates blocks of the records that `framer` finds, within `batch_limits`.
    pub(crate) fn new(framer: Framer<R>, batch_limits: BatchLimits) -> Self {
        Self {
            framer,
            batch_limits,
            held: None,
            failed: None,
            ends_in_quotes: false,
        }
    }

    /// The number of bytes that were read.
    pub(crate) fn consumed(&self) -> u64 {
        self.framer.consumed
    }

    /// Reads the next block. It ends before a record that exceeds a limit or that cannot be read.
    pub(crate) fn next(&mut self, format: &impl TextFormat) -> io::Result<Option<TextBatch>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut block = TextBatch::default();
        let mut weight = 0;
        while (block.rows as usize) < self.batch_limits.records {
            let start = block.text.len();
            let frame = match self.held.take() {
                Some((frame, text)) => {
                    block.text.extend_from_slice(&text);
                    frame
                }
                None => match self.framer.frame(&mut block.text) {
                    Ok(frame) => frame,
                    Err(error) => {
                        block.text.truncate(start);
                        self.failed = Some(error);
                        break;
                    }
                },
            };
            self.ends_in_quotes |= matches!(frame, Frame::Unclosed | Frame::UnclosedTooLong);
            let action = match frame {
                Frame::End => break,
                Frame::Record => format.check(&block.text[start..]),
                Frame::TooLong => too_long(self.framer.limit as u64),
                Frame::Unclosed => LineAction::Refuse(
                    RejectCode::Malformed,
                    "a quoted value is not closed, and the rest of the file is in it; the number \
                     of records is unknown, so the reject counts as one record"
                        .to_owned(),
                ),
                Frame::UnclosedTooLong => LineAction::Refuse(
                    RejectCode::TooLarge,
                    "a quoted value is not closed, and the rest of the file is lost; the number of \
                     records is unknown, so the reject counts as one record"
                        .to_owned(),
                ),
            };
            let size = match action {
                LineAction::Parse(size) => size,
                _ => (block.text.len() - start) as u64,
            };
            if block.rows > 0 && weight + size > self.batch_limits.bytes {
                self.held = Some((frame, block.text.split_off(start)));
                break;
            }
            weight += size;
            block.push(start, action);
        }
        block.weight = weight;
        match self.failed.take() {
            Some(error) if block.rows == 0 => Err(error),
            failed => {
                self.failed = failed;
                Ok((block.rows > 0).then_some(block))
            }
        }
    }
}

#[cfg(test)]
mod tests;
