//! The `arrow` source: record batches of Arrow IPC files and streams.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::RejectCode;
use crate::error::{ConfigError, StageError};
use crate::plan_context::PlanContext;
use crate::source::batch_limits::BatchLimits;
use crate::source::bounded_ipc_reader::{BoundedIpcReader, IpcBounds, RejectReason};
use crate::source::file_checkpoints::OnChange;
use crate::source::file_columns::{FileColumns, logical_schema};
use crate::source::file_source::{
    BatchOutput, FileFormat, FileSource, ReadEnd, ReadPolicy, catch_panic, check_names,
};
use crate::source::hive_partitions::HivePartitions;
use crate::source::image_column::ImageColumn;
use crate::source::input_file::{self, InputFile};
use crate::source::schema_inference::{InferredColumns, unified};
use crate::source::table_rows::TableRows;
use crate::source::{BatchSize, Source, SourceConfig, SourceShare};
use crate::storage;

/// Reads records of Arrow IPC files (Feather 2, Hugging Face datasets) or streams; the format is
/// detected from the content. A column has the type that holds its values in all files; a file that
/// lacks it has nulls. A column of encoded images (binary, or the `struct<bytes, path>` of Hugging
/// Face datasets) becomes the binary column `image`; of a column of lists of images, each image
/// becomes a record. Folders named `key=value` become columns.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct ArrowSourceConfig {
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::path::Path;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, DictionaryArray, Int32Array, StringArray};
    use arrow::datatypes::{Int32Type, UInt64Type};
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
    use serde_json::json;

    use super::*;
    use crate::coverage::ResumeState;
    use crate::source::file_source::testing::{drain, plan, progress_of, read, records, rejects};

    fn sample(rows: std::ops::Range<i32>) -> RecordBatch {
        let words: DictionaryArray<Int32Type> = rows
            .clone()
            .map(|row| if row % 2 == 0 { "even" } else { "odd" })
            .collect();
        let columns: [(&str, ArrayRef); 2] = [
            ("n", Arc::new(Int32Array::from_iter_values(rows))),
            ("w", Arc::new(words)),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn write_file(path: &Path, compression: Option<CompressionType>) {
        let options = IpcWriteOptions::default()
            .try_with_compression(compression)
            .unwrap();
        let file = File::create(path).unwrap();
        let mut writer =
            FileWriter::try_new_with_options(file, &sample(0..1).schema(), options).unwrap();
        [0..30, 30..35]
            .into_iter()
            .for_each(|rows| writer.write(&sample(rows)).unwrap());
        writer.finish().unwrap();
    }

    fn stream() -> Vec<u8> {
        let mut writer = StreamWriter::try_new(Vec::new(), &sample(0..1).schema()).unwrap();
        [0..30, 30..35]
            .into_iter()
            .for_each(|rows| writer.write(&sample(rows)).unwrap());
        writer.into_inner().unwrap()
    }

    #[test]
    fn files_and_streams_are_cut_to_batches() {
        let folder = tempfile::tempdir().unwrap();
        write_file(&folder.path().join("a.arrow"), None);
        write_file(
            &folder.path().join("b.feather"),
            Some(CompressionType::LZ4_FRAME),
        );
        write_file(&folder.path().join("c.ipc"), Some(CompressionType::ZSTD));
        std::fs::write(folder.path().join("d.arrows"), stream()).unwrap();
        let batches = read::<ArrowSourceConfig>(json!({ "path": folder.path() }), 20);
        let counts: Vec<_> = batches
            .iter()
            .map(|batch| batch.batch.records.num_rows())
            .collect();
        assert_eq!(counts, [20, 10, 5].repeat(4));
        assert!(rejects(&batches).is_empty());
        let last = records(&batches[9..]);
        assert_eq!(
            last["n"].as_primitive::<Int32Type>().values(),
            &(0..35).collect::<Vec<_>>()[..]
        );
        assert_eq!(last["row"].as_primitive::<UInt64Type>().value(34), 34);
        let words = arrow::compute::cast(&last["w"], &arrow::datatypes::DataType::Utf8).unwrap();
        assert_eq!(words.as_string::<i32>().value(33), "odd");
    }

    #[test]
    fn bytes_behind_an_end_of_stream_marker_are_one_reject() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("a.arrow");
        write_file(&whole, None);
        let mut zeroed = std::fs::read(&whole).unwrap();
        let marks: Vec<usize> = (0..zeroed.len() - 8)
            .step_by(8)
            .filter(|&at| zeroed[at..].starts_with(&[0xff; 4]) && zeroed[at + 4..at + 8] != [0; 4])
            .collect();
        // The last mark is that of the message of the last batch.
        let last = *marks.last().unwrap();
        zeroed[last..last + 8].fill(0);
        std::fs::write(folder.path().join("b.arrow"), zeroed).unwrap();
        std::fs::write(
            folder.path().join("c.arrows"),
            [stream(), stream()].concat(),
        )
        .unwrap();
        let batches = read::<ArrowSourceConfig>(json!({ "path": folder.path() }), 100);
        assert_eq!(records(&batches).num_rows(), 35 + 30 + 35);
        assert_eq!(
            rejects(&batches),
            [(30, "malformed", None), (35, "malformed", None)]
        );
    }

    #[test]
    fn truncated_file_gives_its_complete_batches_and_one_reject() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("a.arrow");
        write_file(&whole, Some(CompressionType::ZSTD));
        let bytes = std::fs::read(&whole).unwrap();
        for end in (0..bytes.len()).step_by(7) {
            std::fs::write(folder.path().join("b.arrow"), &bytes[..end]).unwrap();
            let batches = read::<ArrowSourceConfig>(json!({ "path": folder.path() }), 100);
            let rows = records(&batches).num_rows() - 35;
            assert!([0, 30, 35].contains(&rows), "{end}: {rows}");
            assert_eq!(rejects(&batches).len(), 1, "{end}");
        }
    }

    #[test]
    fn flipped_byte_gives_rows_rejects_or_error_with_file_name() {
        let folder = tempfile::tempdir().unwrap();
        write_file(&folder.path().join("a.arrow"), None);
        let bytes = std::fs::read(folder.path().join("a.arrow")).unwrap();
        for offset in (0..bytes.len()).step_by(3) {
            let mut bytes = bytes.clone();
            bytes[offset] ^= 0xff;
            std::fs::write(folder.path().join("b.arrow"), bytes).unwrap();
            let source = plan::<ArrowSourceConfig>(json!({ "path": folder.path() }), 100).unwrap();
            match drain(source, &ResumeState::default()) {
                Ok(batches) => assert!(records(&batches).num_rows() >= 35),
                Err(error) => assert!(error.to_string().starts_with("b.arrow: "), "{error}"),
            }
        }
    }

    #[test]
    fn file_with_another_type_is_one_reject_for_its_records() {
        let folder = tempfile::tempdir().unwrap();
        let other: ArrayRef = Arc::new(StringArray::from_iter_values(vec!["x"; 7]));
        let other = RecordBatch::try_from_iter([("n", other)]).unwrap();
        write_file(&folder.path().join("a.arrow"), None);
        let mut writer = FileWriter::try_new(
            File::create(folder.path().join("b.arrow")).unwrap(),
            &other.schema(),
        );
        writer.as_mut().unwrap().write(&other).unwrap();
        writer.unwrap().finish().unwrap();
        write_file(&folder.path().join("c.arrow"), None);
        let batches = read::<ArrowSourceConfig>(json!({ "path": folder.path() }), 100);
        assert_eq!(
            (records(&batches).num_rows(), rejects(&batches)),
            (70, vec![(0, "mismatch", None)])
        );
        let rejected = batches
            .iter()
            .find(|batch| !batch.rejects.is_empty())
            .unwrap();
        assert_eq!(rejected.batch.provenance.len(), 7);
    }

    #[test]
    fn later_run_sends_the_uncommitted_batches() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.arrows"), stream()).unwrap();
        let all = read::<ArrowSourceConfig>(json!({ "path": folder.path() }), 20);
        let rest = drain(
            plan::<ArrowSourceConfig>(json!({ "path": folder.path() }), 20).unwrap(),
            &progress_of(&all[..1]),
        )
        .unwrap();
        assert_eq!(rest.len(), 2);
        assert_eq!(rest[0].batch.records, all[1].batch.records);
    }

    #[test]
    fn declared_size_beyond_the_bound_is_refused_unallocated() {
        let mut bytes = Vec::from(CONTINUES);
        bytes.extend(i32::MAX.to_le_bytes());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.arrows"), bytes).unwrap();
        let faults = plan::<ArrowSourceConfig>(json!({ "path": folder.path() }), 20)
            .err()
            .unwrap();
        assert_eq!(
            faults[0].message,
            "no file can be read; a.arrows: a message declares a header of 2147483647 bytes; \
             the maximum is 67108864"
        );
    }

    const CONTINUES: [u8; 4] = [0xff; 4];
}
