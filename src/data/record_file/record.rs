//! A record in memory, and the trailer that is stored behind its values.

use crate::model::FeatureInput;

/// The fields after the values of a record in its file, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::data) struct RecordTrailer {
    pub(in crate::data) identity: u64,
    pub(in crate::data) height: u32,
    pub(in crate::data) width: u32,
    /// The class number; [`RecordTrailer::NO_LABEL`] if the record has no label.
    pub(in crate::data) label: u32,
    pub(in crate::data) anomaly: bool,
}

impl RecordTrailer {
    pub(in crate::data) const BYTES: usize = 24;
    pub(in crate::data) const NO_LABEL: u32 = u32::MAX;

    pub(in crate::data) fn bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.identity.to_le_bytes());
        let numbers = [self.height, self.width, self.label, u32::from(self.anomaly)];
        for (into, number) in bytes[8..].chunks_exact_mut(4).zip(numbers) {
            into.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Parses a trailer from at least [`Self::BYTES`] bytes.
    pub(super) fn parse(bytes: &[u8]) -> Self {
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

/// A prepared record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Height, width and channels; `[1, 1, values]` for feature records.
    pub shape: [usize; 3],
    /// `height * width * channels` values.
    pub values: RecordValues,
    /// The class, an index into [`PreparedDataset::labels`](crate::data::PreparedDataset::labels); `None` if the spec does not
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
    pub(super) fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    /// Appends the inputs of a model that these features become. Pixels are not features.
    pub(crate) fn append_features(&self, input: &FeatureInput, inputs: &mut Vec<f32>) {
        match self {
            Self::U8(_) => {}
            Self::F32(values) => {
                input.append_inputs(values.iter().copied().map(f64::from), inputs);
            }
            Self::F64(values) => input.append_inputs(values.iter().copied(), inputs),
        }
    }
}
