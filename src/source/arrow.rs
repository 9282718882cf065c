//! The `arrow` source: record batches of Arrow IPC files and streams.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::batch::RejectCode;
use crate::context::Context;
use crate::error::{Fault, StageError};
use crate::source::arrow_messages::Messages;
use crate::source::cut::{Cut, weight};
use crate::source::files::{self, InputFile};
use crate::source::record_files::{Output, RecordFiles, RecordFormat, Records, Stop, check_names, differs, guarded};
use crate::source::{BatchSize, FEATURE_RECORDS, Source, SourceConfig, with_origin};

/// Records of Arrow IPC files (Feather 2) or streams; which of them is seen from the content.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Config {
    /// A file, a folder (its *.arrow, *.arrows, *.feather and *.ipc files, and those of its subfolders) or a glob.
    pub path: String,
}

impl SourceConfig for Config {
    fn plan(self, name: &str, batch: BatchSize, _: &Context) -> Result<Box<dyn Source>, Vec<Fault>> {
        let path = |error: StageError| vec![Fault::new("path", error.to_string())];
        let files = files::list(name, &self.path, Ipc::EXTENSIONS).map_err(path)?;
        let columns = first_schema(&files).map_err(path)?;
        check_names(columns.fields().iter().map(|field| field.name()))
            .map_err(|what| vec![Fault::new("path", what)])?;
        let cut = Cut { records: batch.records_or(FEATURE_RECORDS), bytes: batch.bytes() };
        let schema = with_origin(&columns);
        Ok(Box::new(RecordFiles { stage: name.to_owned(), path: self.path, schema, format: Ipc { columns, cut } }))
    }
}

/// The columns of the first file that can be read.
fn first_schema(files: &[InputFile]) -> Result<SchemaRef, StageError> {
    let mut broken = None;
    for file in files {
        let mut input = open(file)?;
        match guarded(|| Messages::start(&mut input)) {
            Ok(messages) => return Ok(messages.schema().clone()),
            Err((_, what)) => broken = broken.or(Some(format!("{}: {what}", file.name))),
        }
    }
    Err(StageError::Other(format!("no file can be read; {}", broken.unwrap_or_default())))
}

/// How planned IPC files are read.
struct Ipc {
    columns: SchemaRef,
    cut: Cut,
}

impl RecordFormat for Ipc {
    const EXTENSIONS: &'static [&'static str] = &["arrow", "arrows", "feather", "ipc"];

    fn read(&self, file: &InputFile, output: &Output<'_>) -> Result<(), Stop> {
        let mut input = open(file)?;
        let mut messages = match guarded(|| Messages::start(&mut input)) {
            Ok(messages) => messages,
            Err((code, what)) => return output.refuse(0..1, code, what),
        };
        let places = self.places(file, messages.schema())?;
        let mut row = 0;
        loop {
            match guarded(|| messages.next()) {
                Ok(Some(records)) => {
                    self.send(&records.project(&places)?, row, output)?;
                    row += records.num_rows() as u64;
                }
                Ok(None) => break,
                Err((code, what)) => return output.refuse(row..row + 1, code, format!("the rest is lost: {what}")),
            }
        }
        if input.is_file && !input.has_footer {
            let what = "the rest is lost: the file ends without its footer".to_owned();
            return output.refuse(row..row + 1, RejectCode::Truncated, what);
        }
        Ok(())
    }
}

impl Ipc {
    /// Where the planned columns stand in a file.
    fn places(&self, file: &InputFile, schema: &Schema) -> Result<Vec<usize>, StageError> {
        let place = |planned: &arrow::datatypes::FieldRef| match schema.column_with_name(planned.name()) {
            Some((place, field)) if field.data_type() == planned.data_type() => Ok(place),
            other => Err(differs(&file.name, planned, other.map(|(_, field)| field.data_type()))),
        };
        self.columns.fields().iter().map(place).collect()
    }

    fn send(&self, records: &RecordBatch, first: u64, output: &Output<'_>) -> Result<(), Stop> {
        for part in self.cut.parts(records.num_rows(), &|rows| weight(records, rows)) {
            let rows = first + part.start as u64..first + part.end as u64;
            if output.done(&rows) {
                continue;
            }
            let columns = records.slice(part.start, part.len()).columns().to_vec();
            let origin = (0..u32::try_from(part.len()).unwrap_or(u32::MAX)).collect();
            output.send(rows, Records { columns, origin, ..Records::default() })?;
        }
        Ok(())
    }
}

/// The stream of messages in a file of either format.
struct Input {
    stream: std::io::Take<BufReader<File>>,
    is_file: bool,
    has_footer: bool,
}

impl Read for &mut Input {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(into)
    }
}

/// Begins the file format, padded to 8 bytes, and ends it.
const MAGIC: &[u8] = b"ARROW1";

/// An IPC file is a stream between the magic and a footer, which repeats what the stream says.
fn open(file: &InputFile) -> Result<Input, StageError> {
    let framed = |mut input: File| -> std::io::Result<Input> {
        let len = input.metadata()?.len();
        let mut head = Vec::new();
        (&input).take(8).read_to_end(&mut head)?;
        let is_file = head.starts_with(MAGIC);
        let footer = if is_file { footer_bytes(&input, len)? } else { None };
        let start = if is_file { 8 } else { 0 };
        input.seek(SeekFrom::Start(start))?;
        let end = len - footer.unwrap_or(0);
        let stream = BufReader::new(input).take(end.saturating_sub(start));
        Ok(Input { stream, is_file, has_footer: footer.is_some() })
    };
    let input = File::open(&file.path).map_err(StageError::io(&file.path))?;
    framed(input).map_err(StageError::io(&file.path))
}

/// Bytes of the footer with its length and the magic behind it, where it is there.
fn footer_bytes(mut input: &File, len: u64) -> std::io::Result<Option<u64>> {
    const TAIL: u64 = 10;
    if len < 8 + TAIL {
        return Ok(None);
    }
    input.seek(SeekFrom::Start(len - TAIL))?;
    let mut tail = Vec::new();
    input.take(TAIL).read_to_end(&mut tail)?;
    let Some((length, MAGIC)) = tail.split_first_chunk::<4>() else { return Ok(None) };
    let footer = u64::from(u32::from_le_bytes(*length)) + TAIL;
    Ok((footer <= len - 8).then_some(footer))
}
