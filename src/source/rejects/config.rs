//! The options of the source `rejects`, and the planned records of a dataset.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::reject::RejectCode;
use crate::columns::rejects::{CODE, FORMAT, RECORD, SPLIT, STAGE};
use crate::columns::{IMAGE, ROW, SOURCE};
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;
use crate::error::{ErrorClass, StageError};
use crate::plan_context::PlanContext;
use crate::registry::did_you_mean;
use crate::source::batch_limits::BatchLimits;
use crate::source::batch_size::BatchSize;
use crate::source::discovery::file_checkpoints::OnChange;
use crate::source::discovery::input_file::{self, InputFile};
use crate::source::discovery::read_end::ReadEnd;
use crate::source::discovery::share::SourceShare;
use crate::source::origin::with_origin;
use crate::source::rejects::columns::{NO_ORIGINAL, RejectColumns, RejectFilter};
use crate::source::rejects::text_originals::TextColumns;
use crate::source::rejects::{RejectBatches, RejectsFormat};
use crate::source::table::file_source::source::ReadPolicy;
use crate::source::table::file_source::{FileFormat, FileSource};
use crate::source::table::text::column_type::ColumnType;
use crate::source::{Source, SourceConfig};
use crate::storage::FileReader;

/// Reads records that an earlier run rejected, as their source read them.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct RejectsSourceConfig {
    /// The folder of a rejects dataset, or one of its files.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    path: String,
    /// The source whose records are read, by the name of its stage in the pipeline that rejected
    /// them. Default: the only source in the dataset.
    #[schemars(extend("x-changes-rows" = true, "x-inferred" = true))]
    pub(super) from: Option<String>,
    /// The stages whose rejects are read. Default: all.
    #[schemars(extend("x-changes-rows" = true))]
    pub(super) stages: Option<Vec<String>>,
    /// The reject codes of the rejects that are read, such as `too_large`. Default: all.
    #[schemars(extend("x-changes-rows" = true))]
    pub(super) codes: Option<Vec<String>>,
    /// Types by column, for records of text whose values did not fit the types of their columns.
    /// Records that other stages rejected are converted if no value changes. Default: the types of
    /// the records that other stages rejected, or else types that hold the values of the text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-changes-rows" = true))]
    types: BTreeMap<String, ColumnType>,
}

impl SourceConfig for RejectsSourceConfig {
    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let path = |error: StageError| vec![ConfigError::from_error("path", &error)];
        let files = input_file::list(name, &self.path, RejectsFormat::EXTENSIONS).map_err(path)?;
        let found = found(&files).map_err(path)?;
        let from = choose(&found, self.from.as_deref())?;
        self.from = Some(from.clone());
        // Stages and codes are sets: their order and repetitions have no meaning.
        for names in [&mut self.stages, &mut self.codes].into_iter().flatten() {
            names.sort();
            names.dedup();
        }
        let filter = RejectFilter {
            from,
            stages: self.stages.clone(),
            codes: self.codes.clone(),
        };
        let planned = found
            .get(&filter.from)
            .and_then(FoundRecords::plan)
            .ok_or_else(|| {
                let message = format!(
                    "no reject of source `{}` can be read again: {NO_ORIGINAL}; correct stored \
                     lines of text and read them with a source of their format",
                    filter.from
                );
                vec![ConfigError::new("path", message)]
            })?;
        let (schema, texts) = planned.with_types(&self.types)?;
        let images = schema.column_with_name(IMAGE).is_some();
        let batch_limits = if images {
            BatchLimits::images(batch)
        } else {
            BatchLimits::features(batch)
        };
        let record_bytes = context.limits.record_bytes.0;
        let format = RejectsFormat {
            filter,
            schema: schema.clone(),
            texts,
            batch_limits,
            record_bytes,
        };
        Ok(Box::new(FileSource::new(
            name,
            &self.path,
            &schema,
            format,
            ReadPolicy::new(OnChange::default(), SourceShare::new(context.shard)),
        )))
    }
}

/// The originals of a source in the files.
#[derive(Default)]
pub(crate) struct FoundRecords {
    /// The columns of the records that are not text, if there are any.
    pub(super) schema: Option<SchemaRef>,
    pub(super) texts: TextColumns,
}

impl FoundRecords {
    /// The columns of the records that are read; `None` if no original is stored.
    fn plan(&self) -> Option<PlannedRecords> {
        let texts = self.texts.schema();
        let Some(schema) = &self.schema else {
            return (!texts.fields().is_empty()).then(|| PlannedRecords {
                schema: with_origin(&texts),
                texts,
            });
        };
        let is_new = |field: &&Arc<Field>| schema.column_with_name(field.name()).is_none();
        let new = texts.fields().iter().filter(is_new).cloned();
        let fields = schema.fields().iter().cloned().chain(new);
        Some(PlannedRecords {
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            texts,
        })
    }
}

