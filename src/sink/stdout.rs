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
use crate::error::{ConfigError, StageError};
use crate::plan_context::PlanContext;
use crate::sink::column_selection::ColumnSelection;
use crate::sink::{CommitProgress, CommitStats, OutputIdentity, Sink, SinkConfig, SinkWriter};
use crate::storage::Location;
use crate::text_escape;

/// Options of the sink `stdout`. Bytes are printed as hexadecimal digits; missing values and values
/// that are not finite are printed as null.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct StdoutSinkConfig {
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{
        ArrayRef, BinaryArray, Float32Array, StringArray, TimestampMillisecondArray,
    };

    use super::*;
    use crate::batch::{Provenance, Split};
    use crate::tensor::{fixed_column, variable_column, variable_field, vector_field};

    fn records() -> RecordBatch {
        let fields = vec![
            Field::new("source", DataType::Utf8, false),
            vector_field("latent", 2),
            variable_field("pixels", 2).unwrap(),
            Field::new("error", DataType::Float32, true),
            Field::new("image", DataType::Binary, false),
        ];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["a \"b\"\n", "c"])),
            fixed_column(2, vec![0.5, -1.0, f32::NAN, 2.0]).unwrap(),
            variable_column(2, vec![1.0, 2.0, 3.0], &[vec![1, 2], vec![1, 1]]).unwrap(),
            Arc::new(Float32Array::from(vec![None, Some(0.25)])),
            Arc::new(BinaryArray::from_vec(vec![b"\x00\xff", b""])),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    fn batch() -> Batch {
        Batch::new(records(), Provenance::rows(Split::new("a"), 0..2))
    }

    #[test]
    fn each_record_is_an_object_per_line_with_all_keys() {
        let columns = ColumnSelection::select(None, &records().schema()).unwrap();
        let mut lines = NdjsonWriter::new(columns, Vec::new(), false);
        lines.write(&batch()).unwrap();
        let expected = concat!(
            r#"{"source":"a \"b\"\n","latent":[0.5,-1.0],"#,
            r#""pixels":{"data":[1.0,2.0],"shape":[1,2]},"error":null,"image":"00ff"}"#,
            "\n",
            r#"{"source":"c","latent":[null,2.0],"pixels":{"data":[3.0],"shape":[1,1]},"#,
            r#""error":0.25,"image":""}"#,
            "\n",
        );
        assert_eq!(String::from_utf8(lines.output).unwrap(), expected);
    }

    #[test]
    fn only_selected_columns_are_printed() {
        let names = ["error".to_owned(), "source".to_owned()];
        let columns = ColumnSelection::select(Some(&names), &records().schema()).unwrap();
        let mut lines = NdjsonWriter::new(columns, Vec::new(), false);
        lines.write(&batch()).unwrap();
        let text = String::from_utf8(lines.output).unwrap();
        assert_eq!(text.lines().last(), Some(r#"{"error":0.25,"source":"c"}"#));
    }

    #[test]
    fn control_characters_are_escaped_on_a_terminal() {
        let field = Field::new("source", DataType::Utf8, false);
        let column: ArrayRef = Arc::new(StringArray::from(vec!["\u{9b}31m\u{202e}gpj\u{7f}é"]));
        let records =
            RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column]).unwrap();
        let printed = |is_terminal: bool| {
            let columns = ColumnSelection::select(None, &records.schema()).unwrap();
            let mut lines = NdjsonWriter::new(columns, Vec::new(), is_terminal);
            lines
                .write(&Batch::new(
                    records.clone(),
                    Provenance::rows(Split::new("a"), 0..1),
                ))
                .unwrap();
            String::from_utf8(lines.output).unwrap()
        };
        assert_eq!(
            printed(true),
            "{\"source\":\"\\u009b31m\\u202egpj\\u007fé\"}\n"
        );
        assert_eq!(
            printed(false),
            "{\"source\":\"\u{9b}31m\u{202e}gpj\u{7f}é\"}\n"
        );
    }

    #[test]
    fn closed_output_is_a_separate_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut lines = NdjsonWriter::new(
            ColumnSelection::select(None, &records().schema()).unwrap(),
            Closed,
            false,
        );
        assert!(matches!(
            lines.write(&batch()).unwrap_err(),
            StageError::OutputClosed
        ));
    }

    #[test]
    fn column_that_cannot_be_printed_is_a_fault() {
        let union = DataType::Union(
            arrow::datatypes::UnionFields::empty(),
            arrow::datatypes::UnionMode::Sparse,
        );
        let schema = Schema::new(vec![Field::new("choice", union, false)]);
        let faults = check_types(&schema).unwrap_err();
        assert!(
            faults[0]
                .message
                .starts_with("column `choice` cannot be printed: "),
            "{}",
            faults[0].message
        );
    }

    #[test]
    fn times_in_a_named_zone_are_printed_in_utc() {
        let times = TimestampMillisecondArray::from(vec![1_704_164_645_250]).with_timezone("UTC");
        let columns: Vec<ArrayRef> = vec![Arc::new(times)];
        let field = Field::new("t", columns[0].data_type().clone(), false);
        let schema = Schema::new(vec![field]);
        assert!(check_types(&schema).is_ok());
        let records = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        let mut json = WriterBuilder::new().build::<_, LineDelimited>(Vec::new());
        json.write(&with_numeric_offsets(&records).unwrap())
            .unwrap();
        assert_eq!(json.into_inner(), b"{\"t\":\"2024-01-02T03:04:05.250Z\"}\n");
    }
}
