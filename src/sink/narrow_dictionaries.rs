//! The count of dictionary values of a row group, which must fit into the narrow keys of the
//! schema.

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Schema};

/// The dictionary columns with keys of at most 16 bits, and their dictionaries in the open row
/// group. Parquet stores one dictionary for all values of a group, and readers decode it with the
/// key type of the schema.
#[derive(Debug)]
pub(super) struct NarrowDictionaries(Vec<DictionaryColumn>);

#[derive(Debug)]
struct DictionaryColumn {
    index: usize,
    /// Number of values that the keys can distinguish.
    capacity: usize,
    /// The different dictionaries of the open group.
    dictionaries: Vec<ArrayRef>,
}

impl NarrowDictionaries {
    pub(super) fn new(schema: &Schema) -> Self {
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .filter_map(|(index, field)| {
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
                    index,
                    capacity,
                    dictionaries: Vec::new(),
                })
            });
        Self(columns.collect())
    }

    /// Whether the dictionaries of these records fit into the open group.
    pub(super) fn fit(&self, records: &RecordBatch) -> bool {
        self.0.iter().all(|column| {
            let values = column.values(records);
            let count: usize = column.dictionaries.iter().map(|known| known.len()).sum();
            column.contains(values) || count + values.len() <= column.capacity
        })
    }

    /// Adds the dictionaries of records that are written to the open group.
    pub(super) fn add(&mut self, records: &RecordBatch) {
        for column in &mut self.0 {
            let values = column.values(records);
            if !column.contains(values) {
                column.dictionaries.push(ArrayRef::clone(values));
            }
        }
    }

    /// Starts a new group.
    pub(super) fn clear(&mut self) {
        self.0
            .iter_mut()
            .for_each(|column| column.dictionaries.clear());
    }
}

impl DictionaryColumn {
    fn values<'a>(&self, records: &'a RecordBatch) -> &'a ArrayRef {
        records.column(self.index).as_any_dictionary().values()
    }

    fn contains(&self, values: &ArrayRef) -> bool {
        self.dictionaries.iter().any(|known| {
            known.len() == values.len()
                && (std::sync::Arc::ptr_eq(known, values) || known == values)
        })
    }
}
