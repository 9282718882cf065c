//! Reads records from the file.

use std::io;

use crate::data::positioned_read::read_at;
use crate::data::record_file::record::{Record, RecordTrailer, RecordValues};
use crate::data::record_file::{ElementType, OffsetIndex, RecordFile};
use crate::error::StageError;

impl RecordFile {
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

    /// Whether the length of each record matches its size, and the records fill the file. If sizes
    /// differ, this reads the trailer of each record.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(in crate::data) fn is_intact(&self) -> Result<bool, StageError> {
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
}
