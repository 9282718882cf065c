//! Splits text into records, parses them in batches, and isolates the records that fail to parse.

use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;

use crate::batch::{RecordLayout, Reject, RejectCode};
use crate::source::batch_limits::BatchLimits;
use crate::source::file_source::{BatchOutput, FileRecords, ReadEnd, catch_panic, shorten};
use crate::source::text_columns::Misfit;

/// A text format: the check of a record before it is parsed, and the parser.
pub(super) trait TextFormat {
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
pub(super) struct DecodeError {
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
pub(super) enum LineAction {
    /// Parse it; the value is the upper bound on its Arrow memory in bytes.
    Parse(u64),
    /// Ignore it: the line is blank and does not count as a record.
    Skip,
    /// Reject it, with the reason.
    Refuse(RejectCode, String),
}

/// Reads the remaining records of a file, numbers their rows from 0, and returns their number.
pub(super) fn read_all<R: Read>(
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

/// Finds the ends of records with a buffer of constant size, regardless of the length of a record.
pub(super) struct Framer<R> {
    input: BufReader<R>,
    quoting: Option<Quoting>,
    limit: usize,
    /// Bytes that were read, including those of discarded records.
    consumed: u64,
}

/// The quoting of CSV values that contain delimiters or line ends (RFC 4180).
#[derive(Debug, Clone, Copy)]
pub(super) struct Quoting {
    /// The byte around a value; doubled inside it.
    pub(super) quote: u8,
    /// The byte between values.
    pub(super) delimiter: u8,
}

/// The result of a search for the next record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// A record; never an empty line.
    Record,
    /// A record beyond the limit, which was discarded. The text within its quotes belongs to it,
    /// regardless of its length.
    TooLong,
    /// The input ended inside quotes.
    Unclosed,
    /// The input ended inside quotes, beyond the limit; the record was discarded.
    UnclosedTooLong,
    /// The input ended after the previous record.
    End,
}

/// The position of a byte in a CSV record. The automaton is the same as that of the parser, so that
/// both find the same records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QuoteState {
    FieldStart,
    Plain,
    Quoted,
    QuoteInQuoted,
}

/// Size of the read buffer in bytes.
const CHUNK: usize = 1 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl<R: Read> Framer<R> {
    /// Creates a framer at the start of a file and skips a byte order mark. Records have at most
    /// `limit` bytes.
    pub(super) fn new(input: R, quoting: Option<Quoting>, limit: u64) -> io::Result<Self> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut framer = Self {
            input: BufReader::with_capacity(CHUNK, input),
            quoting,
            limit,
            consumed: 0,
        };
        if framer.fill()?.starts_with(BYTE_ORDER_MARK) {
            framer.input.consume(BYTE_ORDER_MARK.len());
        }
        Ok(framer)
    }

    /// Counts the remaining records.
    ///
    /// # Errors
    /// I/O errors of the input.
    pub(super) fn count(&mut self) -> io::Result<u64> {
        let mut record = Vec::new();
        let mut count = 0;
        while self.frame(&mut record)? != Frame::End {
            record.clear();
            count += 1;
        }
        Ok(count)
    }

    /// Appends the next record to `into`, without its line end.
    pub(super) fn frame(&mut self, into: &mut Vec<u8>) -> io::Result<Frame> {
        let start = into.len();
        let (mut state, mut is_too_long) = (QuoteState::FieldStart, false);
        loop {
            let quoting = self.quoting;
            let chunk = self.fill()?;
            if chunk.is_empty() {
                return Ok(match state {
                    _ if into.len() == start && !is_too_long => Frame::End,
                    QuoteState::Quoted if is_too_long => Frame::UnclosedTooLong,
                    QuoteState::Quoted => Frame::Unclosed,
                    _ if is_too_long => Frame::TooLong,
                    _ => Frame::Record,
                });
            }
            let end = match quoting {
                Some(quoting) => quoting.record_end(chunk, &mut state),
                None => chunk.iter().position(|&byte| byte == b'\n'),
            };
            let taken = end.unwrap_or(chunk.len());
            if !is_too_long {
                into.extend_from_slice(&chunk[..taken]);
            }
            let consumed = taken + usize::from(end.is_some());
            self.input.consume(consumed);
            self.consumed += consumed as u64;
            if into.len() - start > self.limit {
                into.truncate(start);
                is_too_long = true;
            }
            if end.is_some() && is_too_long {
                return Ok(Frame::TooLong);
            }
            if end.is_some() {
                if into.len() > start {
                    return Ok(Frame::Record);
                }
                state = QuoteState::FieldStart;
            }
        }
    }

