//! Sinks: where records end. The traits, and the table of kinds.

mod columns;
pub mod dataset;
mod discard;
mod encoder;
pub mod footer;
mod images;
pub mod lock;
pub mod marker;
mod names;
mod parquet;
pub mod part;
pub mod rejects;
mod stdout;

use std::collections::BTreeSet;
use std::path::Path;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl Identity {
    /// Whether what `folder` holds, written under `found`, may be added to.
    ///
    /// # Errors
    /// When the digests differ: names what is known to differ, and says what to do.
    pub fn check(&self, folder: &Path, found: &Self) -> Result<(), StageError> {
        if self.digest == found.digest {
            return Ok(());
        }
        let differ = |what: &str, mine: &str, theirs: &str| {
            (mine != theirs).then(|| format!("{what} was `{theirs}` and is `{mine}` now"))
        };
        let digest = |models: &[(String, String)], name: &str| {
            let model = models.iter().find(|(model, _)| model == name);
            model.map_or_else(|| "absent".to_owned(), |(_, digest)| digest.clone())
        };
        let models: BTreeSet<&String> = self.models.iter().chain(&found.models).map(|(name, _)| name).collect();
        let models = models.into_iter().map(|name| {
            differ(&format!("the model `{name}`"), &digest(&self.models, name), &digest(&found.models, name))
        });
        let names =
            [differ("the pipeline", &self.pipeline, &found.pipeline), differ("the stage", &self.stage, &found.stage)];
        let mut differences: Vec<String> = names.into_iter().chain(models).flatten().collect();
        if differences.is_empty() {
            differences.push("options of the stages before it have changed".to_owned());
        }
        Err(StageError::Other(format!(
            "{}: holds the output of stage `{}` of pipeline `{}`, which made other rows: {}; \
             write to another path, or remove the folder to make it anew",
            folder.display(),
            found.stage,
            found.pipeline,
            differences.join(", "),
        )))
    }
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
pub const KINDS: &[Kind<PlanSink>] = &[
    kind::<parquet::Config>("parquet", "writes records to Parquet files, each file whole or not at all"),
    kind::<images::Config>("images", "writes a tensor column as image files"),
    kind::<stdout::Config>("stdout", "prints records as NDJSON, one object a line"),
    kind::<discard::Config>("discard", "drops records, for benchmarks"),
];

const fn kind<C: SinkConfig>(name: &'static str, summary: &'static str) -> Kind<PlanSink> {
    Kind {
        name,
        summary,
        schema: |generator| generator.subschema_for::<C>(),
        check: |written| options::<C>(written).err().unwrap_or_default(),
        plan: |written, input, context| options::<C>(written)?.plan(input, context),
    }
}
