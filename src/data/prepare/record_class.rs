//! The class of a record: normal, anomalous or without a label.

use arrow::array::StringArray;

use crate::batch::Batch;
use crate::data::record_id::RecordIdResolver;

/// The records of a batch that the comparison `normal` was applied to.
pub(super) struct NormalRecords {
    /// The ordinals of the records that satisfy the comparison, ascending.
    pub(super) satisfied: Vec<u32>,
    /// Whether each record has no value in the column of the comparison.
    pub(super) missing: Vec<bool>,
}

/// The class of a record according to the comparison `normal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordClass {
    Normal,
    Anomaly,
    /// The column has no value for the record.
    Unlabeled {
        is_satisfied: bool,
    },
}

impl RecordClass {
    /// Returns the byte of the class in the digest of the data. Earlier versions had two classes,
    /// and their digests stay valid for records whose class is still used in the same way.
    pub(super) fn digest_byte(self) -> u8 {
        match self {
            Self::Normal => 0,
            Self::Anomaly
            | Self::Unlabeled {
                is_satisfied: false,
            } => 1,
            Self::Unlabeled { is_satisfied: true } => 2,
        }
    }
}

/// The data of a batch's records other than their values.
pub(super) struct RecordContext<'a> {
    pub(super) source: usize,
    pub(super) record_ids: &'a mut RecordIdResolver,
    /// `None` if all records are normal.
    pub(super) normal: Option<NormalRecords>,
    pub(super) labels: Option<StringArray>,
}

impl RecordContext<'_> {
    pub(super) fn class(&self, batch: &Batch, index: usize) -> RecordClass {
        let Some(normal) = &self.normal else {
            return RecordClass::Normal;
        };
        let ordinal = &batch.row_ordinals[index];
        let is_satisfied = normal.satisfied.binary_search(ordinal).is_ok();
        match (normal.missing[index], is_satisfied) {
            (true, _) => RecordClass::Unlabeled { is_satisfied },
            (false, true) => RecordClass::Normal,
            (false, false) => RecordClass::Anomaly,
        }
    }
}
