//! What has changed in a pipeline that cannot be changed while it runs.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Plan, Role, Stage};
use crate::registry::canonical;
use crate::sink::StageIdentity;

/// What a run needs to keep of its plan to compare it with another.
pub struct Outline {
    written: Value,
    stages: Vec<Edge>,
    understood: Understood,
}

/// By the stage's name, the values of options that change rows.
type Understood = BTreeMap<String, Map<String, Value>>;

fn understood(plan: &Plan) -> Understood {
    let sinks = plan.stages.iter().filter_map(|stage| match &stage.role {
        Role::Sink(_, identity) => Some(identity),
        _ => None,
    });
    let stages = sinks.flat_map(|identity| &identity.stages);
    let resolved = |stage: &StageIdentity| match &stage.reader.0 {
        Some(reading) => reading.resolved().clone(),
        None => stage.options.clone(),
    };
    stages.map(|(name, stage)| (name.clone(), resolved(stage))).collect()
}

/// A stage as its neighbours see it.
struct Edge {
    name: String,
    kind: &'static str,
    inputs: Vec<usize>,
    is_transform: bool,
    schema: Option<arrow::datatypes::SchemaRef>,
}

impl Outline {
    /// Of a plan that is going to run.
    pub fn of(plan: &Plan) -> Self {
        let stages = plan.stages.iter().map(Edge::of).collect();
        Self { written: plan.written.clone(), stages, understood: understood(plan) }
    }
}

impl Edge {
    fn of(stage: &Stage) -> Self {
        let is_transform = matches!(stage.role, Role::Transform(_));
        let (name, inputs, schema) = (stage.name.to_string(), stage.inputs.clone(), stage.schema());
        Self { name, kind: stage.kind, inputs, is_transform, schema }
    }
}

/// Why a run cannot go over to `next` without a restart, in sentences; none where it can: what models and transforms do
/// may change, what flows between stages may not, nor where records come from and go.
pub fn reasons_to_restart(running: &Outline, next: &Plan) -> Vec<String> {
    let mut reasons = Vec::new();
    let table = |written: &Value, key: &str| written.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    for key in different(&object(&running.written), &object(&next.written)) {
        if key != "models" && key != "stages" {
            reasons.push(format!("`{key}` has changed"));
        }
    }
    let (before, after) = (table(&running.written, "stages"), table(&next.written, "stages"));
    let meant = understood(next);
    let edges: Vec<Edge> = next.stages.iter().map(Edge::of).collect();
    let same_graph = running.stages.len() == edges.len()
        && running.stages.iter().zip(&edges).all(|(a, b)| (&a.name, a.kind, &a.inputs) == (&b.name, b.kind, &b.inputs));
    if !same_graph {
        reasons.push("stages, their kinds or their inputs have changed".to_owned());
        return reasons;
    }
    for (one, two) in running.stages.iter().zip(&edges) {
        let name = &one.name;
        if one.schema != two.schema {
            reasons.push(format!("the columns that the stage `{name}` puts out have changed"));
        } else if !one.is_transform {
            let options = |table: &Map<String, Value>| table.get(name).map(object).unwrap_or_default();
            let keys = different(&options(&before), &options(&after));
            // Another spelling of the same value is no change.
            let value = |of: &Understood, key: &String| of.get(name)?.get(key).map(canonical);
            let is_change = |key: &&String| match (value(&running.understood, key), value(&meant, key)) {
                (Some(one), Some(two)) => one != two,
                _ => true,
            };
            reasons
                .extend(keys.iter().filter(is_change).map(|key| format!("`{key}` of the stage `{name}` has changed")));
        }
    }
    reasons
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// Keys whose values differ, or which one of the two lacks.
fn different(one: &Map<String, Value>, two: &Map<String, Value>) -> Vec<String> {
    let keys = one.keys().chain(two.keys().filter(|key| !one.contains_key(*key)));
    keys.filter(|key| one.get(*key) != two.get(*key)).cloned().collect()
}
