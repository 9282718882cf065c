//! Random access to the records of a file, without loading the file into memory.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::record_origin::{OriginReader, RecordOrigin};
use crate::error::StageError;
use crate::model::Scaling;

/// The file with the records of one part. Reads do not share a cursor, so that any number of
/// threads may read concurrently.
#[derive(Debug)]
pub struct RecordFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) len: usize,
    pub(super) offsets: OffsetIndex,
    pub(super) element: ElementType,
    pub(super) channels: usize,
    /// For each class number in the file, the index of the class among the sorted classes.
    pub(super) classes: Arc<[u32]>,
    /// `None` for files that an earlier version wrote.
    pub(super) origins: Option<OriginReader>,
}

/// The positions of the records in the file.
#[derive(Debug)]
pub(super) enum OffsetIndex {
    /// All records have this height and width.
    Same([usize; 2]),
    /// The end of each record, in bytes from the start of the file.
    Ends(Vec<u64>),
}

/// The type of the values of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementType {
    U8,
    F32,
    F64,
}

impl ElementType {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 => size_of::<u8>(),
            Self::F32 => size_of::<f32>(),
            Self::F64 => size_of::<f64>(),
        }
    }
}

impl RecordFile {
    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the file has no records.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns height, width and channels if they are the same for all records (feature records:
    /// `[1, 1, values]`); `None` if they differ or the file has no records.
    pub fn shape(&self) -> Option<[usize; 3]> {
        match self.offsets {
            OffsetIndex::Same([height, width]) if self.len > 0 => {
                Some([height, width, self.channels])
            }
            _ => None,
        }
    }

    /// Returns the number of values of a pixel, or of a feature record.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Returns the number of bytes of the largest record.
    pub fn max_record_bytes(&self) -> u64 {
        match &self.offsets {
            OffsetIndex::Same([height, width]) => {
                (height * width * self.channels * self.element.bytes()) as u64
            }
            OffsetIndex::Ends(ends) => {
                let starts = std::iter::once(&0).chain(ends);
                let lengths = ends
                    .iter()
                    .zip(starts)
                    .map(|(end, start)| end.saturating_sub(*start));
                lengths.max().unwrap_or(0)
            }
        }
    }

    /// Whether the values are pixels.
    pub(super) fn has_pixels(&self) -> bool {
        self.element == ElementType::U8
    }

    /// Reads one record into `record`, whose buffers are used again.
    ///
    /// # Errors
    /// Returns an error if `index` is out of range or the file cannot be read.
    pub fn read(&self, index: usize, record: &mut Record) -> Result<(), StageError> {
        let (start, length) = self.locate(index).ok_or_else(|| {
            let len = self.len;
            self.failed(format!(
                "record {index} is out of range; the file has {len}"
            ))
        })?;
        let read = match self.element {
            ElementType::U8 => self.read_bytes(start, length, record),
            ElementType::F32 => {
                if !matches!(record.values, RecordValues::F32(_)) {
                    record.values = RecordValues::F32(vec![]);
                }
                match &mut record.values {
                    RecordValues::F32(values) => {
                        self.read_floats(start, length, values, f32::from_le_bytes)
                    }
                    _ => Err(io::ErrorKind::InvalidData.into()),
                }
            }
            ElementType::F64 => {
                if !matches!(record.values, RecordValues::F64(_)) {
                    record.values = RecordValues::F64(vec![]);
                }
                match &mut record.values {
                    RecordValues::F64(values) => {
                        self.read_floats(start, length, values, f64::from_le_bytes)
                    }
                    _ => Err(io::ErrorKind::InvalidData.into()),
                }
            }
        };
        let trailer = read.map_err(StageError::io(&self.path))?;
        let class = |stored: u32| self.classes.get(stored as usize).copied();
        let [height, width] = [trailer.height, trailer.width].map(|side| side as usize);
        record.shape = [height, width, self.channels];
        record.label = class(trailer.label);
        record.anomaly = trailer.anomaly;
        record.identity = trailer.identity;
        let values = record.values.len();
        if height
            .checked_mul(width)
            .and_then(|pixels| pixels.checked_mul(self.channels))
            != Some(values)
        {
            return Err(self.failed(format!(
                "record {index} is corrupt; delete the folder, and the next call prepares it again"
            )));
        }
        Ok(())
    }

    /// Returns the origin of a record; `None` if the file was written by a version that did not keep
    /// origins.
    ///
    /// # Errors
    /// Returns an error if `index` is out of range or the origin cannot be read.
    pub fn origin(&self, index: usize) -> Result<Option<RecordOrigin>, StageError> {
        self.origins
            .as_ref()
            .map(|origins| origins.read(index))
            .transpose()
    }

    /// Whether the length of each record matches its size, and the records fill the file. If sizes
    /// differ, this reads the trailer of each record.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(super) fn is_intact(&self) -> Result<bool, StageError> {
        let failed = StageError::io(&self.path);
        let check = || match &self.offsets {
            OffsetIndex::Same([height, width]) => {
                let stride =
                    height * width * self.channels * self.element.bytes() + RecordTrailer::BYTES;
                Ok(self.file.metadata()?.len() == (stride * self.len) as u64)
            }
            OffsetIndex::Ends(_) => {
                let mut trailer = [0; RecordTrailer::BYTES];
                for index in 0..self.len {
                    let Some((start, length)) = self.locate(index) else {
                        return Ok(false);
                    };
                    read_at(&self.file, &mut trailer, start + length as u64)?;
                    let RecordTrailer { height, width, .. } = RecordTrailer::parse(&trailer);
                    let each = (self.channels * self.element.bytes()) as u64;
                    if (u64::from(height) * u64::from(width)).checked_mul(each)
                        != Some(length as u64)
                    {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        };
        check().map_err(failed)
    }

    /// Returns the start of a record, and the number of bytes of its values.
    fn locate(&self, index: usize) -> Option<(u64, usize)> {
        if index >= self.len {
            return None;
        }
        let (start, end) = match &self.offsets {
            OffsetIndex::Same([height, width]) => {
                let stride = (height * width * self.channels * self.element.bytes()
                    + RecordTrailer::BYTES) as u64;
                (stride * index as u64, stride * (index as u64 + 1))
            }
            OffsetIndex::Ends(ends) => (if index == 0 { 0 } else { ends[index - 1] }, ends[index]),
        };
        Some((
            start,
            usize::try_from(end.checked_sub(start)?)
                .ok()?
                .checked_sub(RecordTrailer::BYTES)?,
        ))
    }

    fn read_bytes(
        &self,
        start: u64,
        length: usize,
        record: &mut Record,
    ) -> io::Result<RecordTrailer> {
        if !matches!(record.values, RecordValues::U8(_)) {
            record.values = RecordValues::U8(vec![]);
        }
        let RecordValues::U8(values) = &mut record.values else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        values.resize(length + RecordTrailer::BYTES, 0);
        read_at(&self.file, values, start)?;
        let trailer = RecordTrailer::parse(&values[length..]);
        values.truncate(length);
        Ok(trailer)
    }

    /// Reads values and trailer through a small buffer, which most feature records fit into.
    fn read_floats<T, const BYTES: usize>(
        &self,
        start: u64,
        length: usize,
        values: &mut Vec<T>,
        parse: fn([u8; BYTES]) -> T,
    ) -> io::Result<RecordTrailer> {
        let floats = |bytes: &[u8]| -> Vec<T> {
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| parse(bytes))
                .collect()
        };
        values.clear();
        let mut buffer = [0; 4096];
        let mut done = 0;
        while length - done + RecordTrailer::BYTES > buffer.len() {
            let part = (length - done).min(buffer.len());
            read_at(&self.file, &mut buffer[..part], start + done as u64)?;
            values.extend(floats(&buffer[..part]));
            done += part;
        }
        let rest = length - done;
        read_at(
            &self.file,
            &mut buffer[..rest + RecordTrailer::BYTES],
            start + done as u64,
        )?;
        values.extend(floats(&buffer[..rest]));
        Ok(RecordTrailer::parse(&buffer[rest..]))
    }

    fn failed(&self, message: String) -> StageError {
        StageError::Other(format!("{}: {message}", self.path.display()))
    }
}

/// The fields after the values of a record in its file, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordTrailer {
    pub(super) identity: u64,
    pub(super) height: u32,
    pub(super) width: u32,
    /// The class number; [`RecordTrailer::NO_LABEL`] if the record has no label.
    pub(super) label: u32,
    pub(super) anomaly: bool,
}

impl RecordTrailer {
    pub(super) const BYTES: usize = 24;
    pub(super) const NO_LABEL: u32 = u32::MAX;

