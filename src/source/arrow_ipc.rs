//! The `arrow` source: record batches of Arrow IPC files and streams.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::RejectCode;
use crate::error::{ConfigError, StageError};
use crate::plan_context::PlanContext;
use crate::source::batch_limits::{BatchLimits, arrow_bytes, too_large};
use crate::source::bounded_ipc_reader::{BoundedIpcReader, IpcBounds, RejectReason};
use crate::source::file_checkpoints::OnChange;
use crate::source::file_source::{
    BatchOutput, FileFormat, FileRecords, FileSource, ReadEnd, catch_panic, check_names, places,
};
use crate::source::input_file::{self, InputFile};
use crate::source::schema_inference::first;
use crate::source::{BatchSize, Source, SourceConfig};
use crate::storage;

/// Records of Arrow IPC files (Feather 2) or streams; which of them is seen from the content.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct ArrowSourceConfig {
    /// A file, a folder (its *.arrow, *.arrows, *.feather and *.ipc files, and those of its
    /// subfolders) or a glob.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    pub path: String,
    /// What happens to a file that has changed since an earlier run read it: `new` reads it as a
    /// new file, with a warning that the rows that it gave before stay in the output; `refuse`
    /// refuses to run. A file of at most 32 MiB whose content is the same has not changed, whatever
    /// its time. Default: new.
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
            .map_or(STORED, |memory| STORED.min(memory.0 / 2));
        let most = IpcBounds::of_file(stored, limits.buffer_bytes());
        let columns = columns_of(&files, most).map_err(path)?;
        check_names(columns.fields().iter().map(|field| field.name()))
            .map_err(|what| vec![ConfigError::new("path", what)])?;
        let batch_limits = BatchLimits::features(batch);
        let largest_file = files.iter().map(InputFile::size).max().unwrap_or(0);
        let format = ArrowIpcFormat {
            columns: columns.clone(),
            batch_limits,
            most,
            record_bytes: limits.record_bytes.0,
            largest_file,
        };
        Ok(Box::new(FileSource::new(
            name,
            &self.path,
            &columns,
            format,
            self.on_change.into(),
        )))
    }
}

/// The columns of the first file that can be read.
fn columns_of(files: &[InputFile], most: IpcBounds) -> Result<SchemaRef, StageError> {
    let look = |file: &InputFile, input: storage::FileReader| {
        let mut input = open(input).map_err(file.stopped())?;
        let columns = catch_panic(|| BoundedIpcReader::bounded(&mut input.stream, most))
            .map(|messages| messages.schema().clone());
        file.check_available(&input.handle)?;
        columns
            .map(Some)
            .map_err(|(code, what)| file.unfit(code, &what, 1))
    };
    first(files, look)
}

/// The records of a stream, as far as they can be read.
fn count(messages: &mut BoundedIpcReader<impl Read>) -> u64 {
    let mut records = 0;
    while let Ok(Some(batch)) = next(messages) {
        records += batch.num_rows() as u64;
    }
    records
}

/// The next record batch; a panic of the library is a refusal, too.
fn next(messages: &mut BoundedIpcReader<impl Read>) -> Result<Option<RecordBatch>, RejectReason> {
    catch_panic(|| Ok::<_, String>(messages.next_batch())).flatten()
}

/// Bytes of a record batch as it is stored. Writers make far smaller ones.
const STORED: u64 = 1 << 30;

/// How planned IPC files are read.
struct ArrowIpcFormat {
    columns: SchemaRef,
    batch_limits: BatchLimits,
    most: IpcBounds,
    /// Bytes that a record may take.
    record_bytes: u64,
    /// Bytes of the largest file that was listed.
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
            match catch_panic(|| BoundedIpcReader::bounded(&mut input.stream, self.most)) {
                Ok(messages) => messages,
                Err((code, what)) => {
                    file.check_available(&input.handle)?;
                    return output.reject_rest(0, code, &what);
                }
            };
        let places = match places(self.columns.fields(), messages.schema()) {
            Ok(places) => places,
            Err(what) => {
                let records = count(&mut messages);
                file.check_available(&input.handle)?;
                return Err(file.unfit(RejectCode::Mismatch, &what, records));
            }
        };
        let mut row = 0;
        loop {
            match next(&mut messages) {
                Ok(Some(records)) => {
                    self.send(&records.project(&places)?, row, output)?;
                    row += records.num_rows() as u64;
                }
                Ok(None) => break,
                Err((code, what)) => {
                    file.check_available(&input.handle)?;
                    return output.reject_rest(row, code, &format!("the rest is lost: {what}"));
                }
            }
        }
        let has_rest = messages.has_rest();
        file.check_available(&input.handle)?;
        match has_rest {
            Ok(false) => {}
            Ok(true) => {
                let what = "the rest is lost: more bytes follow the end mark of the stream";
                return output.reject_rest(row, RejectCode::Malformed, what);
            }
            Err((code, what)) => {
                return output.reject_rest(row, code, &format!("the rest is lost: {what}"));
            }
        }
        if input.is_file && !input.has_footer {
            let what = "the rest is lost: the file ends without its footer";
            return output.reject_rest(row, RejectCode::Truncated, what);
        }
        Ok(())
    }

    fn buffer_bytes(&self) -> u64 {
        self.largest_file
            .min(self.most.stored)
            .saturating_add(self.most.unpacked)
    }
}

