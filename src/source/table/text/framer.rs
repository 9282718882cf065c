//! Splits text into records: lines, and quoted records of delimited text.

use std::io;
use std::io::{BufRead, BufReader, Read};

/// Finds the ends of records with a buffer of constant size, regardless of the length of a record.
pub(crate) struct Framer<R> {
    pub(super) input: BufReader<R>,
    /// `None` if each line is a record.
    csv: Option<Box<CsvAutomaton>>,
    pub(super) limit: usize,
    /// Bytes that were read, including those of discarded records.
    pub(super) consumed: u64,
}

/// The quoting of CSV values that contain delimiters or line ends (RFC 4180).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quoting {
    /// The byte around a value; doubled inside it.
    pub(crate) quote: u8,
    /// The byte between values.
    pub(crate) delimiter: u8,
}

/// The result of a search for the next record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
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

/// The automaton that finds the ends of CSV records and values. It is that of the parser, so that
/// both find the same records.
struct CsvAutomaton {
    reader: csv_core::Reader,
    /// Room for values and their ends, which are not used.
    pub(super) values: [u8; 4096],
    ends: [usize; 256],
}

/// The part of a record that `CsvAutomaton` read.
struct RecordPart {
    /// The number of bytes, including the line end.
    pub(super) bytes: usize,
    /// The number of values that ended.
    pub(super) values: usize,
    /// Whether the record ended.
    is_end: bool,
}

/// Size of the read buffer in bytes.
const CHUNK: usize = 1 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl<R: Read> Framer<R> {
    /// Creates a framer at the start of a file and skips a byte order mark. Records have at most
    /// `limit` bytes.
    pub(crate) fn new(input: R, quoting: Option<Quoting>, limit: u64) -> io::Result<Self> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut framer = Self {
            input: BufReader::with_capacity(CHUNK, input),
            csv: quoting.map(|quoting| Box::new(CsvAutomaton::new(quoting))),
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
    pub(crate) fn count(&mut self) -> io::Result<u64> {
        let mut record = Vec::new();
        let mut count = 0;
        while self.frame(&mut record)? != Frame::End {
            record.clear();
            count += 1;
        }
        Ok(count)
    }

    /// Appends the next record to `into`, without its line end.
    pub(crate) fn frame(&mut self, into: &mut Vec<u8>) -> io::Result<Frame> {
        let start = into.len();
        let mut is_too_long = false;
        loop {
            let is_first = into.len() == start && !is_too_long;
            if self.fill()?.is_empty() {
                let is_open = self.csv.as_deref_mut().is_some_and(CsvAutomaton::is_open);
                return Ok(match (is_open, is_too_long) {
                    _ if is_first => Frame::End,
                    (true, true) => Frame::UnclosedTooLong,
                    (true, false) => Frame::Unclosed,
                    (false, true) => Frame::TooLong,
                    (false, false) => Frame::Record,
                });
            }
            let chunk = self.input.buffer();
            let line_ends: &[u8] = if self.csv.is_some() { b"\r\n" } else { b"\n" };
            let is_line_end = |byte: &&u8| is_first && line_ends.contains(byte);
            let empty_lines = chunk.iter().take_while(is_line_end).count();
            let text = &chunk[empty_lines..];
            let part = match &mut self.csv {
                Some(csv) => csv.read(text),
                None => RecordPart::of_line(text),
            };
            if !is_too_long {
                into.extend_from_slice(&text[..part.bytes - usize::from(part.is_end)]);
            }
            let consumed = empty_lines + part.bytes;
            self.input.consume(consumed);
            self.consumed += consumed as u64;
            if into.len() - start > self.limit {
                into.truncate(start);
                is_too_long = true;
            }
            if part.is_end {
                return Ok(if is_too_long {
                    Frame::TooLong
                } else {
                    Frame::Record
                });
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
    /// Counts the values of a record.
    pub(crate) fn values(self, record: &[u8]) -> usize {
        let mut csv = CsvAutomaton::new(self);
        csv.read(record).values + 1
    }
}

impl RecordPart {
    /// The part of a line that is at the start of `text`.
    fn of_line(text: &[u8]) -> Self {
        let end = memchr::memchr(b'\n', text);
        Self {
            bytes: end.map_or(text.len(), |end| end + 1),
            values: 0,
            is_end: end.is_some(),
        }
    }
}

impl CsvAutomaton {
    pub(super) fn new(quoting: Quoting) -> Self {
        let mut reader = csv_core::ReaderBuilder::new()
            .delimiter(quoting.delimiter)
            .quote(quoting.quote)
            .build();
        let (mut values, mut ends) = ([0; 4096], [0; 256]);
        // The library skips a byte order mark at the start of its input; the framer has done so.
        reader.read_record(b"\n", &mut values, &mut ends);
        Self {
            reader,
            values,
            ends,
        }
    }

    /// Reads the part of a record that is at the start of `text`.
    pub(super) fn read(&mut self, text: &[u8]) -> RecordPart {
        let mut part = RecordPart {
            bytes: 0,
            values: 0,
            is_end: false,
        };
        // An empty input is the end of the file for the library.
        while part.bytes < text.len() && !part.is_end {
            let input = &text[part.bytes..];
            let (result, bytes, _, values) =
                self.reader
                    .read_record(input, &mut self.values, &mut self.ends);
            part.bytes += bytes;
            part.values += values;
            part.is_end = matches!(result, csv_core::ReadRecordResult::Record);
        }
        part
    }

    /// Whether a line end after the text would be in quotes.
    fn is_open(&mut self) -> bool {
        !self.read(b"\n").is_end
    }
}
