//! Compaction: many small Parquet files of a dataset become few large ones, beside a run that goes on writing there.
//!
//! Files that follow each other and have the same writer and columns are copied into one, which takes the name of the last
//! of them: so the number of the next file, and what the marker accounts for, stay as they are. Its footer stands for the
//! source rows of them all.

use std::collections::HashMap;
use std::fs::{self, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression as Codec;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

use crate::coverage::Coverage;
use crate::durable::create_folders;
use crate::error::StageError;
use crate::sink::claim::part_number;
use crate::sink::exchange::{Exchange, Note, WORK};
use crate::sink::files::{DataFile, data_files};
use crate::sink::footer::{self, Footer};
use crate::sink::part::{Compression, Format, Part, RowGroup};
use crate::sink::{Identity, STATE};
use crate::store::Location;

/// Rows that are copied at a time.
const ROWS: usize = 8192;

/// What a compaction came to, or would come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Data files that were there, and their bytes.
    pub before: Size,
    /// Data files that are there now.
    pub after: Size,
    /// Records in the files that were copied.
    pub records: u64,
    /// Files that were left alone since they cannot be read, each with the reason.
    pub damaged: Vec<String>,
}

/// Files, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// How many.
    pub files: u64,
    /// Bytes of all.
    pub bytes: u64,
}

impl Size {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// Compacts the dataset in `folder`: files below half of `target` bytes are put together to files of up to about so many.
/// `told` hears of each file that was looked at. With `dry` nothing is changed.
///
/// # Errors
/// When another compaction is at work there, the system refuses, or a file is not what its footer says; what was
/// exchanged before stays.
pub fn compact(
    folder: &Path,
    target: u64,
    dry: bool,
    told: &mut dyn FnMut(&Compacted),
) -> Result<Compacted, StageError> {
    let _lock = lock(folder)?;
    // What an earlier one has left half done is brought to an end first.
    drop(Exchange::begin(folder)?);
    let work = Work { folder, target, dry };
    work.clear()?;
    let mut files: Vec<(u32, DataFile)> = data_files(&folder.into())?
        .into_iter()
        .filter_map(|file| Some((part_number(&file.entry.name)?, file)))
        .collect();
    files.sort_by_key(|(number, _)| *number);
    let (mut compacted, mut group) = (Compacted::default(), None::<Group>);
    for (_, file) in files {
        compacted.before.add(file.entry.size);
        let size = file.entry.size;
        match Found::of(file) {
            Ok(Some(found)) => {
                match group.as_mut().filter(|group| group.takes(&found, target)) {
                    Some(group) => group.add(found),
                    None => {
                        let full = group.replace(Group { kind: found.kind, files: vec![found.file] });
                        full.map_or(Ok(()), |full| work.merge(full, &mut compacted))?;
                    }
                }
                told(&compacted);
            }
            // Somebody else's: it is none of ours to touch.
            Ok(None) => compacted.after.add(size),
            Err(error) => {
                compacted.damaged.push(error.to_string());
                compacted.after.add(size);
            }
        }
    }
    group.map_or(Ok(()), |last| work.merge(last, &mut compacted))?;
    work.clear()?;
    Ok(compacted)
}

/// One compaction of a folder at a time.
fn lock(folder: &Path) -> Result<fs::File, StageError> {
    let state = folder.join(STATE);
    create_folders(&state)?;
    let path = state.join("compact-lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(StageError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let folder = folder.display();
            Err(StageError::Other(format!("{folder}: another compaction is at work here; wait for it to end")))
        }
        Err(TryLockError::Error(error)) => Err(StageError::io(&path)(error)),
    }
}

/// What files must have in common to become one.
struct Kind {
    identity: Identity,
    schema: SchemaRef,
    compression: Compression,
}

/// A file of ours.
struct Small {
    file: DataFile,
    rows: u64,
    coverage: Coverage,
}

struct Found {
    kind: Kind,
    file: Small,
}

impl Found {
    /// `None` where it is another program's.
    fn of(file: DataFile) -> Result<Option<Self>, StageError> {
        let metadata = file.metadata()?;
        let Some(footer) = Footer::of(&file.location, &metadata)? else { return Ok(None) };
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let compression = compression(&metadata);
        let metadata = ArrowReaderMetadata::try_new(metadata.into(), ArrowReaderOptions::new());
        let metadata = metadata.map_err(|error| StageError::Other(format!("{}: {error}", file.location)))?;
        let kind = Kind { identity: footer.identity, schema: plain(metadata.schema()), compression };
        Ok(Some(Self { kind, file: Small { file, rows, coverage: footer.coverage } }))
    }
}

/// The columns, and what is said of them; the reader adds what the footer says of the file, which is no part of that.
fn plain(schema: &Schema) -> SchemaRef {
    let said = schema.metadata().iter().filter(|(key, _)| !key.starts_with(footer::KEYS));
    let said: HashMap<String, String> = said.map(|(key, value)| (key.clone(), value.clone())).collect();
    Arc::new(Schema::new_with_metadata(schema.fields().clone(), said))
}

/// How the first column is compressed: as all others are.
fn compression(metadata: &ParquetMetaData) -> Compression {
    let first = metadata.row_groups().first().and_then(|group| group.columns().first());
    match first.map(ColumnChunkMetaData::compression) {
        Some(Codec::SNAPPY) => Compression::Snappy,
        Some(Codec::LZ4 | Codec::LZ4_RAW) => Compression::Lz4,
        Some(Codec::UNCOMPRESSED) => Compression::None,
        _ => Compression::Zstd,
    }
}

/// Files that follow each other and can become one.
struct Group {
    kind: Kind,
    files: Vec<Small>,
}

