//! Sinks: where records end. The traits, and the table of kinds.

pub mod marker;

use std::path::Path;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::batch::Batch;
use crate::context::Context;
use crate::coverage::Coverage;
use crate::error::{Fault, StageError};
use crate::kind::{Kind, options};

/// The folder inside a sink's own that holds what is not data: markers, journals, rejects.
/// Its leading underscore hides it from readers of datasets.
pub const STATE: &str = "_latentflow";

/// A sink as planned: checked against its input, nothing has been touched.
pub trait Sink: Send {
    /// The folder that it writes, where what it writes outlives the run.
    fn folder(&self) -> Option<&Path>;

    /// The source rows that earlier runs made durable, by its own files.
    ///
    /// # Errors
    /// When files cannot be read, or were written by a pipeline with another digest.
    fn committed(&self, identity: &Identity) -> Result<Coverage, StageError>;

    /// Removes what a crash left behind and makes ready to write.
    ///
    /// # Errors
    /// When the folder cannot be written.
    fn open(self: Box<Self>, identity: Identity) -> Result<Box<dyn Writer>, StageError>;
}

/// A sink at work. Every batch number comes in ascending order, empty batches too: their rows are done as well.
pub trait Writer: Send {
    /// Takes a batch; may commit on its own when a file is full.
    ///
    /// # Errors
    /// When it cannot be written: the run ends, what was committed stays.
    fn write(&mut self, batch: &Batch) -> Result<(), StageError>;

    /// Makes everything that was taken durable, together with its provenance, or fails; nothing in between.
    ///
    /// # Errors
    /// When it cannot be made durable.
    fn commit(&mut self) -> Result<(), StageError>;

    /// What was committed so far.
    fn written(&self) -> Written;
}

/// What a sink has committed in this run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Files that bear their final name.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their records.
    pub records: u64,
}

/// Who wrote a file: goes into every footer, and is checked before more is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The pipeline's name.
    pub pipeline: String,
    /// The sink's stage name.
    pub stage: String,
    /// Over all that lies upstream of the sink and changes its rows: stages, options, models.
    pub digest: String,
    /// Model name and digest, for each model upstream.
    pub models: Vec<(String, String)>,
}

/// The options of a kind of sink.
pub trait SinkConfig: DeserializeOwned + JsonSchema {
    /// Checks the options against the columns that come in.
    ///
    /// # Errors
    /// Every fault that was found, keys relative to the stage.
    fn plan(self, input: &SchemaRef, context: &Context) -> Result<Box<dyn Sink>, Vec<Fault>>;
}

/// How a sink of some kind is planned: options as written, schema of its input, context.
pub type PlanSink = fn(Value, &SchemaRef, &Context) -> Result<Box<dyn Sink>, Vec<Fault>>;

/// Every kind of sink.
pub const KINDS: &[Kind<PlanSink>] = &[];

const fn kind<C: SinkConfig>(name: &'static str, summary: &'static str) -> Kind<PlanSink> {
    Kind {
        name,
        summary,
        schema: |generator| generator.subschema_for::<C>(),
        plan: |written, input, context| options::<C>(written)?.plan(input, context),
    }
}
