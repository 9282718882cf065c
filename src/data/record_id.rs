//! The identity of a record, derived from its name at the source, which is the same in every run
//! and at every location of the data.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Schema, UInt64Type};

use super::config::Subset;
use crate::batch::Batch;
use crate::batch::provenance::{Provenance, Split};
use crate::source::origin::origin_fields;

/// Names the records of a source: by the columns `source` and `row`, or, if columns of the input
/// hide those, by the file and the row that a record was read from.
///
/// A name does not include the root of the data, its absolute path or the time of a file. If the
/// files are moved or copied, the test part thus holds the same records.
#[derive(Debug, Clone)]
pub(super) struct RecordIdResolver {
    has_columns: bool,
    /// The split of the previous record, which is usually that of the next record as well.
    last: Arc<Split>,
}

/// Salts of the two numbers that are derived from a record's name. They must never change, since
/// the parts depend on them.
const SUBSET_SALT: u64 = 0x7061_7274;
const IDENTITY_SALT: u64 = 0x6964_656e;

impl RecordIdResolver {
    /// Creates a resolver for records with `schema`.
    pub(super) fn new(schema: &Schema) -> Self {
        let ours = origin_fields();
        let has_columns = schema
            .fields()
            .iter()
            .zip(&ours)
            .filter(|(field, our)| field.as_ref() == *our)
            .count()
            == 2;
        Self {
            has_columns,
            last: Split::new(""),
        }
    }

    /// Returns the name of the split of the record at an index of the batch, and its row there.
    pub(super) fn name<'a>(&self, batch: &'a Batch, index: usize) -> (&'a str, u64) {
        match batch.row_ordinals.get(index) {
            Some(_) if self.has_columns => by_columns(&batch.records, index),
            Some(&ordinal) => by_provenance(&batch.provenance, ordinal),
            None => ("", 0),
        }
    }

    /// Returns the identity of the record at an index of the batch.
    pub(super) fn resolve(&mut self, batch: &Batch, index: usize, source: usize) -> RecordId {
        let (name, row) = self.name(batch, index);
        if self.last.name() != name {
            self.last = Split::new(name);
        }
        let record = Provenance::rows(Arc::clone(&self.last), row..row.saturating_add(1));
        RecordId {
            split_hash: record.seed(0, SUBSET_SALT),
            identity: record.seed(0, IDENTITY_SALT ^ source as u64),
        }
    }
}

fn by_columns(records: &RecordBatch, index: usize) -> (&str, u64) {
    let (source, row) = (
        records.column(0).as_string::<i32>(),
        records.column(1).as_primitive::<UInt64Type>(),
    );
    (source.value(index), row.value(index))
}

/// Returns `<name>` of the split `<stage>/<name>:<size>:<time>`, since the size and the time may
/// change.
fn by_provenance(provenance: &Provenance, ordinal: u32) -> (&str, u64) {
    let Some((split, row)) = provenance.row(ordinal) else {
        return ("", u64::from(ordinal));
    };
    let name = split
        .name()
        .split_once('/')
        .map_or(split.name(), |(_, name)| name);
    (name.rsplitn(3, ':').last().unwrap_or(name), row)
}

/// Numbers that are derived from a record's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordId {
    /// Determines the part. It depends on the name only, thus not on the path to the files.
    split_hash: u64,
    /// The seed for noise. Records of two sources have different seeds even under the same name.
    pub(super) identity: u64,
}

impl RecordId {
    /// Returns the part of a normal record. The test part does not depend on the share of
    /// validation.
    pub(super) fn subset(self, validation: f64, test: f64) -> Subset {
        // A float between 0 and 1 has 53 significant bits.
        let unit = (self.split_hash >> 11) as f64 / (1_u64 << 53) as f64;
        match unit {
            unit if unit < test => Subset::Test,
            unit if unit < test + validation => Subset::Validation,
            _ => Subset::Training,
        }
    }
}
