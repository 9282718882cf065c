//! The `rejects` source reads records that an earlier run rejected, as their source read them, for
//! a corrected pipeline.

mod text_originals;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray, UInt64Array, new_null_array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::{RecordLayout, Reject, RejectCode};
use crate::error::{ConfigError, ErrorClass, StageError};
use crate::image::probe;
use crate::plan_context::PlanContext;
use crate::registry::did_you_mean;
use crate::source::batch_limits::BatchLimits;
use crate::source::bounded_ipc_reader::{BoundedIpcReader, IpcBounds};
use crate::source::column_type::ColumnType;
use crate::source::file_checkpoints::OnChange;
use crate::source::file_reference::{FileReference, ReferenceReadError};
use crate::source::file_source::{
    BatchOutput, FileFormat, FileRecords, FileSource, ReadEnd, ReadPolicy, catch_panic,
};
use crate::source::input_file::{self, InputFile};
use crate::source::{
    BatchSize, IMAGE, PIXEL_BYTES, ROW, SOURCE, Source, SourceConfig, SourceShare, origin_fields,
    with_origin,
};
use crate::storage::FileReader;

use text_originals::TextColumns;

/// The column of a rejects dataset with the split from which the record was read: `<stage>/...`.
pub const SPLIT: &str = "split";
/// The column with the stage that rejected the record.
pub const STAGE: &str = "stage";
/// The column with the reject code.
pub const CODE: &str = "code";
/// The column with the format of `record`.
pub const FORMAT: &str = "format";
/// The column with the original of the record; null if its source had no bytes of it.
pub const RECORD: &str = "record";

/// The column with the number of records that the reject represents. Datasets of earlier versions
/// lack it, and each of their rejects represents one record.
pub const RECORDS: &str = "records";

/// The reason why a reject without its original cannot be read again.
const NO_ORIGINAL: &str = "its original is not stored, because the source had none, \
     `rejects.record` is false, or the original was purged; read the source again";

/// The format in which the original of a rejected record is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginalFormat {
    /// An encoded image, unchanged from its file.
    Image,
    /// A line of text that failed to parse.
    Line,
    /// A JSON object with a value that does not fit the type of its column.
    Json,
    /// A record of delimited text with a value that does not fit the type of its column, after a
    /// line that describes its columns as JSON.
    Csv,
    /// All columns of the source, as an Arrow IPC stream of one row.
    Arrow,
    /// A reference to an image file that could not be read, as JSON.
    File,
}

impl OriginalFormat {
    /// The value in the column [`FORMAT`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Line => "line",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
            Self::File => "file",
        }
    }
}

/// Reads records that an earlier run rejected, as their source read them.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct RejectsSourceConfig {
    /// The folder of a rejects dataset, or one of its files.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    path: String,
    /// The source whose records are read, by the name of its stage in the pipeline that rejected
    /// them. Default: the only source in the dataset.
    #[schemars(extend("x-changes-rows" = true, "x-inferred" = true))]
    from: Option<String>,
    /// The stages whose rejects are read. Default: all.
    #[schemars(extend("x-changes-rows" = true))]
    stages: Option<Vec<String>>,
    /// The reject codes of the rejects that are read, such as `too_large`. Default: all.
    #[schemars(extend("x-changes-rows" = true))]
    codes: Option<Vec<String>>,
    /// Types by column, for records of text whose values did not fit the types of their columns.
    /// Records that other stages rejected are converted if no value changes. Default: the types of
    /// the records that other stages rejected, or else types that hold the values of the text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-changes-rows" = true))]
    types: BTreeMap<String, ColumnType>,
}

