//! The columns of records that come over HTTP, and how a request's body becomes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::source::arrow_messages::Messages;
use crate::source::cut::Cut;
use crate::source::ndjson::Parser;
use crate::source::text::{Blocks, Framer};
use crate::source::{IMAGE, ROW, SOURCE, origin_fields};

/// The type of a column, as users write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// A 64-bit floating point number.
    Float,
    /// A list of 64-bit floating point numbers.
    Floats,
    /// A 64-bit integer.
    Int,
    /// UTF-8 text.
    String,
    /// `true` or `false`.
    Bool,
}

impl Type {
    fn data_type(self) -> DataType {
        match self {
            Self::Float => DataType::Float64,
            Self::Floats => DataType::new_list(DataType::Float64, true),
            Self::Int => DataType::Int64,
            Self::String => DataType::Utf8,
            Self::Bool => DataType::Boolean,
        }
    }
}

/// What a body is, by its `Content-Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    /// One encoded image.
    Image,
    /// JSON objects, one a line.
    Ndjson,
    /// An Arrow IPC stream.
    Arrow,
}

/// The `Content-Type` of an Arrow IPC stream.
pub(super) const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

impl Media {
    /// `None` for what is not understood.
    pub(super) fn of(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            ARROW_STREAM => Some(Self::Arrow),
            "application/x-ndjson" | "application/jsonl" | "application/json" => Some(Self::Ndjson),
            "application/octet-stream" => Some(Self::Image),
            image if image.starts_with("image/") => Some(Self::Image),
            _ => None,
        }
    }
}

/// A record of a request that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Refused {
    /// Its place in the request, counted from 0; blank lines do not count.
    pub(super) record: u32,
    pub(super) code: &'static str,
    pub(super) reason: String,
}

/// What a body came to: columns without `source` and `row`.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) columns: RecordBatch,
    pub(super) refused: Vec<Refused>,
}

/// The columns that a source gives.
pub(super) struct Columns {
    /// Beside `source` and `row`.
    schema: SchemaRef,
    /// Understands objects; `None` where records are images.
    objects: Option<Parser>,
    record_bytes: u64,
}

impl Columns {
    /// For images.
    pub(super) fn images(record_bytes: u64) -> Self {
        let schema = Arc::new(Schema::new(vec![Field::new(IMAGE, DataType::Binary, false)]));
        Self { schema, objects: None, record_bytes }
    }