    fn fill(&mut self) -> io::Result<&[u8]> {
        while let Err(error) = self.input.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(self.input.buffer())
    }
}

impl Quoting {
    /// The position of the end of the record, if it is in `chunk`.
    fn record_end(self, chunk: &[u8], state: &mut QuoteState) -> Option<usize> {
        for (offset, &byte) in chunk.iter().enumerate() {
            if *state != QuoteState::Quoted && matches!(byte, b'\n' | b'\r') {
                return Some(offset);
            }
            *state = self.step(*state, byte);
        }
        None
    }

    /// Counts the values of a record.
    pub(super) fn values(self, record: &[u8]) -> usize {
        let mut state = QuoteState::FieldStart;
        let delimiters = record.iter().filter(|&&byte| {
            let is_delimiter = state != QuoteState::Quoted && byte == self.delimiter;
            state = self.step(state, byte);
            is_delimiter
        });
        1 + delimiters.count()
    }

    fn step(self, state: QuoteState, byte: u8) -> QuoteState {
        match (state, byte) {
            (QuoteState::Quoted, byte) if byte == self.quote => QuoteState::QuoteInQuoted,
            (QuoteState::Quoted, _) => QuoteState::Quoted,
            (QuoteState::FieldStart | QuoteState::QuoteInQuoted, byte) if byte == self.quote => {
                QuoteState::Quoted
            }
            (_, byte) if byte == self.delimiter => QuoteState::FieldStart,
            _ => QuoteState::Plain,
        }
    }
}

/// The text of records that become one batch.
#[derive(Default)]
pub(super) struct TextBatch {
    text: Vec<u8>,
    records: Vec<(u32, Range<usize>)>,
    rejects: Vec<Reject>,
    rows: u32,
    weight: u64,
}

/// The parsed records and the rejects of a block.
pub(super) struct ParsedText {
    /// The records that were parsed.
    pub(super) records: RecordBatch,
    /// Their ordinals in the block.
    pub(super) origin: Vec<u32>,
    /// The records that were not parsed.
    pub(super) rejects: Vec<Reject>,
}

/// The records of a file in blocks.
pub(super) struct TextBatches<R> {
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
    pub(super) fn new(framer: Framer<R>, batch_limits: BatchLimits) -> Self {
        Self {
            framer,
            batch_limits,
            held: None,
            failed: None,
            ends_in_quotes: false,
        }
    }

    /// The number of bytes that were read.
    pub(super) fn consumed(&self) -> u64 {
        self.framer.consumed
    }