impl SourceConfig for RejectsSourceConfig {
    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let path = |error: StageError| vec![ConfigError::from_error("path", &error)];
        let files = input_file::list(name, &self.path, RejectsFormat::EXTENSIONS).map_err(path)?;
        let found = found(&files).map_err(path)?;
        let from = choose(&found, self.from.as_deref())?;
        self.from = Some(from.clone());
        // Stages and codes are sets: their order and repetitions have no meaning.
        for names in [&mut self.stages, &mut self.codes].into_iter().flatten() {
            names.sort();
            names.dedup();
        }
        let filter = RejectFilter {
            from,
            stages: self.stages.clone(),
            codes: self.codes.clone(),
        };
        let planned = found
            .get(&filter.from)
            .and_then(FoundRecords::plan)
            .ok_or_else(|| {
                let message = format!(
                    "no reject of source `{}` can be read again: {NO_ORIGINAL}; correct stored \
                     lines of text and read them with a source of their format",
                    filter.from
                );
                vec![ConfigError::new("path", message)]
            })?;
        let (schema, texts) = planned.with_types(&self.types)?;
        let images = schema.column_with_name(IMAGE).is_some();
        let batch_limits = if images {
            BatchLimits::images(batch)
        } else {
            BatchLimits::features(batch)
        };
        let record_bytes = context.limits.record_bytes.0;
        let format = RejectsFormat {
            filter,
            schema: schema.clone(),
            texts,
            batch_limits,
            record_bytes,
        };
        Ok(Box::new(FileSource::new(
            name,
            &self.path,
            &schema,
            format,
            ReadPolicy::new(OnChange::default(), SourceShare::new(context.shard)),
        )))
    }
}

/// The originals of a source in the files.
#[derive(Default)]
struct FoundRecords {
    /// The columns of the records that are not text, if there are any.
    schema: Option<SchemaRef>,
    texts: TextColumns,
}

impl FoundRecords {
    /// The columns of the records that are read; `None` if no original is stored.
    fn plan(&self) -> Option<PlannedRecords> {
        let texts = self.texts.schema();
        let Some(schema) = &self.schema else {
            return (!texts.fields().is_empty()).then(|| PlannedRecords {
                schema: with_origin(&texts),
                texts,
            });
        };
        let is_new = |field: &&Arc<Field>| schema.column_with_name(field.name()).is_none();
        let new = texts.fields().iter().filter(is_new).cloned();
        let fields = schema.fields().iter().cloned().chain(new);
        Some(PlannedRecords {
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            texts,
        })
    }
}

/// The columns of the records that are read, and those of the text among them.
struct PlannedRecords {
    schema: SchemaRef,
    texts: Schema,
}

impl PlannedRecords {
    /// The columns with the configured types, and those that text is parsed into.
    fn with_types(
        self,
        types: &BTreeMap<String, ColumnType>,
    ) -> Result<(SchemaRef, SchemaRef), Vec<ConfigError>> {
        let names: Vec<&str> = self
            .schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        let unknown = types.keys().filter(|name| !names.contains(&name.as_str()));
        let faults: Vec<_> = unknown
            .map(|name| {
                let (hint, known) = (did_you_mean(name, &names), names.join(", "));
                let message = format!("unknown column{hint}; known: {known}");
                ConfigError::new(format!("types.{name}"), message)
            })
            .collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        let field = |field: &Arc<Field>| {
            let data_type = match (types.get(field.name()), field.data_type()) {
                (Some(given), _) => given.data_type(),
                // Text holds any value.
                (None, DataType::Null) => DataType::Utf8,
                (None, known) => known.clone(),
            };
            field.as_ref().clone().with_data_type(data_type)
        };
        let fields: Vec<Field> = self.schema.fields().iter().map(field).collect();
        let of_text = fields
            .iter()
            .filter(|planned| self.texts.column_with_name(planned.name()).is_some());
        let texts = Arc::new(Schema::new(of_text.cloned().collect::<Vec<_>>()));
        Ok((Arc::new(Schema::new(fields)), texts))
    }
}

/// Chooses the source whose records are read.
fn choose(
    found: &BTreeMap<String, FoundRecords>,
    from: Option<&str>,
) -> Result<String, Vec<ConfigError>> {
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let known = names.join(", ");
    match (from, names.as_slice()) {
        (None, &[only]) => Ok(only.to_owned()),
        (None, []) => Err(vec![ConfigError::new("path", "contains no rejects")]),
        (None, _) => Err(vec![ConfigError::new(
            "from",
            format!("is missing; the dataset contains rejects of several sources: {known}"),
        )]),
        (Some(name), _) if found.contains_key(name) => Ok(name.to_owned()),
        (Some(name), _) => Err(vec![ConfigError::new(
            "from",
            format!("the dataset contains no rejects of `{name}`; known: {known}"),
        )]),
    }
}

