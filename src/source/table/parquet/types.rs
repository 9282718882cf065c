//! The Arrow types that the columns of a Parquet file are read as.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{ConvertedType, Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::ColumnDescPtr;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The unit of timestamps that are stored as INT96, which have nanoseconds and any year.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Int96Unit {
    /// Microseconds, the precision of Spark and Hive: any year that they can store.
    #[default]
    Us,
    /// Nanoseconds: the years 1678 to 2261.
    Ns,
}

impl Int96Unit {
    fn time_unit(self) -> TimeUnit {
        match self {
            Self::Us => TimeUnit::Microsecond,
            Self::Ns => TimeUnit::Nanosecond,
        }
    }
}

/// The metadata of a file with the types that its columns are read as. They differ from those of
/// the `parquet` crate:
///
/// - A dictionary of the stored Arrow schema is read as plain values, since its keys need not
///   distinguish the values of all row groups and files.
/// - INT96 has the unit `int96`.
/// - ENUM is text.
///
/// # Errors
/// If the schema is invalid.
pub(crate) fn metadata_as_read(
    metadata: Arc<ParquetMetaData>,
    int96: Int96Unit,
) -> Result<ArrowReaderMetadata, ParquetError> {
    let found = ArrowReaderMetadata::try_new(Arc::clone(&metadata), ArrowReaderOptions::new())?;
    let columns = metadata.file_metadata().schema_descr().columns();
    let mut types = LeafTypes {
        leaves: columns.iter(),
        int96,
    };
    let schema = found.schema();
    let fields: Fields = schema
        .fields()
        .iter()
        .map(|field| types.field(field))
        .collect();
    if &fields == schema.fields() {
        return Ok(found);
    }
    let read_as = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new().with_schema(read_as))
}

/// The remaining leaf columns of a Parquet schema, one for each primitive type of an Arrow schema.
struct LeafTypes<'a> {
    leaves: std::slice::Iter<'a, ColumnDescPtr>,
    int96: Int96Unit,
}

impl LeafTypes<'_> {
    fn field(&mut self, field: &FieldRef) -> FieldRef {
        let data_type = self.data_type(field.data_type());
        if &data_type == field.data_type() {
            return Arc::clone(field);
        }
        Arc::new(Field::clone(field).with_data_type(data_type))
    }

    fn data_type(&mut self, data_type: &DataType) -> DataType {
        match data_type {
            DataType::Dictionary(_, value) => self.data_type(value),
            DataType::List(item) => DataType::List(self.field(item)),
            DataType::LargeList(item) => DataType::LargeList(self.field(item)),
            DataType::ListView(item) => DataType::ListView(self.field(item)),
            DataType::LargeListView(item) => DataType::LargeListView(self.field(item)),
            DataType::FixedSizeList(item, size) => DataType::FixedSizeList(self.field(item), *size),
            DataType::Map(entries, is_sorted) => DataType::Map(self.field(entries), *is_sorted),
            DataType::Struct(fields) => {
                DataType::Struct(fields.iter().map(|field| self.field(field)).collect())
            }
            other => self.leaf(other),
        }
    }

    fn leaf(&mut self, data_type: &DataType) -> DataType {
        let Some(leaf) = self.leaves.next() else {
            return data_type.clone();
        };
        match (leaf.physical_type(), data_type) {
            (Type::INT96, DataType::Timestamp(_, zone)) => {
                DataType::Timestamp(self.int96.time_unit(), zone.clone())
            }
            // The converted type is also set for the logical type ENUM.
            (_, DataType::Binary) if leaf.converted_type() == ConvertedType::ENUM => DataType::Utf8,
            (_, other) => other.clone(),
        }
    }
}
