//! Who a record is: what it is called where it came from, the same in every run and wherever the
//! data lies.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Schema, UInt64Type};

use super::config::Subset;
use crate::batch::{Batch, Provenance, Split};
use crate::source::origin_fields;

/// How the records of a source are called: by the columns `source` and `row`, or, where columns of
/// the input hide those, by the file and the row that they were read from.
///
/// Neither the root of the data nor its absolute path nor a file's time is in it: so a later look
/// at the same files, moved or copied, finds the same records in the test part.
#[derive(Debug, Clone)]
pub(super) struct RecordIdResolver {
    has_columns: bool,
    /// The name of the record before, which mostly is that of the next one too.
    last: Arc<Split>,
}

/// Salts of the two numbers that are made of a record's name: fixed for ever, since parts depend on
/// them.
const SUBSET_SALT: u64 = 0x7061_7274;
const IDENTITY_SALT: u64 = 0x6964_656e;

impl RecordIdResolver {
    /// The origins of records under `schema`.
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

    /// The name of what the record at this place of the batch came from, and its row in there.
    pub(super) fn name<'a>(&self, batch: &'a Batch, place: usize) -> (&'a str, u64) {
        match batch.row_ordinals.get(place) {
            Some(_) if self.has_columns => by_columns(&batch.records, place),
            Some(&ordinal) => by_provenance(&batch.provenance, ordinal),
            None => ("", 0),
        }
    }

    /// The record's numbers.
    pub(super) fn of(&mut self, batch: &Batch, place: usize, source: usize) -> RecordId {
        let (name, row) = self.name(batch, place);
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

fn by_columns(records: &RecordBatch, place: usize) -> (&str, u64) {
    let (source, row) = (
        records.column(0).as_string::<i32>(),
        records.column(1).as_primitive::<UInt64Type>(),
    );
    (source.value(place), row.value(place))
}

/// `<stage>/<name>:<size>:<time>` without what is another tomorrow.
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

/// Numbers that a record has by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordId {
    /// Decides its part: names are the same whatever path they were found by, so parts are, too.
    split_hash: u64,
    /// For noise: records of two sources differ in it, even under the same name.
    pub(super) identity: u64,
}

impl RecordId {
    /// The part of a record that is normal. The test part does not depend on the share of
    /// validation.
    pub(super) fn subset(self, validation: f64, test: f64) -> Subset {
        // The upper 53 bits are what a float between 0 and 1 can hold.
        let lot = (self.split_hash >> 11) as f64 / (1_u64 << 53) as f64;
        match lot {
            lot if lot < test => Subset::Test,
            lot if lot < test + validation => Subset::Validation,
            _ => Subset::Training,
        }
    }
}
