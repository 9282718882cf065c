//! The columns that the sink `parquet` writes, with the types in which Parquet files store them, or
//! in which the dataset holds them.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;

use crate::batch::Batch;
use crate::batch::reject::{RejectCode, RejectCollector};
use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::sink::column_selection::ColumnSelection;
use crate::sink::parquet::dataset_schema::DatasetSchema;
use crate::sink::parquet::stored_types::{can_fail, store, stored_schema};
use crate::sink::parquet::writer_columns;
use crate::sink::{BatchEncoder, OutputIdentity};

/// Selected columns and their stored types.
#[derive(Debug, Clone)]
pub(crate) struct StoredColumns {
    columns: ColumnSelection,
    /// Whether the columns that name the writer follow.
    has_writer: bool,
    schema: SchemaRef,
    /// The conversion to the columns of the dataset, if they differ from `schema`.
    dataset: Option<DatasetSchema>,
}

impl StoredColumns {
    pub(crate) fn new(columns: ColumnSelection) -> Self {
        let schema = stored_schema(columns.schema());
        Self {
            columns,
            has_writer: false,
            schema,
            dataset: None,
        }
    }

    /// The columns, followed by those that name the writer.
    ///
    /// # Errors
    /// A fault if a column has the name of one of them.
    pub(crate) fn with_writer(columns: ColumnSelection) -> Result<Self, Vec<ConfigError>> {
        let schema = writer_columns::append_fields(columns.schema())?;
        let schema = stored_schema(&schema);
        Ok(Self {
            has_writer: true,
            schema,
            ..Self::new(columns)
        })
    }

    /// The columns without those that name the writer, for records that are not written.
    pub(crate) fn without_writer(&self) -> Self {
        match self.has_writer {
            true => Self::new(self.columns.clone()),
            false => self.clone(),
        }
    }

    /// Fills the columns that name the writer, if there are any.
    ///
    /// # Errors
    /// An error of Arrow, which the plan excludes.
    pub(crate) fn name_writer(
        &self,
        records: RecordBatch,
        identity: &OutputIdentity,
    ) -> Result<RecordBatch, StageError> {
        match self.has_writer {
            true => writer_columns::fill(&records, identity),
            false => Ok(records),
        }
    }

    /// The same columns, converted to those of a dataset.
    pub(crate) fn with_dataset(mut self, dataset: DatasetSchema) -> Self {
        self.dataset = Some(dataset);
        self
    }

    /// The schema of the files.
    pub(crate) fn schema(&self) -> &SchemaRef {
        self.dataset
            .as_ref()
            .map_or(&self.schema, DatasetSchema::schema)
    }

    /// Whether some values of the columns cannot be stored.
    pub(crate) fn can_fail(&self) -> bool {
        let fields = self.columns.schema().fields();
        self.dataset.is_some() || fields.iter().any(|field| can_fail(field.data_type()))
    }

    /// Selects the columns of input records, and converts them to their stored types. Records that
    /// have the schema of the files are returned unchanged.
    ///
    /// # Errors
    /// If a value cannot be stored, or if the columns differ from those of the plan.
    pub(crate) fn store(&self, records: &RecordBatch) -> Result<RecordBatch, StageError> {
        if records.schema_ref().fields() == self.schema().fields() {
            return Ok(records.clone());
        }
        let mut stored = self.columns.project(records)?;
        if self.has_writer {
            stored = writer_columns::append(&stored)?;
        }
        if stored.schema_ref().fields() != self.schema.fields() {
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
