//! The source `rejects`: records that an earlier run refused, as their source gave them, for a
//! pipeline that was mended.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::{Reject, RejectCode};
use crate::error::{ConfigError, ErrorClass, StageError};
use crate::image::probe;
use crate::plan_context::PlanContext;
use crate::source::batch_limits::BatchLimits;
use crate::source::bounded_ipc_reader::{BoundedIpcReader, IpcBounds};
use crate::source::file_reference::{FileReference, ReferenceReadError};
use crate::source::file_source::{
    BatchOutput, FileFormat, FileRecords, FileSource, ReadEnd, ReadPolicy, catch_panic,
};
use crate::source::input_file::{self, InputFile};
use crate::source::{
    BatchSize, IMAGE, PIXEL_BYTES, ROW, SOURCE, Source, SourceConfig, origin_fields,
};
use crate::storage::FileReader;

/// The column of a rejects dataset that says which split the record was read from: `<stage>/...`.
pub const SPLIT: &str = "split";
/// The column that says which stage refused it.
pub const STAGE: &str = "stage";
/// The column that says why, in one word.
pub const CODE: &str = "code";
/// The column that says what `record` holds.
pub const FORMAT: &str = "format";
/// The column of the record itself; null where its source had no bytes of it.
pub const RECORD: &str = "record";

/// The column of the number of records that it stands for; datasets of earlier versions lack it,
/// and each of their rejects stands for one.
pub const RECORDS: &str = "records";

/// Why a reject cannot be given again that lies here without its record.
const NO_ORIGINAL: &str = "no original is kept here, since its source had none, `rejects.record` is false, or it was purged; read its source again";

/// What a refused record is kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginalFormat {
    /// An encoded image, as its file has it.
    Image,
    /// A line of text that could not be parsed.
    Line,
    /// All columns of its source, as an Arrow IPC stream of one row.
    Arrow,
    /// A reference to an image file that could not be read, as JSON.
    File,
}

impl OriginalFormat {
    /// The word in the column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Line => "line",
            Self::Arrow => "arrow",
            Self::File => "file",
        }
    }
}

/// Options of the source `rejects`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct RejectsSourceConfig {
    /// The folder of a rejects dataset, or one of its files.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    path: String,
    /// The source whose records are wanted, by its stage's name in the pipeline that refused them.
    /// Default: the only one.
    #[schemars(extend("x-changes-rows" = true, "x-inferred" = true))]
    from: Option<String>,
    /// Only what these stages refused. Default: all.
    #[schemars(extend("x-changes-rows" = true))]
    stages: Option<Vec<String>>,
    /// Only what was refused for these reasons, such as `too_large`. Default: all.
    #[schemars(extend("x-changes-rows" = true))]
    codes: Option<Vec<String>>,
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
        // What is named is a set.
        for names in [&mut self.stages, &mut self.codes].into_iter().flatten() {
            names.sort();
            names.dedup();
        }
        let wanted = RejectFilter {
            from,
            stages: self.stages.clone(),
            codes: self.codes.clone(),
        };
        let Some(schema) = found.get(&wanted.from).cloned().flatten() else {
            let message = format!(
                "no reject of the source `{}` can be given again: {NO_ORIGINAL}; a kept line of text is read by its own \
                 source, after a repair",
                wanted.from
            );
            return Err(vec![ConfigError::new("path", message)]);
        };
        let images = schema.column_with_name(IMAGE).is_some();
        let batch_limits = if images {
            BatchLimits::images(batch)
        } else {
            BatchLimits::features(batch)
        };
        let record_bytes = context.limits.record_bytes.0;
        let format = RejectsFormat {
            wanted,
            schema: schema.clone(),
            batch_limits,
            record_bytes,
        };
        Ok(Box::new(FileSource::new(
            name,
            &self.path,
            &schema,
            format,
            ReadPolicy::default(),
        )))
    }
}

