//! The `arrow` source: record batches of Arrow IPC files and streams.

pub(crate) mod bounded_reader;
pub(crate) mod message;

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::reject::RejectCode;
use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::plan_context::PlanContext;
use crate::source::batch_limits::BatchLimits;
use crate::source::batch_size::BatchSize;
use crate::source::discovery::file_checkpoints::OnChange;
use crate::source::discovery::hive_partitions::HivePartitions;
use crate::source::discovery::input_file::{self, InputFile};
use crate::source::discovery::read_end::ReadEnd;
use crate::source::discovery::share::SourceShare;
use crate::source::images::column::ImageColumn;
use crate::source::table::arrow_ipc::bounded_reader::{BoundedIpcReader, IpcBounds};
use crate::source::table::arrow_ipc::message::RejectReason;
use crate::source::table::file_columns::{FileColumns, logical_schema};
use crate::source::table::file_source::read_end::catch_panic;
use crate::source::table::file_source::source::ReadPolicy;
use crate::source::table::file_source::{BatchOutput, FileFormat, FileSource, check_names};
use crate::source::table::rows::TableRows;
use crate::source::table::schema_inference::{InferredColumns, unified};
use crate::source::{Source, SourceConfig};
use crate::storage;

/// Reads records of Arrow IPC files (Feather 2, Hugging Face datasets) or streams; the format is
/// detected from the content. A column has the type that holds its values in all files; a file that
/// lacks it has nulls. A column of encoded images (binary, or the `struct<bytes, path>` of Hugging
/// Face datasets) becomes the binary column `image`; of a column of lists of images, each image
/// becomes a record. Folders named `key=value` become columns.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct ArrowSourceConfig {
    /// A file, a folder (all *.arrow, *.arrows, *.feather and *.ipc files in it and in its
    /// subfolders) or a glob.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    pub path: String,
    /// The column of encoded images. Default: the column of type `struct<bytes, path>`, otherwise
    /// the binary column `image`, if the files have one of them.
    #[schemars(extend("x-changes-rows" = true, "x-inferred" = true))]
    pub image_column: Option<String>,
    /// How to treat a file that has changed since an earlier run read it: `new` reads it as a new
    /// file and warns that the rows of its earlier version stay in the output; `refuse` ends
    /// `check` and `run` with an error that names the file. A file of at most 32 MiB with the same
    /// content counts as unchanged, regardless of its modification time. Default: new.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub on_change: OnChange,
}

impl SourceConfig for ArrowSourceConfig {
    const FILE_ENDINGS: &'static [&'static str] = ArrowIpcFormat::EXTENSIONS;

    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let path = |error: StageError| vec![ConfigError::from_error("path", &error)];
        let files = input_file::list(name, &self.path, ArrowIpcFormat::EXTENSIONS).map_err(path)?;
        let limits = context.limits;
        let stored = limits
            .memory
            .map_or(MAX_STORED, |memory| MAX_STORED.min(memory.0 / 2));
        let bounds = IpcBounds::of_file(stored, limits.buffer_bytes());
        let InferredColumns { fields, notes } = columns_of(&files, bounds).map_err(path)?;
        let image = ImageColumn::find(&fields, self.image_column.as_deref())
            .map_err(|reason| vec![ConfigError::new("image_column", reason)])?;
        self.image_column = image.as_ref().map(|image| image.name(&fields).to_owned());
        let schema = image.map_or_else(
            || Schema::new(fields.clone()),
            |image| image.schema(&fields),
        );
        check_names(schema.fields().iter().map(|field| field.name()))
            .map_err(|reason| vec![ConfigError::new("path", reason)])?;
        let batch_limits = if image.is_some() {
            BatchLimits::images(batch)
        } else {
            BatchLimits::features(batch)
        };
        let largest_file = files.iter().map(InputFile::size).max().unwrap_or(0);
        let format = ArrowIpcFormat {
            columns: fields,
            rows: TableRows {
                image,
                batch_limits,
                record_bytes: limits.record_bytes.0,
            },
            bounds,
            largest_file,
        };
        let partitions = HivePartitions::infer(&files, &schema);
        let source = FileSource::new(
            name,
            &self.path,
            &schema,
            format,
            ReadPolicy::new(self.on_change, SourceShare::new(context.shard)),
        );
        Ok(Box::new(
            source.with_notes(notes).with_partitions(partitions),
        ))
    }
}

/// Unifies the columns of the files.
fn columns_of(files: &[InputFile], bounds: IpcBounds) -> Result<InferredColumns, StageError> {
    unified(files, |file, input| {
        let mut input = open(input).map_err(file.stopped())?;
        let columns = catch_panic(|| BoundedIpcReader::bounded(&mut input.stream, bounds))
            .map(|messages| messages.schema().clone());
        file.check_available(&input.handle)?;
        let columns = columns.map_err(|(code, reason)| file.unfit(code, &reason, 1))?;
        logical_schema(&columns)
            .map(Some)
            .map_err(|reason| file.unfit(RejectCode::Unsupported, &reason, 1))
    })
}

/// Returns the number of records of a stream up to the first error.
fn count(messages: &mut BoundedIpcReader<impl Read>) -> u64 {
    let mut records = 0;
    while let Ok(Some(batch)) = next(messages) {
        records += batch.num_rows() as u64;
    }
    records
}

