//! Schemas as text: the columns of a stage or a file in human-readable form.

use std::fmt;

use arrow::datatypes::{DataType, Field, Schema};

use crate::tensor::TensorShape;
use crate::text_escape::line;

/// Columns that are listed, one per line; the rest are only counted, because hundreds of feature
/// columns are not readable.
const SHOWN: usize = 24;

/// Writes the columns and their types, one per line, indented.
///
/// # Errors
/// Returns an error if `f` does.
pub(crate) fn write_columns(f: &mut fmt::Formatter<'_>, schema: &Schema) -> fmt::Result {
    let width = schema
        .fields()
        .iter()
        .take(SHOWN)
        .map(|field| line(field.name()).chars().count())
        .max()
        .unwrap_or(0);
    for field in schema.fields().iter().take(SHOWN) {
        writeln!(
            f,
            "    {:<width$}  {}",
            line(field.name()),
            line(&type_name(field))
        )?;
    }
    match schema.fields().len() {
        count if count > SHOWN => writeln!(f, "    ... and {} more columns", count - SHOWN),
        _ => Ok(()),
    }
}

/// A column's type in readable form: `float32[3, 64, 64]` rather than a fixed-size list of 12288
/// values.
pub(crate) fn type_name(field: &Field) -> String {
    if let Some(shape) = TensorShape::of(field) {
        return format!("float32{shape}");
    }
    match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytes".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        DataType::List(item) | DataType::LargeList(item) => format!("list of {}", type_name(item)),
        DataType::FixedSizeList(item, len) => format!("{}[{len}]", type_name(item)),
        other => other.to_string().to_lowercase(),
    }
}
