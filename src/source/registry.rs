//! The table of the kinds of sources.

use serde_json::Value;

use crate::error::config_error::ConfigError;
use crate::plan_context::PlanContext;
use crate::registry::{self, ComponentKind, KindFacts, ResolvedStage, parse_options};
use crate::source::batch_size::BatchSize;
use crate::source::embedded::{self, EmbeddedSourceConfig};
use crate::source::http::config::HttpSourceConfig;
use crate::source::images::config::ImagesSourceConfig;
use crate::source::images::tar::TarSourceConfig;
use crate::source::rejects::config::RejectsSourceConfig;
use crate::source::synthetic::config::SyntheticSourceConfig;
use crate::source::table::arrays::idx::config::IdxSourceConfig;
use crate::source::table::arrays::npz::config::NpzSourceConfig;
use crate::source::table::arrow_ipc::ArrowSourceConfig;
use crate::source::table::parquet::config::ParquetSourceConfig;
use crate::source::table::text::csv::config::CsvSourceConfig;
use crate::source::table::text::ndjson::NdjsonSourceConfig;
use crate::source::{Source, SourceConfig};

/// Plans a source from the name of its stage, its options as written, its batch size and the
/// context.
pub(crate) type PlanSource = fn(
    &str,
    Value,
    BatchSize,
    &PlanContext,
) -> Result<ResolvedStage<Box<dyn Source>>, Vec<ConfigError>>;

/// The kind of source that reads a folder if its files determine none.
pub(crate) const FOLDER_KIND: &str = "images";

/// Every kind of source.
pub const KINDS: &[ComponentKind<PlanSource>] = &[
    source_kind::<ImagesSourceConfig>(FOLDER_KIND, "image files of a folder or a glob"),
    source_kind::<ParquetSourceConfig>(
        "parquet",
        "columns of Parquet files: features, or encoded images",
    ),
    source_kind::<CsvSourceConfig>("csv", "records of delimited text"),
    source_kind::<NdjsonSourceConfig>("ndjson", "records as JSON objects, one per line"),
    source_kind::<ArrowSourceConfig>(
        "arrow",
        "columns of Arrow IPC files (Feather) and streams: features, or encoded images",
    ),
    source_kind::<IdxSourceConfig>(
        "idx",
        "images or features of IDX files (MNIST), with their labels",
    ),
    source_kind::<NpzSourceConfig>("npz", "arrays of NumPy archives (.npz) and files (.npy)"),
    source_kind::<TarSourceConfig>("tar", "images in tar shards (WebDataset)"),
    source_kind::<HttpSourceConfig>(
        "http",
        "images or records from HTTP clients, each acknowledged once it is durable",
    ),
    source_kind::<EmbeddedSourceConfig>(
        embedded::NAME,
        "records that a program supplies, such as the Python package",
    ),
    source_kind::<RejectsSourceConfig>(
        "rejects",
        "records that an earlier run rejected, for a corrected pipeline",
    ),
    source_kind::<SyntheticSourceConfig>(
        "synthetic",
        "synthetic data from a seed: dead-leaves images or correlated features",
    ),
];

/// The row of a kind of source in a table of kinds.
pub(crate) const fn source_kind<C: SourceConfig>(
    name: &'static str,
    summary: &'static str,
) -> ComponentKind<PlanSource> {
    ComponentKind {
        name,
        summary,
        facts: KindFacts {
            file_endings: C::FILE_ENDINGS,
            error_columns: &[],
        },
        schema: |generator| generator.subschema_for::<C>(),
        check: |written| parse_options::<C>(written).err().unwrap_or_default(),
        plan: |stage, written, batch, context| {
            let mut config = parse_options::<C>(written)?;
            Ok(ResolvedStage {
                stage: config.plan(stage, batch, context)?,
                options: registry::option_values(&config)?,
            })
        },
    }
}
