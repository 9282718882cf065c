//! Finds the nodes of an ONNX file that make its outputs differ between runs on the same record:
//! those that draw random numbers, and those that mix the records of a batch.
//!
//! Only nodes on which an output depends count. Subgraphs of If, Loop and Scan, and functions of
//! the file, are followed. A branch that a constant condition excludes is not.

pub(crate) mod scope;
pub(crate) mod search;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::nondeterminism::scope::{MAX_SCOPES, NodeScope, ParentScope};
use crate::model::nondeterminism::search::{MAX_VISITS, NodeSearch};
use crate::model::onnx_graph::OnnxNodes;
use crate::text_escape::line;

/// A node whose output is not a function of the record alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NondeterministicNode {
    /// The operator.
    pub op: String,
    /// The name of the node; may be empty.
    pub name: String,
    /// The effect of the node.
    pub effect: NondeterministicEffect,
}

/// The way in which a node is not deterministic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NondeterministicEffect {
    /// Draws random numbers.
    Random,
    /// Drops values at random, since it is in training mode.
    Dropout,
    /// Normalizes by the statistics of the batch, since it is in training mode.
    BatchStatistics,
    /// Scales or centers by the values of all records of the batch.
    BatchScale,
}

impl NondeterministicEffect {
    /// Whether a batch of one record is free of the effect. The statistics of one record are not
    /// those of the training, so a model in training mode is never free of it.
    fn requires_batch(self) -> bool {
        self == Self::BatchScale
    }

    /// How to export the model without the effect.
    fn export_hint(self) -> &'static str {
        match self {
            Self::Random => {
                "export the model without random numbers, such as the mean of a VAE instead of a \
                 sample"
            }
            Self::Dropout | Self::BatchStatistics => {
                "export the model in evaluation mode (in PyTorch, call `model.eval()` before)"
            }
            Self::BatchScale => "export the model with a batch size of 1",
        }
    }
}

impl fmt::Display for NondeterministicNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&line(&self.op))?;
        if !self.name.is_empty() {
            write!(f, " `{}`", line(&self.name))?;
        }
        f.write_str(match self.effect {
            NondeterministicEffect::Random => " draws random numbers",
            NondeterministicEffect::Dropout => " draws random numbers in training mode",
            NondeterministicEffect::BatchStatistics => {
                " normalizes a record by the other records of its batch in training mode"
            }
            NondeterministicEffect::BatchScale => {
                " scales a record by the values of all records of its batch"
            }
        })
    }
}

/// The nondeterministic nodes on which each output of a file depends; an empty set for the outputs
/// that depend on none.
pub(crate) type NondeterministicOutputs = BTreeMap<String, BTreeSet<NondeterministicNode>>;

/// The maximum number of nodes and of outputs that a message lists.
const LISTED: usize = 3;

/// Why an output of a file is not deterministic, and how to use the file nevertheless.
pub(crate) struct NondeterminismFault {
    /// The nodes and their effects.
    pub reason: String,
    /// The message of a refusal.
    pub message: String,
}

/// The fault of a file whose output `name` is not deterministic; `None` if it is. `single` is
/// whether every call has one record, and `option` the option with which another output can be
/// selected, if there is one.
pub fn fault(
    outputs: &NondeterministicOutputs,
    name: &str,
    single: bool,
    option: Option<&str>,
) -> Option<NondeterminismFault> {
    let matters = |node: &&NondeterministicNode| !(single && node.effect.requires_batch());
    let nodes: Vec<_> = outputs.get(name)?.iter().filter(matters).collect();
    if nodes.is_empty() {
        return None;
    }
    let reasons: Vec<String> = nodes.iter().take(LISTED).map(ToString::to_string).collect();
    let more = match nodes.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let reason = format!("{}{more}", reasons.join(", "));
    let others = outputs
        .iter()
        .filter(|(_, others)| !others.iter().any(|node| matters(&node)))
        .take(LISTED);
    let others: Vec<String> = others
        .map(|(other, _)| format!("`{}`", line(other)))
        .collect();
    let select = option.filter(|_| !others.is_empty()).map(|option| {
        let others = others.join(" or ");
        format!("set `{option}` to an output that does not depend on it ({others})")
    });
    let hints: BTreeSet<&str> = nodes.iter().map(|node| node.effect.export_hint()).collect();
    let remedies: Vec<&str> = select.as_deref().into_iter().chain(hints).collect();
    let message = format!(
        "the output `{}` is not the same in every run: {reason}; {}, or set \
         `allow_nondeterministic = true`",
        line(name),
        remedies.join(", or ")
    );
    Some(NondeterminismFault { reason, message })
}

/// Finds the nondeterministic nodes on which each output of a serialized `ModelProto` depends.
///
/// # Errors
/// When the bytes are malformed, or nested or numerous beyond the limits. The text is a phrase.
pub fn find(model: &[u8]) -> Result<NondeterministicOutputs, &'static str> {
    let nodes = OnnxNodes::read(model)?;
    let mut search = NodeSearch {
        functions: nodes
            .functions
            .iter()
            .map(|function| {
                (
                    (function.domain, function.name, function.overload),
                    function,
                )
            })
            .collect(),
        found: BTreeSet::new(),
        visits: MAX_VISITS,
    };
    let scope = NodeScope::new(&nodes.graph, nodes.opset, ParentScope::None);
    let mut by_output = BTreeMap::new();
    for output in &nodes.graph.outputs {
        search.upstream(&scope, vec![*output], MAX_SCOPES)?;
        by_output.insert(text(output), std::mem::take(&mut search.found));
    }
    // ONNX Runtime computes all outputs, and a node in training mode overwrites its mean and
    // variance, whose memory equal constants of other nodes share. So it changes all outputs.
    let is_training =
        |node: &&NondeterministicNode| node.effect == NondeterministicEffect::BatchStatistics;
    let training: BTreeSet<_> = by_output
        .values()
        .flatten()
        .filter(is_training)
        .cloned()
        .collect();
    for found in by_output.values_mut() {
        found.extend(training.iter().cloned());
    }
    Ok(by_output)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
