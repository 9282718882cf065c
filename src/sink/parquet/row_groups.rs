//! The writer of the row groups of a Parquet file, which encodes records as they arrive, or several
//! groups concurrently on separate threads, with the same bytes as a result.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;

/// Writes the row groups of a file in order.
pub(crate) struct RowGroupWriter<W: Write + Send> {
    file: SerializedFileWriter<W>,
    factory: Arc<ArrowRowGroupWriterFactory>,
    schema: SchemaRef,
    open: Option<OpenRowGroup>,
    /// Number of rows in the open group.
    rows: usize,
    /// Number of ended groups, which is the index of the open group.
    ended: usize,
    /// Maximum number of groups that are encoded concurrently while the open one is filled. With 0,
    /// the open group is encoded as its records arrive.
    encoders: usize,
    encoding: VecDeque<JoinHandle<Result<EncodedRowGroup, ParquetError>>>,
}

/// The encoded columns of a row group.
type EncodedRowGroup = Vec<ArrowColumnChunk>;

/// The row group that receives records.
enum OpenRowGroup {
    /// Records are encoded as they arrive.
    Encoding(Vec<ArrowColumnWriter>),
    /// Records are encoded by a thread when the group ends.
    Waiting(Vec<RecordBatch>),
}

impl<W: Write + Send> RowGroupWriter<W> {
    /// Starts a file.
    ///
    /// # Errors
    /// If `output` cannot be written.
    pub(crate) fn begin(
        output: W,
        schema: SchemaRef,
        properties: WriterProperties,
        encoders: usize,
    ) -> Result<Self, ParquetError> {
        let writer = ArrowWriter::try_new(output, SchemaRef::clone(&schema), Some(properties))?;
        let (file, factory) = writer.into_serialized_writer()?;
        let (factory, encoding) = (Arc::new(factory), VecDeque::new());
        Ok(Self {
            file,
            factory,
            schema,
            open: None,
            rows: 0,
            ended: 0,
            encoders,
            encoding,
        })
    }

    /// Number of rows in the open group.
    pub(crate) fn open_rows(&self) -> usize {
        self.rows
    }

    /// Adds records to the open group.
    ///
    /// # Errors
    /// If they cannot be encoded.
    pub(crate) fn write(&mut self, records: RecordBatch) -> Result<(), ParquetError> {
        self.rows += records.num_rows();
        match &mut self.open {
            Some(OpenRowGroup::Encoding(columns)) => encode(columns, &self.schema, &records),
            Some(OpenRowGroup::Waiting(batches)) => {
                batches.push(records);
                Ok(())
            }
            None if self.encoders > 0 => {
                self.open = Some(OpenRowGroup::Waiting(vec![records]));
                Ok(())
            }
            None => {
                let mut columns = self.factory.create_column_writers(self.ended)?;
                encode(&mut columns, &self.schema, &records)?;
                self.open = Some(OpenRowGroup::Encoding(columns));
                Ok(())
            }
        }
    }

    /// Ends the open group, if there is one.
    ///
    /// # Errors
    /// If this group or an earlier one cannot be encoded or written.
    pub(crate) fn end_group(&mut self) -> Result<(), ParquetError> {
        self.rows = 0;
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let index = self.ended;
        self.ended += 1;
        match open {
            OpenRowGroup::Encoding(columns) => self.append(close(columns)?),
            OpenRowGroup::Waiting(batches) => {
                if self.encoding.len() >= self.encoders {
                    self.append_first()?;
                }
                let (factory, schema) = (Arc::clone(&self.factory), SchemaRef::clone(&self.schema));
                let work = move || encode_group(&factory, index, &schema, &batches);
                let thread = Builder::new().name("row-group".to_owned()).spawn(work);
                self.encoding
                    .push_back(thread.map_err(|error| ParquetError::External(Box::new(error)))?);
                Ok(())
            }
        }
    }

    /// Waits for the first of the groups that are encoded, and writes it.
    fn append_first(&mut self) -> Result<(), ParquetError> {
        let Some(thread) = self.encoding.pop_front() else {
            return Ok(());
        };
        let group = thread
            .join()
            .map_err(|_| ParquetError::General("the encoder of a row group panicked".to_owned()))?;
        self.append(group?)
    }

