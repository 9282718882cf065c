//! The table of the kinds of sinks.

use arrow::datatypes::SchemaRef;
use serde_json::Value;

use crate::error::config_error::ConfigError;
use crate::plan_context::PlanContext;
use crate::registry::{self, ComponentKind, KindFacts, ResolvedStage, parse_options};
use crate::sink::discard::DiscardSinkConfig;
use crate::sink::images::config::ImagesSinkConfig;
use crate::sink::parquet::config::ParquetSinkConfig;
use crate::sink::stdout::StdoutSinkConfig;
use crate::sink::{Sink, SinkConfig};

/// A function that plans a sink of a kind from the written options, the input schema and the
/// context.
pub(crate) type PlanSink =
    fn(Value, &SchemaRef, &PlanContext) -> Result<ResolvedStage<Box<dyn Sink>>, Vec<ConfigError>>;

/// All kinds of sinks.
pub const KINDS: &[ComponentKind<PlanSink>] = &[
    sink_kind::<ParquetSinkConfig>(
        "parquet",
        "writes records to Parquet files, which become visible when they are complete",
    ),
    sink_kind::<ImagesSinkConfig>("images", "writes a tensor column as image files"),
    sink_kind::<StdoutSinkConfig>("stdout", "prints records as NDJSON, one object per line"),
    sink_kind::<DiscardSinkConfig>("discard", "drops records, for benchmarks"),
];

/// The row of a kind of sink in a table of kinds.
pub(crate) const fn sink_kind<C: SinkConfig>(
    name: &'static str,
    summary: &'static str,
) -> ComponentKind<PlanSink> {
    ComponentKind {
        name,
        summary,
        facts: KindFacts {
            file_endings: &[],
            error_columns: &[],
        },
        schema: |generator| generator.subschema_for::<C>(),
        check: |written| parse_options::<C>(written).err().unwrap_or_default(),
        plan: |written, input, context| {
            let mut config = parse_options::<C>(written)?;
            Ok(ResolvedStage {
                stage: config.plan(input, context)?,
                options: registry::option_values(&config)?,
            })
        },
    }
}