impl Group {
    fn bytes(&self) -> u64 {
        self.files.iter().map(|small| small.file.entry.size).sum()
    }

    /// Whether a file can join those that are there.
    fn takes(&self, next: &Found, target: u64) -> bool {
        let is_small = |small: &Small| small.file.entry.size < target / 2;
        self.files.first().is_some_and(is_small)
            && is_small(&next.file)
            && self.bytes() + next.file.file.entry.size <= target
            && self.kind.identity.is_one_with(&next.kind.identity)
            && self.kind.schema == next.kind.schema
    }

    fn add(&mut self, next: Found) {
        self.kind.identity.absorb(&next.kind.identity);
        self.files.push(next.file);
    }

    /// Whether it pays: else a large file would be copied again and again for each small one that comes behind it.
    fn is_worth_it(&self, target: u64) -> bool {
        let (bytes, largest) = (self.bytes(), self.files.iter().map(|small| small.file.entry.size).max());
        self.files.len() > 1 && largest.is_some_and(|largest| largest <= bytes / 2 || bytes >= target / 2)
    }
}

/// A compaction at work in a folder.
struct Work<'a> {
    folder: &'a Path,
    target: u64,
    dry: bool,
}

impl Work<'_> {
    fn place(&self) -> PathBuf {
        self.folder.join(WORK)
    }

    /// Removes what an earlier compaction that was cut short has written, and the folder.
    fn clear(&self) -> Result<(), StageError> {
        match fs::remove_dir_all(self.place()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StageError::io(self.place())(error)),
            _ => Ok(()),
        }
    }

    /// Makes one file of a group, where that pays. A file that cannot be read is left alone, and those before and behind
    /// it are put together each on their own.
    fn merge(&self, mut group: Group, compacted: &mut Compacted) -> Result<(), StageError> {
        if !group.is_worth_it(self.target) {
            group.files.iter().for_each(|small| compacted.after.add(small.file.entry.size));
            return Ok(());
        }
        let copied = if self.dry { Ok(group.bytes()) } else { self.copy(&group)? };
        match copied {
            Ok(bytes) => {
                compacted.after.add(bytes);
                compacted.records += group.files.iter().map(|small| small.rows).sum::<u64>();
                Ok(())
            }
            Err(Broken { place, reason }) => {
                compacted.damaged.push(reason);
                let behind = group.files.split_off(place + 1);
                group.files.pop().into_iter().for_each(|broken| compacted.after.add(broken.file.entry.size));
                let Kind { identity, schema, compression } = &group.kind;
                let kind =
                    Kind { identity: identity.clone(), schema: SchemaRef::clone(schema), compression: *compression };
                self.merge(group, compacted)?;
                self.merge(Group { kind, files: behind }, compacted)
            }
        }
    }

    /// Copies a group into one file and puts it in their place; says how large it is.
    fn copy(&self, group: &Group) -> Result<Result<u64, Broken>, StageError> {
        let Some(last) = group.files.last() else { return Ok(Ok(0)) };
        create_folders(&self.place())?;
        let Kind { identity, schema, compression } = &group.kind;
        let format = Format::new(SchemaRef::clone(schema), *compression, RowGroup::default());
        let format = format.map_err(|faults| {
            let reasons: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
            StageError::Other(format!("{}: {}", last.file.location, reasons.join("; ")))
        })?;
        let place = Location::from(self.place().as_path()).join(&last.file.entry.name);
        let mut part = Part::begin(place, None, &format)?;
        let mut coverage = Coverage::default();
        for (place, small) in group.files.iter().enumerate() {
            if let Err(reason) = small.copy(&mut part)? {
                return Ok(Err(Broken { place, reason }));
            }
            coverage.union(&small.coverage);
        }
        let footer = Footer::new(identity.clone(), coverage);
        let written = part.finish(&footer, || Ok(()))?;
        self.exchange(group, written.bytes).map(Ok)
    }

    fn exchange(&self, group: &Group, bytes: u64) -> Result<u64, StageError> {
        let exchange = Exchange::begin(self.folder)?;
        for Small { file, .. } in &group.files {
            let now = file.location.file()?.map(|entry| (entry.size, entry.mtime_ns));
            if now != Some((file.entry.size, file.entry.mtime_ns)) {
                let message = "was changed or removed while it was copied; nothing was exchanged, run again";
                return Err(StageError::Other(format!("{}: {message}", file.location)));
            }
        }
        let inputs: Vec<String> = group.files.iter().map(|small| small.file.entry.name.clone()).collect();
        let merged = inputs.last().cloned().unwrap_or_default();
        exchange.replace(&Note { merged, bytes, inputs })?;
        Ok(bytes)
    }
}

/// A file of a group that cannot be read.
struct Broken {
    place: usize,
    reason: String,
}

impl Small {
    /// Appends all records, or says why they cannot be read.
    fn copy(&self, part: &mut Part) -> Result<Result<(), String>, StageError> {
        let (place, before) = (&self.file.location, part.records());
        let broken = |error: &dyn std::fmt::Display| Ok(Err(format!("{place}: cannot be read: {error}")));
        let reader = ParquetRecordBatchReaderBuilder::try_new(self.file.open()?);
        let reader = match reader.and_then(|reader| reader.with_batch_size(ROWS).build()) {
            Ok(reader) => reader,
            Err(error) => return broken(&error),
        };
        for records in reader {
            match records {
                Ok(records) => part.write(&records)?,
                Err(error) => return broken(&error),
            }
        }
        match part.records() - before {
            read if read == self.rows => Ok(Ok(())),
            read => broken(&format!("its footer tells of {} records, {read} are there", self.rows)),
        }
    }
}