impl ArrowIpcFormat {
    /// Sends the records of a batch, and refuses those that take more than a record may.
    fn send(
        &self,
        records: &RecordBatch,
        first: u64,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        for part in self
            .batch_limits
            .split(records.num_rows(), &|rows| arrow_bytes(records, rows))
        {
            let rows = first + part.start as u64..first + part.end as u64;
            if output.done(&rows) {
                continue;
            }
            let bytes = if part.len() == 1 {
                arrow_bytes(records, part.clone())
            } else {
                0
            };
            if bytes > self.record_bytes {
                output.reject_rows(
                    rows,
                    RejectCode::TooLarge,
                    too_large(bytes, self.record_bytes),
                )?;
                continue;
            }
            let columns = records.slice(part.start, part.len()).columns().to_vec();
            let origin = (0..u32::try_from(part.len()).unwrap_or(u32::MAX)).collect();
            output.send(
                rows,
                FileRecords {
                    columns,
                    origin,
                    ..FileRecords::default()
                },
            )?;
        }
        Ok(())
    }
}

/// The stream of messages in a file of either format.
struct IpcInput {
    stream: io::Take<BufReader<storage::FileReader>>,
    /// The same file, to be asked while messages are read.
    handle: storage::FileReader,
    is_file: bool,
    has_footer: bool,
}

/// Begins the file format, padded with zeros (to 8 bytes by most writers, to 64 by arrow-rs), and
/// ends it.
const MAGIC: &[u8] = b"ARROW1";
const MAX_PADDING: u64 = 64;

/// An IPC file is a stream between the magic and a footer, which repeats what the stream says.
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

/// Bytes of the footer with its length and the magic behind it, where it is there.
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

    use arrow::array::{ArrayRef, AsArray, DictionaryArray, Int32Array};
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
    fn bytes_behind_an_end_mark_are_one_reject() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("a.arrow");
        write_file(&whole, None);
        let mut zeroed = std::fs::read(&whole).unwrap();
        let marks: Vec<usize> = (0..zeroed.len() - 8)
            .step_by(8)
            .filter(|&at| zeroed[at..].starts_with(&[0xff; 4]) && zeroed[at + 4..at + 8] != [0; 4])
            .collect();
        // The message of the last batch.
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
    fn every_truncation_gives_what_was_whole_and_at_most_one_reject() {
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
    fn a_flipped_byte_gives_rows_rejects_or_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        write_file(&folder.path().join("a.arrow"), None);
        let bytes = std::fs::read(folder.path().join("a.arrow")).unwrap();
        for place in (0..bytes.len()).step_by(3) {
            let mut bytes = bytes.clone();
            bytes[place] ^= 0xff;
            std::fs::write(folder.path().join("b.arrow"), bytes).unwrap();
            let source = plan::<ArrowSourceConfig>(json!({ "path": folder.path() }), 100).unwrap();
            match drain(source, &ResumeState::default()) {
                Ok(batches) => assert!(records(&batches).num_rows() >= 35),
                Err(error) => assert!(error.to_string().starts_with("b.arrow: "), "{error}"),
            }
        }
    }

    #[test]
    fn a_file_of_other_columns_is_one_reject_for_its_records() {
        let folder = tempfile::tempdir().unwrap();
        let other: ArrayRef = Arc::new(Int32Array::from_iter_values(0..7));
        let other = RecordBatch::try_from_iter([("m", other)]).unwrap();
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
    fn a_later_run_sends_the_batches_that_are_not_done() {
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
    fn a_declared_size_beyond_the_bound_is_refused_before_it_is_allocated() {
        let mut bytes = Vec::from(CONTINUES);
        bytes.extend(i32::MAX.to_le_bytes());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.arrows"), bytes).unwrap();
        let faults = plan::<ArrowSourceConfig>(json!({ "path": folder.path() }), 20)
            .err()
            .unwrap();
        assert!(
            faults[0]
                .message
                .contains("declares a description of 2147483647 bytes"),
            "{faults:?}"
        );
    }

    const CONTINUES: [u8; 4] = [0xff; 4];
}
