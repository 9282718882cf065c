//! Text as records: finds where each ends, parses many at once, and finds the bad ones among them.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::{Reject, RejectCode};
use crate::source::batch_limits::BatchLimits;
use crate::source::file_source::{BatchOutput, FileRecords, ReadEnd, catch_panic, shorten};

/// The type of a column, as users write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// 64-bit floating point numbers.
    Float,
    /// 64-bit integers.
    Int,
    /// UTF-8 text.
    String,
    /// `true` or `false`.
    Bool,
}

impl ColumnType {
    /// The types of all columns that have one which users can write.
    pub(super) fn all(schema: &Schema) -> BTreeMap<String, Self> {
        let types = [Self::Float, Self::Int, Self::String, Self::Bool];
        let of = |field: &Field| {
            types
                .into_iter()
                .find(|given| given.data_type() == *field.data_type())
        };
        schema
            .fields()
            .iter()
            .filter_map(|field| Some((field.name().clone(), of(field)?)))
            .collect()
    }

    /// The Arrow type.
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Float => DataType::Float64,
            Self::Int => DataType::Int64,
            Self::String => DataType::Utf8,
            Self::Bool => DataType::Boolean,
        }
    }
}

/// Types are inferred from so many records at the beginning.
pub(super) const SAMPLE: BatchLimits = BatchLimits {
    records: 1000,
    bytes: 32 << 20,
    soft_max_records: 1000,
};

/// A text format: what a record must be before it is parsed, and the parser.
pub(super) trait TextFormat {
    /// Looks at one record, without its line end.
    fn check(&self, record: &[u8]) -> LineAction;

    /// Parses `count` records, each followed by a line feed, into as many rows.
    fn decode(&self, text: &[u8], count: usize) -> Result<RecordBatch, String>;

    /// The columns of what is decoded.
    fn schema(&self) -> &SchemaRef;
}

/// What is to become of a record.
pub(super) enum LineAction {
    /// Parse it; at most so many bytes of Arrow memory come of it.
    Parse(u64),
    /// It is blank: no record at all.
    Skip,
    /// It is no record, and why.
    Refuse(RejectCode, String),
}