/// Returns the next record batch; a panic of the library is a reject reason, too.
fn next(messages: &mut BoundedIpcReader<impl Read>) -> Result<Option<RecordBatch>, RejectReason> {
    catch_panic(|| Ok::<_, String>(messages.next_batch())).flatten()
}

/// Maximum stored bytes of a record batch. Writers make far smaller ones.
const MAX_STORED: u64 = 1 << 30;

/// The checked options for reading IPC files.
struct ArrowIpcFormat {
    columns: Vec<FieldRef>,
    rows: TableRows,
    bounds: IpcBounds,
    /// Size of the largest listed file in bytes.
    largest_file: u64,
}

impl FileFormat for ArrowIpcFormat {
    const EXTENSIONS: &'static [&'static str] = &["arrow", "arrows", "feather", "ipc"];

    fn read(
        &self,
        file: &InputFile,
        input: storage::FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        let mut input = open(input).map_err(file.stopped())?;
        let mut messages =
            match catch_panic(|| BoundedIpcReader::bounded(&mut input.stream, self.bounds)) {
                Ok(messages) => messages,
                Err((code, reason)) => {
                    file.check_available(&input.handle)?;
                    return output.reject_rest(0, code, &reason);
                }
            };
        let columns = match FileColumns::new(&self.columns, messages.schema()) {
            Ok(columns) => columns,
            Err(reason) => {
                let records = count(&mut messages);
                file.check_available(&input.handle)?;
                return Err(file.unfit(RejectCode::Mismatch, &reason, records));
            }
        };
        file.note_left_out(&columns.left_out(messages.schema()));
        let mut row = 0;
        loop {
            match next(&mut messages) {
                Ok(Some(records)) => {
                    let read = records.project(columns.indices())?;
                    let place = (file.name.as_str(), row);
                    self.rows
                        .send(place, &read, columns.align(&read)?, output)?;
                    row += records.num_rows() as u64;
                }
                Ok(None) => break,
                Err((code, reason)) => {
                    file.check_available(&input.handle)?;
                    return output.reject_rest(row, code, &format!("the rest is lost: {reason}"));
                }
            }
        }
        let has_rest = messages.has_rest();
        file.check_available(&input.handle)?;
        match has_rest {
            Ok(false) => {}
            Ok(true) => {
                let reason = "the rest is lost: more bytes follow the end-of-stream marker";
                return output.reject_rest(row, RejectCode::Malformed, reason);
            }
            Err((code, reason)) => {
                return output.reject_rest(row, code, &format!("the rest is lost: {reason}"));
            }
        }
        if input.is_file && !input.has_footer {
            let reason = "the rest is lost: the file ends without its footer";
            return output.reject_rest(row, RejectCode::Truncated, reason);
        }
        Ok(())
    }

    fn buffer_bytes(&self) -> u64 {
        self.largest_file
            .min(self.bounds.stored)
            .saturating_add(self.bounds.unpacked)
    }
}

/// The stream of messages in an IPC file or an IPC stream.
struct IpcInput {
    stream: io::Take<BufReader<storage::FileReader>>,
    /// A second handle of the file, which reports errors of the environment while messages are
    /// read.
    handle: storage::FileReader,
    is_file: bool,
    has_footer: bool,
}

/// The bytes at the beginning and the end of an IPC file. At the beginning they are padded with
/// zeros (to 8 bytes by most writers, to 64 by arrow-rs).
const MAGIC: &[u8] = b"ARROW1";
const MAX_PADDING: u64 = 64;

/// Opens an IPC file or stream. An IPC file is a stream between the magic and a footer, which
/// repeats the contents of the stream.
fn open(mut input: storage::FileReader) -> io::Result<IpcInput> {
    let (len, handle) = (input.length()?, input.try_clone()?);
    let mut head = Vec::new();
    (&mut input).take(MAX_PADDING).read_to_end(&mut head)?;
    let is_file = head.starts_with(MAGIC);
    let footer = if is_file {
        footer_bytes(&mut input, len)?
    } else {
        None
    };
    let padding = head
        .iter()
        .skip(MAGIC.len())
        .take_while(|&&byte| byte == 0)
        .count();
    let start = if is_file {
        (MAGIC.len() + padding) as u64
    } else {
        0
    };
    input.seek(SeekFrom::Start(start))?;
    let end = len - footer.unwrap_or(0);
    let stream = BufReader::new(input).take(end.saturating_sub(start));
    Ok(IpcInput {
        stream,
        handle,
        is_file,
        has_footer: footer.is_some(),
    })
}

/// Returns the bytes of the footer, including its length and the magic behind it, or `None` if the
/// file has no footer.
fn footer_bytes(input: &mut storage::FileReader, len: u64) -> io::Result<Option<u64>> {
    const TAIL: u64 = 10;
    if len < 8 + TAIL {
        return Ok(None);
    }
    input.seek(SeekFrom::Start(len - TAIL))?;
    let mut tail = Vec::new();
    input.take(TAIL).read_to_end(&mut tail)?;
    let Some((length, MAGIC)) = tail.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let footer = u64::from(u32::from_le_bytes(*length)) + TAIL;
    Ok((footer <= len - 8).then_some(footer))
}

#[cfg(test)]
mod tests;