    fn append(&mut self, group: EncodedRowGroup) -> Result<(), ParquetError> {
        let mut writer = self.file.next_row_group()?;
        group
            .into_iter()
            .try_for_each(|column| column.append_to_row_group(&mut writer))?;
        writer.close().map(|_| ())
    }

    /// Ends the last group, and writes the footer.
    ///
    /// # Errors
    /// Those of [`RowGroupWriter::end_group`].
    pub(crate) fn finish(&mut self, metadata: Vec<KeyValue>) -> Result<&mut W, ParquetError> {
        self.end_group()?;
        while !self.encoding.is_empty() {
            self.append_first()?;
        }
        metadata
            .into_iter()
            .for_each(|entry| self.file.append_key_value_metadata(entry));
        self.file.finish()?;
        Ok(self.file.inner_mut())
    }
}

fn encode_group(
    factory: &ArrowRowGroupWriterFactory,
    index: usize,
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<EncodedRowGroup, ParquetError> {
    let mut columns = factory.create_column_writers(index)?;
    batches
        .iter()
        .try_for_each(|batch| encode(&mut columns, schema, batch))?;
    close(columns)
}

fn encode(
    columns: &mut [ArrowColumnWriter],
    schema: &SchemaRef,
    records: &RecordBatch,
) -> Result<(), ParquetError> {
    let mut writers = columns.iter_mut();
    for (field, column) in schema.fields().iter().zip(records.columns()) {
        for leaf in compute_leaves(field, column)? {
            let writer = writers.next().ok_or_else(|| {
                ParquetError::General("the records have more columns than the schema".to_owned())
            })?;
            writer.write(&leaf)?;
        }
    }
    Ok(())
}

fn close(columns: Vec<ArrowColumnWriter>) -> Result<EncodedRowGroup, ParquetError> {
    columns.into_iter().map(ArrowColumnWriter::close).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{ArrayRef, StringArray, UInt64Array};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::tensor::{fixed_column, vector_field};

    fn schema() -> SchemaRef {
        let fields = vec![
            Field::new("source", DataType::Utf8, false),
            Field::new("row", DataType::UInt64, false),
            vector_field("latent", 3),
        ];
        Arc::new(Schema::new(fields))
    }

    fn batch(rows: usize, first: u64) -> RecordBatch {
        let names = (0..rows).map(|row| format!("{:03}", (row * 7) % 40));
        let values = (0..3 * rows).map(|index| (index as f32 + first as f32).sin());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(names)),
            Arc::new(UInt64Array::from_iter_values(first..first + rows as u64)),
            fixed_column(3, values.collect()).unwrap(),
        ];
        RecordBatch::try_new(schema(), columns).unwrap()
    }

    /// The bytes of a file with groups of three batches, and a last group of one batch.
    fn written(encoders: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let properties = WriterProperties::builder().build();
        let mut groups = RowGroupWriter::begin(&mut bytes, schema(), properties, encoders).unwrap();
        for number in 0..13_u64 {
            groups.write(batch(50, 50 * number)).unwrap();
            if number % 3 == 2 {
                assert_eq!(groups.open_rows(), 150);
                groups.end_group().unwrap();
                assert_eq!(groups.open_rows(), 0);
            }
        }
        groups
            .finish(vec![KeyValue::new("key".to_owned(), "value".to_owned())])
            .unwrap();
        drop(groups);
        bytes
    }

    #[test]
    fn bytes_do_not_depend_on_number_of_encoders() {
        let one = written(0);
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(
            bytes::Bytes::from(one.clone()),
        );
        let metadata = Arc::clone(reader.unwrap().metadata());
        assert_eq!(
            metadata
                .row_groups()
                .iter()
                .map(|group| group.num_rows())
                .collect::<Vec<_>>(),
            [150, 150, 150, 150, 50]
        );
        for encoders in [1, 2, 9] {
            assert!(
                written(encoders) == one,
                "the bytes differ with {encoders} encoders"
            );
        }
    }

    #[test]
    fn empty_file_does_not_depend_on_number_of_encoders() {
        let written = |encoders| {
            let mut bytes = Vec::new();
            let mut groups = RowGroupWriter::begin(
                &mut bytes,
                schema(),
                WriterProperties::builder().build(),
                encoders,
            )
            .unwrap();
            groups.end_group().unwrap();
            groups.finish(Vec::new()).unwrap();
            drop(groups);
            bytes
        };
        assert_eq!(written(0), written(2));
    }
}
