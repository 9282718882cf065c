//! The table of the kinds of transforms.

use arrow::datatypes::SchemaRef;
use serde_json::Value;

use crate::error::config_error::ConfigError;
use crate::plan_context::PlanContext;
use crate::registry::{self, ComponentKind, KindFacts, ResolvedStage, parse_options};
use crate::transform::corrupt::config::CorruptConfig;
use crate::transform::denoise::config::DenoiseConfig;
use crate::transform::encode::config::EncodeConfig;
use crate::transform::ensemble::config::EnsembleConfig;
use crate::transform::features::config::FeaturesConfig;
use crate::transform::filter::FilterConfig;
use crate::transform::onnx::config::OnnxConfig;
use crate::transform::pixels::config::PixelsConfig;
use crate::transform::score::config::ScoreConfig;
use crate::transform::select::SelectConfig;
use crate::transform::{TransformConfig, TransformPlan};

/// The function that plans a transform of one kind from the options as written, the schema of the
/// input, and the context.
pub(crate) type PlanTransform =
    fn(
        Value,
        &SchemaRef,
        &PlanContext,
    ) -> Result<ResolvedStage<Box<dyn TransformPlan>>, Vec<ConfigError>>;

/// All kinds of transforms.
pub const KINDS: &[ComponentKind<PlanTransform>] = &[
    transform_kind::<PixelsConfig>(
        "pixels",
        "decodes, orients, resizes and normalizes images into a tensor column",
    ),
    transform_kind::<FeaturesConfig>(
        "features",
        "scales numeric columns and combines them into one vector column",
    ),
    transform_kind::<CorruptConfig>(
        "corrupt",
        "adds noise or a watermark, to test or train denoisers",
    ),
    transform_kind::<EncodeConfig>(
        "encode",
        "runs the encoder, which converts a tensor column to a latent",
    ),
    transform_kind::<DenoiseConfig>(
        "denoise",
        "runs a complete autoencoder or a denoiser on a tensor column",
    ),
    transform_kind::<OnnxConfig>(
        "onnx",
        "runs any ONNX graph, whose inputs are columns and whose outputs become columns",
    ),
    transform_kind::<ScoreConfig>(
        "score",
        "measures the reconstruction error between two tensor columns",
    ),
    transform_kind::<EnsembleConfig>(
        "ensemble",
        "averages the reconstruction errors of several models to one anomaly score",
    ),
    transform_kind::<FilterConfig>(
        "filter",
        "keeps the records that satisfy a comparison on a column",
    ),
    transform_kind::<SelectConfig>("select", "selects, renames and drops columns"),
];

/// The names of the columns that measure how well a record was reconstructed, in the order of the
/// kinds.
pub(crate) fn error_columns() -> impl Iterator<Item = &'static str> {
    KINDS
        .iter()
        .flat_map(|kind| kind.facts.error_columns.iter().copied())
}

/// The row of a kind of transform in a table of kinds.
pub(crate) const fn transform_kind<C: TransformConfig>(
    name: &'static str,
    summary: &'static str,
) -> ComponentKind<PlanTransform> {
    ComponentKind {
        name,
        summary,
        facts: KindFacts {
            file_endings: &[],
            error_columns: C::ERROR_COLUMNS,
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
