//! Common code of the benchmarks: outputs with the format of the pipeline.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write;
use std::sync::Arc;

use arrow::datatypes::Schema;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, Encoding, Type, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

/// A writer with the settings of the pipeline: floats with byte-stream splitting, zstd level 1 and
/// no dictionary; row numbers with delta encoding.
pub fn writer<W: Write + Send>(out: W, schema: &Arc<Schema>) -> ArrowWriter<W> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_column_encoding("row".into(), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled("row".into(), false);
    let columns = ArrowSchemaConverter::new().convert(schema).unwrap();
    for column in columns
        .columns()
        .iter()
        .filter(|column| column.physical_type() == Type::FLOAT)
    {
        let path = column.path();
        properties = properties
            .set_column_encoding(path.clone(), Encoding::BYTE_STREAM_SPLIT)
            .set_column_dictionary_enabled(path.clone(), false);
        if column.max_rep_level() > 0 {
            properties =
                properties.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
        }
    }
    ArrowWriter::try_new(out, Arc::clone(schema), Some(properties.build())).unwrap()
}
