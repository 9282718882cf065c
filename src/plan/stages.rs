//! Plans each stage from its table: looks its kind up, fixes its input's schema, and asks the kind for the rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use serde_json::Value;

use super::{Role, Stage, digest, graph};
use crate::context::Context;
use crate::error::Fault;
use crate::kind::{self, Kind};
use crate::sink::{self, Identity, PlanSink, StageIdentity};
use crate::source::{self, BatchSize, Most, PlanSource};
use crate::spec::{Spec, StageTable};
use crate::transform::{self, PlanTransform};

/// A kind, found in the table of its role.
enum Found {
    Source(&'static Kind<PlanSource>),
    Transform(&'static Kind<PlanTransform>),
    Sink(&'static Kind<PlanSink>),
}

/// What is known of a stage while the others are planned.
#[derive(Clone, Default)]
struct Upstream {
    schema: Option<SchemaRef>,
    digest: String,
    models: BTreeMap<String, String>,
    /// This stage and those before it.
    lineage: BTreeMap<String, StageIdentity>,
    is_sink: bool,
}

/// Plans every stage, inputs first. Where there were faults, what is returned is of no use.
pub(super) fn plan(spec: &Spec, context: &Context, most: Option<Most>, faults: &mut Vec<Fault>) -> Vec<Stage> {
    let graph = graph::link(&spec.stages);
    faults.extend(graph.faults);
    let mut upstream = vec![Upstream::default(); spec.stages.len()];
    let mut places = vec![0; spec.stages.len()];
    let mut stages = Vec::new();
    let unordered = (0..spec.stages.len()).filter(|at| !graph.order.contains(at));
    for at in graph.order.iter().copied().chain(unordered) {
        let table = &spec.stages[at];
        let inputs: Vec<&Upstream> = graph.inputs[at].iter().map(|&input| &upstream[input]).collect();
        let (role, state, found) = plan_stage(table, &inputs, context, most, &spec.name);
        let key = format!("stages.{}", table.name);
        faults.extend(found.into_iter().map(|fault| fault.within(&key)));
        upstream[at] = state;
        if let Some((kind, role)) = role {
            places[at] = stages.len();
            let inputs = graph.inputs[at].iter().map(|&input| places[input]).collect();
            stages.push(Stage { name: Arc::from(table.name.as_str()), kind, inputs, role });
        }
    }
    faults.extend(images_that_are_input(&stages));
    for (at, table) in spec.stages.iter().enumerate() {
        let consumed = graph.inputs.iter().any(|inputs| inputs.contains(&at));
        if !consumed && !upstream[at].is_sink && !table.kind.is_empty() && find(table).is_ok() {
            let text = format!(
                "nothing takes its output; name it in the `inputs` of a stage, such as a sink ({})",
                names(sink::KINDS)
            );
            faults.push(Fault::new(format!("stages.{}", table.name), text));
        }
    }
    stages
}

/// Sinks whose image files a source would take for input, now or in the next run.
fn images_that_are_input(stages: &[Stage]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for sink in stages {
        let Role::Sink(written, _) = &sink.role else { continue };
        let Some((folder, extension)) = written.image_files() else { continue };
        for source in stages {
            let Role::Source(read, _) = &source.role else { continue };
            if read.takes_images_of(folder, extension) {
                let (folder, name) = (folder.display(), &source.name);
                let message = format!(
                    "`{folder}` lies in the folder that the source `{name}` reads: it takes these files as input; \
                     write to a folder outside of it"
                );
                faults.push(Fault::new(format!("stages.{}.path", sink.name), message));
            }
        }
    }
    faults
}

type Planned = (Option<(&'static str, Role)>, Upstream, Vec<Fault>);

fn plan_stage(
    table: &StageTable,
    inputs: &[&Upstream],
    context: &Context,
    most: Option<Most>,
    pipeline: &str,
) -> Planned {
    let found = match find(table) {
        Ok(Some(found)) => found,
        Ok(None) => return (None, Upstream::default(), Vec::new()),
        Err(fault) => return (None, Upstream::default(), vec![fault]),
    };
    let mut faults = Vec::new();
    let model = table.options.get("model").and_then(Value::as_str);
    let model = model.and_then(|name| context.models.get(name)?.as_ref());
    let digests: Vec<&str> = inputs.iter().map(|input| input.digest.as_str()).collect();
    let own = digest::of_stage(table, &digests, model.map(|model| model.digest()));
    let mut digest = own.digest.clone();
    let mut models: BTreeMap<_, _> = inputs.iter().flat_map(|input| input.models.clone()).collect();
    models.extend(model.map(|model| (model.name().to_owned(), model.digest().to_owned())));
    let mut lineage: BTreeMap<_, _> = inputs.iter().flat_map(|input| input.lineage.clone()).collect();
    lineage.insert(table.name.clone(), own);
    let options = table.options.clone();
    let input = input_schema(table, inputs, &mut faults);
    let role = match (&found, input) {
        (Found::Source(kind), _) => plan_source(kind, table, context, most),
        (Found::Transform(kind), Some(input)) => {
            (kind.plan)(options, &input, context).map(|transform| Role::Transform(Arc::from(transform)))
        }
        (Found::Sink(kind), Some(input)) => (kind.plan)(options, &input, context).map(|sink| {
            let (pipeline, stage) = (pipeline.to_owned(), table.name.clone());
            let (digest, models, stages) = (digest.clone(), models.clone(), lineage.clone());
            Role::Sink(sink, Identity { pipeline, stage, digest, models, stages })
        }),
        (Found::Transform(Kind { check, .. }), None) | (Found::Sink(Kind { check, .. }), None) => Err(check(options)),
    };
    if let Ok(Role::Transform(transform)) = &role
        && let Some(known) = transform.depends_on()
    {
        digest = digest::of_parts([digest.as_str(), &known].into_iter());
        lineage.entry(table.name.clone()).and_modify(|own| own.digest.clone_from(&digest));
    }
    let is_sink = matches!(found, Found::Sink(_));
    let (name, role) = match role {
        Ok(role) => (found.name(), Some(role)),
        Err(found_faults) => {
            faults.extend(found_faults);
            (found.name(), None)
        }
    };
    let schema = match &role {
        Some(Role::Source(source, _)) => Some(source.schema()),
        Some(Role::Transform(transform)) => Some(transform.schema()),
        _ => None,
    };
    (role.map(|role| (name, role)), Upstream { schema, digest, models, lineage, is_sink }, faults)
}

fn plan_source(
    kind: &Kind<PlanSource>,
    table: &StageTable,
    context: &Context,
    most: Option<Most>,
) -> Result<Role, Vec<Fault>> {
    let mut options = table.options.clone();
    let batch = options.as_object_mut().and_then(|options| options.remove("batch")).unwrap_or(Value::Null);
    let (batch, mut faults) = kind::read::<BatchSize>(batch);
    faults = faults.into_iter().map(|fault| fault.within("batch")).collect();
    let batch = BatchSize { most, ..batch.unwrap_or_default() };
    match (kind.plan)(&table.name, options, batch, context) {
        Ok(source) if faults.is_empty() => Ok(Role::Source(source, batch)),
        Ok(_) => Err(faults),
        Err(found) => {
            faults.extend(found);
            Err(faults)
        }
    }
}

impl Found {
    fn name(&self) -> &'static str {
        match self {
            Self::Source(kind) => kind.name,
            Self::Transform(kind) => kind.name,
            Self::Sink(kind) => kind.name,
        }
    }
}

/// Finds the kind of a stage: a source where it has no inputs, a transform or a sink where it has some.
/// `None` where the table names no kind, which is told already.
fn find(table: &StageTable) -> Result<Option<Found>, Fault> {
    let name = table.kind.as_str();
    let source = source::KINDS.iter().find(|kind| kind.name == name);
    let transform = transform::KINDS.iter().find(|kind| kind.name == name);
    let sink = sink::KINDS.iter().find(|kind| kind.name == name);
    match (source, transform, sink) {
        _ if name.is_empty() => Ok(None),
        (Some(source), ..) if table.inputs.is_empty() => Ok(Some(Found::Source(source))),
        (_, Some(transform), _) if !table.inputs.is_empty() => Ok(Some(Found::Transform(transform))),
        (_, _, Some(sink)) if !table.inputs.is_empty() => Ok(Some(Found::Sink(sink))),
        (Some(_), None, None) => Err(Fault::new("inputs", format!("`{name}` is a source: it takes no inputs"))),
        (None, None, None) => Err(unknown(name)),
        _ => {
            Err(Fault::new("", format!("`inputs` is missing: `{name}` needs the name of a stage to take records from")))
        }
    }
}

fn unknown(name: &str) -> Fault {
    let known = [
        source::KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>(),
        transform::KINDS.iter().map(|kind| kind.name).collect(),
        sink::KINDS.iter().map(|kind| kind.name).collect(),
    ]
    .concat();
    let near = kind::nearest(name, &known);
    let (sources, transforms, sinks) = (names(source::KINDS), names(transform::KINDS), names(sink::KINDS));
    let text = format!("unknown kind `{name}`{near}; sources: {sources}; transforms: {transforms}; sinks: {sinks}");
    Fault::new("kind", text)
}

fn names<P>(kinds: &[Kind<P>]) -> String {
    kinds.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ")
}

/// The columns that come in; `None` where an input's are unknown, since something is wrong with it.
fn input_schema(table: &StageTable, inputs: &[&Upstream], faults: &mut Vec<Fault>) -> Option<SchemaRef> {
    for (name, _) in table.inputs.iter().zip(inputs).filter(|(_, input)| input.is_sink) {
        faults.push(Fault::new("inputs", format!("`{name}` is a sink: nothing comes out of it")));
    }
    let mut known = table.inputs.iter().zip(inputs).filter_map(|(name, input)| Some((name, input.schema.clone()?)));
    let (first_name, first) = known.next()?;
    let mut equal = true;
    for (name, schema) in known {
        if let Some(difference) = difference(first_name, &first, name, &schema) {
            equal = false;
            faults.push(Fault::new("inputs", difference));
        }
    }
    (equal && table.inputs.len() == inputs.len() && inputs.iter().all(|input| input.schema.is_some())).then_some(first)
}

/// The first difference between two schemas that should be the same, in a sentence.
fn difference(a_name: &str, a: &Schema, b_name: &str, b: &Schema) -> Option<String> {
    let hint = "inputs of one stage must have the same columns; a `select` stage can choose and rename them";
    let columns =
        |schema: &Schema| schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
    if !a.fields().iter().map(|f| f.name()).eq(b.fields().iter().map(|f| f.name())) {
        return Some(format!("`{a_name}` gives {}, `{b_name}` gives {}: {hint}", columns(a), columns(b)));
    }
    let differs = a.fields().iter().zip(b.fields()).find(|(a, b)| a != b)?;
    let (left, right) = (differs.0.data_type(), differs.1.data_type());
    let what =
        if left == right { "with other metadata or nulls".to_owned() } else { format!("as {left} and as {right}") };
    Some(format!("`{a_name}` and `{b_name}` give column `{}` {what}: {hint}", differs.0.name()))
}
