//! The `csv` source reads records of delimited text (RFC 4180).

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::RejectCode;
use crate::error::{ConfigError, StageError};
use crate::plan_context::PlanContext;
use crate::registry::did_you_mean;
use crate::source::batch_limits::BatchLimits;
use crate::source::collapse_delimiters::DelimiterCollapser;
use crate::source::file_checkpoints::OnChange;
use crate::source::file_source::{
    BatchOutput, FileFormat, FileSource, ReadEnd, absent_column, catch_panic, check_names,
};
use crate::source::input_file::{self, InputFile};
use crate::source::schema_inference::first;
use crate::source::text::{
    ColumnType, Frame, Framer, LineAction, Quoting, SAMPLE, TextBatches, TextFormat, read_all,
};
use crate::source::text_encoding::not_utf8;
use crate::source::{BatchSize, Source, SourceConfig};
use crate::storage::FileReader;

/// Reads records of delimited text.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct CsvSourceConfig {
    /// A file, a folder (all *.csv files in it and in its subfolders) or a glob.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    pub path: String,
    /// Whether the first record of each file names the columns. Default: true.
    #[serde(default = "yes")]
    #[schemars(extend("x-changes-rows" = true))]
    pub header: bool,
    /// The character between values. Default: ",".
    #[serde(default = "comma")]
    #[schemars(extend("x-changes-rows" = true))]
    pub delimiter: char,
    /// Whether columns are aligned with repeated delimiters. A run of delimiters then counts as one
    /// delimiter, and delimiters at either end of a record are ignored. Intended for columns of
    /// numbers with `delimiter = " "`. Default: false.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub aligned: bool,
    /// The character that encloses values with delimiters, line ends or the character itself, which
    /// is then doubled. Default: a double quote.
    #[serde(default = "double_quote")]
    #[schemars(extend("x-changes-rows" = true))]
    pub quote: char,
    /// Names of the columns if `header = false`. Default: column_1, column_2, ...
    #[schemars(extend("x-changes-rows" = true, "x-inferred" = true))]
    pub columns: Option<Vec<String>>,
    /// Types by column. Default: inferred from the first 1,000 records of the first file. An empty
    /// value is null.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true, "x-inferred" = true))]
    pub types: BTreeMap<String, ColumnType>,
    /// How to treat a file that has changed since an earlier run read it. If records were appended,
    /// only these are read. After any other change, `new` reads the file as a new file and warns
    /// that the rows of its earlier version stay in the output; `refuse` ends `check` and `run`
    /// with an error that names the file. Default: new.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub on_change: OnChange,
}

fn yes() -> bool {
    true
}

fn comma() -> char {
    ','
}

fn double_quote() -> char {
    '"'
}

/// Maximum number of columns. A file with more columns is assumed to be read with a wrong delimiter
/// or not to be a table.
const MAX_COLUMNS: usize = 16_384;

impl SourceConfig for CsvSourceConfig {
    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let quoting = self.quoting()?;
        let reader = CsvReader {
            header: self.header,
            quoting,
            aligned: self.aligned,
            record_bytes: context.limits.record_bytes.0,
            batch_limits: BatchLimits::features(batch),
        };
        let path = |error: StageError| vec![ConfigError::from_error("path", &error)];
        let files = input_file::list(name, &self.path, CsvFormat::EXTENSIONS).map_err(path)?;
        let inferred = reader
            .infer(&files, self.columns.as_deref())
            .map_err(path)?;
        let schema = self.typed(&inferred)?;
        self.types = ColumnType::all(&schema);
        if !self.header {
            self.columns = Some(
                schema
                    .fields()
                    .iter()
                    .map(|field| field.name().clone())
                    .collect(),
            );
        }
        let format = CsvFormat {
            reader,
            schema: schema.clone(),
        };
        Ok(Box::new(FileSource::new(
            name,
            &self.path,
            &schema,
            format,
            self.on_change.into(),
        )))
    }
}