/// Finds the sources of the rejects in the files, and the columns of their records, if an original
/// is stored.
fn found(files: &[InputFile]) -> Result<BTreeMap<String, FoundRecords>, StageError> {
    let mut sources: BTreeMap<String, FoundRecords> = BTreeMap::new();
    let mut problem = None;
    for file in files {
        let read = file
            .reopen()
            .map_err(file.stopped())
            .and_then(|input| add_sources(file, input, &mut sources));
        match read {
            Err(ReadEnd::Failed(error)) => return Err(error),
            Err(ReadEnd::Unavailable(unavailable)) if unavailable.class == ErrorClass::Process => {
                return Err(unavailable.into());
            }
            Err(ReadEnd::Unavailable(unavailable)) => {
                problem = problem.or_else(|| Some(unavailable.to_string()));
            }
            Err(ReadEnd::Rejected(refusal, _)) => problem = problem.or(Some(refusal.reason)),
            Ok(()) | Err(ReadEnd::Cancelled) => {}
        }
    }
    match problem.filter(|_| sources.is_empty()) {
        Some(problem) => Err(StageError::Other(problem)),
        None => Ok(sources),
    }
}

/// Adds the sources of the rejects in a file.
fn add_sources(
    file: &InputFile,
    input: FileReader,
    sources: &mut BTreeMap<String, FoundRecords>,
) -> Result<(), ReadEnd> {
    let mut batches = RejectBatches::open(file, input, 1024)?;
    while let Some(batch) = batches.next().map_err(|failure| batches.stop(failure))? {
        let columns = RejectColumns::from_batch(&batch)
            .ok_or_else(|| batches.stop((RejectCode::Mismatch, not_rejects())))?;
        for row in 0..batch.num_rows() {
            let records = sources.entry(columns.from(row).to_owned()).or_default();
            if let Some(format) = columns.text_format(row) {
                records.texts.add(format, columns.record.value(row));
            } else if records.schema.is_none() {
                records.schema = columns.schema(row);
            }
        }
    }
    Ok(())
}

fn not_rejects() -> String {
    let columns = [SOURCE, ROW, SPLIT, STAGE, CODE, FORMAT, RECORD].join(", ");
    format!("is not a file of a rejects dataset; expected at least the columns {columns}")
}

/// Reads the batches of a file of rejects.
struct RejectBatches<'a> {
    file: &'a InputFile,
    /// A second handle of the file, to check its state while it is read.
    handle: FileReader,
    reader: ParquetRecordBatchReader,
    /// The number of rows in the footer.
    rows: u64,
}

impl<'a> RejectBatches<'a> {
    fn open(file: &'a InputFile, input: FileReader, step: usize) -> Result<Self, ReadEnd> {
        let handle = input.try_clone().map_err(file.stopped())?;
        let opened = catch_panic(|| {
            let reader = ParquetRecordBatchReaderBuilder::try_new(input)?;
            let rows = u64::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0);
            let columns = [SOURCE, ROW, SPLIT, STAGE, CODE, FORMAT, RECORD, RECORDS];
            let mask = ProjectionMask::columns(reader.parquet_schema(), columns);
            Ok::<_, ParquetError>((
                reader.with_projection(mask).with_batch_size(step).build()?,
                rows,
            ))
        });
        file.check_available(&handle)?;
        let (reader, rows) = opened.map_err(|(code, what)| file.unfit(code, &what, 1))?;
        Ok(Self {
            file,
            handle,
            reader,
            rows,
        })
    }

    fn next(&mut self) -> Result<Option<RecordBatch>, (RejectCode, String)> {
        catch_panic(|| self.reader.next().transpose())
    }

    /// The end of reading: an error of the environment if there is one, otherwise the given reason.
    fn stop(&self, (code, what): (RejectCode, String)) -> ReadEnd {
        match self.file.check_available(&self.handle) {
            Err(stop) => stop,
            Ok(()) => self.file.unfit(code, &what, self.rows),
        }
    }
}

