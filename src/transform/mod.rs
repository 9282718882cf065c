//! Transforms of batches: the traits, and the table of the kinds.

mod rows;
mod corrupt;
mod denoise;
mod encode;
mod features;
mod filter;
mod isolation;
mod preview;
mod pixels;
mod score;
mod select;
#[cfg(test)]
mod testing;
mod model_columns;
pub(crate) mod tile;
mod anomaly;
mod feature_column;
mod zero_record;
mod clamp_warning;
pub(crate) mod raw_features;

pub use encode::RECONSTRUCTION_ERROR;
pub(crate) use features::element_names;
pub use filter::FilterConfig as Comparison;
pub use isolation::IsolatedTransform;
pub use preview::ImagePreview;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::batch::{Batch, RejectCollector};
use crate::error::{ConfigError, StageError};
use crate::plan_context::PlanContext;
use crate::registry::{self, ComponentKind, ResolvedStage, parse_options};

/// A transform that has been checked against its input, and is instantiated once per worker.
pub trait TransformPlan: Send + Sync {
    /// The schema of the output.
    fn schema(&self) -> SchemaRef;

    /// Builds an instance for one worker. Expensive resources, such as a session, are created here.
    ///
    /// # Errors
    /// If a resource cannot be acquired.
    fn build(&self) -> Result<Box<dyn Transform>, StageError>;

    /// The name of the model, for the metrics of the reconstruction error; `None` if the transform
    /// does not compute it.
    fn model(&self) -> Option<&str> {
        None
    }

    /// Whether the rows depend on the identity of a record, which is its split and row: noise is drawn
    /// from it.
    fn depends_on_identity(&self) -> bool {
        false
    }

    /// The dependencies of the rows other than the options, the input and the files of the model. A
    /// change of this text changes the fingerprint of the output.
    fn depends_on(&self) -> Option<String> {
        None
    }

    /// The number of bytes that the output takes per pixel of the decoded images, if rows have no
    /// fixed size; 0 otherwise.
    fn bytes_per_pixel(&self) -> u64 {
        0
    }

    /// The maximum number of bytes that an instance holds while it processes a batch, without the
    /// input and output.
    fn scratch_bytes(&self) -> u64 {
        0
    }

    /// One line for `check` that describes the effect of the options and the model.
    fn summary(&self) -> String {
        String::new()
    }
}

/// A running transform, which converts one batch to one batch. It uses no clock, no channel and no
/// state that outlives the batch, so that a replay gives the same bytes. A record that it cannot
/// use is added to `rejects` and left out of the output.
pub trait Transform: Send {
    /// Returns the batch with other columns or fewer rows. The output of a batch without rows has
    /// no rows and the planned schema.
    ///
    /// # Errors
    /// An unexpected error, for which [`IsolatedTransform`] finds the record that causes it. An
    /// error of the environment, or an error on every record, ends the run.
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError>;

    /// Returns an image of `input` and the image that the model computes from it, for display.
    /// `output` is the result of [`Transform::apply`] for `input`. `None` if the transform does not
    /// compute images.
    fn preview(&mut self, _input: &Batch, _output: &Batch) -> Option<ImagePreview> {
        None
    }

    /// Performs the one-time work that would otherwise delay the first batch.
    ///
    /// # Errors
    /// If the model fails, and thus cannot process any record.
    fn warm_up(&mut self) -> Result<(), StageError> {
        Ok(())
    }
}

/// The options of one kind of transform.
pub trait TransformConfig: DeserializeOwned + Serialize + JsonSchema {
    /// Checks the options against the columns of the input, sets the missing options, and
    /// determines the columns of the output.
    ///
    /// # Errors
    /// All faults, with keys relative to the stage.
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>>;
}

/// The function that plans a transform of one kind from the options as written, the schema of the
/// input, and the context.
pub type PlanTransform = fn(
    Value,
    &SchemaRef,
    &PlanContext,
) -> Result<ResolvedStage<Box<dyn TransformPlan>>, Vec<ConfigError>>;

/// All kinds of transforms.
pub const KINDS: &[ComponentKind<PlanTransform>] = &[
    kind::<pixels::PixelsConfig>(
        "pixels",
        "decodes, orients, resizes and normalizes images into a tensor column",
    ),
    kind::<features::FeaturesConfig>(
        "features",
        "scales numeric columns and combines them into one vector column",
    ),
    kind::<corrupt::CorruptConfig>(
        "corrupt",
        "adds noise or a watermark, to test or train denoisers",
    ),
    kind::<encode::EncodeConfig>(
        "encode",
        "runs the encoder, which converts a tensor column to a latent",
    ),
    kind::<denoise::DenoiseConfig>(
        "denoise",
        "runs a complete autoencoder or a denoiser on a tensor column",
    ),
    kind::<score::ScoreConfig>(
        "score",
        "measures the reconstruction error between two tensor columns",
    ),
    kind::<filter::FilterConfig>(
        "filter",
        "keeps the records that satisfy a comparison on a column",
    ),
    kind::<select::SelectConfig>("select", "selects, renames and drops columns"),
];

const fn kind<C: TransformConfig>(
    name: &'static str,
    summary: &'static str,
) -> ComponentKind<PlanTransform> {
    ComponentKind {
        name,
        summary,
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