impl CsvSourceConfig {
    fn quoting(&self) -> Result<Quoting, Vec<ConfigError>> {
        let mut faults = Vec::new();
        let mut byte = |key: &str, value: char| {
            let usable = value.is_ascii() && !matches!(value, '\r' | '\n');
            if !usable {
                faults.push(ConfigError::new(
                    key,
                    format!(
                        "{value:?} is not supported; expected one ASCII character other than a \
                         line end"
                    ),
                ));
            }
            u8::try_from(value).unwrap_or_default()
        };
        let quoting = Quoting {
            delimiter: byte("delimiter", self.delimiter),
            quote: byte("quote", self.quote),
        };
        if quoting.delimiter == quoting.quote {
            faults.push(ConfigError::new(
                "quote",
                format!(
                    "{:?} is also the delimiter; the quote and the delimiter must differ",
                    self.quote
                ),
            ));
        }
        if self.header && self.columns.is_some() {
            faults.push(ConfigError::new(
                "columns",
                "the header names the columns; remove `columns`, or set `header = false`",
            ));
        }
        if faults.is_empty() {
            Ok(quoting)
        } else {
            Err(faults)
        }
    }

    /// Returns the inferred columns with the configured types.
    fn typed(&self, inferred: &Schema) -> Result<SchemaRef, Vec<ConfigError>> {
        let names: Vec<&str> = inferred
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        let unknown = self
            .types
            .keys()
            .filter(|name| !names.contains(&name.as_str()));
        let faults: Vec<ConfigError> = unknown
            .map(|name| {
                let known = names.join(", ");
                ConfigError::new(
                    format!("types.{name}"),
                    format!(
                        "unknown column{}; known: {known}",
                        did_you_mean(name, &names)
                    ),
                )
            })
            .collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        let fields = inferred.fields().iter().map(|field| {
            let given = self.types.get(field.name()).map(|given| given.data_type());
            let inferred_type = || match field.data_type() {
                // The sample has no value; text loses nothing.
                DataType::Null => DataType::Utf8,
                other => other.clone(),
            };
            Field::new(field.name(), given.unwrap_or_else(inferred_type), true)
        });
        Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    }
}

/// The options that decide how the bytes of a file become records.
struct CsvReader {
    header: bool,
    quoting: Quoting,
    aligned: bool,
    record_bytes: u64,
    batch_limits: BatchLimits,
}

impl CsvReader {
    fn open<R: Read>(
        &self,
        file: &InputFile,
        input: R,
    ) -> Result<Framer<DelimiterCollapser<R>>, ReadEnd> {
        let text = DelimiterCollapser::new(input, self.aligned.then_some(self.quoting));
        let framer =
            Framer::new(text, Some(self.quoting), self.record_bytes).map_err(file.stopped())?;
        match not_utf8(framer.start()) {
            Some(what) => Err(file.unfit(RejectCode::Unsupported, &what, 1)),
            None => Ok(framer),
        }
    }

    fn format(&self) -> Format {
        Format::default()
            .with_delimiter(self.quoting.delimiter)
            .with_quote(self.quoting.quote)
    }