/// The columns of the records that are read, and those of the text among them.
struct PlannedRecords {
    pub(super) schema: SchemaRef,
    pub(super) texts: Schema,
}

impl PlannedRecords {
    /// The columns with the configured types, and those that text is parsed into.
    fn with_types(
        self,
        types: &BTreeMap<String, ColumnType>,
    ) -> Result<(SchemaRef, SchemaRef), Vec<ConfigError>> {
        let names: Vec<&str> = self
            .schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        let unknown = types.keys().filter(|name| !names.contains(&name.as_str()));
        let faults: Vec<_> = unknown
            .map(|name| {
                let (hint, known) = (did_you_mean(name, &names), names.join(", "));
                let message = format!("unknown column{hint}; known: {known}");
                ConfigError::new(format!("types.{name}"), message)
            })
            .collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        let field = |field: &Arc<Field>| {
            let data_type = match (types.get(field.name()), field.data_type()) {
                (Some(given), _) => given.data_type(),
                // Text holds any value.
                (None, DataType::Null) => DataType::Utf8,
                (None, known) => known.clone(),
            };
            field.as_ref().clone().with_data_type(data_type)
        };
        let fields: Vec<Field> = self.schema.fields().iter().map(field).collect();
        let of_text = fields
            .iter()
            .filter(|planned| self.texts.column_with_name(planned.name()).is_some());
        let texts = Arc::new(Schema::new(of_text.cloned().collect::<Vec<_>>()));
        Ok((Arc::new(Schema::new(fields)), texts))
    }
}

/// Chooses the source whose records are read.
fn choose(
    found: &BTreeMap<String, FoundRecords>,
    from: Option<&str>,
) -> Result<String, Vec<ConfigError>> {
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let known = names.join(", ");
    match (from, names.as_slice()) {
        (None, &[only]) => Ok(only.to_owned()),
        (None, []) => Err(vec![ConfigError::new("path", "contains no rejects")]),
        (None, _) => Err(vec![ConfigError::new(
            "from",
            format!("is missing; the dataset contains rejects of several sources: {known}"),
        )]),
        (Some(name), _) if found.contains_key(name) => Ok(name.to_owned()),
        (Some(name), _) => Err(vec![ConfigError::new(
            "from",
            format!("the dataset contains no rejects of `{name}`; known: {known}"),
        )]),
    }
}

/// Finds the sources of the rejects in the files, and the columns of their records, if an original
/// is stored.
pub(super) fn found(files: &[InputFile]) -> Result<BTreeMap<String, FoundRecords>, StageError> {
    let mut sources: BTreeMap<String, FoundRecords> = BTreeMap::new();
    let mut problem = None;
    for file in files {
        let read = file
            .reopen()
            .map_err(file.stopped())
            .and_then(|input| add_sources(file, input, &mut sources));
        match read {
            Err(ReadEnd::Failed(error)) => return Err(error),
            Err(ReadEnd::Unavailable(unavailable)) if unavailable.class == ErrorClass::Process => {
                return Err(unavailable.into());
            }
            Err(ReadEnd::Unavailable(unavailable)) => {
                problem = problem.or_else(|| Some(unavailable.to_string()));
            }
            Err(ReadEnd::Rejected(refusal, _)) => problem = problem.or(Some(refusal.reason)),
            Ok(()) | Err(ReadEnd::Cancelled) => {}
        }
    }
    match problem.filter(|_| sources.is_empty()) {
        Some(problem) => Err(StageError::new(ErrorCode::InputInvalid, problem)),
        None => Ok(sources),
    }
}

/// Adds the sources of the rejects in a file.
fn add_sources(
    file: &InputFile,
    input: FileReader,
    sources: &mut BTreeMap<String, FoundRecords>,
) -> Result<(), ReadEnd> {
    let mut batches = RejectBatches::open(file, input, 1024)?;
    while let Some(batch) = batches.next().map_err(|failure| batches.stop(failure))? {
        let columns = RejectColumns::from_batch(&batch)
            .ok_or_else(|| batches.stop((RejectCode::Mismatch, not_rejects())))?;
        for row in 0..batch.num_rows() {
            let records = sources.entry(columns.from(row).to_owned()).or_default();
            if let Some(format) = columns.text_format(row) {
                records.texts.add(format, columns.record.value(row));
            } else if records.schema.is_none() {
                records.schema = columns.schema(row);
            }
        }
    }
    Ok(())
}

pub(super) fn not_rejects() -> String {
    let columns = [SOURCE, ROW, SPLIT, STAGE, CODE, FORMAT, RECORD].join(", ");
    format!("is not a file of a rejects dataset; expected at least the columns {columns}")
}