/// The columns of a batch of rejects.
struct RejectColumns<'a> {
    batch: &'a RecordBatch,
    split: &'a StringArray,
    stage: &'a StringArray,
    code: &'a StringArray,
    format: &'a StringArray,
    record: &'a BinaryArray,
}

impl<'a> RejectColumns<'a> {
    fn from_batch(batch: &'a RecordBatch) -> Option<Self> {
        let text = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
        let record = batch.column_by_name(RECORD)?.as_binary_opt::<i32>()?;
        let [split, stage, code, format] = [text(SPLIT)?, text(STAGE)?, text(CODE)?, text(FORMAT)?];
        Some(Self {
            batch,
            split,
            stage,
            code,
            format,
            record,
        })
    }

    /// The stage of the source of the record.
    fn from(&self, row: usize) -> &'a str {
        self.split.value(row).split('/').next().unwrap_or_default()
    }

    /// The name of the input of the record and its row in the input.
    fn origin(&self, row: usize) -> Option<(String, u64)> {
        let source = self.batch.column_by_name(SOURCE)?.as_string_opt::<i32>()?;
        let rows = self
            .batch
            .column_by_name(ROW)?
            .as_primitive_opt::<UInt64Type>()?;
        Some((source.value(row).to_owned(), rows.value(row)))
    }

    /// The number of records that the reject represents.
    fn records(&self, row: usize) -> u64 {
        let counts = self
            .batch
            .column_by_name(RECORDS)
            .and_then(|column| column.as_primitive_opt::<UInt64Type>());
        counts
            .filter(|counts| counts.is_valid(row))
            .map_or(1, |counts| counts.value(row))
    }

    fn matches(&self, filter: &RejectFilter, row: usize) -> bool {
        let is_included = |names: &Option<Vec<String>>, name: &str| {
            names
                .as_ref()
                .is_none_or(|names| names.iter().any(|included| included == name))
        };
        self.from(row) == filter.from
            && is_included(&filter.stages, self.stage.value(row))
            && is_included(&filter.codes, self.code.value(row))
    }

    /// The columns of the record, if its original is stored.
    fn schema(&self, row: usize) -> Option<SchemaRef> {
        if self.is(row, OriginalFormat::Image) || self.is(row, OriginalFormat::File) {
            return Some(image_schema());
        }
        let record = self
            .is(row, OriginalFormat::Arrow)
            .then(|| self.record.value(row))?;
        catch_panic(|| BoundedIpcReader::bounded(record, STORED_RECORD))
            .ok()
            .map(|messages| Arc::clone(messages.schema()))
    }

    /// The format of a stored text record that can be parsed again.
    fn text_format(&self, row: usize) -> Option<OriginalFormat> {
        [OriginalFormat::Json, OriginalFormat::Csv]
            .into_iter()
            .find(|format| self.is(row, *format))
    }

    /// The stored record of a reject, and how it can be read again.
    fn original(&self, row: usize) -> (Option<Vec<u8>>, RecordLayout) {
        let record = self.record.is_valid(row).then(|| self.record.value(row));
        match (record, self.text_format(row)) {
            (Some(stored), Some(OriginalFormat::Csv)) => {
                let (description, line) = text_originals::split_bytes(stored);
                let description = String::from_utf8_lossy(description);
                (Some(line.to_vec()), RecordLayout::Csv(description.into()))
            }
            (Some(stored), Some(_)) => (Some(stored.to_vec()), RecordLayout::Json),
            (record, _) => (record.map(<[u8]>::to_vec), RecordLayout::Unparsed),
        }
    }

    fn is(&self, row: usize, format: OriginalFormat) -> bool {
        self.format.is_valid(row)
            && self.record.is_valid(row)
            && self.format.value(row) == format.as_str()
    }

    /// Reads the image in the file that a record refers to, or returns why it cannot be read again.
    ///
    /// # Errors
    /// If the file cannot be read now.
    fn read_file(&self, row: usize, limit: u64) -> Result<Result<RecordBatch, String>, ReadEnd> {
        let Some(reference) = FileReference::from_json(self.record.value(row)) else {
            return Ok(Err("the record is not a reference to a file".to_owned()));
        };
        let image = match reference.read(limit) {
            Ok(image) => image,
            Err(ReferenceReadError::Refused(why)) => return Ok(Err(why)),
            Err(ReferenceReadError::Unavailable(unavailable)) => return Err(unavailable.into()),
        };
        let image: ArrayRef = Arc::new(BinaryArray::from_iter_values([image]));
        let part = |name: &str| {
            self.batch
                .column_by_name(name)
                .map(|column| column.slice(row, 1))
        };
        let columns = [part(SOURCE), part(ROW), Some(image)]
            .into_iter()
            .flatten()
            .collect();
        Ok(RecordBatch::try_new(image_schema(), columns).map_err(|error| error.to_string()))
    }

    /// Decodes the record as its source read it, or returns why it cannot be read again.
    fn read(&self, row: usize, schema: &SchemaRef) -> Result<RecordBatch, String> {
        if self.is(row, OriginalFormat::Image) && *schema == image_schema() {
            let image: ArrayRef = Arc::new(self.record.slice(row, 1));
            let part = |name: &str| {
                self.batch
                    .column_by_name(name)
                    .map(|column| column.slice(row, 1))
            };
            let columns = [part(SOURCE), part(ROW), Some(image)]
                .into_iter()
                .flatten()
                .collect();
            return RecordBatch::try_new(Arc::clone(schema), columns)
                .map_err(|error| error.to_string());
        }
        if self.is(row, OriginalFormat::Line) {
            return Err(
                "the record is a line of text that its source did not parse; correct it and read \
                 it with a source of its format"
                    .to_owned(),
            );
        }
        if !self.is(row, OriginalFormat::Arrow) {
            return Err(NO_ORIGINAL.to_owned());
        }
        let record = catch_panic(|| {
            BoundedIpcReader::bounded(self.record.value(row), STORED_RECORD)?.next()
        });
        match record {
            Ok(Some(record)) => text_originals::convert(&record, schema),
            Ok(None) => Err("the stored record is empty".to_owned()),
            Err((_, what)) => Err(format!("the stored record is damaged: {what}")),
        }
    }
}

