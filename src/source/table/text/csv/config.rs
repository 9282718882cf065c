//! The options of the source `csv`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::plan_context::PlanContext;
use crate::registry::did_you_mean;
use crate::source::batch_limits::BatchLimits;
use crate::source::batch_size::BatchSize;
use crate::source::discovery::compression::decompression_memory;
use crate::source::discovery::file_checkpoints::OnChange;
use crate::source::discovery::hive_partitions::HivePartitions;
use crate::source::discovery::input_file;
use crate::source::discovery::share::SourceShare;
use crate::source::table::file_source::source::ReadPolicy;
use crate::source::table::file_source::{FileFormat, FileSource};
use crate::source::table::text::column_type::ColumnType;
use crate::source::table::text::csv::CsvFormat;
use crate::source::table::text::csv::dialect::{CsvDialect, ValueFormat};
use crate::source::table::text::csv::inference::infer;
use crate::source::table::text::csv::parser::PlannedColumns;
use crate::source::table::text::encoding::TextEncoding;
use crate::source::{Source, SourceConfig};

/// Reads records of delimited text.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct CsvSourceConfig {
    /// A file, a folder (all *.csv, *.csv.gz and *.csv.zst files in it and in its subfolders) or a
    /// glob. Files whose names end with `.gz` or `.zst` are decompressed while they are read.
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
    /// Values that are null, such as `"NA"`, in addition to the empty value. Default: none.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(extend("x-changes-rows" = true))]
    pub null_values: BTreeSet<String>,
    /// The decimal point of numbers. Default: ".".
    #[serde(default = "point", skip_serializing_if = "is_point")]
    #[schemars(extend("x-changes-rows" = true))]
    pub decimal: char,
    /// The encoding of files without a byte order mark: `utf-8`, `utf-16le`, `utf-16be`, `latin1`,
    /// `windows-1252`, or another label of the WHATWG Encoding Standard. A byte order mark of UTF-8
    /// or UTF-16 takes precedence. Default: utf-8.
    #[serde(default = "utf_8", skip_serializing_if = "is_utf_8")]
    #[schemars(extend("x-changes-rows" = true))]
    pub encoding: String,
    /// Types by column: `float`, `int`, `uint`, `decimal(10, 2)`, `string`, `bool`, `date`,
    /// `timestamp`, `timestamp[ms]`, `timestamp[ns]`, `timestamp[us, UTC]`. Default: the narrowest
    /// types that hold the values without loss, inferred from up to 64 MiB of the files: the
    /// beginning of each, and further blocks of large ones. A later value that does not fit is a
    /// reject.
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

fn point() -> char {
    '.'
}

// The defaults of options that earlier versions did not have are not part of the identity of a stage.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_point(decimal: &char) -> bool {
    *decimal == point()
}

fn utf_8() -> String {
    "utf-8".to_owned()
}

fn is_utf_8(encoding: &str) -> bool {
    encoding == utf_8()
}

impl SourceConfig for CsvSourceConfig {
    const FILE_ENDINGS: &'static [&'static str] = &["csv"];

    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let dialect = self.dialect(context.limits.record_bytes.0)?;
        let path = |error: StageError| vec![ConfigError::from_error("path", &error)];
        let files = input_file::list(name, &self.path, CsvFormat::EXTENSIONS).map_err(path)?;
        let (inferred, notes) = infer(&dialect, &files, self.columns.as_deref()).map_err(path)?;
        let given = Arc::new(self.types.keys().cloned().collect());
        let schema = self.typed(&inferred)?;
        self.types = ColumnType::all(&schema);
        if !self.header {
            let names = schema.fields().iter().map(|field| field.name().clone());
            self.columns = Some(names.collect());
        }
        let format = CsvFormat {
            dialect,
            batch_limits: BatchLimits::features(batch),
            buffer_bytes: decompression_memory(files.iter().map(|file| file.name.as_str())),
            planned: PlannedColumns {
                schema: SchemaRef::clone(&schema),
                given,
                misfits: Arc::default(),
            },
            left_out: Mutex::default(),
        };
        let policy = ReadPolicy::new(self.on_change, SourceShare::new(context.shard));
        let source = FileSource::new(name, &self.path, &schema, format, policy);
        let partitions = HivePartitions::infer(&files, &schema);
        Ok(Box::new(
            source.with_notes(notes).with_partitions(partitions),
        ))
    }
}

impl CsvSourceConfig {
    pub(super) fn dialect(&self, record_bytes: u64) -> Result<CsvDialect, Vec<ConfigError>> {
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
        let (delimiter, quote) = (byte("delimiter", self.delimiter), byte("quote", self.quote));
        if delimiter == quote {
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
        if !matches!(self.decimal, '.' | ',') {
            faults.push(ConfigError::new(
                "decimal",
                format!(
                    "{:?} is not supported; expected \".\" or \",\"",
                    self.decimal
                ),
            ));
        }
        let encoding = TextEncoding::parse(&self.encoding).unwrap_or_else(|message| {
            faults.push(ConfigError::new("encoding", message));
            TextEncoding::default()
        });
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(CsvDialect {
            header: self.header,
            values: ValueFormat {
                delimiter,
                quote,
                decimal: self.decimal,
                null_values: self.null_values.clone(),
            },
            aligned: self.aligned,
            encoding,
            record_bytes,
        })
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
            let data_type = given.unwrap_or_else(|| field.data_type().clone());
            Field::new(field.name(), data_type, true)
        });
        Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    }
}