    /// For records of these columns.
    ///
    /// # Errors
    /// A fault at `columns` where there is none, or one has a name that is taken.
    pub(super) fn features(columns: &BTreeMap<String, Type>, record_bytes: u64) -> Result<Self, Fault> {
        if columns.is_empty() {
            return Err(Fault::new(
                "columns",
                "is missing: name each column that records have, such as { x = \"float\" }",
            ));
        }
        if let Some(name) = [SOURCE, ROW].into_iter().find(|name| columns.contains_key(*name)) {
            return Err(Fault::new("columns", format!("`{name}` is the name of a column that every source adds")));
        }
        let fields = columns.iter().map(|(name, given)| Field::new(name, given.data_type(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Self { objects: Some(Parser::new(SchemaRef::clone(&schema), record_bytes)), schema, record_bytes })
    }

    /// `source`, `row` and the others.
    pub(super) fn with_origin(&self) -> SchemaRef {
        let fields = origin_fields().into_iter().map(Arc::new).chain(self.schema.fields().iter().cloned());
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Understands a body.
    ///
    /// # Errors
    /// Why it has no records at all, in a sentence.
    pub(super) fn parse(&self, media: Media, body: Vec<u8>) -> Result<Records, String> {
        let records = match (media, &self.objects) {
            (Media::Image, None) => {
                if body.is_empty() {
                    return Err("the body is empty; expected an image".to_owned());
                }
                let image: ArrayRef = Arc::new(BinaryArray::from_iter_values([body]));
                let columns = RecordBatch::try_new(SchemaRef::clone(&self.schema), vec![image]);
                Records { columns: columns.map_err(|error| error.to_string())?, refused: Vec::new() }
            }
            (Media::Arrow, _) => self.parse_arrow(&body)?,
            (Media::Ndjson, Some(objects)) => self.parse_objects(objects, &body)?,
            (Media::Image, Some(_)) => return Err("this source takes records of columns, not images".to_owned()),
            (Media::Ndjson, None) => return Err("this source takes images, not JSON".to_owned()),
        };
        match (records.columns.num_rows(), records.refused.first()) {
            (0, None) => Err("the body has no records".to_owned()),
            _ => Ok(records),
        }
    }

    fn parse_objects(&self, objects: &Parser, body: &[u8]) -> Result<Records, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let framer = Framer::new(body, None, self.record_bytes).map_err(|error| text(&error))?;
        let cut = Cut { records: u32::MAX as usize, bytes: MOST_BYTES, enough: u32::MAX as usize };
        let mut blocks = Blocks::new(framer, cut);
        let (mut batches, mut refused, mut before) = (Vec::new(), Vec::new(), 0);
        while let Some(block) = blocks.next(objects).map_err(|error| text(&error))? {
            let rows = block.rows();
            let parsed = block.parse(objects).map_err(|error| text(&error))?;
            refused.extend(parsed.rejects.into_iter().map(|reject| Refused {
                record: before + reject.ordinal,
                code: reject.code.as_str(),
                reason: reject.reason.to_string(),
            }));
            batches.push(parsed.records);
            before += rows;
        }
        let columns = concat_batches(&self.schema, &batches).map_err(|error| text(&error))?;
        Ok(Records { columns, refused })
    }

    fn parse_arrow(&self, body: &[u8]) -> Result<Records, String> {
        let mut messages = Messages::start(body)?;
        let (mut batches, mut bytes) = (Vec::new(), 0);
        while let Some(batch) = messages.next()? {
            bytes += batch.get_array_memory_size() as u64;
            if bytes > MOST_BYTES {
                return Err(format!("its records take more than {MOST_BYTES} bytes; send them in several requests"));
            }
            batches.push(self.conform(&batch)?);
        }
        let columns = concat_batches(&self.schema, &batches).map_err(|error| error.to_string())?;
        Ok(Records { columns, refused: Vec::new() })
    }

    /// The columns of the schema, by name, each in its type.
    fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch, String> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let columns = self.schema.fields().iter().map(|field| {
            let (name, wanted) = (field.name(), field.data_type());
            let met = batch.column_by_name(name);
            let met = met.ok_or_else(|| format!("there is no column `{name}` ({wanted}) among those that came"))?;
            let column = cast_with_options(met, wanted, &options);
            let column = column.map_err(|error| format!("column `{name}` is {}: {error}", met.data_type()))?;
            match column.null_count() {
                nulls if nulls > 0 && !field.is_nullable() => Err(format!("column `{name}` lacks {nulls} values")),
                _ => Ok(column),
            }
        });
        let columns = columns.collect::<Result<Vec<_>, String>>()?;
        RecordBatch::try_new(SchemaRef::clone(&self.schema), columns).map_err(|error| error.to_string())
    }
}

/// Bytes of Arrow memory that the records of a request may take.
const MOST_BYTES: u64 = 512 << 20;

/// Puts the column `source` before those of a request.
///
/// # Errors
/// None that is to be expected.
pub(super) fn with_source(records: &RecordBatch, source: &str) -> Result<RecordBatch, String> {
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(source, records.num_rows())));
    let field = Arc::new(Field::new(SOURCE, DataType::Utf8, false));
    let schema =
        Schema::new(std::iter::once(field).chain(records.schema().fields().iter().cloned()).collect::<Vec<_>>());
    let columns = std::iter::once(names).chain(records.columns().iter().cloned()).collect();
    RecordBatch::try_new(Arc::new(schema), columns).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{AsArray, Float32Array, Int32Array, StringViewArray};
    use arrow::datatypes::{Float64Type, Int64Type};
    use arrow::ipc::writer::StreamWriter;

    use super::*;

    fn columns() -> Columns {
        let columns = [("x", Type::Float), ("n", Type::Int), ("list", Type::Floats)];
        let columns = columns.into_iter().map(|(name, given)| (name.to_owned(), given)).collect();
        Columns::features(&columns, 1 << 20).unwrap()
    }

    #[test]
    fn objects_become_columns_and_each_bad_one_is_told_with_its_place() {
        let body = b"{\"x\":1.5,\"n\":2,\"list\":[1,2.5]}\n\nnot json\n{\"x\":\"a\"}\n{\"n\":7}\n".to_vec();
        let Records { columns, refused } = columns().parse(Media::Ndjson, body).unwrap();
        let (n, x) = (columns.column_by_name("n").unwrap(), columns.column_by_name("x").unwrap());
        assert_eq!(n.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(2), Some(7)]);
        assert_eq!(x.as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), [Some(1.5), None]);
        let told: Vec<_> = refused.iter().map(|refused| (refused.record, refused.code)).collect();
        assert_eq!(told, [(1, "malformed"), (2, "malformed")], "blank lines do not count");
    }

    #[test]
    fn arrow_columns_are_found_by_name_and_turned_into_their_types() {
        let stream = |columns: Vec<(&str, ArrayRef)>| {
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
            writer.write(&batch).unwrap();
            writer.into_inner().unwrap()
        };
        let list: ArrayRef = crate::tensor::fixed_column(2, vec![1.0, 2.0]).unwrap();
        let n: ArrayRef = Arc::new(Int32Array::from(vec![3]));
        let x: ArrayRef = Arc::new(Float32Array::from(vec![0.5]));
        let body = stream(vec![("n", Arc::clone(&n)), ("more", Arc::clone(&n)), ("x", x), ("list", list)]);
        let records = columns().parse(Media::Arrow, body).unwrap().columns;
        assert_eq!(records.schema().field(0).name(), "list");
        assert_eq!(records.column(0).as_list::<i32>().value(0).as_primitive::<Float64Type>().values(), &[1.0, 2.0]);
        let told = |columns| columns_of(columns);
        fn columns_of(body: Vec<u8>) -> String {
            columns().parse(Media::Arrow, body).unwrap_err()
        }
        assert!(told(stream(vec![("n", Arc::clone(&n))])).contains("no column `list`"));
        let text: ArrayRef = Arc::new(StringViewArray::from(vec!["a"]));
        let list: ArrayRef = crate::tensor::fixed_column(2, vec![1.0, 2.0]).unwrap();
        assert!(told(stream(vec![("list", list), ("n", text)])).contains("column `n`"));
    }

    #[test]
    fn what_this_source_does_not_take_is_refused_as_a_whole() {
        let images = Columns::images(1 << 20);
        assert_eq!(images.parse(Media::Image, vec![1, 2]).unwrap().columns.num_rows(), 1);
        assert!(images.parse(Media::Image, vec![]).is_err());
        assert!(images.parse(Media::Ndjson, b"{}".to_vec()).is_err());
        assert!(columns().parse(Media::Image, vec![1]).is_err());
        assert!(columns().parse(Media::Ndjson, b"\n".to_vec()).unwrap_err().contains("no records"));
        assert!(columns().parse(Media::Arrow, b"junk".to_vec()).is_err());
        assert_eq!(Media::of("Image/PNG; q=1"), Some(Media::Image));
        assert_eq!(Media::of("text/html"), None);
    }
}
