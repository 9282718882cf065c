//! How many values the narrow dictionaries of a row group have: readers count them with the same
//! narrow keys.

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Schema};

/// Columns of dictionaries whose keys have at most 16 bits, and what they hold in the row group
/// that is open. Parquet stores one dictionary for all of a group's values, which readers give the
/// keys of the schema again.
#[derive(Debug)]
pub(super) struct NarrowDictionaries(Vec<DictionaryColumn>);

#[derive(Debug)]
struct DictionaryColumn {
    place: usize,
    /// Values that the keys can tell apart.
    capacity: usize,
    /// Different dictionaries of the open group.
    held: Vec<ArrayRef>,
}

impl NarrowDictionaries {
    pub(super) fn of(schema: &Schema) -> Self {
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .filter_map(|(place, field)| {
                let DataType::Dictionary(key, _) = field.data_type() else {
                    return None;
                };
                let capacity = match **key {
                    DataType::Int8 => 1 << 7,
                    DataType::UInt8 => 1 << 8,
                    DataType::Int16 => 1 << 15,
                    DataType::UInt16 => 1 << 16,
                    _ => return None,
                };
                Some(DictionaryColumn {
                    place,
                    capacity,
                    held: Vec::new(),
                })
            });
        Self(columns.collect())
    }

    /// Whether the values of these records fit into the open group, by the sizes of the
    /// dictionaries.
    pub(super) fn fit(&self, records: &RecordBatch) -> bool {
        self.0.iter().all(|column| {
            let values = column.values(records);
            let held: usize = column.held.iter().map(|held| held.len()).sum();
            column.holds(values) || held + values.len() <= column.capacity
        })
    }

    /// Counts records that go into the open group.
    pub(super) fn add(&mut self, records: &RecordBatch) {
        for column in &mut self.0 {
            let values = column.values(records);
            if !column.holds(values) {
                column.held.push(ArrayRef::clone(values));
            }
        }
    }

    /// The group is ended.
    pub(super) fn clear(&mut self) {
        self.0.iter_mut().for_each(|column| column.held.clear());
    }
}

impl DictionaryColumn {
    fn values<'a>(&self, records: &'a RecordBatch) -> &'a ArrayRef {
        records.column(self.place).as_any_dictionary().values()
    }

    fn holds(&self, values: &ArrayRef) -> bool {
        self.held.iter().any(|held| {
            held.len() == values.len() && (std::sync::Arc::ptr_eq(held, values) || held == values)
        })
    }
}
