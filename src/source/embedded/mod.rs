//! The source `embedded`: records that a program supplies, such as the Python package. They are cut
//! into batches as those of other sources.

pub(crate) mod supplied;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::columns::IMAGE;
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;
use crate::plan_context::PlanContext;
use crate::source::batch_size::BatchSize;
use crate::source::http::RequestColumnType;
use crate::source::images::column::{is_bytes, is_image_struct};
use crate::source::origin::{origin_fields, with_origin};
use crate::source::{Source, SourceConfig, SourceHandle};
use crate::storage::Location;

/// The name of the kind.
pub const NAME: &str = "embedded";

/// Options of the source `embedded`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct EmbeddedSourceConfig {
    /// The columns of feature records and their types. Default: images, in the column `image`.
    #[schemars(extend("x-changes-rows" = true))]
    columns: BTreeMap<String, RequestColumnType>,
}

impl EmbeddedSourceConfig {
    /// The columns of the records, if the program does not declare others.
    pub fn schema(&self) -> SchemaRef {
        let fields: Vec<Field> = if self.columns.is_empty() {
            vec![Field::new(IMAGE, DataType::Binary, true)]
        } else {
            let field = |(name, kind): (&String, &RequestColumnType)| {
                Field::new(name, kind.data_type(), true)
            };
            self.columns.iter().map(field).collect()
        };
        with_origin(&Schema::new(fields))
    }
}

impl SourceConfig for EmbeddedSourceConfig {
    fn plan(
        &mut self,
        _: &str,
        _: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let supplied = context.supplied.as_ref().map(planned_schema);
        let schema = supplied.unwrap_or_else(|| self.schema());
        Ok(Box::new(EmbeddedSource { schema }))
    }
}

struct EmbeddedSource {
    schema: SchemaRef,
}

impl Source for EmbeddedSource {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn find_inputs(&self, _: Option<&Location>) -> Result<(), StageError> {
        Err(without_program())
    }

    fn open(self: Box<Self>, _: &ResumeState) -> Result<SourceHandle, StageError> {
        Err(without_program())
    }
}

fn without_program() -> StageError {
    let message = "the source `embedded` receives its records from a program; process them with \
                   the Python package, such as `latentflow.Pipeline(\"p.toml\").transform(records)`, \
                   or use a source that reads files";
    StageError::new(ErrorCode::InputNotSupplied, message.to_owned())
}

/// The schema of the source for records with the columns `supplied`: the origin of each record, and
/// the columns as plain types, since engines send the same values as views, dictionaries or large
/// types.
fn planned_schema(supplied: &SchemaRef) -> SchemaRef {
    let field = |field: &Arc<Field>| {
        let origin = origin_fields().into_iter();
        let known = origin.chain([Field::new(IMAGE, DataType::Binary, true)]);
        match known.into_iter().find(|known| known.name() == field.name()) {
            Some(known) if known.name() != IMAGE || holds_images(field.data_type()) => known,
            _ => Field::clone(field).with_data_type(plain_type(field.data_type())),
        }
    };
    let fields: Vec<Field> = supplied.fields().iter().map(field).collect();
    with_origin(&Schema::new(fields))
}

fn holds_images(data_type: &DataType) -> bool {
    is_bytes(data_type) || is_image_struct(data_type)
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, value) => plain_type(value),
        DataType::RunEndEncoded(_, value) => plain_type(value.data_type()),
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        other => other.clone(),
    }
}