/// The source whose records are wanted.
fn choose(
    found: &BTreeMap<String, Option<SchemaRef>>,
    from: Option<&str>,
) -> Result<String, Vec<ConfigError>> {
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let known = names.join(", ");
    match (from, names.as_slice()) {
        (None, &[only]) => Ok(only.to_owned()),
        (None, []) => Err(vec![ConfigError::new("path", "holds no rejects")]),
        (None, _) => Err(vec![ConfigError::new(
            "from",
            format!("is missing: rejects of several sources lie here: {known}"),
        )]),
        (Some(name), _) if found.contains_key(name) => Ok(name.to_owned()),
        (Some(name), _) => Err(vec![ConfigError::new(
            "from",
            format!("there are no rejects of `{name}`; of these: {known}"),
        )]),
    }
}

/// The sources whose rejects lie in the files, and the columns of their records, where any was
/// kept.
fn found(files: &[InputFile]) -> Result<BTreeMap<String, Option<SchemaRef>>, StageError> {
    let mut sources: BTreeMap<String, Option<SchemaRef>> = BTreeMap::new();
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
                drop(problem.get_or_insert(unavailable.to_string()))
            }
            Err(ReadEnd::Rejected(refusal, _)) => drop(problem.get_or_insert(refusal.reason)),
            Ok(()) | Err(ReadEnd::Cancelled) => {}
        }
    }
    match problem.filter(|_| sources.is_empty()) {
        Some(problem) => Err(StageError::Other(problem)),
        None => Ok(sources),
    }
}

/// Adds the sources whose rejects lie in a file.
fn add_sources(
    file: &InputFile,
    input: FileReader,
    sources: &mut BTreeMap<String, Option<SchemaRef>>,
) -> Result<(), ReadEnd> {
    let mut batches = RejectBatches::open(file, input, 1024)?;
    while let Some(batch) = batches.next().map_err(|failure| batches.stop(failure))? {
        let columns = RejectColumns::of(&batch)
            .ok_or_else(|| batches.stop((RejectCode::Mismatch, not_rejects())))?;
        for row in 0..batch.num_rows() {
            let schema = sources.entry(columns.from(row).to_owned()).or_default();
            if schema.is_none() {
                *schema = columns.schema(row);
            }
        }
    }
    Ok(())
}

fn not_rejects() -> String {
    let columns = [SOURCE, ROW, SPLIT, STAGE, CODE, FORMAT, RECORD].join(", ");
    format!("these are no rejects of a run; their columns are {columns} among others")
}