/// The bounds of a stored record. Its size is not bounded, since the record was in memory when it
/// was stored; the size of its decompressed content is.
const STORED_RECORD: IpcBounds = IpcBounds::of_file(u64::MAX, 256 << 20);

/// The columns of a source of images.
fn image_schema() -> SchemaRef {
    let image = Field::new(IMAGE, DataType::Binary, false);
    Arc::new(Schema::new(
        origin_fields()
            .into_iter()
            .chain([image])
            .collect::<Vec<_>>(),
    ))
}

/// The selection of rejects to be read.
struct RejectFilter {
    from: String,
    stages: Option<Vec<String>>,
    codes: Option<Vec<String>>,
}

/// The format of planned rejects datasets.
struct RejectsFormat {
    filter: RejectFilter,
    /// The columns of the records.
    schema: SchemaRef,
    /// The columns that text records are parsed into.
    texts: SchemaRef,
    batch_limits: BatchLimits,
    /// Maximum size in bytes of a referenced file.
    record_bytes: u64,
}

impl FileFormat for RejectsFormat {
    const EXTENSIONS: &'static [&'static str] = &["parquet"];

    fn read(
        &self,
        file: &InputFile,
        input: FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        let mut start = 0;
        let mut batches = RejectBatches::open(file, input, self.batch_limits.records)?;
        loop {
            let batch = match batches.next() {
                Ok(Some(batch)) => batch,
                Ok(None) => return Ok(()),
                Err((code, what)) => {
                    file.check_available(&batches.handle)?;
                    return output.reject_rows(start..batches.rows.max(start + 1), code, what);
                }
            };
            let columns = RejectColumns::from_batch(&batch)
                .ok_or_else(|| batches.stop((RejectCode::Mismatch, not_rejects())))?;
            let sizes: Vec<(u64, u64)> = (0..batch.num_rows())
                .map(|row| self.size(&columns, row))
                .collect();
            let weigh = |rows: Range<usize>| {
                sizes[rows]
                    .iter()
                    .map(|&(bytes, pixels)| bytes.max(pixels * PIXEL_BYTES))
                    .sum()
            };
            for part in self.batch_limits.split(batch.num_rows(), &weigh) {
                let rows = start + part.start as u64..start + part.end as u64;
                if !output.done(&rows) {
                    let pixels = sizes[part.clone()].iter().map(|(_, pixels)| pixels).sum();
                    output.send(
                        rows,
                        FileRecords {
                            pixels,
                            ..self.records(&columns, part)?
                        },
                    )?;
                }
            }
            start += batch.num_rows() as u64;
        }
    }
}

