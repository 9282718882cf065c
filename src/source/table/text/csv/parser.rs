//! Parses records of delimited text in the column order of a file into the planned columns.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use super::dialect::ValueFormat;
use crate::batch::reject::RecordLayout;
use crate::source::table::text::columns::{ColumnRules, Misfit, parse_column};
use crate::source::table::text::{DecodeError, LineAction, TextFormat};
use crate::source::table::type_misfits::TypeMisfits;

/// The planned columns, and which of their types are given.
#[derive(Debug, Clone)]
pub(super) struct PlannedColumns {
    pub(super) schema: SchemaRef,
    /// The names of the columns whose types are given.
    pub(super) given: Arc<BTreeSet<String>>,
    /// The values that did not fit the types.
    pub(super) misfits: Arc<TypeMisfits>,
}

/// The description of the values of one record that is stored with it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(in crate::source) struct StoredCsvFormat {
    /// The names of the columns, in the order of the values.
    pub(in crate::source) columns: Vec<String>,
    /// How the values are written.
    #[serde(flatten)]
    pub(in crate::source) values: ValueFormat,
}

/// Parses the records of one file.
pub(in crate::source) struct CsvParser {
    planned: PlannedColumns,
    stored: StoredCsvFormat,
    /// The description as JSON.
    layout: Arc<str>,
    /// The positions of the planned columns that the file has.
    indices: Vec<usize>,
    /// The position of each planned column among `indices`; `None`: the file does not have it.
    columns: Vec<Option<usize>>,
}

impl CsvParser {
    /// Creates a parser for a file with the columns `names`.
    pub(super) fn new(values: ValueFormat, names: Vec<String>, planned: PlannedColumns) -> Self {
        let mut indices = Vec::new();
        let columns = planned.schema.fields().iter().map(|field| {
            let index = names.iter().position(|name| name == field.name())?;
            indices.push(index);
            Some(indices.len() - 1)
        });
        let columns = columns.collect();
        let stored = StoredCsvFormat {
            columns: names,
            values,
        };
        let layout = serde_json::to_string(&stored).unwrap_or_default().into();
        Self {
            planned,
            stored,
            layout,
            indices,
            columns,
        }
    }

    /// A parser of the stored records of rejects; `schema` has given types.
    pub(in crate::source) fn of_stored(stored: StoredCsvFormat, schema: &Schema) -> Self {
        let names = schema.fields().iter().map(|field| field.name().clone());
        let planned = PlannedColumns {
            given: Arc::new(names.collect()),
            schema: Arc::new(schema.clone()),
            misfits: Arc::default(),
        };
        Self::new(stored.values, stored.columns, planned)
    }

    /// The texts of the values of `count` records, by the planned columns that the file has; the
    /// values that are null are null.
    pub(in crate::source) fn texts(
        &self,
        text: &[u8],
        count: usize,
    ) -> Result<RecordBatch, String> {
        let StoredCsvFormat { columns, values } = &self.stored;
        values.split(text, count, columns, &self.indices)
    }

    /// Whether a value is null.
    pub(super) fn is_null(&self, text: &str) -> bool {
        self.stored.values.null_values.contains(text)
    }
}

impl TextFormat for CsvParser {
    fn check(&self, record: &[u8]) -> LineAction {
        LineAction::Parse(record.len() as u64 + 8 * self.columns.len() as u64)
    }

    fn decode(&self, text: &[u8], count: usize) -> Result<RecordBatch, DecodeError> {
        let texts = self.texts(text, count)?;
        let has_null_values = !self.stored.values.null_values.is_empty();
        let fields = self.planned.schema.fields().iter();
        let columns = fields.zip(&self.columns).map(|(field, position)| {
            let Some(position) = *position else {
                return Ok(new_null_array(field.data_type(), texts.num_rows()));
            };
            let rules = ColumnRules {
                data_type: field.data_type().clone(),
                is_inferred: !self.planned.given.contains(field.name()),
                decimal: self.stored.values.decimal,
            };
            let texts = texts.column(position).as_string::<i32>();
            if has_null_values {
                let values = texts
                    .iter()
                    .map(|value| value.filter(|value| !self.is_null(value)));
                parse_column(field.name(), values, &rules)
            } else {
                parse_column(field.name(), texts.iter(), &rules)
            }
        });
        let columns: Vec<ArrayRef> = columns.collect::<Result<_, Misfit>>()?;
        RecordBatch::try_new(SchemaRef::clone(&self.planned.schema), columns)
            .map_err(|error| error.to_string().into())
    }

    fn schema(&self) -> &SchemaRef {
        &self.planned.schema
    }

    fn rejected(&self, misfit: &Misfit) -> RecordLayout {
        self.planned.misfits.add(misfit);
        RecordLayout::Csv(Arc::clone(&self.layout))
    }
}
