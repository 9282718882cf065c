//! The columns of an HTTP source, and the conversion of request bodies into them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, BinaryArray, BinaryBuilder, RecordBatch, StringArray, StringBuilder,
};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::batch::reject::RejectCode;
use crate::columns::{IMAGE, ROW, SOURCE};
use crate::error::config_error::ConfigError;
use crate::source::http::body::budget::{BodyBudget, NAME};
use crate::source::http::body::column_type::RequestColumnType;
use crate::source::http::body::decoded::DecodedBody;
use crate::source::http::body::json_images::ImageObjects;
use crate::source::http::body::media_type::MediaType;
use crate::source::http::body::multipart::FormParts;
use crate::source::http::body::rejected_lines::{RejectedLine, TruncatedList};
use crate::source::http::body::{arrow as body_arrow, json_lines};
use crate::source::http::error_response::ErrorResponse;
use crate::source::origin::origin_fields;
use crate::source::table::text::ndjson::NdjsonParser;
use crate::text_excerpt::shorten;

/// The result of parsing a body.
pub(crate) struct RequestRecords {
    /// Columns without `source` and `row`.
    pub(crate) columns: RecordBatch,
    /// The names of their sources, if the body has a name for each record.
    pub(crate) sources: Option<StringArray>,
    pub(crate) rejected: TruncatedList<RejectedLine>,
    /// Bytes that are held as long as the columns are.
    pub(crate) held: u64,
}

/// The columns of a source.
pub(crate) struct RequestColumns {
    /// The columns without `source` and `row`.
    schema: SchemaRef,
    /// The parser of objects; `None` if records are images.
    objects: Option<NdjsonParser>,
    record_bytes: u64,
}

impl RequestColumns {
    /// The columns of a source of images.
    pub(crate) fn images(record_bytes: u64) -> Self {
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
    pub(crate) fn features(
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
    pub(crate) fn with_origin(&self) -> SchemaRef {
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
    pub(crate) fn parse(
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
                body_arrow::parse(&self.schema, &body, budget)?,
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
pub(in crate::source) fn with_source(
    records: &RequestRecords,
    source: &str,
) -> Result<RecordBatch, String> {
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
