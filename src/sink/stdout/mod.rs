//! The sink `stdout`, which prints records as NDJSON, one object per line.

use std::io::{self, BufWriter, ErrorKind, IsTerminal as _, Write};
use std::sync::Arc;

use arrow::array::{RecordBatch, new_empty_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{
    EncoderOptions, LineDelimited, Writer as JsonWriter, WriterBuilder, make_encoder,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::plan_context::PlanContext;
use crate::sink::column_selection::ColumnSelection;
use crate::sink::{CommitProgress, CommitStats, OutputIdentity, Sink, SinkConfig, SinkWriter};
use crate::storage::Location;
use crate::text_escape;

/// Options of the sink `stdout`. Bytes are printed as hexadecimal digits; missing values and values
/// that are not finite are printed as null.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct StdoutSinkConfig {
    /// The columns to print, in this order. Default: all columns.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub columns: Option<Vec<String>>,
}

impl SinkConfig for StdoutSinkConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        _: &PlanContext,
    ) -> Result<Box<dyn Sink>, Vec<ConfigError>> {
        let columns = ColumnSelection::select(self.columns.as_deref(), input)?;
        check_types(columns.schema())?;
        self.columns = Some(columns.names());
        Ok(Box::new(StdoutSink { columns }))
    }
}

/// Refuses columns that cannot be encoded as JSON.
fn check_types(schema: &Schema) -> Result<(), Vec<ConfigError>> {
    let options = EncoderOptions::default();
    let faults = schema.fields().iter().filter_map(|field| {
        let field = &with_numeric_offset(field);
        let error = make_encoder(field, &new_empty_array(field.data_type()), &options).err()?;
        Some(ConfigError::new(
            "columns",
            format!(
                "column `{}` cannot be printed: {error}; exclude it from the columns",
                field.name()
            ),
        ))
    });
    let faults: Vec<ConfigError> = faults.collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults)
    }
}

struct StdoutSink {
    columns: ColumnSelection,
}

impl Sink for StdoutSink {
    fn folder(&self) -> Option<Location> {
        None
    }

    fn open(self: Box<Self>, _: OutputIdentity) -> Result<Box<dyn SinkWriter>, StageError> {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        Ok(Box::new(NdjsonWriter::new(
            self.columns,
            BufWriter::new(stdout),
            is_terminal,
        )))
    }
}

/// Prints each batch as it arrives.
struct NdjsonWriter<W: Write> {
    columns: ColumnSelection,
    /// The encoder, whose buffer holds the text of one batch.
    json: JsonWriter<Vec<u8>, LineDelimited>,
    output: W,
    /// Whether the output is a terminal. Control characters are then printed as JSON escapes, which
    /// have the same meaning.
    is_terminal: bool,
}

impl<W: Write> NdjsonWriter<W> {
    fn new(columns: ColumnSelection, output: W, is_terminal: bool) -> Self {
        // Nulls are explicit, so that readers can infer all columns from the first lines.
        let json = WriterBuilder::new()
            .with_explicit_nulls(true)
            .build(Vec::new());
        Self {
            columns,
            json,
            output,
            is_terminal,
        }
    }

    fn print(&mut self) -> io::Result<()> {
        let text = self.json.get_mut();
        if self.is_terminal {
            let text = std::str::from_utf8(text).map_err(io::Error::other)?;
            self.output.write_all(text_escape::json(text).as_bytes())?;
        } else {
            self.output.write_all(text)?;
        }
        text.clear();
        self.output.flush()
    }
}

impl<W: Write + Send> SinkWriter for NdjsonWriter<W> {
    fn write(&mut self, batch: &Batch) -> Result<CommitProgress, StageError> {
        let records = self.columns.project(&batch.records)?;
        self.json.write(&with_numeric_offsets(&records)?)?;
        self.print().map_err(output_error)?;
        Ok(CommitProgress::All)
    }

    fn commit(&mut self) -> Result<(), StageError> {
        self.output.flush().map_err(output_error)
    }

    fn stats(&self) -> CommitStats {
        CommitStats::default()
    }
}

/// Replaces the names of time zones, which Arrow formats only with a database of time zones, by
/// UTC as an offset. The instants are the same.
fn with_numeric_offsets(records: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = records.schema();
    let fields: Fields = schema.fields().iter().map(with_numeric_offset).collect();
    if fields == *schema.fields() {
        return Ok(records.clone());
    }
    let columns = records
        .columns()
        .iter()
        .zip(&fields)
        .map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn with_numeric_offset(field: &FieldRef) -> FieldRef {
    let is_named = |zone: &str| !zone.starts_with(['+', '-']);
    match field.data_type() {
        DataType::Timestamp(unit, Some(zone)) if is_named(zone) => {
            let utc = DataType::Timestamp(*unit, Some("+00:00".into()));
            Arc::new(Field::clone(field).with_data_type(utc))
        }
        _ => Arc::clone(field),
    }
}

fn output_error(error: io::Error) -> StageError {
    match error.kind() {
        ErrorKind::BrokenPipe => StageError::OutputClosed,
        _ => StageError::io("standard output")(error),
    }
}

#[cfg(test)]
mod tests;
