//! The `ndjson` source reads one JSON object per line.

mod inference;
mod parser;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::plan_context::PlanContext;
use crate::source::batch_limits::BatchLimits;
use crate::source::batch_size::BatchSize;
use crate::source::discovery::compression::{Compression, decompression_memory};
use crate::source::discovery::file_checkpoints::OnChange;
use crate::source::discovery::hive_partitions::HivePartitions;
use crate::source::discovery::input_file::{self, InputFile};
use crate::source::discovery::read_end::ReadEnd;
use crate::source::discovery::share::SourceShare;
use crate::source::table::file_source::source::ReadPolicy;
use crate::source::table::file_source::{BatchOutput, FileFormat, FileSource, check_names};
use crate::source::table::text::column_type::ColumnType;
use crate::source::table::text::read_all;
use crate::source::{Source, SourceConfig};
use crate::storage::FileReader;

use inference::{infer, open};

pub(crate) use parser::NdjsonParser;

/// Reads records as JSON objects, one per line. Fields that are not columns are ignored; a column
/// that a record lacks is null.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct NdjsonSourceConfig {
    /// A file, a folder (all *.ndjson and *.jsonl files in it and in its subfolders, also with
    /// `.gz` or `.zst` after their names) or a glob. Files whose names end with `.gz` or `.zst` are
    /// decompressed while they are read.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    pub path: String,
    /// Types by column, also of columns that the sampled records do not have: `float`, `int`,
    /// `uint`, `decimal(10, 2)`, `string`, `bool`, `date`, `timestamp`, `timestamp[ms]`,
    /// `timestamp[ns]`, `timestamp[us, UTC]`. Default: the narrowest types that hold the values
    /// without loss, inferred from up to 64 MiB of the files: the beginning of each, and further
    /// blocks of large ones. A later value that does not fit is a reject.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true, "x-inferred" = true))]
    pub types: BTreeMap<String, ColumnType>,
    /// How to treat a file that has changed since an earlier run read it. If lines were appended,
    /// only these are read. After any other change, `new` reads the file as a new file and warns
    /// that the rows of its earlier version stay in the output; `refuse` ends `check` and `run`
    /// with an error that names the file. Default: new.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub on_change: OnChange,
}

impl SourceConfig for NdjsonSourceConfig {
    const FILE_ENDINGS: &'static [&'static str] = &["ndjson", "jsonl"];

    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let record_bytes = context.limits.record_bytes.0;
        let path = |error: StageError| vec![ConfigError::from_error("path", &error)];
        let files = input_file::list(name, &self.path, NdjsonFormat::EXTENSIONS).map_err(path)?;
        let (inferred, notes) = infer(&files, record_bytes).map_err(path)?;
        let given = self.types.keys().cloned().collect();
        let schema = self.typed(&inferred);
        check_names(schema.fields().iter().map(|field| field.name()))
            .map_err(|what| vec![ConfigError::new("path", what)])?;
        self.types = ColumnType::all(&schema);
        let format = NdjsonFormat {
            parser: NdjsonParser::with_given(SchemaRef::clone(&schema), given, record_bytes),
            record_bytes,
            batch_limits: BatchLimits::features(batch),
            buffer_bytes: decompression_memory(files.iter().map(|file| file.name.as_str())),
        };
        let policy = ReadPolicy::new(self.on_change, SourceShare::new(context.shard));
        let source = FileSource::new(name, &self.path, &schema, format, policy);
        let partitions = HivePartitions::infer(&files, &schema);
        Ok(Box::new(
            source.with_notes(notes).with_partitions(partitions),
        ))
    }
}

impl NdjsonSourceConfig {
    fn typed(&self, inferred: &Schema) -> SchemaRef {
        let given = |name: &String| self.types.get(name).map(|given| given.data_type());
        let known = inferred.fields().iter().map(|field| {
            let data_type = given(field.name()).unwrap_or_else(|| field.data_type().clone());
            Field::new(field.name(), data_type, true)
        });
        let unseen = self
            .types
            .iter()
            .filter(|(name, _)| inferred.column_with_name(name).is_none());
        let unseen =
            unseen.map(|(name, column_type)| Field::new(name, column_type.data_type(), true));
        Arc::new(Schema::new(known.chain(unseen).collect::<Vec<_>>()))
    }
}

/// The format of planned NDJSON files.
struct NdjsonFormat {
    parser: NdjsonParser,
    record_bytes: u64,
    batch_limits: BatchLimits,
    buffer_bytes: u64,
}

impl FileFormat for NdjsonFormat {
    const EXTENSIONS: &'static [&'static str] = &[
        "ndjson",
        "jsonl",
        "ndjson.gz",
        "jsonl.gz",
        "ndjson.zst",
        "jsonl.zst",
    ];

    fn is_appendable(&self, file: &InputFile) -> bool {
        Compression::of_name(&file.name).is_none()
    }

    fn buffer_bytes(&self) -> u64 {
        self.buffer_bytes
    }

    fn read(
        &self,
        file: &InputFile,
        input: FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        let framer = open(file, output.track(input), self.record_bytes)?;
        read_all(framer, &self.parser, self.batch_limits, output).map(drop)
    }

    fn finish(&self, stage: &str) {
        self.parser.misfits().report(stage);
    }
}

#[cfg(test)]
mod tests;
