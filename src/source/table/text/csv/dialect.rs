//! The dialect of delimited text: how the bytes of a file become records and the texts of values.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use crate::batch::reject::RejectCode;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::table::file_source::check_names;
use crate::source::table::file_source::read_end::catch_panic;
use crate::source::table::text::collapse_delimiters::DelimiterCollapser;
use crate::source::table::text::encoding::{TextEncoding, open_text};
use crate::source::table::text::framer::{Frame, Framer, Quoting};

/// Maximum number of columns. A file with more columns is assumed to be read with a wrong delimiter
/// or not to be a table.
const MAX_COLUMNS: usize = 16_384;

/// The text of a file, one record after another.
pub(super) type RecordFramer<'a> = Framer<DelimiterCollapser<Box<dyn Read + 'a>>>;

/// How the values of a record are written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(in crate::source) struct ValueFormat {
    /// The character between values.
    pub(in crate::source) delimiter: u8,
    /// The character around values.
    pub(in crate::source) quote: u8,
    /// The decimal point.
    pub(in crate::source) decimal: char,
    /// Values that are null, in addition to the empty one.
    pub(in crate::source) null_values: BTreeSet<String>,
}

impl ValueFormat {
    pub(super) fn quoting(&self) -> Quoting {
        Quoting {
            quote: self.quote,
            delimiter: self.delimiter,
        }
    }

    fn format(&self) -> Format {
        Format::default()
            .with_delimiter(self.delimiter)
            .with_quote(self.quote)
    }

    /// Splits `count` records of `names.len()` values each, and returns the values of the columns
    /// at `indices` as text.
    ///
    /// # Errors
    /// A sentence that states why a record cannot be split.
    pub(super) fn split(
        &self,
        text: &[u8],
        count: usize,
        names: &[String],
        indices: &[usize],
    ) -> Result<RecordBatch, String> {
        let fields = names
            .iter()
            .map(|name| Field::new(name, DataType::Utf8, true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mut decoder = ReaderBuilder::new(schema)
            .with_format(self.format())
            .with_projection(indices.to_vec())
            .with_batch_size(count + 1)
            .build_decoder();
        let split = || -> Result<Option<RecordBatch>, ArrowError> {
            let mut left = text;
            while !left.is_empty() {
                match decoder.decode(left)? {
                    0 => break,
                    taken => left = &left[taken..],
                }
            }
            decoder.flush()
        }();
        match split {
            Ok(batch) => batch.ok_or_else(|| "the parser found no record".to_owned()),
            Err(error) => Err(explain(&error.to_string())),
        }
    }
}

/// Removes the line numbers, which count within a block, from a message of the parser.
fn explain(message: &str) -> String {
    let message = message
        .split_once("rror: ")
        .map_or(message, |(_, message)| message);
    let message = message
        .replace(" for line 1,", ",")
        .replace(" for line 1 and", " in");
    message
        .split(" at line ")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The options that decide how the bytes of a file become records.
#[derive(Debug, Clone)]
pub(super) struct CsvDialect {
    pub(super) header: bool,
    pub(super) values: ValueFormat,
    pub(super) aligned: bool,
    pub(super) encoding: TextEncoding,
    pub(super) record_bytes: u64,
}

impl CsvDialect {
    pub(super) fn open<'a>(
        &self,
        file: &InputFile,
        input: impl Read + 'a,
    ) -> Result<RecordFramer<'a>, ReadEnd> {
        self.frame(open_text(file, input, self.encoding)?)
            .map_err(file.stopped())
    }

    /// A framer of text in UTF-8 that begins with a record.
    pub(super) fn frame<'a>(&self, text: Box<dyn Read + 'a>) -> std::io::Result<RecordFramer<'a>> {
        let quoting = self.values.quoting();
        let text = DelimiterCollapser::new(text, self.aligned.then_some(quoting));
        Framer::new(text, Some(quoting), self.record_bytes)
    }

    /// Reads the values of the first record, which are the names of the columns if there is a
    /// header; `None` for an empty file.
    pub(super) fn names(
        &self,
        file: &InputFile,
        framer: &mut RecordFramer<'_>,
    ) -> Result<Option<Vec<String>>, ReadEnd> {
        let mut header = Vec::new();
        let frame = framer.frame(&mut header).map_err(file.stopped())?;
        if frame == Frame::End {
            return Ok(None);
        }
        let bad = |what: &str| {
            file.unfit(
                RejectCode::Malformed,
                &format!("invalid header: {what}; correct the file"),
                1,
            )
        };
        if frame != Frame::Record {
            return Err(bad(
                "it exceeds limits.record_bytes, or the file ends inside a quoted value",
            ));
        }
        if header.contains(&0) {
            return Err(bad(
                "it contains zero bytes, which text in UTF-8 does not contain; for text in UTF-16 \
                 without a byte order mark, write `encoding = \"utf-16le\"`",
            ));
        }
        // Each name takes many times the memory of its text.
        let count = self.values.quoting().values(&header);
        if count > MAX_COLUMNS {
            return Err(bad(&format!(
                "it has {count} columns; at most {MAX_COLUMNS} are supported"
            )));
        }
        let format = self.values.format().with_header(true);
        let (schema, _) = catch_panic(|| format.infer_schema(header.as_slice(), Some(0)))
            .map_err(|(_, what)| bad(&what))?;
        let fields = schema.fields().iter();
        Ok(Some(fields.map(|field| field.name().clone()).collect()))
    }

    /// Reads the header of a file to infer the columns: the names must be unique.
    pub(super) fn unique_names(
        &self,
        file: &InputFile,
        framer: &mut RecordFramer<'_>,
    ) -> Result<Option<Vec<String>>, ReadEnd> {
        let names = self.names(file, framer)?;
        if let Some(names) = &names {
            check_names(names.iter())
                .map_err(|what| file.unfit(RejectCode::Malformed, &what, 1))?;
        }
        Ok(names)
    }
}
