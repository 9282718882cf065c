//! The forms in which an embedding program receives rejected rows: a column of the records, or a
//! table.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, NullBufferBuilder, RecordBatch, StringArray, StructArray, UInt32Array, UInt64Array,
};
use arrow::compute::{cast, interleave, take};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

use super::{ProcessedRecords, RejectedRow};
use crate::columns::{ROW, SOURCE};
use crate::error::StageError;

/// The column of rejects: null for a processed record.
pub(crate) const REJECTED: &str = "rejected";

fn reject_fields() -> Fields {
    ["stage", "code", "reason"]
        .map(|name| Field::new(name, DataType::Utf8, false))
        .to_vec()
        .into()
}

/// The schema of records with the column [`REJECTED`]. All columns are nullable.
pub fn with_rejected_schema(output: &Schema) -> SchemaRef {
    let fields = output.fields().iter();
    let nullable = fields.map(|field| Field::clone(field).with_nullable(true));
    let rejected = Field::new(REJECTED, DataType::Struct(reject_fields()), true);
    let all: Vec<Field> = nullable.chain([rejected]).collect();
    Arc::new(Schema::new_with_metadata(all, output.metadata().clone()))
}

/// The schema of a table of rejects. `index` is the position in the input.
pub fn rejects_schema() -> SchemaRef {
    let index = Field::new("index", DataType::UInt64, false);
    let source = Field::new(SOURCE, DataType::Utf8, true);
    let row = Field::new(ROW, DataType::UInt64, true);
    let fields = reject_fields();
    let reject = fields.iter().map(|field| Field::clone(field));
    Arc::new(Schema::new(
        [index, source, row]
            .into_iter()
            .chain(reject)
            .collect::<Vec<_>>(),
    ))
}

impl ProcessedRecords {
    /// The records and the rejected rows in the order of the input, with the column [`REJECTED`].
    /// Rejected rows have the origin and the numbers, texts and times of the input, by which the
    /// program identifies them, and nulls in all other columns. `schema` is
    /// [`with_rejected_schema`].
    ///
    /// # Errors
    /// If Arrow cannot build the columns.
    pub fn with_rejected(&self, schema: &SchemaRef) -> Result<RecordBatch, StageError> {
        let (input, order) = (&self.input, self.order());
        let records: UInt32Array = order.iter().map(|row| row.record).collect();
        let rejects: Vec<Option<&RejectedRow>> = order
            .iter()
            .map(|row| row.reject.map(|index| &self.rejects[index as usize]))
            .collect();
        let places: Vec<(usize, usize)> = order
            .iter()
            .map(|row| match row.record {
                Some(record) => (0, record as usize),
                None => (1, row.input as usize),
            })
            .collect();
        let column = |(column, field): (&ArrayRef, &Arc<Field>)| {
            let own = input.column_by_name(field.name());
            match own.filter(|own| is_kept(own.data_type(), field)) {
                Some(own) => {
                    let own = cast(own, field.data_type())?;
                    Ok::<_, StageError>(interleave(&[column, &own], &places)?)
                }
                None => Ok(take(column, &records, None)?),
            }
        };
        let columns = self.records.columns().iter().zip(schema.fields());
        let mut columns = columns.map(column).collect::<Result<Vec<_>, _>>()?;
        columns.push(Arc::new(struct_of(&rejects)?));
        Ok(RecordBatch::try_new(SchemaRef::clone(schema), columns)?)
    }

    /// The rejected rows as a table with [`rejects_schema`]. `first` is the position of the first row
    /// of the part.
    ///
    /// # Errors
    /// If Arrow cannot build the columns.
    pub fn rejects_table(&self, first: u64) -> Result<RecordBatch, StageError> {
        let (input, rejects) = (&self.input, &self.rejects);
        let rows: UInt32Array = rejects.iter().map(|reject| Some(reject.row)).collect();
        let origin = |name: &str, data_type: &DataType| -> Result<ArrayRef, StageError> {
            match input.column_by_name(name) {
                Some(column) => Ok(cast(&take(column, &rows, None)?, data_type)?),
                None => Ok(arrow::array::new_null_array(data_type, rejects.len())),
            }
        };
        let index = rejects.iter().map(|reject| first + u64::from(reject.row));
        let all: Vec<Option<&RejectedRow>> = rejects.iter().map(Some).collect();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from_iter_values(index)),
            origin(SOURCE, &DataType::Utf8)?,
            origin(ROW, &DataType::UInt64)?,
        ];
        columns.extend(struct_of(&all)?.columns().iter().cloned());
        Ok(RecordBatch::try_new(rejects_schema(), columns)?)
    }

    /// The records and the rejects, merged by their rows.
    fn order(&self) -> Vec<OutputRow> {
        let records = (0..).zip(&self.rows).map(|(index, &input)| OutputRow {
            input,
            record: Some(index),
            reject: None,
        });
        let rejects = (0..).zip(&self.rejects).map(|(index, reject)| OutputRow {
            input: reject.row,
            record: None,
            reject: Some(index),
        });
        let mut order: Vec<OutputRow> = records.chain(rejects).collect();
        order.sort_by_key(|row| row.input);
        order
    }
}

/// Whether rejected rows keep the values of an input column of the type `own` in the column `output`.
/// Images and lists are not kept, since a stage can have replaced them under the same name.
fn is_kept(own: &DataType, output: &Field) -> bool {
    use DataType::{Dictionary, LargeUtf8, Timestamp, Utf8, Utf8View};
    let is_origin = matches!(output.name().as_str(), SOURCE | ROW);
    let is_same = match (own, output.data_type()) {
        (Dictionary(_, value), _) => return is_kept(value, output),
        (Utf8 | LargeUtf8 | Utf8View, Utf8) => true,
        (Timestamp(unit, Some(_)), Timestamp(planned, Some(_))) => unit == planned,
        (own, planned) => own == planned && !own.is_nested() && !own.is_binary(),
    };
    is_origin || is_same
}

/// A row of the result: a record or a reject.
struct OutputRow {
    input: u32,
    record: Option<u32>,
    reject: Option<u32>,
}

fn struct_of(rejects: &[Option<&RejectedRow>]) -> Result<StructArray, StageError> {
    let text = |value: &dyn Fn(&RejectedRow) -> String| -> ArrayRef {
        let values = rejects
            .iter()
            .map(|reject| reject.map(value).unwrap_or_default());
        Arc::new(StringArray::from_iter_values(values))
    };
    let columns = vec![
        text(&|reject| reject.stage.to_string()),
        text(&|reject| reject.code.as_str().to_owned()),
        text(&|reject| reject.reason.clone()),
    ];
    let mut nulls = NullBufferBuilder::new(rejects.len());
    rejects
        .iter()
        .for_each(|reject| nulls.append(reject.is_some()));
    Ok(StructArray::try_new_with_length(
        reject_fields(),
        columns,
        nulls.finish(),
        rejects.len(),
    )?)
}
