//! The columns of records that come over HTTP, and how a request's body becomes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, BinaryArray, BinaryBuilder, RecordBatch, StringArray, StringBuilder,
};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::RejectCode;
use crate::error::ConfigError;
use crate::source::file_source::shorten;
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::json_images::ImageObjects;
use crate::source::http::limits::HttpLimits;
use crate::source::http::media_type::MediaType;
use crate::source::http::memory_reservation::MemoryReservation;
use crate::source::http::multipart::FormParts;
use crate::source::http::rejected_lines::{RejectedLine, TruncatedList};
use crate::source::http::{arrow_body, json_lines};
use crate::source::ndjson::NdjsonParser;
use crate::source::{IMAGE, ROW, SOURCE, origin_fields};
use crate::units::ByteSize;

/// Bytes of the name that a client gives to its records.
pub(super) const NAME: usize = 256;

/// The type of a column, as users write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RequestColumnType {
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

impl RequestColumnType {
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

/// Records of a body, and the memory that they take.
pub(super) struct DecodedBody {
    /// Columns without `source` and `row`.
    pub(super) columns: RecordBatch,
    /// Bytes that are kept as long as the columns are.
    pub(super) held: u64,
}

/// What a body came to.
pub(super) struct RequestRecords {
    /// Columns without `source` and `row`.
    pub(super) columns: RecordBatch,
    /// The names of their sources, where the body gives each its own.
    pub(super) sources: Option<StringArray>,
    pub(super) rejected: TruncatedList<RejectedLine>,
    /// Bytes that are kept as long as the columns are.
    pub(super) held: u64,
}

/// What the records of a request may take, and what they have reserved.
pub(super) struct BodyBudget<'a> {
    /// Bytes, once they are in their columns, with the name of their source.
    pub(super) bytes: u64,
    /// Records, and lines that are none.
    pub(super) records: u64,
    /// Bytes of the name of their source, which each of them bears.
    pub(super) name: u64,
    pub(super) charge: &'a mut MemoryReservation,
    counted: u64,
    held: u64,
}

/// Bytes that the name of its source takes in a record.
pub(super) fn name_bytes(source: &str) -> u64 {
    // The text, and where it ends.
    source.len() as u64 + 4
}

impl<'a> BodyBudget<'a> {
    /// The bounds of a request, before anything is taken.
    pub(super) fn new(
        limits: &HttpLimits,
        source: &str,
        charge: &'a mut MemoryReservation,
    ) -> Self {
        let records = u64::from(limits.records.get());
        Self {
            bytes: limits.request.0,
            records,
            name: name_bytes(source),
            charge,
            counted: 0,
            held: 0,
        }
    }

    /// Reserves memory that is about to be allocated.
    pub(super) fn hold(&mut self, bytes: u64) -> Result<(), ErrorResponse> {
        self.held = self.held.saturating_add(bytes);
        self.charge.set(self.held)
    }

    /// Releases memory that was freed.
    pub(super) fn free(&mut self, bytes: u64) -> Result<(), ErrorResponse> {
        self.held = self.held.saturating_sub(bytes);
        self.charge.set(self.held)
    }

    /// Bytes that are reserved.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Counts further records.
    pub(super) fn count(&mut self, records: u64) -> Result<(), ErrorResponse> {
        self.counted = self.counted.saturating_add(records);
        if self.counted > self.records {
            let most = self.records;
            return Err(ErrorResponse::too_large(format!(
                "the body has more than {most} records (limits.records)"
            )));
        }
        Ok(())
    }

    /// Checks the bytes of all records so far, in their columns.
    pub(super) fn weigh(&self, bytes: u64) -> Result<(), ErrorResponse> {
        let bytes = bytes.saturating_add(self.counted.saturating_mul(self.name));
        if bytes > self.bytes {
            let (met, most) = (ByteSize(bytes), ByteSize(self.bytes));
            let message = format!(
                "its records take {met} in their columns, and limits.request allows {most}; send them in several requests"
            );
            return Err(ErrorResponse::too_large(message));
        }
        Ok(())
    }
}

/// The columns that a source gives.
pub(super) struct RequestColumns {
    /// Beside `source` and `row`.
    schema: SchemaRef,
    /// Understands objects; `None` where records are images.
    objects: Option<NdjsonParser>,
    record_bytes: u64,
}

impl RequestColumns {
    /// For images.
    pub(super) fn images(record_bytes: u64) -> Self {
        let schema = Arc::new(Schema::new(vec![Field::new(
            IMAGE,
            DataType::Binary,
            false,
        )]));
        Self {
            schema,
            objects: None,
            record_bytes,
        }
    }

