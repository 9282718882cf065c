//! Parses JSON objects into the planned columns.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use parking_lot::Mutex;

use crate::batch::reject::{RecordLayout, RejectCode};
use crate::source::table::json::decoders::ExactDecoders;
use crate::source::table::json::scan::scan_line;
use crate::source::table::text::batch::too_long;
use crate::source::table::text::columns::Misfit;
use crate::source::table::text::{DecodeError, LineAction, TextFormat};
use crate::source::table::type_misfits::TypeMisfits;

/// The multiple of `limits.record_bytes` that a record may take in Arrow memory: in a list of wide
/// objects, the five bytes of `null,` become hundreds of bytes. The accounting of batches assumes
/// twice the stored bytes.
const EXPANSION: u64 = 2;

/// Parses objects into the planned columns.
pub(crate) struct NdjsonParser {
    schema: SchemaRef,
    /// The names of the columns whose types are given.
    given: Arc<[String]>,
    /// Number of values of one object of the schema, including nested ones.
    leaves: u64,
    /// Whether lists hold objects, so that each of their items may take as many values.
    has_object_lists: bool,
    record_bytes: u64,
    misfits: Arc<TypeMisfits>,
}

impl NdjsonParser {
    /// A parser of columns whose types are given.
    pub(in crate::source) fn new(schema: SchemaRef, record_bytes: u64) -> Self {
        let names = schema.fields().iter().map(|field| field.name().clone());
        let given = names.collect();
        Self::with_given(schema, given, record_bytes)
    }

    /// A parser of columns, of which only the types of `given` are not inferred.
    pub(in crate::source) fn with_given(
        schema: SchemaRef,
        given: Arc<[String]>,
        record_bytes: u64,
    ) -> Self {
        let leaves = schema.flattened_fields().len() as u64;
        let nests = |field: &&Field| match field.data_type() {
            DataType::List(item) => item.data_type().is_nested(),
            _ => false,
        };
        let has_object_lists = schema.flattened_fields().iter().any(nests);
        Self {
            schema,
            given,
            leaves,
            has_object_lists,
            record_bytes,
            misfits: Arc::default(),
        }
    }

    /// A parser that only checks records.
    pub(super) fn checking(record_bytes: u64) -> Self {
        Self::new(Arc::new(Schema::empty()), record_bytes)
    }

    /// The values that did not fit the types of their columns.
    pub(super) fn misfits(&self) -> &TypeMisfits {
        &self.misfits
    }

    /// Upper bound on the Arrow memory of a record in bytes: its text, and 8 bytes for each number,
    /// offset or missing value.
    fn weight(&self, record: &[u8], values: u64) -> u64 {
        let slots = if self.has_object_lists {
            values.saturating_mul(self.leaves)
        } else {
            values + self.leaves
        };
        (record.len() as u64).saturating_add(slots.saturating_mul(8))
    }

    /// The reason for an error of the decoder. Values below a column are located by Arrow.
    fn explain(&self, error: &ArrowError, misfit: Option<Misfit>) -> DecodeError {
        let message = error.to_string();
        let message = message.trim_start_matches("Json error: ");
        let is_column = |found: &Misfit| {
            let is_nested = |field: &Field| field.data_type().is_nested();
            let field = self.schema.field_with_name(&found.column);
            let place = format!("whilst decoding field '{}': {}", found.column, found.reason);
            field.is_ok_and(|field| !is_nested(field)) && message == place
        };
        match misfit {
            Some(found) if is_column(&found) => found.into(),
            _ => message.to_owned().into(),
        }
    }
}

impl TextFormat for NdjsonParser {
    fn check(&self, record: &[u8]) -> LineAction {
        match scan_line(record, &mut ()) {
            Ok(None) => LineAction::Skip,
            Ok(Some(size)) => match self.weight(record, size.values) {
                weight if weight > self.record_bytes.saturating_mul(EXPANSION) => {
                    too_long(self.record_bytes)
                }
                weight => LineAction::Parse(weight),
            },
            Err(reason) => LineAction::Refuse(RejectCode::Malformed, reason),
        }
    }

    fn decode(&self, text: &[u8], count: usize) -> Result<RecordBatch, DecodeError> {
        let misfit = Arc::new(Mutex::new(None));
        let decoders = ExactDecoders {
            given: Arc::clone(&self.given),
            misfit: Arc::clone(&misfit),
        };
        let builder = ReaderBuilder::new(SchemaRef::clone(&self.schema))
            .with_batch_size(count + 1)
            // Numbers in a column of text are their text.
            .with_coerce_primitive(true)
            .with_decoder_factory(Arc::new(decoders));
        let decoded = || -> Result<Option<RecordBatch>, ArrowError> {
            let mut decoder = builder.build_decoder()?;
            decoder.decode(text)?;
            decoder.flush()
        }();
        match decoded {
            Ok(batch) => batch.ok_or_else(|| "the parser found no record".to_owned().into()),
            Err(error) => {
                let misfit = misfit.lock().take();
                Err(self.explain(&error, misfit))
            }
        }
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rejected(&self, misfit: &Misfit) -> RecordLayout {
        self.misfits.add(misfit);
        RecordLayout::Json
    }
}