    pub(super) fn bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.identity.to_le_bytes());
        let numbers = [self.height, self.width, self.label, u32::from(self.anomaly)];
        for (into, number) in bytes[8..].chunks_exact_mut(4).zip(numbers) {
            into.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Parses a trailer from at least [`Self::BYTES`] bytes.
    fn parse(bytes: &[u8]) -> Self {
        let number = |at: usize| {
            bytes[at..at + 4]
                .iter()
                .rev()
                .fold(0, |number, &byte| number << 8 | u32::from(byte))
        };
        Self {
            identity: u64::from(number(0)) | u64::from(number(4)) << 32,
            height: number(8),
            width: number(12),
            label: number(16),
            anomaly: number(20) != 0,
        }
    }
}

/// Reads bytes at a position, without a cursor.
#[cfg(unix)]
pub(super) fn read_at(file: &File, into: &mut [u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, start)
}

/// Reads bytes at a position, without a cursor.
#[cfg(windows)]
pub(super) fn read_at(file: &File, mut into: &mut [u8], mut start: u64) -> io::Result<()> {
    while !into.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, into, start)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                let rest = into;
                (into, start) = (&mut rest[read..], start + read as u64);
            }
        }
    }
    Ok(())
}

/// A prepared record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Height, width and channels; `[1, 1, values]` for feature records.
    pub shape: [usize; 3],
    /// `height * width * channels` values.
    pub values: RecordValues,
    /// The class, an index into [`super::PreparedDataset::labels`]; `None` if the spec does not
    /// name a label, or the label is null.
    pub label: Option<u32>,
    /// Whether the record is an anomaly, which is one for which `normal` of the spec does not hold.
    pub anomaly: bool,
    /// The seed for the record's noise, the same in every run.
    pub identity: u64,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            shape: [0; 3],
            values: RecordValues::U8(vec![]),
            label: None,
            anomaly: false,
            identity: 0,
        }
    }
}

/// The values of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordValues {
    /// Pixels, 0..255: row after row, the channels of a pixel together.
    U8(Vec<u8>),
    /// Features without scaling, in the order of the columns, if float32 holds them exactly or the
    /// model takes them without scaling.
    F32(Vec<f32>),
    /// Other features without scaling, in the order of the columns.
    F64(Vec<f64>),
}

impl RecordValues {
    /// Returns the number of values.
    fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    /// Appends the inputs of a model that these features become. Pixels are not features.
    pub fn scale_features(&self, scaling: &Scaling, inputs: &mut Vec<f32>) {
        let input = |(index, value): (usize, f64)| scaling.feature(index).to_input(value);
        match self {
            Self::U8(_) => {}
            Self::F32(values) => {
                let values = values.iter().copied().map(f64::from);
                inputs.extend(values.enumerate().map(input));
            }
            Self::F64(values) => inputs.extend(values.iter().copied().enumerate().map(input)),
        }
    }
}
