//! The columns of an HTTP source, and the conversion of request bodies into them.

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

/// Maximum length in bytes of a name that a client gives to its records.
pub(super) const NAME: usize = 256;

/// The type of a column, as written in the pipeline.
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
    pub(in crate::source) fn data_type(self) -> DataType {
        match self {
            Self::Float => DataType::Float64,
            Self::Floats => DataType::new_list(DataType::Float64, true),
            Self::Int => DataType::Int64,
            Self::String => DataType::Utf8,
            Self::Bool => DataType::Boolean,
        }
    }
}

/// The records of a body, and their memory.
pub(super) struct DecodedBody {
    /// Columns without `source` and `row`.
    pub(super) columns: RecordBatch,
    /// Bytes that are held as long as the columns are.
    pub(super) held: u64,
}

/// The result of parsing a body.
pub(super) struct RequestRecords {
    /// Columns without `source` and `row`.
    pub(super) columns: RecordBatch,
    /// The names of their sources, if the body has a name for each record.
    pub(super) sources: Option<StringArray>,
    pub(super) rejected: TruncatedList<RejectedLine>,
    /// Bytes that are held as long as the columns are.
    pub(super) held: u64,
}

/// The limits on the records of a request, and the memory that they have reserved.
pub(super) struct BodyBudget<'a> {
    /// Maximum number of bytes of the records in their columns, including the names of their
    /// sources.
    pub(super) bytes: u64,
    /// Maximum number of records, including invalid lines.
    pub(super) records: u64,
    /// Bytes of the name of the source, which each record repeats.
    pub(super) name: u64,
    pub(super) charge: &'a mut MemoryReservation,
    counted: u64,
    held: u64,
}

/// Bytes of the name of its source in a record.
pub(super) fn name_bytes(source: &str) -> u64 {
    // The text and its offset.
    source.len() as u64 + 4
}

impl<'a> BodyBudget<'a> {
    /// The limits of a request, before any memory is reserved.
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

    /// Counts additional records.
    pub(super) fn count(&mut self, records: u64) -> Result<(), ErrorResponse> {
        self.counted = self.counted.saturating_add(records);
        if self.counted > self.records {
            let limit = self.records;
            return Err(ErrorResponse::too_large(format!(
                "the body has more than {limit} records (limits.records)"
            )));
        }
        Ok(())
    }

    /// Checks the total size of the records in their columns.
    pub(super) fn weigh(&self, bytes: u64) -> Result<(), ErrorResponse> {
        let bytes = bytes.saturating_add(self.counted.saturating_mul(self.name));
        if bytes > self.bytes {
            let (size, limit) = (ByteSize(bytes), ByteSize(self.bytes));
            let message = format!(
                "the records need {size} in their columns, but limits.request allows {limit}; \
                 split them into several requests"
            );
            return Err(ErrorResponse::too_large(message));
        }
        Ok(())
    }
}

/// The columns of a source.
pub(super) struct RequestColumns {
    /// The columns without `source` and `row`.
    schema: SchemaRef,
    /// The parser of objects; `None` if records are images.
    objects: Option<NdjsonParser>,
    record_bytes: u64,
}

impl RequestColumns {
    /// The columns of a source of images.
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

