//! Plans each stage from its table: finds its kind, fixes the schema of its input, and calls the
//! planning function of the kind.

pub(crate) mod kind_lookup;
pub(crate) mod standalone;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::graph;
use super::stage_identity::{IdentifiedStage, PlannedStage};
use crate::config::settings::{PipelineConfig, StageTable};
use crate::error::config_error::ConfigError;
use crate::plan::kinds::Kinds;
use crate::plan::stage::{Stage, StageOperator};
use crate::plan::stages::kind_lookup::{AnyKind, find, input_schema, names};
use crate::plan::stages::standalone::{
    StageComponent, plan_alone, resolve_stored, stored_attributes,
};
use crate::plan_context::PlanContext;
use crate::registry::RenamedKeys;
use crate::sink::{OutputIdentity, Sink, StageIdentity};
use crate::source::batch_size::BatchCap;

/// The facts of a planned stage on which the stages downstream depend.
#[derive(Clone, Default)]
pub(crate) struct UpstreamStages {
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
    kinds: &Kinds,
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
        let (operator, state, found) =
            plan_stage(table, &input_stages, kinds, &context, cap, &spec.name);
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
        if !consumed
            && !upstream[at].is_sink
            && !table.kind.is_empty()
            && find(table, kinds).is_ok()
        {
            let text = format!(
                "no stage takes its output; name it in the `inputs` of a stage, such as a sink \
                 ({})",
                names(&kinds.sinks)
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

/// The names and digests of the models that a stage uses.
fn models_of(table: &StageTable, context: &PlanContext) -> Vec<(String, String)> {
    let opened = table
        .models()
        .filter_map(|name| context.models.get(name)?.as_ref());
    opened
        .map(|model| (model.name().to_owned(), model.digest().to_owned()))
        .collect()
}

/// The digests of models as one text; empty without models.
fn digests_of(models: &[(String, String)]) -> String {
    let digests: Vec<&str> = models.iter().map(|(_, digest)| digest.as_str()).collect();
    digests.join(" ")
}

type StagePlanOutcome = (
    Option<(&'static str, StageOperator)>,
    UpstreamStages,
    Vec<ConfigError>,
);

fn plan_stage(
    table: &StageTable,
    inputs: &[&UpstreamStages],
    kinds: &Kinds,
    context: &Arc<PlanContext>,
    cap: Option<BatchCap>,
    pipeline: &str,
) -> StagePlanOutcome {
    let found = match find(table, kinds) {
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
    let own_models = models_of(table, context);
    let renamed = RenamedKeys::of_schema(found.schema());
    let planned_stage = PlannedStage {
        name: if table.inputs.is_empty() {
            table.name.clone()
        } else {
            String::new()
        },
        kind: found.name(),
        inputs: table.inputs.clone(),
        model: digests_of(&own_models),
        dependency: planned.dependency,
        declared: stored_attributes(&found, &renamed),
        written: renamed.stored(planned.written),
        resolve: resolve_stored(renamed.clone(), planned.resolve),
        renamed: renamed.clone(),
    };
    let digests = inputs
        .iter()
        .map(|input| (input.digest.as_str(), input.former.as_str()));
    let (digests, formers): (Vec<&str>, Vec<&str>) = digests.unzip();
    let IdentifiedStage { stage: own, former } =
        planned_stage.identity(renamed.stored(planned.options), &digests, &formers);
    let digest = own.digest.clone();
    let models: BTreeMap<_, _> = inputs
        .iter()
        .flat_map(|input| input.models.clone())
        .chain(own_models)
        .collect();
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
