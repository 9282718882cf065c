//! The part of a pipeline between its source and its sink, for programs that read and write the
//! records themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use serde_json::{Map, Value};

use super::{Kinds, resolve_for};
use crate::columns::{ROW, SOURCE};
use crate::config::Diagnostics;
use crate::config::settings::{PipelineConfig, StageTable};
use crate::error::config_error::ConfigError;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::plan::pipeline::Plan;
use crate::plan::stage::{Stage, StageOperator};
use crate::registry::did_you_mean;
use crate::sink;
use crate::source::batch_size::BatchSize;
use crate::source::embedded;

/// The stages of a pipeline that an embedding program replaces.
#[derive(Debug, Clone, Default)]
pub struct EmbeddedEnds {
    /// The columns of the records that the program supplies. `None`: the columns of the pipeline's
    /// own source `embedded`, or images.
    pub columns: Option<SchemaRef>,
    /// The name of the source. Default: the only one.
    pub source: Option<String>,
    /// The name of the sink. Default: the first one.
    pub sink: Option<String>,
}

/// Resolves the stages between a source and a sink. Other sources, sinks and models are not looked
/// at, and neither are the files of the replaced source. The plan has one worker, since the program
/// supplies the threads.
///
/// # Errors
/// As [`resolve`](super::resolve), and if the source or the sink cannot be determined.
pub(crate) fn resolve_embedded(
    mut spec: PipelineConfig,
    ends: &EmbeddedEnds,
    metrics: &Arc<Metrics>,
) -> Result<EmbeddedPlan, Diagnostics> {
    if let Err(fault) = keep_between(&mut spec, ends) {
        return Err(Diagnostics::new(&spec.key_spans, vec![fault]));
    }
    spec.settings.workers = Some(std::num::NonZeroU16::MIN);
    spec.settings.state = None;
    spec.settings.rejects.path = None;
    let key_spans = spec.key_spans.clone();
    let tables = spec.models.iter();
    let options: BTreeMap<String, BTreeMap<String, PathBuf>> = tables
        .map(|table| (table.name.clone(), table.paths()))
        .collect();
    let plan = resolve_for(spec, &Kinds::default(), metrics, ends.columns.clone())?;
    let unidentified = |stage: &Stage| {
        let message = "draws random numbers from the identity of a record, which is its `source` \
                       and `row`; supply the column `source`";
        let fault = ConfigError::new(format!("stages.{}", stage.name), message);
        Diagnostics::new(&key_spans, vec![fault])
    };
    let has_source = ends
        .columns
        .as_ref()
        .is_none_or(|columns| columns.column_with_name(SOURCE).is_some());
    let depends = |stage: &&Stage| match &stage.operator {
        StageOperator::Transform(transform) => transform.depends_on_identity(),
        StageOperator::Source(..) | StageOperator::Sink(..) => false,
    };
    if let Some(stage) = plan.stages.iter().find(depends).filter(|_| !has_source) {
        return Err(unidentified(stage));
    }
    EmbeddedPlan::new(plan, has_source, &options).ok_or_else(|| {
        let fault = ConfigError::new("stages", "the pipeline has no source and sink");
        Diagnostics::new(&key_spans, vec![fault])
    })
}

/// A resolved pipeline with one source and one sink, which an embedding program replaces.
pub(crate) struct EmbeddedPlan {
    /// The plan.
    pub plan: Plan,
    /// The columns of the source, and the limits of its batches.
    pub input: (SchemaRef, BatchSize),
    /// Whether the records have the column `source`.
    pub has_source: bool,
    /// The columns that the sink would write, without the origin of records that have none.
    pub output: SchemaRef,
    /// The digest of the options and models of all stages before the sink.
    pub digest: String,
    /// The digests of the models by their names.
    pub models: BTreeMap<String, String>,
    /// The files of the models by their names.
    pub files: BTreeMap<String, EmbeddedModelFiles>,
}

/// The files of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EmbeddedModelFiles {
    /// The options with paths: `path`, or `encoder`, `decoder`, `model` and `preprocessor`.
    pub options: BTreeMap<String, PathBuf>,
    /// All files.
    pub paths: BTreeSet<PathBuf>,
}

impl EmbeddedPlan {
    fn new(
        plan: Plan,
        has_source: bool,
        options: &BTreeMap<String, BTreeMap<String, PathBuf>>,
    ) -> Option<Self> {
        let source = plan.stages.iter().find_map(|stage| match &stage.operator {
            StageOperator::Source(source, batch) => Some((source.schema(), *batch)),
            _ => None,
        });
        let sink = plan.stages.iter().find_map(|stage| match &stage.operator {
            StageOperator::Sink(sink, identity) => Some((stage, sink, identity)),
            _ => None,
        });
        let (input, (last, sink, identity)) = (source?, sink?);
        let inputs = || last.inputs.iter().map(|&index| &plan.stages[index]);
        let output = match sink.embedded_encoder() {
            Some(encoder) => encoder.schema(),
            None => inputs().next()?.schema()?,
        };
        let digests = inputs().filter_map(|stage| identity.stages.get(&*stage.name));
        let digest =
            crate::plan::fingerprint_input::of_parts(digests.map(|stage| stage.digest.as_str()));
        let models = identity.models.clone();
        let of_model = |model: &Arc<Model>| {
            let name = model.name().to_owned();
            let files = EmbeddedModelFiles {
                options: options.get(&name)?.clone(),
                paths: model.paths().clone(),
            };
            Some((name, files))
        };
        let files = plan.models.iter().filter_map(of_model).collect();
        Some(Self {
            output: if has_source {
                output
            } else {
                without_origin(&output)
            },
            input,
            has_source,
            digest,
            models,
            files,
            plan,
        })
    }
}

