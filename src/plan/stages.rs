//! Plans each stage from its table: finds its kind, fixes the schema of its input, and calls the
//! planning function of the kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{self, SchemaRef};
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value};

use super::stage_identity::{IdentifiedStage, PlannedStage, ResolveOptions};
use super::{Stage, StageOperator, graph};
use crate::config::{PipelineConfig, StageTable};
use crate::error::{ConfigError, RecordFaults};
use crate::plan_context::PlanContext;
use crate::registry::{self, ComponentKind, OptionAttributes, ResolvedStage};
use crate::shard::Shard;
use crate::sink::{self, OutputIdentity, PlanSink, Sink, StageIdentity};
use crate::source::{self, BatchCap, BatchSize, PlanSource, Source, SourceShare};
use crate::transform::{self, PlanTransform, TransformPlan};

/// A stage kind of any role.
enum AnyKind {
    Source(&'static ComponentKind<PlanSource>),
    Transform(&'static ComponentKind<PlanTransform>),
    Sink(&'static ComponentKind<PlanSink>),
}

/// The facts of a planned stage on which the stages downstream depend.
#[derive(Clone, Default)]
struct UpstreamStages {
    schema: Option<SchemaRef>,
    digest: String,
    /// The digest by version 0.
    former: String,
    models: BTreeMap<String, String>,
    /// The identities of this stage and of all stages upstream of it.
    lineage: BTreeMap<String, StageIdentity>,
    is_sink: bool,
}

/// Plans all stages in topological order. If faults were added, the result must not be used.
pub(super) fn plan(
    spec: &PipelineConfig,
    context: &PlanContext,
    cap: Option<BatchCap>,
    faults: &mut Vec<ConfigError>,
) -> Vec<Stage> {
    let graph = graph::link(&spec.stages);
    let context = Arc::new(context.clone());
    faults.extend(graph.faults);
    let mut upstream = vec![UpstreamStages::default(); spec.stages.len()];
    let mut plan_indices = vec![0; spec.stages.len()];
    let mut stages = Vec::new();
    let unordered = (0..spec.stages.len()).filter(|at| !graph.order.contains(at));
    for at in graph.order.iter().copied().chain(unordered) {
        let table = &spec.stages[at];
        let input_stages: Vec<&UpstreamStages> = graph.inputs[at]
            .iter()
            .map(|&input| &upstream[input])
            .collect();
        let (operator, state, found) = plan_stage(table, &input_stages, &context, cap, &spec.name);
        let key = format!("stages.{}", table.name);
        faults.extend(found.into_iter().map(|fault| fault.within(&key)));
        upstream[at] = state;
        if let Some((kind, operator)) = operator {
            plan_indices[at] = stages.len();
            let inputs = graph.inputs[at]
                .iter()
                .map(|&input| plan_indices[input])
                .collect();
            stages.push(Stage {
                name: Arc::from(table.name.as_str()),
                kind,
                inputs,
                operator,
            });
        }
    }
    faults.extend(all_output_conflicts(&stages));
    for (at, table) in spec.stages.iter().enumerate() {
        let consumed = graph.inputs.iter().any(|inputs| inputs.contains(&at));
        if !consumed && !upstream[at].is_sink && !table.kind.is_empty() && find(table).is_ok() {
            let text = format!(
                "no stage takes its output; name it in the `inputs` of a stage, such as a sink \
                 ({})",
                names(sink::KINDS)
            );
            faults.push(ConfigError::new(format!("stages.{}", table.name), text));
        }
    }
    stages
}

/// Returns a fault for each sink whose files a source would read as input, now or in a later run.
fn all_output_conflicts(stages: &[Stage]) -> Vec<ConfigError> {
    let sinks = stages.iter().filter_map(|stage| match &stage.operator {
        StageOperator::Sink(sink, _) => Some((stage, sink)),
        _ => None,
    });
    let faults = sinks.flat_map(|(stage, sink)| {
        let messages = output_conflicts(sink.as_ref(), stages);
        messages
            .map(move |message| ConfigError::new(format!("stages.{}.path", stage.name), message))
    });
    faults.collect()
}

/// Returns a message for each source that would read the files of a sink as input.
pub(super) fn output_conflicts<'a>(
    sink: &'a dyn Sink,
    stages: impl IntoIterator<Item = &'a Stage>,
) -> impl Iterator<Item = String> {
    stages.into_iter().filter_map(move |stage| {
        let (StageOperator::Source(source, _), Some(written)) =
            (&stage.operator, sink.written_files())
        else {
            return None;
        };
        let (folder, name) = (written.folder, &stage.name);
        source.would_read(&written).then(|| {
            format!(
                "`{folder}` is in the folder that the source `{name}` reads, so the source would \
                 read these files as input; write to a folder outside of it"
            )
        })
    })
}

type StagePlanOutcome = (
    Option<(&'static str, StageOperator)>,
    UpstreamStages,
    Vec<ConfigError>,
);

fn plan_stage(
    table: &StageTable,
    inputs: &[&UpstreamStages],
    context: &Arc<PlanContext>,
    cap: Option<BatchCap>,
    pipeline: &str,
) -> StagePlanOutcome {
    let found = match find(table) {
        Ok(Some(found)) => found,
        Ok(None) => return (None, UpstreamStages::default(), Vec::new()),
        Err(fault) => return (None, UpstreamStages::default(), vec![fault]),
    };
    let mut faults = Vec::new();
    let upstream_schema = input_schema(table, inputs, &mut faults);
    let is_sink = matches!(found, AnyKind::Sink(_));
    let planned = match plan_alone(&found, table, upstream_schema, context, cap) {
        Ok(planned) => planned,
        Err(more) => {
            faults.extend(more);
            return (
                None,
                UpstreamStages {
                    is_sink,
                    ..UpstreamStages::default()
                },
                faults,
            );
        }
    };
    let model = table.options.get("model").and_then(Value::as_str);
    let model = model.and_then(|name| context.models.get(name)?.as_ref());
    let planned_stage = PlannedStage {
        name: if table.inputs.is_empty() {
            table.name.clone()
        } else {
            String::new()
        },
        kind: found.name(),
        inputs: table.inputs.clone(),
        model: model
            .map(|model| model.digest().to_owned())
            .unwrap_or_default(),
        dependency: planned.dependency,
        declared: stored_attributes(&found),
        written: registry::stored_options(found.name(), planned.written),
        resolve: resolve_stored(found.name(), planned.resolve),
    };
    let digests = inputs
        .iter()
        .map(|input| (input.digest.as_str(), input.former.as_str()));
    let (digests, formers): (Vec<&str>, Vec<&str>) = digests.unzip();
    let IdentifiedStage { stage: own, former } = planned_stage.identity(
        registry::stored_options(found.name(), planned.options),
        &digests,
        &formers,
    );
    let digest = own.digest.clone();
    let mut models: BTreeMap<_, _> = inputs
        .iter()
        .flat_map(|input| input.models.clone())
        .collect();
    models.extend(model.map(|model| (model.name().to_owned(), model.digest().to_owned())));
    let mut lineage: BTreeMap<_, _> = inputs
        .iter()
        .flat_map(|input| input.lineage.clone())
        .collect();
    lineage.insert(table.name.clone(), own);
    let schema = planned.part.schema();
    let operator = match planned.part {
        StageComponent::Source(source, batch) => StageOperator::Source(source, batch),
        StageComponent::Transform(transform) => StageOperator::Transform(transform),
        StageComponent::Sink(sink) => {
            let (pipeline, stage) = (pipeline.to_owned(), table.name.clone());
            let (digest, models, stages) = (digest.clone(), models.clone(), lineage.clone());
            StageOperator::Sink(
                sink,
                OutputIdentity {
                    pipeline,
                    stage,
                    digest,
                    models,
                    stages,
                    ..OutputIdentity::default()
                },
            )
        }
    };
    (
        Some((found.name(), operator)),
        UpstreamStages {
            schema,
            digest,
            former,
            models,
            lineage,
            is_sink,
        },
        faults,
    )
}

/// Returns the attributes of the options of a kind, by their stored names.
fn stored_attributes(kind: &AnyKind) -> BTreeMap<String, OptionAttributes> {
    let declared = registry::option_attributes(kind.schema()).into_iter();
    let stored = |(key, option): (String, OptionAttributes)| {
        let former = option.former_default.unwrap_or_default();
        let (name, former) = registry::stored_option(kind.name(), key, former);
        let former_default = Some(former).filter(|former| !former.is_null());
        (
            name,
            OptionAttributes {
                former_default,
                ..option
            },
        )
    };
    declared.map(stored).collect()
}

/// Converts options from their stored names, resolves them, and returns them under their stored
/// names.
fn resolve_stored(kind: &'static str, resolve: ResolveOptions) -> ResolveOptions {
    Box::new(move |options| {
        let resolved = (resolve)(registry::current_options(kind, options))?;
        Some(registry::stored_options(kind, resolved))
    })
}

/// A planned stage without the stages upstream of it.
struct StandaloneStage {
    part: StageComponent,
    /// The resolved options.
    options: Map<String, Value>,
    /// The options as written, without the `batch` of a source.
    written: Map<String, Value>,
    resolve: ResolveOptions,
    /// Facts on which the rows depend in addition to the options.
    dependency: Option<String>,
}

/// The name under which the number of shards is recorded with the options of a source, which have
/// no such key. Its presence makes the output of another number of shards another output.
const SHARDS: &str = "shards";

impl StandaloneStage {
    /// Adds the number of shards to the options of a source.
    ///
    /// # Errors
    /// A fault if the inputs of the source cannot be divided.
    fn of_shard(self, kind: &str, shard: Option<Shard>) -> Result<Self, Vec<ConfigError>> {
        let StageComponent::Source(source, _) = &self.part else {
            return Ok(self);
        };
        if let Some(shard) = shard
            && source.share().and_then(SourceShare::shard) != Some(shard)
        {
            let message = format!(
                "the inputs of a source `{kind}` cannot be listed and divided into shards; run the \
                 pipeline without --shard, or use a source that reads files"
            );
            return Err(vec![ConfigError::new("kind", message)]);
        }
        let Self {
            mut options,
            mut written,
            resolve,
            ..
        } = self;
        if let Some(shard) = shard {
            for recorded in [&mut options, &mut written] {
                recorded.insert(SHARDS.to_owned(), shard.count().into());
            }
        }
        // The kind resolves the recorded options without the number of shards.
        let resolve: ResolveOptions = Box::new(move |mut recorded| {
            let shards = recorded.remove(SHARDS);
            let mut resolved = (resolve)(recorded)?;
            resolved.extend(shards.map(|shards| (SHARDS.to_owned(), shards)));
            Some(resolved)
        });
        Ok(Self {
            options,
            written,
            resolve,
            ..self
        })
    }
}

/// A planned source, transform or sink.
enum StageComponent {
    Source(Box<dyn Source>, BatchSize),
    Transform(Arc<dyn TransformPlan>),
    Sink(Box<dyn Sink>),
}

impl StageComponent {
    fn schema(&self) -> Option<SchemaRef> {
        match self {
            Self::Source(source, _) => Some(source.schema()),
            Self::Transform(transform) => Some(transform.schema()),
            Self::Sink(_) => None,
        }
    }
}

fn plan_alone(
    found: &AnyKind,
    table: &StageTable,
    input: Option<SchemaRef>,
    context: &Arc<PlanContext>,
    cap: Option<BatchCap>,
) -> Result<StandaloneStage, Vec<ConfigError>> {
    let mut written = table.options.as_object().cloned().unwrap_or_default();
    let shard = context.shard;
    let shared = Arc::clone(context);
    match (found, input) {
        (AnyKind::Source(kind), _) => {
            let (batch, name) = (
                written.remove("batch").unwrap_or(Value::Null),
                table.name.clone(),
            );
            let (batch, faults) = registry::parse_options_lenient::<BatchSize>(batch);
            let batch = BatchSize {
                most: cap,
                ..batch.unwrap_or_default()
            };
            let plan = kind.plan;
            let planned = (plan)(&name, Value::Object(written.clone()), batch, context);
            let mut faults: Vec<ConfigError> = faults
                .into_iter()
                .map(|fault| fault.within("batch"))
                .collect();
            let planned = faults.record_all(planned);
            let (Some(ResolvedStage { stage, options }), true) = (planned, faults.is_empty())
            else {
                return Err(faults);
            };
            let resolve = move |recorded| {
                Some(
                    (plan)(&name, Value::Object(recorded), batch, &shared)
                        .ok()?
                        .options,
                )
            };
            let part = StageComponent::Source(stage, batch);
            let standalone = StandaloneStage {
                part,
                options,
                written,
                resolve: Box::new(resolve),
                dependency: None,
            };
            standalone.of_shard(kind.name, shard)
        }
        (AnyKind::Transform(kind), Some(input)) => {
            let plan = kind.plan;
            let ResolvedStage { stage, options } = (plan)(table.options.clone(), &input, context)?;
            let resolve = move |recorded| {
                Some(
                    (plan)(Value::Object(recorded), &input, &shared)
                        .ok()?
                        .options,
                )
            };
            let dependency = stage.depends_on();
            Ok(StandaloneStage {
                part: StageComponent::Transform(Arc::from(stage)),
                options,
                written,
                resolve: Box::new(resolve),
                dependency,
            })
        }
        (AnyKind::Sink(kind), Some(input)) => {
            let plan = kind.plan;
            let ResolvedStage { stage, options } = (plan)(table.options.clone(), &input, context)?;
            let resolve = move |recorded| {
                Some(
                    (plan)(Value::Object(recorded), &input, &shared)
                        .ok()?
                        .options,
                )
            };
            Ok(StandaloneStage {
                part: StageComponent::Sink(stage),
                options,
                written,
                resolve: Box::new(resolve),
                dependency: None,
            })
        }
        (AnyKind::Transform(ComponentKind { check, .. }), None)
        | (AnyKind::Sink(ComponentKind { check, .. }), None) => Err((check)(table.options.clone())),
    }
}

impl AnyKind {
    fn name(&self) -> &'static str {
        match self {
            Self::Source(kind) => kind.name,
            Self::Transform(kind) => kind.name,
            Self::Sink(kind) => kind.name,
        }
    }

    /// Returns the generator of the JSON Schema of the options.
    fn schema(&self) -> fn(&mut SchemaGenerator) -> Schema {
        match self {
            Self::Source(kind) => kind.schema,
            Self::Transform(kind) => kind.schema,
            Self::Sink(kind) => kind.schema,
        }
    }
}

/// Finds the kind of a stage: a source if the stage has no inputs, otherwise a transform or a sink.
/// `None` if the table names no kind, which is already reported as a fault.
fn find(table: &StageTable) -> Result<Option<AnyKind>, ConfigError> {
    let name = table.kind.as_str();
    let source = source::KINDS.iter().find(|kind| kind.name == name);
    let transform = transform::KINDS.iter().find(|kind| kind.name == name);
    let sink = sink::KINDS.iter().find(|kind| kind.name == name);
    match (source, transform, sink) {
        _ if name.is_empty() => Ok(None),
        (Some(source), ..) if table.inputs.is_empty() => Ok(Some(AnyKind::Source(source))),
        (_, Some(transform), _) if !table.inputs.is_empty() => {
            Ok(Some(AnyKind::Transform(transform)))
        }
        (_, _, Some(sink)) if !table.inputs.is_empty() => Ok(Some(AnyKind::Sink(sink))),
        (Some(_), None, None) => Err(ConfigError::new(
            "inputs",
            format!("`{name}` is a source and takes no inputs; remove `inputs`"),
        )),
        (None, None, None) => Err(unknown(name)),
        _ => Err(ConfigError::new(
            "",
            format!(
                "`inputs` is missing; `{name}` requires the name of a stage that it reads from"
            ),
        )),
    }
}

fn unknown(name: &str) -> ConfigError {
    let known = [
        source::KINDS
            .iter()
            .map(|kind| kind.name)
            .collect::<Vec<_>>(),
        transform::KINDS.iter().map(|kind| kind.name).collect(),
        sink::KINDS.iter().map(|kind| kind.name).collect(),
    ]
    .concat();
    let near = registry::did_you_mean(name, &known);
    let (sources, transforms, sinks) = (
        names(source::KINDS),
        names(transform::KINDS),
        names(sink::KINDS),
    );
    let text = format!(
        "unknown kind `{name}`{near}; sources: {sources}; transforms: {transforms}; sinks: {sinks}"
    );
    ConfigError::new("kind", text)
}

fn names<P>(kinds: &[ComponentKind<P>]) -> String {
    kinds
        .iter()
        .map(|kind| kind.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Returns the input columns; `None` if the columns of an input are unknown because it is invalid.
fn input_schema(
    table: &StageTable,
    inputs: &[&UpstreamStages],
    faults: &mut Vec<ConfigError>,
) -> Option<SchemaRef> {
    for (name, _) in table
        .inputs
        .iter()
        .zip(inputs)
        .filter(|(_, input)| input.is_sink)
    {
        faults.push(ConfigError::new(
            "inputs",
            format!("`{name}` is a sink and has no output; name a source or a transform"),
        ));
    }
    let mut known = table
        .inputs
        .iter()
        .zip(inputs)
        .filter_map(|(name, input)| Some((name, input.schema.clone()?)));
    let (first_name, first) = known.next()?;
    let mut equal = true;
    for (name, schema) in known {
        if let Some(difference) = difference(first_name, &first, name, &schema) {
            equal = false;
            faults.push(ConfigError::new("inputs", difference));
        }
    }
    (equal
        && table.inputs.len() == inputs.len()
        && inputs.iter().all(|input| input.schema.is_some()))
    .then_some(first)
}

/// Describes the first difference between two schemas that have to be equal.
fn difference(
    a_name: &str,
    a: &datatypes::Schema,
    b_name: &str,
    b: &datatypes::Schema,
) -> Option<String> {
    let hint = "the inputs of a stage must have the same columns; a `select` stage can select and \
                rename them";
    let columns = |schema: &datatypes::Schema| {
        schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    if !a
        .fields()
        .iter()
        .map(|f| f.name())
        .eq(b.fields().iter().map(|f| f.name()))
    {
        return Some(format!(
            "`{a_name}` has the columns {}, but `{b_name}` has {}; {hint}",
            columns(a),
            columns(b)
        ));
    }
    let differs = a.fields().iter().zip(b.fields()).find(|(a, b)| a != b)?;
    let (left, right) = (differs.0.data_type(), differs.1.data_type());
    let difference = if left == right {
        "with different metadata or nullability".to_owned()
    } else {
        format!("as {left} and as {right}")
    };
    Some(format!(
        "`{a_name}` and `{b_name}` have the column `{}` {difference}; {hint}",
        differs.0.name()
    ))
}