impl RejectsFormat {
    /// The bytes and pixels of a record; 0 if it is not selected.
    fn size(&self, columns: &RejectColumns<'_>, row: usize) -> (u64, u64) {
        if !columns.matches(&self.filter, row) || !columns.record.is_valid(row) {
            return (0, 0);
        }
        let record = columns.record.value(row);
        if columns.is(row, OriginalFormat::File) {
            return FileReference::from_json(record).map_or((0, 0), |reference| reference.weight());
        }
        let pixels = columns
            .is(row, OriginalFormat::Image)
            .then(|| probe(record).map_or(0, |header| header.charged_pixels()));
        (record.len() as u64, pixels.unwrap_or(0))
    }

    /// Parses a stored text record, or returns why it cannot be read again.
    fn parse_text(
        &self,
        columns: &RejectColumns<'_>,
        row: usize,
        format: OriginalFormat,
    ) -> Result<RecordBatch, String> {
        let stored = columns.record.value(row);
        let values = text_originals::parse(format, stored, &self.texts)?;
        let origin = columns.origin(row);
        let (source, source_row) = origin.ok_or_else(|| "its origin is not stored".to_owned())?;
        let column = |field: &Arc<Field>| -> ArrayRef {
            match (values.column_by_name(field.name()), field.name().as_str()) {
                (Some(column), _) => Arc::clone(column),
                (None, SOURCE) => Arc::new(StringArray::from(vec![source.as_str()])),
                (None, ROW) => Arc::new(UInt64Array::from(vec![source_row])),
                (None, _) => new_null_array(field.data_type(), 1),
            }
        };
        let all = self.schema.fields().iter().map(column).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), all).map_err(|error| error.to_string())
    }

    fn records(
        &self,
        columns: &RejectColumns<'_>,
        part: Range<usize>,
    ) -> Result<FileRecords, ReadEnd> {
        let mut records = FileRecords::default();
        let mut found = vec![RecordBatch::new_empty(Arc::clone(&self.schema))];
        for (ordinal, row) in (0_u32..)
            .zip(part)
            .filter(|(_, row)| columns.matches(&self.filter, *row))
        {
            let restored =
                match columns.is(row, OriginalFormat::File) && self.schema == image_schema() {
                    true => columns.read_file(row, self.record_bytes)?,
                    false => match columns.text_format(row) {
                        Some(format) => self.parse_text(columns, row, format),
                        None => columns.read(row, &self.schema),
                    },
                };
            match restored {
                Ok(record) => {
                    found.push(record);
                    records.origin.push(ordinal);
                }
                Err(what) => {
                    let reason = format!("cannot be read again: {what}");
                    let (record, layout) = columns.original(row);
                    let source = columns.origin(row);
                    records.rejects.push(Reject {
                        record,
                        layout,
                        source,
                        records: columns.records(row),
                        ..Reject::new(ordinal, RejectCode::Unreadable, reason)
                    });
                }
            }
        }
        records.columns = concat_batches(&self.schema, &found)
            .map_err(StageError::from)?
            .columns()
            .to_vec();
        Ok(records)
    }
}
