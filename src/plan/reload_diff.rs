//! What has changed in a pipeline that cannot be changed while it runs.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Plan, Stage, StageRole};
use crate::registry::canonical;
use crate::sink::StageIdentity;

/// What a run needs to keep of its plan to compare it with another.
pub struct RunningConfig {
    effective: Value,
    stages: Vec<StageShape>,
    understood: ResolvedOptions,
}

/// By the stage's name, the values of options that change rows.
type ResolvedOptions = BTreeMap<String, Map<String, Value>>;

fn resolved_options(plan: &Plan) -> ResolvedOptions {
    let sinks = plan.stages.iter().filter_map(|stage| match &stage.role {
        StageRole::Sink(_, identity) => Some(identity),
        _ => None,
    });
    let stages = sinks.flat_map(|identity| &identity.stages);
    let resolved = |stage: &StageIdentity| match &stage.reader.0 {
        Some(reading) => reading.resolved().clone(),
        None => stage.options.clone(),
    };
    stages
        .map(|(name, stage)| (name.clone(), resolved(stage)))
        .collect()
}

/// A stage as its neighbours see it.
struct StageShape {
    name: String,
    kind: &'static str,
    inputs: Vec<usize>,
    is_transform: bool,
    schema: Option<arrow::datatypes::SchemaRef>,
}

impl RunningConfig {
    /// Of a plan that is going to run.
    pub fn of(plan: &Plan) -> Self {
        let stages = plan.stages.iter().map(StageShape::of).collect();
        Self {
            effective: plan.effective.clone(),
            stages,
            understood: resolved_options(plan),
        }
    }
}

impl StageShape {
    fn of(stage: &Stage) -> Self {
        let is_transform = matches!(stage.role, StageRole::Transform(_));
        let (name, inputs, schema) = (stage.name.to_string(), stage.inputs.clone(), stage.schema());
        Self {
            name,
            kind: stage.kind,
            inputs,
            is_transform,
            schema,
        }
    }
}

/// Why a run cannot go over to `next` without a restart, in sentences; none where it can: what
/// models and transforms do may change, what flows between stages may not, nor where records come
/// from and go.
pub fn changes_requiring_restart(running: &RunningConfig, next: &Plan) -> Vec<String> {
    let mut reasons = Vec::new();
    let table = |written: &Value, key: &str| {
        written
            .get(key)
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    for key in different(&object(&running.effective), &object(&next.effective)) {
        if key != "models" && key != "stages" {
            reasons.push(format!("`{key}` has changed"));
        }
    }
    let (before, after) = (
        table(&running.effective, "stages"),
        table(&next.effective, "stages"),
    );
    let meant = resolved_options(next);
    let edges: Vec<StageShape> = next.stages.iter().map(StageShape::of).collect();
    let same_graph = running.stages.len() == edges.len()
        && running
            .stages
            .iter()
            .zip(&edges)
            .all(|(a, b)| (&a.name, a.kind, &a.inputs) == (&b.name, b.kind, &b.inputs));
    if !same_graph {
        reasons.push("stages, their kinds or their inputs have changed".to_owned());
        return reasons;
    }
    for (one, two) in running.stages.iter().zip(&edges) {
        let name = &one.name;
        if one.schema != two.schema {
            reasons.push(format!(
                "the columns that the stage `{name}` puts out have changed"
            ));
        } else if !one.is_transform {
            let options =
                |table: &Map<String, Value>| table.get(name).map(object).unwrap_or_default();
            let keys = different(&options(&before), &options(&after));
            // Another spelling of the same value is no change.
            let value = |of: &ResolvedOptions, key: &String| of.get(name)?.get(key).map(canonical);
            let is_change =
                |key: &&String| match (value(&running.understood, key), value(&meant, key)) {
                    (Some(one), Some(two)) => one != two,
                    _ => true,
                };
            reasons.extend(
                keys.iter()
                    .filter(is_change)
                    .map(|key| format!("`{key}` of the stage `{name}` has changed")),
            );
        }
    }
    reasons
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// Keys whose values differ, or which one of the two lacks.
fn different(one: &Map<String, Value>, two: &Map<String, Value>) -> Vec<String> {
    let keys = one
        .keys()
        .chain(two.keys().filter(|key| !one.contains_key(*key)));
    keys.filter(|key| one.get(*key) != two.get(*key))
        .cloned()
        .collect()
}
