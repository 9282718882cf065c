//! The shape of a pipeline: who feeds whom, in an order in which every stage comes after its
//! inputs.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::ConfigError;
use crate::registry::did_you_mean;
use crate::config::StageTable;

/// Stages by their place in the file, sorted so that inputs come first; `inputs` by place, as
/// declared.
#[derive(Debug)]
pub(super) struct StageGraph {
    /// Every stage that is in no cycle and behind none, inputs first, otherwise in the file's
    /// order.
    pub(super) order: Vec<usize>,
    /// Per stage, the places of its inputs.
    pub(super) inputs: Vec<Vec<usize>>,
    /// What is wrong with it.
    pub(super) faults: Vec<ConfigError>,
}

/// Links stages by name and sorts them.
pub(super) fn link(stages: &[StageTable]) -> StageGraph {
    let places: BTreeMap<&str, usize> = stages
        .iter()
        .enumerate()
        .map(|(at, stage)| (stage.name.as_str(), at))
        .collect();
    let mut faults = Vec::new();
    let inputs: Vec<Vec<usize>> = stages
        .iter()
        .map(|stage| link_inputs(stage, &places, &mut faults))
        .collect();
    let mut order = Vec::new();
    let mut placed = vec![false; stages.len()];
    while let Some(next) =
        (0..stages.len()).find(|&at| !placed[at] && inputs[at].iter().all(|&input| placed[input]))
    {
        placed[next] = true;
        order.push(next);
    }
    faults.extend(cycles(stages, &inputs, &placed));
    StageGraph {
        order,
        inputs,
        faults,
    }
}

fn link_inputs(
    stage: &StageTable,
    places: &BTreeMap<&str, usize>,
    faults: &mut Vec<ConfigError>,
) -> Vec<usize> {
    let key = format!("stages.{}.inputs", stage.name);
    if stage.inputs.len() > places.len() {
        let text = format!(
            "{} stages are named, but there are only {}",
            stage.inputs.len(),
            places.len()
        );
        faults.push(ConfigError::new(key, text));
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let mut linked = Vec::new();
    for input in &stage.inputs {
        if !seen.insert(input) {
            faults.push(ConfigError::new(&key, format!("`{input}` is named twice")));
            continue;
        }
        match places.get(input.as_str()) {
            Some(&at) => linked.push(at),
            None => {
                let known: Vec<&str> = places
                    .keys()
                    .copied()
                    .filter(|name| *name != stage.name)
                    .collect();
                let near = did_you_mean(input, &known);
                faults.push(ConfigError::new(
                    &key,
                    format!("no stage `{input}`{near}; stages: {}", known.join(", ")),
                ));
            }
        }
    }
    linked
}

/// One fault per cycle, naming its stages in their order.
fn cycles(stages: &[StageTable], inputs: &[Vec<usize>], placed: &[bool]) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    let mut told = vec![false; stages.len()];
    for start in (0..stages.len()).filter(|&at| !placed[at]) {
        let mut path = vec![start];
        // Every unplaced stage has an unplaced input, so this walk ends in a cycle.
        while let Some(&next) = path
            .last()
            .and_then(|&at| inputs[at].iter().find(|&&input| !placed[input]))
        {
            if let Some(from) = path.iter().position(|&at| at == next) {
                let cycle = &path[from..];
                if !cycle.iter().any(|&at| told[at]) {
                    let names: Vec<&str> = cycle
                        .iter()
                        .rev()
                        .map(|&at| stages[at].name.as_str())
                        .collect();
                    let first = names.first().copied().unwrap_or_default();
                    let text = format!(
                        "a cycle: {} -> {first}; a stage cannot feed itself",
                        names.join(" -> ")
                    );
                    faults.push(ConfigError::new(format!("stages.{first}.inputs"), text));
                }
                cycle.iter().for_each(|&at| told[at] = true);
                break;
            }
            path.push(next);
        }
    }
    faults
}
