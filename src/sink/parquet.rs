//! Sink `parquet`: writes records to Parquet files, each file whole or not at all.

use std::cell::RefCell;
use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::batch::Batch;
use crate::context::Context;
use crate::coverage::Coverage;
use crate::durable::is_temporary;
use crate::error::{Fault, StageError};
use crate::memory::record_bytes;
use crate::sink::columns::Columns;
use crate::sink::footer::{Footer, data_files, read_metadata};
use crate::sink::lock::Lock;
use crate::sink::part::{Compression, Format, Part, RowGroup};
use crate::sink::{Identity, Sink, SinkConfig, Writer, Written, marker};
use crate::units::Bytes;

/// Where the files go, and how large they become.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Config {
    /// The folder of the files; made where it is missing. It holds the output of this stage and nothing else.
    pub path: PathBuf,
    /// The columns to write, in this order. Default: all of them.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// When a file is full and the next one begins.
    #[serde(default)]
    pub file: FileSize,
    /// How large a row group may become.
    #[serde(default)]
    pub row_group: RowGroup,
    /// How pages are compressed.
    #[serde(default)]
    pub compression: Compression,
}

/// How large a file may become; a batch is never split across files, so a single larger one has a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FileSize {
    /// At most so many bytes, before they are encoded.
    pub bytes: Bytes,
    /// At most so many records. Default: any number.
    pub records: Option<NonZeroU64>,
}

impl Default for FileSize {
    fn default() -> Self {
        Self { bytes: Bytes(256 << 20), records: None }
    }
}

impl SinkConfig for Config {
    fn plan(self, input: &SchemaRef, _: &Context) -> Result<Box<dyn Sink>, Vec<Fault>> {
        self.sink(input)
    }
}

impl Config {
    /// Everything but the folder at its default.
    pub(super) fn new(path: &Path) -> Self {
        let (file, row_group, compression) = (FileSize::default(), RowGroup::default(), Compression::default());
        Self { path: path.to_path_buf(), columns: None, file, row_group, compression }
    }

    /// The sink for records of this schema.
    ///
    /// # Errors
    /// Every fault that was found.
    pub(super) fn sink(self, input: &Schema) -> Result<Box<dyn Sink>, Vec<Fault>> {
        let mut faults = Vec::new();
        if self.path.as_os_str().is_empty() {
            faults.push(Fault::new("path", "is empty; name a folder"));
        }
        for (key, bytes) in [("file.bytes", self.file.bytes), ("row_group.bytes", self.row_group.bytes)] {
            if bytes.0 == 0 {
                faults.push(Fault::new(key, "is 0; write a size such as \"64MiB\""));
            }
        }
        let columns = Columns::choose(self.columns.as_deref(), input);
        let planned = columns.and_then(|columns| {
            let format = Format::new(SchemaRef::clone(columns.schema()), self.compression, self.row_group)?;
            Ok((columns, format))
        });
        match planned {
            Ok((columns, format)) if faults.is_empty() => {
                let file = self.file;
                Ok(Box::new(ParquetSink { path: self.path, columns, format, file, lock: RefCell::default() }))
            }
            Ok(_) => Err(faults),
            Err(more) => Err(faults.into_iter().chain(more).collect()),
        }
    }
}

struct ParquetSink {
    path: PathBuf,
    columns: Columns,
    format: Format,
    file: FileSize,
    /// Taken before the first look at what is there: whoever looks without it may miss what another adds.
    lock: RefCell<Option<Lock>>,
}

impl ParquetSink {
    fn lock(&self) -> Result<Lock, StageError> {
        self.lock.take().map_or_else(|| Lock::take(&self.path), Ok)
    }
}

