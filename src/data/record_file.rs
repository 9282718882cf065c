//! Records in a file, read at random without holding them in memory.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::StageError;

/// The records of one part, in a file. Reading shares no cursor: any number of threads may read at
/// once.
#[derive(Debug)]
pub struct RecordFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) len: usize,
    pub(super) offsets: OffsetIndex,
    pub(super) element: ElementType,
    pub(super) channels: usize,
    /// For each class as it is stored, its place among the sorted ones.
    pub(super) classes: Arc<[u32]>,
}

/// Where in the file records lie.
#[derive(Debug)]
pub(super) enum OffsetIndex {
    /// All have this height and width.
    Same([usize; 2]),
    /// Each ends where this says.
    Ends(Vec<u64>),
}

/// What the values of records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementType {
    U8,
    F32,
}

impl ElementType {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 => size_of::<u8>(),
            Self::F32 => size_of::<f32>(),
        }
    }
}

impl RecordFile {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Height, width and channels where all records have the same (feature records:
    /// `[1, 1, values]`); `None` where they differ, or there is no record.
    pub fn shape(&self) -> Option<[usize; 3]> {
        match self.offsets {
            OffsetIndex::Same([height, width]) if self.len > 0 => {
                Some([height, width, self.channels])
            }
            _ => None,
        }
    }

    /// Values of a pixel, or of a feature record.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Reads one record in place of what `record` holds; its buffers are used again.
    ///
    /// # Errors
    /// When there is no such record, or the file cannot be read.
    pub fn read(&self, index: usize, record: &mut Record) -> Result<(), StageError> {
        let (start, length) = self
            .place(index)
            .ok_or_else(|| self.failed(format!("there is no record {index}")))?;
        let read = match self.element {
            ElementType::U8 => self.read_bytes(start, length, record),
            ElementType::F32 => self.read_floats(start, length, record),
        };
        let tail = read.map_err(StageError::io(&self.path))?;
        let class = |stored: u32| self.classes.get(stored as usize).copied();
        let [height, width] = [tail.height, tail.width].map(|side| side as usize);
        record.shape = [height, width, self.channels];
        record.label = class(tail.label);
        record.anomaly = tail.anomaly;
        record.identity = tail.identity;
        let values = match &record.values {
            RecordValues::U8(values) => values.len(),
            RecordValues::F32(values) => values.len(),
        };
        if height
            .checked_mul(width)
            .and_then(|pixels| pixels.checked_mul(self.channels))
            != Some(values)
        {
            return Err(self.failed(format!(
                "record {index} is broken; remove the folder, it will be made anew"
            )));
        }
        Ok(())
    }

    /// Whether each record is as long as its size says, and all of them fill the file. Where sizes
    /// differ, that takes a look at each record.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn are_whole(&self) -> Result<bool, StageError> {
        let failed = StageError::io(&self.path);
        let whole = || match &self.offsets {
            OffsetIndex::Same([height, width]) => {
                let stride =
                    height * width * self.channels * self.element.bytes() + RecordTrailer::BYTES;
                Ok(self.file.metadata()?.len() == (stride * self.len) as u64)
            }
            OffsetIndex::Ends(_) => {
                let mut tail = [0; RecordTrailer::BYTES];
                for index in 0..self.len {
                    let Some((start, length)) = self.place(index) else {
                        return Ok(false);
                    };
                    read_at(&self.file, &mut tail, start + length as u64)?;
                    let RecordTrailer { height, width, .. } = RecordTrailer::parse(&tail);
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
        whole().map_err(failed)
    }

    /// Where a record begins, and the bytes of its values.
    fn place(&self, index: usize) -> Option<(u64, usize)> {
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
        let tail = RecordTrailer::parse(&values[length..]);
        values.truncate(length);
        Ok(tail)
    }

    /// Values and tail go through a small buffer: most feature records fit into it.
    fn read_floats(
        &self,
        start: u64,
        length: usize,
        record: &mut Record,
    ) -> io::Result<RecordTrailer> {
        if !matches!(record.values, RecordValues::F32(_)) {
            record.values = RecordValues::F32(vec![]);
        }
        let RecordValues::F32(values) = &mut record.values else {
            return Err(io::ErrorKind::InvalidData.into());
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

    fn failed(&self, what: String) -> StageError {
        StageError::Other(format!("{}: {what}", self.path.display()))
    }
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
}

/// What stands behind the values of a record in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordTrailer {
    pub(super) identity: u64,
    pub(super) height: u32,
    pub(super) width: u32,
    /// [`RecordTrailer::NO_LABEL`] where there is none.
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

    /// `bytes` are as many as a tail has.
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

#[cfg(unix)]
fn read_at(file: &File, into: &mut [u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, start)
}

#[cfg(windows)]
fn read_at(file: &File, mut into: &mut [u8], mut start: u64) -> io::Result<()> {
    while !into.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, into, start)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                let whole = into;
                (into, start) = (&mut whole[read..], start + read as u64);
            }
        }
    }
    Ok(())
}

/// A record as it was prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Height, width, channels; of feature records `[1, 1, values]`.
    pub shape: [usize; 3],
    /// `height * width * channels` values.
    pub values: RecordValues,
    /// Its class, a place in [`super::PreparedDataset::labels`]; `None` where the spec names no
    /// label, or it is null.
    pub label: Option<u32>,
    /// Whether it is one that the spec does not call normal.
    pub anomaly: bool,
    /// A number for the record, the same in every run: a seed for its noise.
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
    /// Raw features, not scaled, in the order of the columns.
    F32(Vec<f32>),
}