    /// The columns of a source of features.
    ///
    /// # Errors
    /// Returns a fault at `columns` if there are none, or one of them has a reserved name.
    pub(super) fn features(
        columns: &BTreeMap<String, RequestColumnType>,
        record_bytes: u64,
    ) -> Result<Self, ConfigError> {
        if columns.is_empty() {
            return Err(ConfigError::new(
                "columns",
                "is missing or empty; list each column of the records, such as { x = \"float\" }",
            ));
        }
        if let Some(name) = [SOURCE, ROW]
            .into_iter()
            .find(|name| columns.contains_key(*name))
        {
            return Err(ConfigError::new(
                "columns",
                format!("`{name}` is a column that every source adds; use another name"),
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

    /// The schema with `source`, `row` and the other columns.
    pub(super) fn with_origin(&self) -> SchemaRef {
        let fields = origin_fields()
            .into_iter()
            .map(Arc::new)
            .chain(self.schema.fields().iter().cloned());
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Parses a body.
    ///
    /// # Errors
    /// Returns the reason why it has no valid records, and 413 if it exceeds the limits.
    pub(super) fn parse(
        &self,
        media: &MediaType,
        body: Vec<u8>,
        mut budget: BodyBudget<'_>,
    ) -> Result<RequestRecords, ErrorResponse> {
        let budget = &mut budget;
        let of_body = |(DecodedBody { columns, held }, rejected)| RequestRecords {
            columns,
            sources: None,
            rejected,
            held,
        };
        let records = match (media, &self.objects) {
            (MediaType::Image, None) => {
                of_body((self.parse_image(body, budget)?, TruncatedList::default()))
            }
            (MediaType::Multipart(boundary), None) => self.parse_form(&body, boundary, budget)?,
            (MediaType::Arrow, _) => of_body((
                arrow_body::parse(&self.schema, &body, budget)?,
                TruncatedList::default(),
            )),
            (MediaType::Ndjson, Some(objects)) => of_body(json_lines::parse(
                objects,
                self.record_bytes,
                &body,
                budget,
            )?),
            (MediaType::Ndjson, None) => {
                let objects = ImageObjects(SchemaRef::clone(&self.schema));
                // Base64 encodes three bytes in four characters.
                let line = self.record_bytes.saturating_mul(4) / 3 + OBJECT;
                of_body(json_lines::parse(&objects, line, &body, budget)?)
            }
            (MediaType::Image | MediaType::Multipart(_), Some(_)) => {
                return Err(ErrorResponse::unprocessable(
                    "this source accepts records with columns, not images",
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
        budget: &mut BodyBudget<'_>,
    ) -> Result<DecodedBody, ErrorResponse> {
        if body.is_empty() {
            return Err(ErrorResponse::unprocessable(
                "the body is empty; expected an image",
            ));
        }
        budget.hold(body.capacity() as u64)?;
        let offsets = OffsetBuffer::from_lengths([body.len()]);
        let image = BinaryArray::try_new(offsets, Buffer::from_vec(body), None)
            .map_err(ErrorResponse::failed)?;
        let columns = RecordBatch::try_new(SchemaRef::clone(&self.schema), vec![Arc::new(image)]);
        Ok(DecodedBody {
            columns: columns.map_err(ErrorResponse::failed)?,
            held: budget.held(),
        })
    }

    /// The files of a form, each of which is an image with its file name as the source.
    fn parse_form(
        &self,
        body: &[u8],
        boundary: &str,
        budget: &mut BodyBudget<'_>,
    ) -> Result<RequestRecords, ErrorResponse> {
        // Contents and names are copied; both are parts of the body.
        budget.hold(3 * body.len() as u64)?;
        let (mut images, mut names) = (BinaryBuilder::new(), StringBuilder::new());
        let (mut rejected, mut record) = (TruncatedList::default(), 0);
        let mut parts = FormParts::new(body, boundary)?;
        while let Some(part) = parts.next()? {
            budget.count(1)?;
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

/// Maximum size in bytes of a JSON object without its image.
const OBJECT: u64 = 1024;

/// The name of a part's file, or the reason why the part is rejected.
fn check_file<'a>(name: Option<&'a str>, content: &[u8]) -> Result<&'a str, String> {
    match name {
        None => Err("has no file name; send images as files".to_owned()),
        Some(name) if name.is_empty() || name.len() > NAME => Err(format!(
            "has a file name that is empty or longer than {NAME} bytes"
        )),
        Some(_) if content.is_empty() => Err("is empty; expected an image".to_owned()),
        Some(name) => Ok(name),
    }
}

/// Prepends the column `source` to the columns of a request.
///
/// # Errors
/// Returns an error only if the columns have different lengths.
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
