//! Transforms: what becomes of a batch. The traits, and the table of kinds.

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

pub use encode::RECONSTRUCTION_ERROR;
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

/// A transform as planned: checked against its input, instantiated once per worker.
pub trait TransformPlan: Send + Sync {
    /// The columns of what comes out.
    fn schema(&self) -> SchemaRef;

    /// An instance for one worker; what is expensive (a session) is made here.
    ///
    /// # Errors
    /// When a resource cannot be had.
    fn build(&self) -> Result<Box<dyn Transform>, StageError>;

    /// The model that it runs, for the metrics of reconstruction error.
    fn model(&self) -> Option<&str> {
        None
    }

    /// What its rows depend on beside its options, its input and the files of its model: such
    /// output is another.
    fn depends_on(&self) -> Option<String> {
        None
    }

    /// Bytes that it writes per pixel of the source's decoded images, where rows have no fixed
    /// size.
    fn bytes_per_pixel(&self) -> u64 {
        0
    }

    /// Bytes that an instance holds at most while it works, beside its input and output.
    fn scratch_bytes(&self) -> u64 {
        0
    }

    /// One line for `check`: what the options and the model came to.
    fn summary(&self) -> String {
        String::new()
    }
}

/// One batch in, one batch out: no clock, no channel, no state that outlives the batch, so that a
/// replay gives the same bytes. A record that it cannot use goes to `rejects` and is left out.
pub trait Transform: Send {
    /// The batch with other columns, or fewer rows. A batch without rows must come out without
    /// rows, in the planned schema.
    ///
    /// # Errors
    /// An error that it does not expect of a record: [`IsolatedTransform`] finds the record that
    /// causes it. An error of the environment, or on every record, ends the run.
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError>;

    /// One of the images that came in as `input` beside what the model makes of it, for people to
    /// look at; `output` is what [`Transform::apply`] gave for them. `None` where it makes no
    /// images.
    fn preview(&mut self, _input: &Batch, _output: &Batch) -> Option<ImagePreview> {
        None
    }

    /// Does once what the first batch would else wait for.
    ///
    /// # Errors
    /// When the model fails: it is of no use for any record.
    fn warm_up(&mut self) -> Result<(), StageError> {
        Ok(())
    }
}

/// The options of a kind of transform.
pub trait TransformConfig: DeserializeOwned + Serialize + JsonSchema {
    /// Checks the options against the columns that come in, fills in those that were left out, and
    /// fixes the columns that go out.
    ///
    /// # Errors
    /// Every fault that was found, keys relative to the stage.
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>>;
}

/// How a transform of some kind is planned: options as written, schema of its input, context.
pub type PlanTransform = fn(
    Value,
    &SchemaRef,
    &PlanContext,
) -> Result<ResolvedStage<Box<dyn TransformPlan>>, Vec<ConfigError>>;

/// Every kind of transform.
pub const KINDS: &[ComponentKind<PlanTransform>] = &[
    kind::<pixels::PixelsConfig>(
        "pixels",
        "decode, orient, resize and normalise images into a tensor column",
    ),
    kind::<features::FeaturesConfig>(
        "features",
        "chooses numeric columns, scales them, puts them into one vector column",
    ),
    kind::<corrupt::CorruptConfig>(
        "corrupt",
        "adds noise or a watermark, to test or train denoisers",
    ),
    kind::<encode::EncodeConfig>(
        "encode",
        "runs the encoder: a tensor column becomes a latent",
    ),
    kind::<denoise::DenoiseConfig>("denoise", "runs the whole autoencoder, or a denoiser"),
    kind::<score::ScoreConfig>(
        "score",
        "measures the reconstruction error between two tensor columns",
    ),
    kind::<filter::FilterConfig>(
        "filter",
        "keeps the records for which a comparison on a column holds",
    ),
    kind::<select::SelectConfig>("select", "chooses, renames and drops columns"),
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
