//! The columns that the sink `parquet` writes, with the types in which Parquet files store them, or
//! in which the dataset holds them.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;

use crate::batch::{Batch, RejectCode, RejectCollector};
use crate::error::StageError;
use crate::sink::BatchEncoder;
use crate::sink::column_selection::ColumnSelection;
use crate::sink::dataset_schema::DatasetSchema;
use crate::sink::stored_types::{can_fail, store, stored_schema};

/// Selected columns and their stored types.
#[derive(Debug, Clone)]
pub(super) struct StoredColumns {
    columns: ColumnSelection,
    schema: SchemaRef,
    /// The conversion to the columns of the dataset, if they differ from `schema`.
    dataset: Option<DatasetSchema>,
}

impl StoredColumns {
    pub(super) fn new(columns: ColumnSelection) -> Self {
        let schema = stored_schema(columns.schema());
        Self {
            columns,
            schema,
            dataset: None,
        }
    }

    /// The same columns, converted to those of a dataset.
    pub(super) fn with_dataset(mut self, dataset: DatasetSchema) -> Self {
        self.dataset = Some(dataset);
        self
    }

    /// The schema of the files.
    pub(super) fn schema(&self) -> &SchemaRef {
        self.dataset
            .as_ref()
            .map_or(&self.schema, DatasetSchema::schema)
    }

    /// Whether some values of the columns cannot be stored.
    pub(super) fn can_fail(&self) -> bool {
        let fields = self.columns.schema().fields();
        self.dataset.is_some() || fields.iter().any(|field| can_fail(field.data_type()))
    }

    /// Selects the columns of input records, and converts them to their stored types. Records that
    /// have the schema of the files are returned unchanged.
    ///
    /// # Errors
    /// If a value cannot be stored, or if the columns differ from those of the plan.
    pub(super) fn store(&self, records: &RecordBatch) -> Result<RecordBatch, StageError> {
        if records.schema_ref().fields() == self.schema().fields() {
            return Ok(records.clone());
        }
        let mut stored = self.columns.project(records)?;
        if self.columns.schema().fields() != self.schema.fields() {
            stored = store(&stored, &self.schema)?;
        }
        match &self.dataset {
            Some(dataset) => dataset.convert(&stored),
            None => Ok(stored),
        }
    }
}

/// Workers convert the records, so that a value that cannot be stored is a reject.
impl BatchEncoder for StoredColumns {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(self.schema())
    }

    fn encode(&self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        if let Ok(records) = self.store(&batch.records) {
            return Ok(Batch { records, ..batch });
        }
        let (mut stored, mut row_ordinals) = (Vec::new(), Vec::new());
        for (row, &ordinal) in batch.row_ordinals.iter().enumerate() {
            match self.store(&batch.records.slice(row, 1)) {
                Ok(record) => {
                    stored.push(record);
                    row_ordinals.push(ordinal);
                }
                Err(error) => rejects.push(ordinal, RejectCode::Mismatch, error.to_string()),
            }
        }
        Ok(Batch {
            records: concat_batches(self.schema(), &stored)?,
            row_ordinals,
            provenance: batch.provenance,
        })
    }
}
