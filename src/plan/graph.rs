//! The stage graph of a pipeline and its topological order.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::settings::StageTable;
use crate::error::config_error::ConfigError;
use crate::registry::did_you_mean;

/// The graph of the stages, which are identified by their positions in the file.
#[derive(Debug)]
pub(super) struct StageGraph {
    /// The stages in topological order, otherwise in the order of the file, without those in a
    /// cycle or downstream of one.
    pub(super) order: Vec<usize>,
    /// The inputs of each stage, as declared.
    pub(super) inputs: Vec<Vec<usize>>,
    /// The faults of the graph.
    pub(super) faults: Vec<ConfigError>,
}

/// Links stages by name and sorts them.
pub(super) fn link(stages: &[StageTable]) -> StageGraph {
    let indices: BTreeMap<&str, usize> = stages
        .iter()
        .enumerate()
        .map(|(at, stage)| (stage.name.as_str(), at))
        .collect();
    let mut faults = Vec::new();
    let inputs: Vec<Vec<usize>> = stages
        .iter()
        .map(|stage| link_inputs(stage, &indices, &mut faults))
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
    indices: &BTreeMap<&str, usize>,
    faults: &mut Vec<ConfigError>,
) -> Vec<usize> {
    let key = format!("stages.{}.inputs", stage.name);
    if stage.inputs.len() > indices.len() {
        let text = format!(
            "{} inputs are too many; the number of stages of the pipeline is {}",
            stage.inputs.len(),
            indices.len()
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
        match indices.get(input.as_str()) {
            Some(&at) => linked.push(at),
            None => {
                let known: Vec<&str> = indices
                    .keys()
                    .copied()
                    .filter(|name| *name != stage.name)
                    .collect();
                let near = did_you_mean(input, &known);
                faults.push(ConfigError::new(
                    &key,
                    format!("unknown stage `{input}`{near}; known: {}", known.join(", ")),
                ));
            }
        }
    }
    linked
}

/// Returns one fault for each cycle, which lists its stages in order.
fn cycles(stages: &[StageTable], inputs: &[Vec<usize>], placed: &[bool]) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    let mut reported = vec![false; stages.len()];
    for start in (0..stages.len()).filter(|&at| !placed[at]) {
        let mut path = vec![start];
        // Every unplaced stage has an unplaced input, so this walk ends in a cycle.
        while let Some(&next) = path
            .last()
            .and_then(|&at| inputs[at].iter().find(|&&input| !placed[input]))
        {
            if let Some(from) = path.iter().position(|&at| at == next) {
                let cycle = &path[from..];
                if !cycle.iter().any(|&at| reported[at]) {
                    let names: Vec<&str> = cycle
                        .iter()
                        .rev()
                        .map(|&at| stages[at].name.as_str())
                        .collect();
                    let first = names.first().copied().unwrap_or_default();
                    let text = format!(
                        "the inputs form a cycle: {} -> {first}; remove one of these inputs",
                        names.join(" -> ")
                    );
                    faults.push(ConfigError::new(format!("stages.{first}.inputs"), text));
                }
                cycle.iter().for_each(|&at| reported[at] = true);
                break;
            }
            path.push(next);
        }
    }
    faults
}