    /// Reads the next block. It ends before a record that exceeds a limit or that cannot be read.
    pub(super) fn next(&mut self, format: &impl TextFormat) -> io::Result<Option<TextBatch>> {
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

/// Rejects a record of more than `limit` bytes.
pub(super) fn too_long(limit: u64) -> LineAction {
    let limit = crate::units::ByteSize(limit);
    LineAction::Refuse(
        RejectCode::TooLarge,
        format!("the record exceeds {limit}; increase limits.record_bytes to read it"),
    )
}

impl TextBatch {
    fn push(&mut self, start: usize, action: LineAction) {
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
    pub(super) fn rows(&self) -> u32 {
        self.rows
    }

    /// Upper bound on the Arrow memory of its records plus the size of its rejected text, in bytes.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    /// The ordinals and texts of the records to be parsed, without line ends.
    pub(super) fn texts(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.records
            .iter()
            .map(|(ordinal, range)| (*ordinal, &self.text[range.start..range.end - 1]))
    }

    /// Parses all records. A record that fails to parse is found by halving and becomes a reject.
    pub(super) fn parse(
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const CSV: Option<Quoting> = Some(Quoting {
        quote: b'"',
        delimiter: b',',
    });

    /// Returns one byte per read, so that every state occurs at the border of a chunk.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(1);
            into[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn frames(mut framer: Framer<impl Read>) -> Vec<(Frame, String)> {
        let mut all = Vec::new();
        loop {
            let mut text = Vec::new();
            match framer.frame(&mut text).unwrap() {
                Frame::End => return all,
                frame => all.push((frame, String::from_utf8(text).unwrap())),
            }
        }
    }

    fn check(text: &str, quoting: Option<Quoting>, expected: &[(Frame, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|&(frame, content)| (frame, content.to_owned()))
            .collect();
        assert_eq!(
            frames(Framer::new(text.as_bytes(), quoting, 20).unwrap()),
            expected,
            "{text:?}"
        );
        assert_eq!(
            frames(Framer::new(Trickle(text.as_bytes()), quoting, 20).unwrap()),
            expected,
            "{text:?}, one byte per read"
        );
    }

    #[test]
    fn every_kind_of_line_end_ends_a_record() {
        use Frame::Record;
        check(
            "a\r\n\r\nb\n\nc\rd",
            CSV,
            &[(Record, "a"), (Record, "b"), (Record, "c"), (Record, "d")],
        );
        check("a\n\nb", None, &[(Record, "a"), (Record, "b")]);
        check("", CSV, &[]);
    }

    #[test]
    fn quotes_protect_line_ends_only_at_the_start_of_a_value() {
        use Frame::{Record, Unclosed};
        check(
            "1,\"a\n\"\"b\"\n2,5\" x\n",
            CSV,
            &[(Record, "1,\"a\n\"\"b\""), (Record, "2,5\" x")],
        );
        check(
            "\"a\"x\n\"b\n",
            CSV,
            &[(Record, "\"a\"x"), (Unclosed, "\"b\n")],
        );
    }

    #[test]
    fn record_beyond_the_limit_ends_at_its_line_end() {
        use Frame::{Record, TooLong};
        let long = "x".repeat(50);
        check(
            &format!("{long}\nb\n{long}"),
            CSV,
            &[(TooLong, ""), (Record, "b"), (TooLong, "")],
        );
    }

    #[test]
    fn lines_within_a_long_quoted_value_belong_to_it() {
        use Frame::{Record, TooLong, UnclosedTooLong};
        let long = format!("\"{}\nevil\n\",2", "x".repeat(50));
        check(
            &format!("a\n{long}\nb\n{long}"),
            CSV,
            &[(Record, "a"), (TooLong, ""), (Record, "b"), (TooLong, "")],
        );
        check(
            &format!("a\n\"{}\nb\nc\n", "x".repeat(50)),
            CSV,
            &[(Record, "a"), (UnclosedTooLong, "")],
        );
    }

    /// Returns its bytes, then an error, then the end of the input.
    struct Failing<'a>(&'a [u8], Option<io::Error>);

    impl Read for Failing<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match self.0.read(into) {
                Ok(0) => self.1.take().map_or(Ok(0), Err),
                read => read,
            }
        }
    }

    #[test]
    fn records_before_an_error_are_returned_first() {
        struct Lines(SchemaRef);
        impl TextFormat for Lines {
            fn check(&self, record: &[u8]) -> LineAction {
                LineAction::Parse(record.len() as u64)
            }
            fn decode(&self, _: &[u8], _: usize) -> Result<RecordBatch, DecodeError> {
                Err("not used by this test".to_owned().into())
            }
            fn schema(&self) -> &SchemaRef {
                &self.0
            }
        }
        let lines = Lines(std::sync::Arc::new(arrow::datatypes::Schema::empty()));
        let input = Failing(b"a\nb\nhalf", Some(io::Error::other("away")));
        let limits = BatchLimits {
            records: 1000,
            bytes: 1 << 20,
            soft_max_records: 1000,
        };
        let mut failing = TextBatches::new(Framer::new(input, None, 20).unwrap(), limits);
        let block = failing.next(&lines).unwrap().unwrap();
        assert_eq!(
            block
                .texts()
                .map(|(_, text)| text.to_vec())
                .collect::<Vec<_>>(),
            [b"a", b"b"]
        );
        assert_eq!(failing.next(&lines).err().unwrap().to_string(), "away");
    }

    #[test]
    fn byte_order_mark_is_skipped() {
        let framer = Framer::new("\u{feff}a".as_bytes(), None, 20).unwrap();
        assert_eq!(frames(framer), [(Frame::Record, "a".to_owned())]);
    }
}