    /// Reads the names in the header; `None` for an empty file.
    fn names<R: Read>(
        &self,
        file: &InputFile,
        framer: &mut Framer<DelimiterCollapser<R>>,
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
                "it contains zero bytes, which text in UTF-8 does not contain",
            ));
        }
        // Each name takes many times the memory of its text.
        let count = self.quoting.values(&header);
        if count > MAX_COLUMNS {
            return Err(bad(&format!(
                "it has {count} columns; at most {MAX_COLUMNS} are supported"
            )));
        }
        let format = self.format().with_header(true);
        let (schema, _) = catch_panic(|| format.infer_schema(header.as_slice(), Some(0)))
            .map_err(|(_, what)| bad(&what))?;
        Ok(Some(
            schema
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect(),
        ))
    }

    /// Infers the names and types of the columns from the first file that is not empty.
    fn infer(&self, files: &[InputFile], given: Option<&[String]>) -> Result<Schema, StageError> {
        first(files, |file, input| {
            let mut framer = self.open(file, input)?;
            let names = match given {
                Some(given) if !self.header => Some(given.to_vec()),
                _ => self.names(file, &mut framer)?,
            };
            let Some(names) = names else { return Ok(None) };
            if self.header || given.is_some() {
                return self.types(file, framer, names).map(Some);
            }
            // The first record is not a header; it was read to count the values of a record.
            let reopened = self.open(file, file.reopen().map_err(file.stopped())?)?;
            self.types(
                file,
                reopened,
                (1..=names.len()).map(|n| format!("column_{n}")).collect(),
            )
            .map(Some)
        })
    }

    fn types<R: Read>(
        &self,
        file: &InputFile,
        framer: Framer<DelimiterCollapser<R>>,
        names: Vec<String>,
    ) -> Result<Schema, ReadEnd> {
        let bad = |what: String| file.unfit(RejectCode::Malformed, &what, 1);
        check_names(names.iter()).map_err(bad)?;
        let text_fields = names
            .iter()
            .map(|name| Field::new(name, DataType::Utf8, true));
        let schema = Arc::new(Schema::new(text_fields.collect::<Vec<_>>()));
        let parser = CsvParser::new(self, &names, schema.clone());
        let mut sample = Vec::new();
        if let Some(block) = TextBatches::new(framer, SAMPLE)
            .sample(&parser)
            .map_err(file.stopped())?
        {
            let texts: Vec<(u32, Vec<u8>)> = block
                .texts()
                .map(|(ordinal, text)| (ordinal, text.to_vec()))
                .collect();
            let rejects = block.parse(&parser)?.rejects;
            let is_valid = |ordinal: u32| rejects.iter().all(|reject| reject.ordinal != ordinal);
            let valid = texts.iter().filter(|(ordinal, _)| is_valid(*ordinal));
            valid.for_each(|(_, text)| sample.extend(text.iter().chain(b"\n")));
        }
        let (types, _) = catch_panic(|| self.format().infer_schema(sample.as_slice(), None))
            .map_err(|(_, what)| bad(what))?;
        if types.fields().is_empty() {
            return Ok(schema.as_ref().clone());
        }
        let fields = names
            .iter()
            .zip(types.fields())
            .map(|(name, field)| Field::new(name, field.data_type().clone(), true));
        Ok(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// The format of planned CSV files.
struct CsvFormat {
    reader: CsvReader,
    schema: SchemaRef,
}

impl FileFormat for CsvFormat {
    const EXTENSIONS: &'static [&'static str] = &["csv"];
    const IS_TEXT: bool = true;

    fn read(
        &self,
        file: &InputFile,
        input: FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        let mut framer = self.reader.open(file, output.track(input))?;
        let planned = || {
            self.schema
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect()
        };
        let names = if self.reader.header {
            self.reader.names(file, &mut framer)?
        } else {
            Some(planned())
        };
        let Some(names) = names else { return Ok(()) };
        let times = |field: &Field| names.iter().filter(|name| *name == field.name()).count();
        if let Some(field) = self.schema.fields().iter().find(|field| times(field) != 1) {
            let what = match times(field) {
                0 => absent_column(field),
                _ => format!("duplicate column `{}`; names must be unique", field.name()),
            };
            let records = framer.count().map_err(file.stopped())?;
            return Err(file.unfit(RejectCode::Mismatch, &what, records));
        }
        let parser = CsvParser::new(&self.reader, &names, self.schema.clone());
        read_all(framer, &parser, self.reader.batch_limits, output)
    }
}

/// Parses records in the column order of a file into the planned columns.
struct CsvParser {
    schema: SchemaRef,
    written: SchemaRef,
    indices: Vec<usize>,
    format: Format,
}

impl CsvParser {
    /// Creates a parser for a file with the columns `names`, which must include all columns of
    /// `schema`.
    fn new(reader: &CsvReader, names: &[String], schema: SchemaRef) -> Self {
        let written_field = |name: &String| match schema.column_with_name(name) {
            Some((_, field)) => field.clone(),
            None => Field::new(name, DataType::Utf8, true),
        };
        let written = Arc::new(Schema::new(
            names.iter().map(written_field).collect::<Vec<_>>(),
        ));
        let index_of = |field: &Arc<Field>| {
            names
                .iter()
                .position(|name| name == field.name())
                .unwrap_or_default()
        };
        let indices = schema.fields().iter().map(index_of).collect();
        Self {
            schema,
            written,
            indices,
            format: reader.format(),
        }
    }
}

impl TextFormat for CsvParser {
    fn check(&self, record: &[u8]) -> LineAction {
        LineAction::Parse(record.len() as u64 + 8 * self.indices.len() as u64)
    }

    fn decode(&self, text: &[u8], count: usize) -> Result<RecordBatch, String> {
        let builder = ReaderBuilder::new(self.written.clone()).with_format(self.format.clone());
        let mut decoder = builder
            .with_projection(self.indices.clone())
            .with_batch_size(count + 1)
            .build_decoder();
        let decoded = || -> Result<Option<RecordBatch>, arrow::error::ArrowError> {
            let mut left = text;
            while !left.is_empty() {
                match decoder.decode(left)? {
                    0 => break,
                    taken => left = &left[taken..],
                }
            }
            decoder.flush()
        }();
        match decoded {
            Ok(batch) => batch.ok_or_else(|| "the parser found no record".to_owned()),
            Err(error) => Err(self.explain(&error.to_string())),
        }
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl CsvParser {
    /// Replaces the column number in a message of the CSV parser by the name of the column, and
    /// removes the line numbers, which count within the block.
    fn explain(&self, message: &str) -> String {
        let message = message
            .split_once("rror: ")
            .map_or(message, |(_, message)| message);
        let message = message
            .replace(" for line 1,", ",")
            .replace(" for line 1 and", " in");
        let message = message.split(" at line ").next().unwrap_or_default();
        let Some((before, column)) = message.rsplit_once("column ") else {
            return message.to_owned();
        };
        let name = column
            .parse::<usize>()
            .ok()
            .and_then(|index| self.written.fields().get(index));
        name.map_or_else(
            || message.to_owned(),
            |field| format!("{before}column `{}`", field.name()),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type, UInt64Type};
    use serde_json::{Value, json};

    use super::*;
    use crate::coverage::ResumeState;
    use crate::source::file_source::testing::{drain, plan, progress_of, read, records, rejects};

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        files
            .iter()
            .for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
        folder
    }

    fn options(folder: &tempfile::TempDir, more: Value) -> Value {
        let mut options = json!({ "path": folder.path() });
        options
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        options
    }

    fn types(schema: &Schema) -> Vec<String> {
        schema
            .fields()
            .iter()
            .map(|field| format!("{}: {}", field.name(), field.data_type()))
            .collect()
    }

    fn fault(folder: &tempfile::TempDir, more: Value) -> Vec<String> {
        let faults = plan::<CsvSourceConfig>(options(folder, more), 10)
            .err()
            .unwrap();
        faults
            .into_iter()
            .map(|fault| format!("{}: {}", fault.key, fault.message))
            .collect()
    }

    /// `count` records `i,i/2`, with the records of `bad` in place of those at their rows.
    fn many(count: usize, bad: &[(usize, &str)]) -> String {
        let line = |row: usize| match bad.iter().find(|(index, _)| *index == row) {
            Some((_, text)) => format!("{text}\n"),
            None => format!("{row},{}\n", row as f64 / 2.0),
        };
        std::iter::once("id,half\n".to_owned())
            .chain((0..count).map(line))
            .collect()
    }

    #[test]
    fn types_follow_the_first_records_and_the_options() {
        let folder = folder(&[(
            "a.csv",
            "\u{feff}i,f,s,b,none,\"q,\"\"x\"\r\n1,0.5,x,true,,7\r\n\r\n2,3,\"y\n z\",false,,8",
        )]);
        let batches = read::<CsvSourceConfig>(
            options(&folder, json!({ "types": { "q,\"x": "float" } })),
            10,
        );
        let all = records(&batches);
        let expected = [
            "source: Utf8",
            "row: UInt64",
            "i: Int64",
            "f: Float64",
            "s: Utf8",
            "b: Boolean",
            "none: Utf8",
            "q,\"x: Float64",
        ];
        assert_eq!(types(&all.schema()), expected);
        assert_eq!(all["row"].as_primitive::<UInt64Type>().values(), &[0, 1]);
        assert_eq!(all["source"].as_string::<i32>().value(1), "a.csv");
        assert_eq!(all["s"].as_string::<i32>().value(1), "y\n z");
        assert_eq!(all["none"].null_count(), 2);
        assert_eq!(
            all["q,\"x"].as_primitive::<Float64Type>().values(),
            &[7.0, 8.0]
        );
    }

    #[test]
    fn one_bad_value_among_10_000_is_one_reject() {
        let folder = folder(&[("a.csv", &many(10_000, &[(7_123, "7123,oops")]))]);
        let batches = read::<CsvSourceConfig>(options(&folder, json!({})), 4096);
        assert_eq!(
            rejects(&batches),
            [(7123, "malformed", Some("7123,oops".to_owned()))]
        );
        let reason = &batches[1].rejects[0].reason;
        assert_eq!(
            reason,
            "Error while parsing value 'oops' as type 'Float64' for column `half`"
        );
        let ids = records(&batches);
        let ids = ids["id"].as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(
            ids,
            (0..10_000).filter(|&row| row != 7_123).collect::<Vec<_>>()
        );
    }

    #[test]
    fn several_bad_records_are_each_rejected() {
        let long = "x".repeat(2 << 20);
        let bad = [
            (0, "a,b,c"),
            (1500, "1"),
            (1501, ",nan?"),
            (2000, &long),
            (2999, "2999,\"never closed\n"),
        ];
        let folder = folder(&[("a.csv", &many(3000, &bad))]);
        let batches = read::<CsvSourceConfig>(
            options(&folder, json!({ "types": { "half": "float" } })),
            1000,
        );
        let found = rejects(&batches);
        let found: Vec<_> = found
            .iter()
            .map(|(row, code, text)| (*row, *code, text.as_deref()))
            .collect();
        let expected = [
            (0, "malformed", Some("a,b,c")),
            (1500, "malformed", Some("1")),
            (1501, "malformed", Some(",nan?")),
            (2000, "too_large", None),
            (2999, "malformed", Some("2999,\"never closed\n\n")),
        ];
        assert_eq!(found, expected);
        assert_eq!(records(&batches).num_rows(), 2995);
        assert_eq!(
            batches[1].rejects[0].reason,
            "incorrect number of fields, expected 2 got 1"
        );
    }

    #[test]
    fn invalid_utf8_is_a_reject() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.csv"), b"n,s\n1,a\n2,\xff\n3,c\n").unwrap();
        let batches = read::<CsvSourceConfig>(options(&folder, json!({})), 10);
        assert_eq!(
            rejects(&batches),
            [(1, "malformed", Some("2,\u{fffd}".to_owned()))]
        );
        assert_eq!(records(&batches).num_rows(), 2);
    }

    #[test]
    fn files_are_read_in_name_order_and_columns_matched_by_name() {
        let folder = folder(&[
            ("b.csv", "y,more,x\n4,m,3\n"),
            ("a.csv", "x,y\n1,2\n"),
            ("empty.csv", ""),
        ]);
        let batches = read::<CsvSourceConfig>(options(&folder, json!({})), 10);
        assert_eq!(batches.len(), 2);
        let all = records(&batches);
        assert_eq!(
            all["source"]
                .as_string::<i32>()
                .iter()
                .flatten()
                .collect::<Vec<_>>(),
            ["a.csv", "b.csv"]
        );
        assert_eq!(all["x"].as_primitive::<Int64Type>().values(), &[1, 3]);
        assert_eq!(all["row"].as_primitive::<UInt64Type>().values(), &[0, 0]);
    }

    #[test]
    fn file_without_a_planned_column_is_one_reject() {
        let folder = folder(&[
            ("a.csv", "x,y\n1,2\n"),
            ("b.csv", "x,z\n1,2\n3,4\n"),
            ("c.csv", "y,x\n6,5\n"),
        ]);
        let batches = read::<CsvSourceConfig>(options(&folder, json!({})), 10);
        assert_eq!(
            records(&batches)["x"].as_primitive::<Int64Type>().values(),
            &[1, 5]
        );
        let reject = &batches[1].rejects[0];
        let reason = "b.csv: column `y` (Int64) of the other files is missing; correct the file, or \
                      read files of this schema with a separate source";
        assert_eq!(
            (reject.code.as_str(), reject.reason.as_str()),
            ("mismatch", reason)
        );
        assert_eq!(batches[1].batch.provenance.len(), 2);
        let again = drain(
            plan::<CsvSourceConfig>(options(&folder, json!({})), 10).unwrap(),
            &progress_of(&batches),
        )
        .unwrap();
        assert!(again.is_empty(), "the reject is committed");
    }

    #[test]
    fn files_without_valid_csv_text_are_rejects() {
        let good = "x,y\n1,2\n";
        let utf_16: Vec<u8> = [0xff, 0xfe]
            .into_iter()
            .chain(good.bytes().flat_map(|byte| [byte, 0]))
            .collect();
        let cases: [(&[u8], &str, &str); 5] = [
            (&utf_16, "unsupported", "is text in UTF-16"),
            (
                &utf_16[2..],
                "malformed",
                "invalid header: it contains zero bytes",
            ),
            (
                b"\x1f\x8b\x08\0\0",
                "unsupported",
                "is compressed; only plain text is supported; unpack it first (`gunzip`)",
            ),
            (
                b"\x93\xf1,\xc0\n\xff,\xff\n",
                "malformed",
                "invalid header: ",
            ),
            (b"x,y,x\n1,2,3\n", "mismatch", "duplicate column `x`; "),
        ];
        for (bytes, code, reason) in cases {
            let folder = folder(&[("a.csv", good), ("c.csv", good)]);
            for name in ["0.csv", "b.csv", "d.csv"] {
                std::fs::write(folder.path().join(name), bytes).unwrap();
            }
            let batches = read::<CsvSourceConfig>(options(&folder, json!({})), 10);
            let rejects: Vec<_> = batches.iter().flat_map(|batch| &batch.rejects).collect();
            assert_eq!(rejects.len(), 3, "{reason}");
            assert!(
                rejects
                    .iter()
                    .all(|reject| reject.code.as_str() == code && reject.reason.contains(reason))
            );
            assert_eq!(records(&batches).num_rows(), 2, "{reason}");
        }
    }

    #[test]
    fn later_run_reads_only_uncommitted_batches() {
        let folder = folder(&[
            ("a.csv", &many(50, &[(13, "x,y")])),
            ("b.csv", &many(5, &[])),
        ]);
        let options = || {
            options(
                &folder,
                json!({ "types": { "id": "int", "half": "float" } }),
            )
        };
        let all = read::<CsvSourceConfig>(options(), 10);
        assert_eq!(all.len(), 6);
        let rest = drain(
            plan::<CsvSourceConfig>(options(), 10).unwrap(),
            &progress_of(&all[1..3]),
        )
        .unwrap();
        let names = |batches: &[crate::batch::SourceBatch]| -> Vec<String> {
            batches
                .iter()
                .map(|batch| format!("{:?}", batch.batch.provenance.ranges()[0].rows))
                .collect()
        };
        assert_eq!(names(&rest), ["0..10", "30..40", "40..50", "0..5"]);
        assert_eq!(rest[1].batch.records, all[3].batch.records);
    }

    #[test]
    fn columns_without_a_header_have_given_or_numbered_names() {
        let folder = folder(&[("a.csv", "1;'a;b'\n2;c\n")]);
        let more =
            json!({ "header": false, "delimiter": ";", "quote": "'", "columns": ["n", "s"] });
        let given = records(&read::<CsvSourceConfig>(options(&folder, more), 10));
        assert_eq!(types(&given.schema())[2..], ["n: Int64", "s: Utf8"]);
        assert_eq!(given["s"].as_string::<i32>().value(0), "a;b");
        let numbered = records(&read::<CsvSourceConfig>(
            options(
                &folder,
                json!({ "header": false, "delimiter": ";", "quote": "'" }),
            ),
            10,
        ));
        assert_eq!(
            types(&numbered.schema())[2..],
            ["column_1: Int64", "column_2: Utf8"]
        );
    }

    #[test]
    fn columns_aligned_with_spaces_are_read() {
        let folder = folder(&[("a.txt", "   1.0e+00  -1.5e-01\n  2.0e+00   3\n  x  4\n")]);
        let more = json!({
            "path": folder.path().join("a.txt"), "header": false, "delimiter": " ", "aligned": true,
            "types": { "column_1": "float" },
        });
        let batches = read::<CsvSourceConfig>(options(&folder, more), 10);
        let all = records(&batches);
        assert_eq!(
            all["column_1"].as_primitive::<Float64Type>().values(),
            &[1.0, 2.0]
        );
        assert_eq!(
            all["column_2"].as_primitive::<Float64Type>().values(),
            &[-0.15, 3.0]
        );
        assert_eq!(
            rejects(&batches),
            [(2, "malformed", Some("x 4".to_owned()))]
        );
    }

    #[test]
    fn batches_are_limited_by_bytes() {
        let folder = folder(&[("a.csv", &many(100, &[]))]);
        let mut written = options(&folder, json!({}));
        let mut config: CsvSourceConfig = serde_json::from_value(written.take()).unwrap();
        let size = BatchSize {
            bytes: Some(crate::units::ByteSize(200)),
            ..BatchSize::default()
        };
        let context = PlanContext::new(
            BTreeMap::new(),
            crate::plan_context::PipelineLimits::default(),
        );
        let batches = drain(
            config.plan("in", size, &context).unwrap(),
            &ResumeState::default(),
        )
        .unwrap();
        assert!(batches.len() > 9, "{}", batches.len());
        assert_eq!(records(&batches).num_rows(), 100);
    }

    #[test]
    fn faults_name_their_keys() {
        let folder = folder(&[("a.csv", "x,y\n1,2\n"), ("twice.txt", "x,x\n")]);
        assert_eq!(
            fault(&folder, json!({ "types": { "z": "int" } })),
            ["types.z: unknown column; known: x, y"]
        );
        let more = json!({ "delimiter": "\n", "quote": "é", "columns": ["a"] });
        assert_eq!(
            fault(&folder, more),
            [
                "delimiter: '\\n' is not supported; expected one ASCII character other than a \
                 line end",
                "quote: 'é' is not supported; expected one ASCII character other than a line end",
                "columns: the header names the columns; remove `columns`, or set `header = false`",
            ]
        );
        let twice = json!({ "path": folder.path().join("twice.txt") });
        assert_eq!(
            fault(&folder, twice),
            ["path: no file can be read; twice.txt: duplicate column `x`; names must be unique"]
        );
        let none = json!({ "path": folder.path().join("*.nothing") });
        let none = fault(&folder, none).remove(0);
        assert!(
            none.starts_with("path: ") && none.contains("files scanned: 2; none matches"),
            "{none}"
        );
    }
}