/// Reads the rest of a file's records, from row 0 on.
pub(super) fn read_all<R: Read>(
    framer: Framer<R>,
    format: &impl TextFormat,
    cut: BatchLimits,
    output: &BatchOutput<'_>,
) -> Result<(), ReadEnd> {
    let mut blocks = TextBatches::new(framer, cut);
    let mut row = 0;
    loop {
        let block = match blocks.next(format) {
            Ok(Some(block)) => block,
            Ok(None) => return output.end(row, blocks.ends_in_quotes),
            Err(error) => return output.stop_at(row, error),
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

/// Finds the ends of records; holds one buffer, however long a record is.
pub(super) struct Framer<R> {
    input: BufReader<R>,
    quoting: Option<Quoting>,
    limit: usize,
}

/// CSV's way to put line ends into values (RFC 4180).
#[derive(Debug, Clone, Copy)]
pub(super) struct Quoting {
    /// Stands around a value, doubled inside it.
    pub(super) quote: u8,
    /// Stands between values.
    pub(super) delimiter: u8,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// A record; never an empty line.
    Record,
    /// A record beyond the limit; none of it was kept. What lies within its quotes belongs to it,
    /// however long it is.
    TooLong,
    /// The input ended inside quotes.
    Unclosed,
    /// The input ended inside quotes, beyond the limit; none of it was kept.
    UnclosedTooLong,
    /// Nothing more.
    End,
}

/// Where in a CSV record a byte stands: the same automaton as the parser's, so that both see the
/// same records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QuoteState {
    FieldStart,
    Plain,
    Quoted,
    QuoteInQuoted,
}

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl<R: Read> Framer<R> {
    /// Begins at the start of a file; a byte order mark is skipped. Records may have `limit` bytes.
    pub(super) fn new(input: R, quoting: Option<Quoting>, limit: u64) -> io::Result<Self> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut framer = Self {
            input: BufReader::with_capacity(CHUNK, input),
            quoting,
            limit,
        };
        if framer.fill()?.starts_with(BYTE_ORDER_MARK) {
            framer.input.consume(BYTE_ORDER_MARK.len());
        }
        Ok(framer)
    }

    /// The first bytes of the file, as far as they were read.
    pub(super) fn start(&self) -> &[u8] {
        self.input.buffer()
    }

    /// Counts the remaining records.
    ///
    /// # Errors
    /// Those of the input.
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
            self.input.consume(taken + usize::from(end.is_some()));
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
    /// Where the record ends in `chunk`, if it does.
    fn record_end(self, chunk: &[u8], state: &mut QuoteState) -> Option<usize> {
        for (place, &byte) in chunk.iter().enumerate() {
            if *state != QuoteState::Quoted && matches!(byte, b'\n' | b'\r') {
                return Some(place);
            }
            *state = self.step(*state, byte);
        }
        None
    }

    /// The number of values of a record.
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

/// Records that become one batch.
#[derive(Default)]
pub(super) struct TextBatch {
    text: Vec<u8>,
    records: Vec<(u32, Range<usize>)>,
    rejects: Vec<Reject>,
    rows: u32,
    weight: u64,
}

/// What the records of a block came to.
pub(super) struct ParsedText {
    /// Those that could be parsed.
    pub(super) records: RecordBatch,
    /// Their ordinals in the block.
    pub(super) origin: Vec<u32>,
    /// The others.
    pub(super) rejects: Vec<Reject>,
}

/// A file's records in blocks.
pub(super) struct TextBatches<R> {
    framer: Framer<R>,
    batch_limits: BatchLimits,
    held: Option<(Frame, Vec<u8>)>,
    /// The error behind the last block.
    failed: Option<io::Error>,
    /// Whether the input was found to end within a quoted value.
    ends_in_quotes: bool,
}

impl<R: Read> TextBatches<R> {
    /// Blocks of what `framer` finds, within `batch_limits`.
    pub(super) fn new(framer: Framer<R>, batch_limits: BatchLimits) -> Self {
        Self {
            framer,
            batch_limits,
            held: None,
            failed: None,
            ends_in_quotes: false,
        }
    }

    /// The first block.
    ///
    /// # Errors
    /// Those of the input, also if they come after some records.
    pub(super) fn sample(mut self, format: &impl TextFormat) -> io::Result<Option<TextBatch>> {
        let block = self.next(format)?;
        self.failed.map_or(Ok(block), Err)
    }

    /// The next block: it ends before the record that would exceed a limit, or that cannot be read.
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
            let verdict = match frame {
                Frame::End => break,
                Frame::Record => format.check(&block.text[start..]),
                Frame::TooLong => too_long(self.framer.limit as u64),
                Frame::Unclosed => LineAction::Refuse(RejectCode::Malformed, "a quote is never closed".to_owned()),
                Frame::UnclosedTooLong => LineAction::Refuse(
                    RejectCode::TooLarge,
                    "a quote is never closed, and the rest of the file is lost; the number of records is unknown, so it \
                     counts as one"
                        .to_owned(),
                ),
            };
            let size = match verdict {
                LineAction::Parse(size) => size,
                _ => (block.text.len() - start) as u64,
            };
            if block.rows > 0 && weight + size > self.batch_limits.bytes {
                self.held = Some((frame, block.text.split_off(start)));
                break;
            }
            weight += size;
            block.push(start, verdict);
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

/// The verdict on a record of more than `limit` bytes.
pub(super) fn too_long(limit: u64) -> LineAction {
    let limit = crate::units::ByteSize(limit);
    LineAction::Refuse(
        RejectCode::TooLarge,
        format!("the record exceeds {limit}; limits.record_bytes may raise that"),
    )
}

impl TextBatch {
    fn push(&mut self, start: usize, verdict: LineAction) {
        match verdict {
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

    /// Rows that it stands for.
    pub(super) fn rows(&self) -> u32 {
        self.rows
    }

    /// Bytes of Arrow memory that its records take at most, and of the text that is refused.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    /// The records that are to be parsed, without line ends.
    pub(super) fn texts(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.records
            .iter()
            .map(|(ordinal, place)| (*ordinal, &self.text[place.start..place.end - 1]))
    }

    /// Parses all records; one that cannot be is found by halving, and the rest is kept.
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
            rows => Err(format!(
                "there are {rows} records in the place of {}",
                part.len()
            )),
        };
        match catch_panic(|| format.decode(text, part.len()).and_then(rows_match)) {
            Ok(batch) => good.push(batch),
            Err((code, reason)) if part.len() == 1 => {
                let record = Some(text[..text.len() - 1].to_vec());
                bad.push(Reject {
                    record,
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

    /// Gives a byte at a time, so that every state is met at a chunk's border.
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
            .map(|&(frame, text)| (frame, text.to_owned()))
            .collect();
        assert_eq!(
            frames(Framer::new(text.as_bytes(), quoting, 20).unwrap()),
            expected,
            "{text:?}"
        );
        assert_eq!(
            frames(Framer::new(Trickle(text.as_bytes()), quoting, 20).unwrap()),
            expected,
            "{text:?}, slowly"
        );
    }

    #[test]
    fn lines_end_records_whatever_their_end() {
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
    fn quotes_hold_line_ends_only_where_they_open_a_value() {
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
    fn a_record_beyond_the_limit_is_left_at_its_line() {
        use Frame::{Record, TooLong};
        let long = "x".repeat(50);
        check(
            &format!("{long}\nb\n{long}"),
            CSV,
            &[(TooLong, ""), (Record, "b"), (TooLong, "")],
        );
    }

    #[test]
    fn lines_within_a_long_quoted_value_are_no_records() {
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

    /// Gives its bytes, then an error, then an end.
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
    fn records_before_an_error_come_before_it() {
        struct Lines(SchemaRef);
        impl TextFormat for Lines {
            fn check(&self, record: &[u8]) -> LineAction {
                LineAction::Parse(record.len() as u64)
            }
            fn decode(&self, _: &[u8], _: usize) -> Result<RecordBatch, String> {
                Err("is not needed".to_owned())
            }
            fn schema(&self) -> &SchemaRef {
                &self.0
            }
        }
        let lines = Lines(std::sync::Arc::new(arrow::datatypes::Schema::empty()));
        let blocks = || {
            let input = Failing(b"a\nb\nhalf", Some(io::Error::other("away")));
            TextBatches::new(Framer::new(input, None, 20).unwrap(), SAMPLE)
        };
        let mut failing = blocks();
        let block = failing.next(&lines).unwrap().unwrap();
        assert_eq!(
            block
                .texts()
                .map(|(_, text)| text.to_vec())
                .collect::<Vec<_>>(),
            [b"a", b"b"]
        );
        assert_eq!(failing.next(&lines).err().unwrap().to_string(), "away");
        assert_eq!(blocks().sample(&lines).err().unwrap().to_string(), "away");
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        let framer = Framer::new("\u{feff}a".as_bytes(), None, 20).unwrap();
        assert_eq!(frames(framer), [(Frame::Record, "a".to_owned())]);
    }
}
