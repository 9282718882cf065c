//! The values of rows by which a person recognizes them: source, row, label, errors and others.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};
use arrow::json::WriterBuilder;
use arrow::json::writer::JsonArray;
use parquet::arrow::arrow_reader::RowSelection;
use serde_json::{Map, Value};

use crate::columns::{LABEL, ROW, SOURCE};
use crate::error::StageError;
use crate::search::latent_dataset::{FilePart, LatentDataset};

/// Number of rows of a batch.
const BATCH_ROWS: usize = 1024;

/// The values of a row by column, as JSON.
pub(crate) type RowValues = Map<String, Value>;

/// The columns that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShownColumns {
    /// All columns except for images, tensors, latents and other binary data.
    All,
    /// The origin and the label of a row.
    Origin,
}

impl ShownColumns {
    fn includes(self, field: &Field) -> bool {
        match self {
            Self::All => is_short(field.data_type()),
            Self::Origin => {
                [SOURCE, ROW, LABEL].contains(&field.name().as_str()) && is_short(field.data_type())
            }
        }
    }
}

/// Whether values of a type are short texts in general.
fn is_short(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => fields.iter().all(|field| is_short(field.data_type())),
            _ => false,
        },
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => false,
        other => !other.is_nested(),
    }
}

impl LatentDataset {
    /// The values of rows, which are named by ascending positions.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(crate) fn values_of(
        &self,
        positions: impl IntoIterator<Item = u64>,
        columns: ShownColumns,
    ) -> Result<BTreeMap<u64, RowValues>, StageError> {
        let mut values = BTreeMap::new();
        let mut add = |position: u64, row: RowValues| {
            values.insert(position, row);
            Ok(())
        };
        self.visit_values(positions, columns, &mut add)?;
        Ok(values)
    }

    /// Calls `with` for the values of each row, in the order of `positions`, which ascend.
    ///
    /// # Errors
    /// If a file cannot be read, or the error of `with`.
    pub(crate) fn visit_values(
        &self,
        positions: impl IntoIterator<Item = u64>,
        columns: ShownColumns,
        with: &mut dyn FnMut(u64, RowValues) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let mut positions = positions.into_iter().peekable();
        while let Some(&next) = positions.peek() {
            let Some(index) = self.file_at(next) else {
                return Ok(());
            };
            let file = &self.files[index];
            let end = file.first + file.rows();
            let mut here = Vec::new();
            while let Some(position) = positions.next_if(|&position| position < end) {
                here.push(position);
            }
            let ranges = here.iter().map(|position| {
                let row = (position - file.first) as usize;
                row..row + 1
            });
            let rows = RowSelection::from_consecutive_ranges(ranges, file.rows() as usize);
            let is_read = |field: &Field| columns.includes(field);
            let part = FilePart::Rows(rows);
            let reader = file.reader(file.metadata()?, &is_read, part, BATCH_ROWS)?;
            let mut place = here.into_iter();
            for records in reader {
                let records = records.map_err(|error| file.corrupt(&error))?;
                for (row, position) in json_rows(&records)?.into_iter().zip(&mut place) {
                    with(position, row)?;
                }
            }
        }
        Ok(())
    }
}

/// The rows of records as JSON objects. Nulls are explicit.
fn json_rows(records: &RecordBatch) -> Result<Vec<RowValues>, StageError> {
    if records.num_columns() == 0 {
        return Ok(vec![RowValues::new(); records.num_rows()]);
    }
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, JsonArray>(Vec::new());
    writer.write(records)?;
    writer.finish()?;
    let rows = serde_json::from_slice(&writer.into_inner());
    rows.map_err(|error| arrow::error::ArrowError::JsonError(error.to_string()).into())
}

/// A value as text: a string without its quotes, and nothing for null.
pub(crate) fn value_text(values: &RowValues, name: &str) -> String {
    match values.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