/// The rows of a file of rejects.
struct RejectBatches<'a> {
    file: &'a InputFile,
    /// The same file, to be asked while it is read.
    handle: FileReader,
    reader: ParquetRecordBatchReader,
    /// Rows by the footer.
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

    /// The reason to stop: an error of the environment, or else the one that is given.
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
    fn of(batch: &'a RecordBatch) -> Option<Self> {
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

    /// The stage that the record came from.
    fn from(&self, row: usize) -> &'a str {
        self.split.value(row).split('/').next().unwrap_or_default()
    }

    /// Where the record came from, and its row in there.
    fn origin(&self, row: usize) -> Option<(String, u64)> {
        let source = self.batch.column_by_name(SOURCE)?.as_string_opt::<i32>()?;
        let rows = self
            .batch
            .column_by_name(ROW)?
            .as_primitive_opt::<UInt64Type>()?;
        Some((source.value(row).to_owned(), rows.value(row)))
    }

    /// The number of records that the reject stands for.
    fn records(&self, row: usize) -> u64 {
        let counts = self
            .batch
            .column_by_name(RECORDS)
            .and_then(|column| column.as_primitive_opt::<UInt64Type>());
        counts
            .filter(|counts| counts.is_valid(row))
            .map_or(1, |counts| counts.value(row))
    }

    fn is_wanted(&self, wanted: &RejectFilter, row: usize) -> bool {
        let among = |names: &Option<Vec<String>>, name: &str| {
            names
                .as_ref()
                .is_none_or(|names| names.iter().any(|wanted| wanted == name))
        };
        self.from(row) == wanted.from
            && among(&wanted.stages, self.stage.value(row))
            && among(&wanted.codes, self.code.value(row))
    }

    /// The columns of the record, where it was kept.
    fn schema(&self, row: usize) -> Option<SchemaRef> {
        if self.is(row, OriginalFormat::Image) || self.is(row, OriginalFormat::File) {
            return Some(image_schema());
        }
        let record = self
            .is(row, OriginalFormat::Arrow)
            .then(|| self.record.value(row))?;
        catch_panic(|| BoundedIpcReader::bounded(record, KEPT))
            .ok()
            .map(|messages| Arc::clone(messages.schema()))
    }

    fn is(&self, row: usize, format: OriginalFormat) -> bool {
        self.format.is_valid(row)
            && self.record.is_valid(row)
            && self.format.value(row) == format.as_str()
    }

    /// The image in the file that a record refers to, or why it cannot be given again.
    ///
    /// # Errors
    /// When the file cannot be read now.
    fn read_file(&self, row: usize, limit: u64) -> Result<Result<RecordBatch, String>, ReadEnd> {
        let Some(reference) = FileReference::from_json(self.record.value(row)) else {
            return Ok(Err("this is not a reference to a file".to_owned()));
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

    /// The record as its source gave it, or why it cannot be given again.
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
                "a line that its source could not read: mend it, and give it to such a source"
                    .to_owned(),
            );
        }
        if !self.is(row, OriginalFormat::Arrow) {
            return Err(NO_ORIGINAL.to_owned());
        }
        let record =
            catch_panic(|| BoundedIpcReader::bounded(self.record.value(row), KEPT)?.next());
        match record {
            Ok(Some(record))
                if record.schema().fields() == schema.fields() && record.num_rows() == 1 =>
            {
                RecordBatch::try_new(Arc::clone(schema), record.columns().to_vec())
                    .map_err(|error| error.to_string())
            }
            Ok(_) => Err("its columns are others than those of the records before it".to_owned()),
            Err((_, what)) => Err(format!("it was not kept whole: {what}")),
        }
    }
}

/// A record that was kept was held once before, so that it is small; what it unpacks to is bounded
/// all the same.
const KEPT: IpcBounds = IpcBounds::of_file(u64::MAX, 256 << 20);

/// What a source of images gives.
fn image_schema() -> SchemaRef {
    let image = Field::new(IMAGE, DataType::Binary, false);
    Arc::new(Schema::new(
        origin_fields()
            .into_iter()
            .chain([image])
            .collect::<Vec<_>>(),
    ))
}

/// Which of the rejects are wanted.
struct RejectFilter {
    from: String,
    stages: Option<Vec<String>>,
    codes: Option<Vec<String>>,
}

/// How planned rejects are read.
struct RejectsFormat {
    wanted: RejectFilter,
    /// The columns of the records.
    schema: SchemaRef,
    batch_limits: BatchLimits,
    /// Bytes above which a file that is referred to is not read.
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
            let columns = RejectColumns::of(&batch)
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
    /// Bytes and pixels of a record that is wanted.
    fn size(&self, columns: &RejectColumns<'_>, row: usize) -> (u64, u64) {
        if !columns.is_wanted(&self.wanted, row) || !columns.record.is_valid(row) {
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

    fn records(
        &self,
        columns: &RejectColumns<'_>,
        part: Range<usize>,
    ) -> Result<FileRecords, ReadEnd> {
        let mut records = FileRecords::default();
        let mut found = vec![RecordBatch::new_empty(Arc::clone(&self.schema))];
        for (ordinal, row) in (0_u32..)
            .zip(part)
            .filter(|(_, row)| columns.is_wanted(&self.wanted, *row))
        {
            let record =
                match columns.is(row, OriginalFormat::File) && self.schema == image_schema() {
                    true => columns.read_file(row, self.record_bytes)?,
                    false => columns.read(row, &self.schema),
                };
            match record {
                Ok(record) => {
                    found.push(record);
                    records.origin.push(ordinal);
                }
                Err(what) => {
                    let reason = format!("cannot be given again: {what}");
                    let record = columns
                        .record
                        .is_valid(row)
                        .then(|| columns.record.value(row).to_vec());
                    let source = columns.origin(row);
                    records.rejects.push(Reject {
                        record,
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
