//! The changes of a pipeline that require a restart.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::plan::pipeline::Plan;
use crate::plan::stage::{Stage, StageOperator};
use crate::registry::canonical;
use crate::sink::StageIdentity;

/// The parts of a running plan that are compared with the plan of a reload.
pub(crate) struct RunningConfig {
    effective: Value,
    stages: Vec<StageShape>,
    resolved: ResolvedOptions,
}

/// The resolved options that change rows, by the name of the stage.
type ResolvedOptions = BTreeMap<String, Map<String, Value>>;

fn resolved_options(plan: &Plan) -> ResolvedOptions {
    let sinks = plan
        .stages
        .iter()
        .filter_map(|stage| match &stage.operator {
            StageOperator::Sink(_, identity) => Some(identity),
            _ => None,
        });
    let stages = sinks.flat_map(|identity| &identity.stages);
    let resolved = |stage: &StageIdentity| match &stage.reader.interpreter {
        Some(interpreter) => interpreter.resolved().clone(),
        None => stage.options.clone(),
    };
    stages
        .map(|(name, stage)| (name.clone(), resolved(stage)))
        .collect()
}

/// The interface of a stage: its kind, inputs and columns.
struct StageShape {
    name: String,
    kind: &'static str,
    inputs: Vec<usize>,
    is_transform: bool,
    schema: Option<arrow::datatypes::SchemaRef>,
}

impl RunningConfig {
    /// Copies the compared parts of a plan.
    pub(crate) fn from_plan(plan: &Plan) -> Self {
        let stages = plan.stages.iter().map(StageShape::from_stage).collect();
        Self {
            effective: plan.effective.clone(),
            stages,
            resolved: resolved_options(plan),
        }
    }
}

impl StageShape {
    fn from_stage(stage: &Stage) -> Self {
        let is_transform = matches!(stage.operator, StageOperator::Transform(_));
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

/// Returns the reasons for which a run cannot change to the plan `next` without a restart; empty if
/// it can. Models and options of transforms may change, but not the columns between stages, the
/// sources or the sinks.
pub(crate) fn changes_requiring_restart(running: &RunningConfig, next: &Plan) -> Vec<String> {
    let mut reasons = Vec::new();
    let table = |written: &Value, key: &str| {
        written
            .get(key)
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    for key in changed_keys(&object(&running.effective), &object(&next.effective)) {
        if key != "models" && key != "stages" {
            reasons.push(format!("`{key}` has changed"));
        }
    }
    let (before, after) = (
        table(&running.effective, "stages"),
        table(&next.effective, "stages"),
    );
    let next_resolved = resolved_options(next);
    let next_stages: Vec<StageShape> = next.stages.iter().map(StageShape::from_stage).collect();
    let same_graph = running.stages.len() == next_stages.len()
        && running
            .stages
            .iter()
            .zip(&next_stages)
            .all(|(a, b)| (&a.name, a.kind, &a.inputs) == (&b.name, b.kind, &b.inputs));
    if !same_graph {
        reasons.push("stages, their kinds or their inputs have changed".to_owned());
        return reasons;
    }
    for (old, new) in running.stages.iter().zip(&next_stages) {
        let name = &old.name;
        if old.schema != new.schema {
            reasons.push(format!(
                "the output columns of the stage `{name}` have changed"
            ));
        } else if !old.is_transform {
            let options =
                |stages: &Map<String, Value>| stages.get(name).map(object).unwrap_or_default();
            let keys = changed_keys(&options(&before), &options(&after));
            // Another spelling of the same value is not a change.
            let value = |resolved: &ResolvedOptions, key: &String| {
                resolved.get(name)?.get(key).map(canonical)
            };
            let is_change =
                |key: &&String| match (value(&running.resolved, key), value(&next_resolved, key)) {
                    (Some(old_value), Some(new_value)) => old_value != new_value,
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

/// Returns the keys whose values differ, including keys that only one of the tables has.
fn changed_keys(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<String> {
    let keys = old
        .keys()
        .chain(new.keys().filter(|key| !old.contains_key(*key)));
    keys.filter(|key| old.get(*key) != new.get(*key))
        .cloned()
        .collect()
}
