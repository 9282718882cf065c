//! Reads the stored originals of text records whose values did not fit the types of their columns.

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::source::rejects::format::OriginalFormat;
use crate::source::table::file_source::read_end::catch_panic;
use crate::source::table::json::scan::scan_line;
use crate::source::table::json::types::JsonTypeCollector;
use crate::source::table::text::TextFormat as _;
use crate::source::table::text::csv::{CsvParser, SeenColumns, StoredCsvFormat};
use crate::source::table::text::ndjson::NdjsonParser;
use crate::source::table::text::seen_values::SeenValues;

/// The columns of the stored text records of a source.
#[derive(Default)]
pub(crate) struct TextColumns {
    csv: SeenColumns,
    json: JsonTypeCollector,
}

impl TextColumns {
    /// Adds the columns of a stored record. A record that cannot be read adds none.
    pub(crate) fn add(&mut self, format: OriginalFormat, stored: &[u8]) {
        match format {
            OriginalFormat::Csv => drop(self.add_csv(stored)),
            OriginalFormat::Json if scan_line(stored, &mut ()).is_ok() => {
                // The scan that only checks the record has succeeded.
                let _ = scan_line(stored, &mut self.json);
            }
            _ => {}
        }
    }

    fn add_csv(&mut self, stored: &[u8]) -> Option<()> {
        let (description, line) = split(stored).ok()?;
        let fields = description
            .columns
            .iter()
            .map(|name| Field::new(name, DataType::Utf8, true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        let decimal = description.values.decimal;
        let parser = CsvParser::of_stored(description, &schema);
        let texts = catch_panic(|| parser.decode(&line, 1)).ok()?;
        for (field, column) in texts.schema().fields().iter().zip(texts.columns()) {
            let value = column.as_string::<i32>().iter().flatten().next();
            let seen = value.map_or_else(SeenValues::default, |text| {
                SeenValues::of_text(text, decimal)
            });
            self.csv.add(field.name(), seen);
        }
        Some(())
    }

    /// The columns, each with the narrowest type that holds its values; [`DataType::Null`] without
    /// values.
    pub(crate) fn schema(&self) -> Schema {
        let json = self
            .json
            .types()
            .schema()
            .unwrap_or_else(|_| Schema::empty());
        let mut fields = self.csv.fields();
        let is_new = |field: &&std::sync::Arc<Field>| {
            self.csv
                .fields()
                .iter()
                .all(|known| known.name() != field.name())
        };
        fields.extend(
            json.fields()
                .iter()
                .filter(is_new)
                .map(|field| field.as_ref().clone()),
        );
        Schema::new(fields)
    }
}

/// Splits a stored record of delimited text into the description of its columns and its line.
fn split(stored: &[u8]) -> Result<(StoredCsvFormat, Vec<u8>), String> {
    let (description, line) = split_bytes(stored);
    let description = serde_json::from_slice(description)
        .map_err(|error| format!("the description of its columns is damaged: {error}"))?;
    Ok((description, [line, b"\n"].concat()))
}

/// The description of the columns of a stored record of delimited text, and its line.
pub(crate) fn split_bytes(stored: &[u8]) -> (&[u8], &[u8]) {
    let end = stored.iter().position(|&byte| byte == b'\n');
    let end = end.unwrap_or(stored.len());
    (&stored[..end], stored.get(end + 1..).unwrap_or_default())
}

/// The reason that a stored record cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct StoredTextError(String);

/// Parses a stored text record into columns, or returns why that is not possible.
pub(crate) fn parse(
    format: OriginalFormat,
    stored: &[u8],
    columns: &SchemaRef,
) -> Result<RecordBatch, StoredTextError> {
    let parsed = catch_panic(|| match format {
        OriginalFormat::Csv => {
            let (description, line) = split(stored)?;
            let parser = CsvParser::of_stored(description, columns);
            parser.decode(&line, 1).map_err(|error| error.to_string())
        }
        _ => {
            let parser = NdjsonParser::new(SchemaRef::clone(columns), u64::MAX);
            let line = [stored, b"\n"].concat();
            parser.decode(&line, 1).map_err(|error| error.to_string())
        }
    });
    match parsed {
        Ok(record) if record.num_rows() == 1 => Ok(record),
        Ok(_) => Err(StoredTextError("the stored record is damaged".to_owned())),
        Err((_, reason)) => Err(StoredTextError(reason)),
    }
}

/// Converts a stored record to the planned columns, if no value changes.
pub(crate) fn convert(
    record: &RecordBatch,
    schema: &SchemaRef,
) -> Result<RecordBatch, StoredTextError> {
    let found = record.schema();
    let is_known = |field: &&std::sync::Arc<Field>| schema.column_with_name(field.name()).is_some();
    if !found.fields().iter().all(|field| is_known(&field)) || record.num_rows() != 1 {
        let reason = "its columns differ from those of the records before it";
        return Err(StoredTextError(reason.to_owned()));
    }
    let column = |field: &std::sync::Arc<Field>| {
        let name = field.name();
        match record.column_by_name(name) {
            Some(column) => cast(column, field.data_type()).ok_or_else(|| {
                StoredTextError(format!(
                    "column `{name}` is {}, which {} does not hold without loss",
                    column.data_type(),
                    field.data_type()
                ))
            }),
            None => Ok(arrow::array::new_null_array(field.data_type(), 1)),
        }
    };
    let columns = schema
        .fields()
        .iter()
        .map(column)
        .collect::<Result<_, _>>()?;
    RecordBatch::try_new(SchemaRef::clone(schema), columns)
        .map_err(|error| StoredTextError(error.to_string()))
}

/// Converts a column; `None` if the conversion is not exact.
fn cast(column: &ArrayRef, data_type: &DataType) -> Option<ArrayRef> {
    if column.data_type() == data_type {
        return Some(ArrayRef::clone(column));
    }
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let cast = cast_with_options(column, data_type, &options).ok()?;
    let back = cast_with_options(&cast, column.data_type(), &options).ok()?;
    (back.to_data() == column.to_data()).then_some(cast)
}