fn without_origin(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter();
    let kept = fields.filter(|field| ![SOURCE, ROW].contains(&field.name().as_str()));
    let metadata = schema.metadata().clone();
    Arc::new(Schema::new_with_metadata(
        kept.cloned().collect::<Vec<_>>(),
        metadata,
    ))
}

/// Removes all stages that are not between the source and the sink, and models without a stage.
fn keep_between(spec: &mut PipelineConfig, ends: &EmbeddedEnds) -> Result<(), ConfigError> {
    let names_of = |is_end: &dyn Fn(&StageTable) -> bool| -> Vec<String> {
        let stages = spec.stages.iter().filter(|stage| is_end(stage));
        stages.map(|stage| stage.name.clone()).collect()
    };
    let sources = names_of(&|stage| stage.inputs.is_empty());
    // Some kinds are both a source and a sink.
    let is_sink = |stage: &StageTable| {
        !stage.inputs.is_empty()
            && sink::registry::KINDS
                .iter()
                .any(|kind| kind.name == stage.kind)
    };
    let sinks = names_of(&is_sink);
    let source = match (&ends.source, sources.as_slice()) {
        (Some(name), _) => named("source", name, &sources)?,
        (None, [only]) => only.clone(),
        (None, _) => {
            let message = format!(
                "the pipeline has the sources {}; select the one whose records are supplied, with \
                 the argument `source`",
                sources.join(", ")
            );
            return Err(ConfigError::new("stages", message));
        }
    };
    let sink = match (&ends.sink, sinks.first()) {
        (Some(name), _) => named("sink", name, &sinks)?,
        (None, Some(first)) => first.clone(),
        (None, None) => {
            let message = "the pipeline has no sink, whose columns are the result";
            return Err(ConfigError::new("stages", message));
        }
    };
    let kept = between(&spec.stages, &source, &sink);
    if !kept.contains(&sink) {
        let message = format!("records of the source `{source}` do not reach the sink `{sink}`");
        return Err(ConfigError::new(format!("stages.{sink}"), message));
    }
    spec.stages.retain(|stage| kept.contains(&stage.name));
    for stage in &mut spec.stages {
        stage.inputs.retain(|input| kept.contains(input));
        if stage.name == source {
            replace_source(stage);
        }
    }
    let used: BTreeSet<String> = spec
        .stages
        .iter()
        .flat_map(|stage| stage.models().map(str::to_owned))
        .collect();
    spec.models.retain(|model| used.contains(&model.name));
    Ok(())
}

fn named(role: &str, name: &str, known: &[String]) -> Result<String, ConfigError> {
    if known.iter().any(|other| other == name) {
        return Ok(name.to_owned());
    }
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    let near = did_you_mean(name, &names);
    let message = format!(
        "the pipeline has no {role} `{name}`{near}; it has: {}",
        names.join(", ")
    );
    Err(ConfigError::new("stages", message))
}

/// The names of the stages that records of `source` pass on their way to `sink`, with both ends.
fn between(stages: &[StageTable], source: &str, sink: &str) -> BTreeSet<String> {
    let inputs: BTreeMap<&str, &[String]> = stages
        .iter()
        .map(|stage| (stage.name.as_str(), stage.inputs.as_slice()))
        .collect();
    let outputs_of = |name: &str| -> Vec<&str> {
        let consumers = stages
            .iter()
            .filter(|stage| stage.inputs.iter().any(|input| input == name));
        consumers.map(|stage| stage.name.as_str()).collect()
    };
    let downstream = reachable(source, &outputs_of);
    let upstream = reachable(sink, &|name: &str| {
        let own = inputs.get(name).copied().unwrap_or_default();
        own.iter().map(String::as_str).collect()
    });
    downstream.intersection(&upstream).cloned().collect()
}

fn reachable<'a>(start: &str, next: &dyn Fn(&str) -> Vec<&'a str>) -> BTreeSet<String> {
    let mut found = BTreeSet::from([start.to_owned()]);
    let mut open = vec![start.to_owned()];
    while let Some(name) = open.pop() {
        for other in next(&name) {
            if found.insert(other.to_owned()) {
                open.push(other.to_owned());
            }
        }
    }
    found
}

/// Replaces the declared source. Its batch size stays.
fn replace_source(stage: &mut StageTable) {
    if stage.kind == embedded::NAME {
        return;
    }
    stage.kind = embedded::NAME.to_owned();
    let batch = stage.options.get("batch").cloned();
    let options: Map<String, Value> = batch
        .map(|batch| ("batch".to_owned(), batch))
        .into_iter()
        .collect();
    stage.options = Value::Object(options);
}
