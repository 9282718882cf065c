//! Counts the values that the types of their columns do not hold, for the end of a run.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::source::table::text::column_type::ColumnType;
use crate::source::table::text::columns::Misfit;
use crate::source::table::text::seen_values::SeenValues;

/// The rejected records of a source by the column whose type does not hold their value.
#[derive(Debug, Default)]
pub(crate) struct TypeMisfits(Mutex<BTreeMap<String, ColumnMisfits>>);

#[derive(Debug, Clone, Copy, Default)]
struct ColumnMisfits {
    records: u64,
    required: SeenValues,
}

impl TypeMisfits {
    /// Counts a rejected record.
    pub(crate) fn add(&self, misfit: &Misfit) {
        let mut columns = self.0.lock();
        let column = columns.entry(misfit.column.clone()).or_default();
        column.records += 1;
        column.required.merge(misfit.required);
    }

    /// Logs each column, the number of its rejected records, and the type that holds their values,
    /// and starts to count again.
    pub(crate) fn report(&self, stage: &str) {
        let columns = std::mem::take(&mut *self.0.lock());
        for (column, ColumnMisfits { records, required }) in columns {
            let needed = ColumnType::of(&required.data_type()).unwrap_or(ColumnType::String);
            let types = format!("types = {{ {} = \"{needed}\" }}", toml_key(&column));
            tracing::warn!(
                stage,
                column,
                rejected = records,
                write = %types,
                "records were rejected because the type of a column does not hold their values; \
                 give the column a type, and replay the rejects with the source `rejects`"
            );
        }
    }
}

/// A key of TOML, in quotes if necessary.
fn toml_key(key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !key.is_empty() && key.bytes().all(is_bare) {
        key.to_owned()
    } else {
        format!("{key:?}")
    }
}
