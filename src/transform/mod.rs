//! Transforms of batches: the traits, and the table of the kinds.

mod anomaly;
mod clamp_warning;
mod corrupt;
mod denoise;
mod encode;
mod ensemble;
mod feature_column;
mod features;
mod filter;
mod isolation;
mod model_columns;
mod onnx;
mod pixels;
mod preview;
pub(crate) mod raw_features;
mod raw_values;
mod raw_vectors;
pub mod registry;
mod rows;
mod score;
mod select;
mod tensor_column;
#[cfg(test)]
mod testing;
pub(crate) mod tile;
mod zero_record;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::batch::Batch;
use crate::batch::reject::RejectCollector;
use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::image::prepared::ImagePreparation;
use crate::plan_context::PlanContext;

pub(crate) use features::columns::{element_names, with_matching_columns};
pub(crate) use filter::FilterConfig as Comparison;
pub(crate) use isolation::IsolatedTransform;
pub(crate) use preview::ImagePreview;
pub(crate) use raw_values::{class_names, missing_rows, words};

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

    /// The way from encoded images to tensors, if the transform decodes images.
    fn image_preparation(&self) -> Option<&ImagePreparation> {
        None
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
    /// Names of numeric columns that the transform adds to measure how well a record was
    /// reconstructed.
    const ERROR_COLUMNS: &'static [&'static str] = &[];

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
