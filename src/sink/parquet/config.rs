//! The options of the sink `parquet`.

use std::cell::RefCell;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::arrow_size::record_bytes;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::plan_context::PlanContext;
use crate::sink::column_selection::ColumnSelection;
use crate::sink::parquet::ParquetSink;
use crate::sink::parquet::file::ParquetFileWriter;
use crate::sink::parquet::options::{ParquetCompression, ParquetOptions, RowGroupConfig};
use crate::sink::parquet::stored_columns::StoredColumns;
use crate::sink::{Sink, SinkConfig};
use crate::storage::{Location, LocationError};
use crate::units::ByteSize;

/// Options of the sink `parquet`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct ParquetSinkConfig {
    /// The folder of the files, which is created if it does not exist. It holds only the output of
    /// this stage. May be `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix` in
    /// a build with object stores.
    #[schemars(extend("x-changes-rows" = false, "format" = "path"))]
    pub path: PathBuf,
    /// The columns to write, in this order. Default: all columns.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true, "x-inferred" = true))]
    pub columns: Option<Vec<String>>,
    /// Limits of a file, after which the next one starts.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub file: RollingPolicy,
    /// Limits of a row group.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub row_group: RowGroupConfig,
    /// Compression of pages.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub compression: ParquetCompression,
    /// What a run does if its models, the statistics in their cards, or the thresholds of `filter`
    /// differ from those of the files in the folder: `refuse` it, or `continue` in new files, without
    /// processing the source rows of the former files again. `continue` adds three columns of text:
    /// `model_digest` (the first 12 digits of the digest of each model), `thresholds` (such as
    /// `alarms.above=3`), and `configuration` (the first 12 digits of the digest in the footer).
    /// Other changes are refused. Default: refuse.
    #[serde(default, skip_serializing_if = "ChangeHandling::is_refuse")]
    #[schemars(extend("x-changes-rows" = false))]
    pub on_change: ChangeHandling,
    /// Whether the files hold originals of records, which only the user may read.
    #[serde(skip)]
    pub(super) is_private: bool,
}

/// The treatment of a change of models and thresholds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChangeHandling {
    /// The run is refused.
    #[default]
    Refuse,
    /// The run continues in new files.
    Continue,
}

impl ChangeHandling {
    fn is_refuse(&self) -> bool {
        *self == Self::Refuse
    }
}

/// Limits of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(crate) struct RollingPolicy {
    /// Maximum size of a file in bytes before encoding. A batch is not split for this limit: a
    /// single larger batch gets its own file. Default: 256 MiB.
    pub bytes: ByteSize,
    /// Maximum number of records of a file. A larger batch is split, except that the records of one
    /// source row, such as the tiles of an image, stay together. `latentflow compact` merges such
    /// files, and limits them with its option `--records`. Default: unlimited.
    pub records: Option<NonZeroU64>,
}

impl Default for RollingPolicy {
    fn default() -> Self {
        Self {
            bytes: ByteSize(256 << 20),
            records: None,
        }
    }
}

impl SinkConfig for ParquetSinkConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn Sink>, Vec<ConfigError>> {
        self.sink_in(context.output_folder(&self.path), input)
    }
}

impl ParquetSinkConfig {
    /// The options of a rejects dataset: defaults without encoder threads, since rejects are few.
    pub(crate) fn new(path: &Path) -> Self {
        let (file, compression) = (RollingPolicy::default(), ParquetCompression::default());
        let row_group = RowGroupConfig {
            encoders: Some(0),
            ..RowGroupConfig::default()
        };
        Self {
            path: path.to_path_buf(),
            columns: None,
            file,
            row_group,
            compression,
            on_change: ChangeHandling::Refuse,
            is_private: true,
        }
    }

    /// The sink for records of this schema.
    ///
    /// # Errors
    /// All faults of the options.
    pub(crate) fn sink(&mut self, input: &Schema) -> Result<Box<dyn Sink>, Vec<ConfigError>> {
        self.sink_in(Location::from_path(&self.path), input)
    }

    /// As [`Self::sink`], in `folder` instead of the configured path.
    fn sink_in(
        &mut self,
        folder: Result<Location, LocationError>,
        input: &Schema,
    ) -> Result<Box<dyn Sink>, Vec<ConfigError>> {
        let mut faults = Vec::new();
        if self.path.as_os_str().is_empty() {
            faults.push(ConfigError::new("path", "is empty; expected a folder"));
        }
        for (key, bytes) in [
            ("file.bytes", self.file.bytes),
            ("row_group.bytes", self.row_group.bytes),
        ] {
            if bytes.0 == 0 {
                faults.push(ConfigError::new(
                    key,
                    "is 0; expected a size such as \"64MiB\"",
                ));
            }
        }
        let folder = faults.record(folder.map_err(|error| error.at("path")));
        let selected = ColumnSelection::select(self.columns.as_deref(), input);
        let planned = selected.and_then(|columns| {
            self.columns = Some(columns.names());
            let columns = match self.on_change {
                ChangeHandling::Refuse => StoredColumns::new(columns),
                ChangeHandling::Continue => StoredColumns::with_writer(columns)?,
            };
            let format = ParquetOptions::new(
                SchemaRef::clone(columns.schema()),
                self.compression,
                self.row_group,
            )?;
            Ok((columns, format))
        });
        match (planned, folder) {
            (Ok((columns, format)), Some(folder)) if faults.is_empty() => {
                let file = self.file;
                let is_private = self.is_private;
                Ok(Box::new(ParquetSink {
                    folder,
                    columns,
                    format,
                    compression: self.compression,
                    file,
                    is_private,
                    on_change: self.on_change,
                    claimed: RefCell::default(),
                    latest_schema: RefCell::default(),
                }))
            }
            (Ok(_), _) => Err(faults),
            (Err(more), _) => Err(faults.into_iter().chain(more).collect()),
        }
    }
}

impl RollingPolicy {
    pub(super) fn has_room(&self, part: &ParquetFileWriter, records: &RecordBatch) -> bool {
        let bytes = part.bytes().saturating_add(record_bytes(records));
        let rows = part.records().saturating_add(records.num_rows() as u64);
        bytes <= self.bytes.0 && self.records.is_none_or(|limit| rows <= limit.get())
    }
}