    /// For records of these columns.
    ///
    /// # Errors
    /// A fault at `columns` where there is none, or one has a name that is taken.
    pub(super) fn features(
        columns: &BTreeMap<String, RequestColumnType>,
        record_bytes: u64,
    ) -> Result<Self, ConfigError> {
        if columns.is_empty() {
            return Err(ConfigError::new(
                "columns",
                "is missing: name each column that records have, such as { x = \"float\" }",
            ));
        }
        if let Some(name) = [SOURCE, ROW]
            .into_iter()
            .find(|name| columns.contains_key(*name))
        {
            return Err(ConfigError::new(
                "columns",
                format!("`{name}` is the name of a column that every source adds"),
            ));
        }
        let fields = columns
            .iter()
            .map(|(name, given)| Field::new(name, given.data_type(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Self {
            objects: Some(NdjsonParser::new(SchemaRef::clone(&schema), record_bytes)),
            schema,
            record_bytes,
        })
    }

    /// `source`, `row` and the others.
    pub(super) fn with_origin(&self) -> SchemaRef {
        let fields = origin_fields()
            .into_iter()
            .map(Arc::new)
            .chain(self.schema.fields().iter().cloned());
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Understands a body.
    ///
    /// # Errors
    /// Why it has no records at all; 413 where it has more than a request may have.
    pub(super) fn parse(
        &self,
        media: &MediaType,
        body: Vec<u8>,
        mut most: BodyBudget<'_>,
    ) -> Result<RequestRecords, ErrorResponse> {
        let most = &mut most;
        let whole = |(DecodedBody { columns, held }, rejected)| RequestRecords {
            columns,
            sources: None,
            rejected,
            held,
        };
        let records = match (media, &self.objects) {
            (MediaType::Image, None) => {
                whole((self.parse_image(body, most)?, TruncatedList::default()))
            }
            (MediaType::Multipart(boundary), None) => self.parse_form(&body, boundary, most)?,
            (MediaType::Arrow, _) => whole((
                arrow_body::parse(&self.schema, &body, most)?,
                TruncatedList::default(),
            )),
            (MediaType::Ndjson, Some(objects)) => {
                whole(json_lines::parse(objects, self.record_bytes, &body, most)?)
            }
            (MediaType::Ndjson, None) => {
                let objects = ImageObjects(SchemaRef::clone(&self.schema));
                // Base64 has four characters for three bytes.
                let line = self.record_bytes.saturating_mul(4) / 3 + OBJECT;
                whole(json_lines::parse(&objects, line, &body, most)?)
            }
            (MediaType::Image | MediaType::Multipart(_), Some(_)) => {
                return Err(ErrorResponse::unprocessable(
                    "this source takes records of columns, not images",
                ));
            }
        };
        match (records.columns.num_rows(), records.rejected.count) {
            (0, 0) => Err(ErrorResponse::unprocessable("the body has no records")),
            _ => Ok(records),
        }
    }

    fn parse_image(
        &self,
        body: Vec<u8>,
        most: &mut BodyBudget<'_>,
    ) -> Result<DecodedBody, ErrorResponse> {
        if body.is_empty() {
            return Err(ErrorResponse::unprocessable(
                "the body is empty; expected an image",
            ));
        }
        most.hold(body.capacity() as u64)?;
        let offsets = OffsetBuffer::from_lengths([body.len()]);
        let image = BinaryArray::try_new(offsets, Buffer::from_vec(body), None)
            .map_err(ErrorResponse::failed)?;
        let columns = RecordBatch::try_new(SchemaRef::clone(&self.schema), vec![Arc::new(image)]);
        Ok(DecodedBody {
            columns: columns.map_err(ErrorResponse::failed)?,
            held: most.held(),
        })
    }

    /// The files of a form, each an image whose source is the name of its file.
    fn parse_form(
        &self,
        body: &[u8],
        boundary: &str,
        most: &mut BodyBudget<'_>,
    ) -> Result<RequestRecords, ErrorResponse> {
        // Content and names are copied; both are in the body.
        most.hold(3 * body.len() as u64)?;
        let (mut images, mut names) = (BinaryBuilder::new(), StringBuilder::new());
        let (mut rejected, mut record) = (TruncatedList::default(), 0);
        let mut parts = FormParts::new(body, boundary)?;
        while let Some(part) = parts.next()? {
            most.count(1)?;
            let content = &body[part.content];
            match check_file(part.file.as_deref(), content) {
                Ok(name) => {
                    images.append_value(content);
                    names.append_value(name);
                }
                Err(what) => rejected.push(|| {
                    let reason = shorten(&format!("the part `{}` {what}", part.field));
                    RejectedLine {
                        record,
                        code: RejectCode::Malformed.as_str(),
                        reason,
                    }
                }),
            }
            record += 1;
        }
        let (images, names) = (images.finish(), names.finish());
        let held = (images.get_array_memory_size() + names.get_array_memory_size()) as u64;
        let columns = RecordBatch::try_new(SchemaRef::clone(&self.schema), vec![Arc::new(images)]);
        Ok(RequestRecords {
            columns: columns.map_err(ErrorResponse::failed)?,
            sources: Some(names),
            rejected,
            held,
        })
    }
}

/// Bytes of a JSON object around an image in base64.
const OBJECT: u64 = 1024;

/// The name of a part's file, or what is wrong with the part.
fn check_file<'a>(name: Option<&'a str>, content: &[u8]) -> Result<&'a str, String> {
    match name {
        None => Err("has no file name; send images as files".to_owned()),
        Some(name) if name.is_empty() || name.len() > NAME => {
            Err(format!("has no file name of 1 to {NAME} bytes"))
        }
        Some(_) if content.is_empty() => Err("is empty; expected an image".to_owned()),
        Some(name) => Ok(name),
    }
}

/// Puts the column `source` before those of a request.
///
/// # Errors
/// None that is to be expected.
pub(super) fn with_source(records: &RequestRecords, source: &str) -> Result<RecordBatch, String> {
    let RequestRecords {
        columns: records,
        sources,
        ..
    } = records;
    let names: ArrayRef = match sources {
        Some(names) => Arc::new(names.clone()),
        None => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(
            source,
            records.num_rows(),
        ))),
    };
    let field = Arc::new(Field::new(SOURCE, DataType::Utf8, false));
    let schema = Schema::new(
        std::iter::once(field)
            .chain(records.schema().fields().iter().cloned())
            .collect::<Vec<_>>(),
    );
    let columns = std::iter::once(names)
        .chain(records.columns().iter().cloned())
        .collect();
    RecordBatch::try_new(Arc::new(schema), columns).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
