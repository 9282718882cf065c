//! The columns that name the writer of a record: its models, its thresholds, and the digest of its
//! configuration.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::sink::OutputIdentity;

const MODEL_DIGEST: &str = "model_digest";
const THRESHOLDS: &str = "thresholds";
const CONFIGURATION: &str = "configuration";
/// The columns in their order.
const NAMES: [&str; 3] = [MODEL_DIGEST, THRESHOLDS, CONFIGURATION];
/// Number of digits of a digest.
const DIGITS: usize = 12;

/// The schema with the columns of the writer at its end.
///
/// # Errors
/// A fault if a column has the name of one of them.
pub(super) fn append_fields(schema: &Schema) -> Result<SchemaRef, Vec<ConfigError>> {
    let taken = NAMES.iter().find(|name| schema.index_of(name).is_ok());
    if let Some(name) = taken {
        let message = format!(
            "`continue` adds the column `{name}`, which the records have already; rename it with `select`"
        );
        return Err(vec![ConfigError::new("on_change", message)]);
    }
    let added = NAMES.map(|name| Arc::new(Field::new(name, DataType::Utf8, true)));
    let fields: Vec<_> = schema.fields().iter().cloned().chain(added).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// Appends empty columns of the writer to records.
///
/// # Errors
/// An error of Arrow, which the plan excludes.
pub(super) fn append(records: &RecordBatch) -> Result<RecordBatch, StageError> {
    let schema = records.schema_ref();
    let added = NAMES.map(|name| Arc::new(Field::new(name, DataType::Utf8, true)));
    let fields: Vec<_> = schema.fields().iter().cloned().chain(added).collect();
    let column = || -> ArrayRef { Arc::new(StringArray::new_null(records.num_rows())) };
    let columns = records.columns().iter().cloned();
    let columns = columns.chain(NAMES.map(|_| column())).collect();
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns,
    )?)
}

/// Fills the columns of the writer. The dataset may hold them in another place.
///
/// # Errors
/// An error of Arrow, which the plan excludes.
pub(super) fn fill(
    records: &RecordBatch,
    identity: &OutputIdentity,
) -> Result<RecordBatch, StageError> {
    let mut columns = records.columns().to_vec();
    let values = [
        (MODEL_DIGEST, models(identity)),
        (THRESHOLDS, thresholds(identity)),
        (CONFIGURATION, short(&identity.digest)),
    ];
    for (name, value) in values {
        if let Ok(index) = records.schema_ref().index_of(name) {
            let value =
                StringArray::from_iter_values(std::iter::repeat_n(value, records.num_rows()));
            columns[index] = Arc::new(value);
        }
    }
    Ok(RecordBatch::try_new(records.schema(), columns)?)
}

/// The first digits of a digest, which may begin with the name of its algorithm.
fn short(digest: &str) -> String {
    let digits = digest.rsplit(':').next().unwrap_or_default();
    digits.chars().take(DIGITS).collect()
}

/// The digests of the models, in the order of their names.
fn models(identity: &OutputIdentity) -> String {
    let digests: Vec<String> = identity
        .models
        .values()
        .map(|digest| short(digest))
        .collect();
    digests.join(" ")
}

/// The thresholds of all stages, such as `alarms.above=3`.
fn thresholds(identity: &OutputIdentity) -> String {
    let stages = identity.stages.iter();
    let all: Vec<String> = stages
        .flat_map(|(name, stage)| {
            let own = stage.thresholds().into_iter();
            own.map(move |threshold| format!("{name}.{threshold}"))
        })
        .collect();
    all.join(" ")
}