impl Sink for ParquetSink {
    fn folder(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn committed(&self, identity: &Identity) -> Result<Coverage, StageError> {
        let lock = self.lock()?;
        self.lock.replace(Some(lock));
        let mut coverage = marker::read(&self.path, identity)?;
        for path in data_files(&self.path)? {
            let Some(footer) = Footer::of(&path, &read_metadata(&path)?)? else {
                return Err(StageError::Other(format!(
                    "{}: this file was not written by latentflow; write to a folder of its own, or move the file away",
                    path.display()
                )));
            };
            identity.check(&self.path, &footer.identity)?;
            coverage.union(&footer.coverage);
        }
        Ok(coverage)
    }

    fn open(self: Box<Self>, identity: Identity) -> Result<Box<dyn Writer>, StageError> {
        let lock = self.lock()?;
        remove_unfinished(&self.path)?;
        let marker = marker::read(&self.path, &identity)?;
        let next = next_number(&self.path)?;
        let Self { path, columns, format, file, .. } = *self;
        let (part, taken, written) = (None, Coverage::default(), Written::default());
        Ok(Box::new(ParquetWriter {
            path,
            columns,
            format,
            file,
            identity,
            _lock: lock,
            next,
            part,
            taken,
            marker,
            written,
        }))
    }
}

/// Removes the files that a crash left half written.
fn remove_unfinished(folder: &Path) -> Result<(), StageError> {
    for entry in fs::read_dir(folder).map_err(StageError::io(folder))? {
        let entry = entry.map_err(StageError::io(folder))?;
        if is_temporary(&entry.file_name()) {
            fs::remove_file(entry.path()).map_err(StageError::io(entry.path()))?;
        }
    }
    Ok(())
}

/// The number of the next file: one above the highest that is there.
fn next_number(folder: &Path) -> Result<u32, StageError> {
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.strip_prefix("part-")?.parse::<u32>().ok();
    match data_files(folder)?.iter().filter_map(number).max() {
        None => Ok(0),
        Some(last) => last.checked_add(1).ok_or_else(|| {
            StageError::Other(format!("{}: there is no number left for another file", folder.display()))
        }),
    }
}

struct ParquetWriter {
    path: PathBuf,
    columns: Columns,
    format: Format,
    file: FileSize,
    identity: Identity,
    _lock: Lock,
    /// The number of the file that is open, or would be opened next.
    next: u32,
    part: Option<Part>,
    /// The source rows of all batches since the last file.
    taken: Coverage,
    /// What the marker covers.
    marker: Coverage,
    written: Written,
}

impl Writer for ParquetWriter {
    fn write(&mut self, batch: &Batch) -> Result<(), StageError> {
        let records = self.columns.of(&batch.records)?;
        if records.num_rows() > 0 {
            if self.part.as_ref().is_some_and(|part| !self.file.has_room(part, &records)) {
                self.finish_part()?;
            }
            self.append(&records)?;
        }
        self.taken.insert(&batch.provenance);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StageError> {
        if self.part.is_some() {
            return self.finish_part();
        }
        if self.taken.is_empty() {
            return Ok(());
        }
        // No file will bear witness to these rows: none of them left a record.
        self.marker.union(&std::mem::take(&mut self.taken));
        marker::write(&self.path, &self.identity, &self.marker)
    }

    fn written(&self) -> Written {
        self.written
    }
}

impl ParquetWriter {
    fn append(&mut self, records: &RecordBatch) -> Result<(), StageError> {
        let mut part = match self.part.take() {
            Some(part) => part,
            None => Part::begin(self.path.join(format!("part-{:05}.parquet", self.next)), &self.format)?,
        };
        // A file that fails is lost, and what it stood for is not done.
        let taken = std::mem::take(&mut self.taken);
        part.write(records)?;
        self.taken = taken;
        self.part = Some(part);
        Ok(())
    }

    fn finish_part(&mut self) -> Result<(), StageError> {
        let Some(part) = self.part.take() else { return Ok(()) };
        let footer = Footer::new(self.identity.clone(), std::mem::take(&mut self.taken));
        let file = part.finish(&footer)?;
        self.next = self.next.saturating_add(1);
        self.written.files += file.files;
        self.written.bytes += file.bytes;
        self.written.records += file.records;
        Ok(())
    }
}

impl FileSize {
    fn has_room(&self, part: &Part, records: &RecordBatch) -> bool {
        let bytes = part.bytes().saturating_add(record_bytes(records));
        let rows = part.records().saturating_add(records.num_rows() as u64);
        bytes <= self.bytes.0 && self.records.is_none_or(|limit| rows <= limit.get())
    }
}

#[cfg(test)]
mod tests;
