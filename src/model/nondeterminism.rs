//! Finds the nodes of an ONNX file that make its outputs differ between runs on the same record:
//! those that draw random numbers, and those that mix the records of a batch.
//!
//! Only nodes on which an output depends count. Subgraphs of If, Loop and Scan, and functions of
//! the file, are followed. A branch that a constant condition excludes is not.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use crate::model::onnx_graph::{
    NodeAttribute, NodeGraph, OnnxFunction, OnnxNode, OnnxNodes, is_zero,
};
use crate::text_escape::line;

/// A node whose output is not a function of the record alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NondeterministicNode {
    /// The operator.
    pub op: String,
    /// The name of the node; may be empty.
    pub name: String,
    /// The effect of the node.
    pub effect: NondeterministicEffect,
}

/// The way in which a node is not deterministic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NondeterministicEffect {
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
pub type NondeterministicOutputs = BTreeMap<String, BTreeSet<NondeterministicNode>>;

/// The maximum number of nodes and of outputs that a message lists.
const LISTED: usize = 3;

/// Why an output of a file is not deterministic, and how to use the file nevertheless.
pub struct NondeterminismFault {
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

/// The maximum number of tensors that are followed, over all outputs and all calls of functions.
const MAX_VISITS: usize = 1 << 24;
const TOO_MANY: &str = "the graph is too large, or calls its functions too often";

/// The maximum nesting of subgraphs and of calls of functions.
const MAX_SCOPES: usize = 50;
const TOO_DEEP: &str = "subgraphs and functions are nested more than 50 levels deep";

/// The maximum number of nodes between a constant and its use, scopes included.
const MAX_CONSTANT_STEPS: usize = 100;

/// The names that are visible to a node: those of its graph, and those of the enclosing one.
struct NodeScope<'s, 'a> {
    graph: &'s NodeGraph<'a>,
    /// The node of each tensor, and the position of the tensor among its outputs.
    producers: HashMap<&'a [u8], (&'s OnnxNode<'a>, usize)>,
    /// The version of the ONNX domain.
    opset: u64,
    parent: ParentScope<'s, 'a>,
}

enum ParentScope<'s, 'a> {
    None,
    /// The graph is a subgraph of a node of this scope.
    Graph(&'s NodeScope<'s, 'a>),
    /// The graph is the body of a function that a node of this scope calls.
    Caller {
        scope: &'s NodeScope<'s, 'a>,
        node: &'s OnnxNode<'a>,
        function: &'s OnnxFunction<'a>,
    },
}

impl<'s, 'a> NodeScope<'s, 'a> {
    fn new(graph: &'s NodeGraph<'a>, opset: u64, parent: ParentScope<'s, 'a>) -> Self {
        let outputs = |node: &'s OnnxNode<'a>| {
            let positions = node.outputs.iter().enumerate();
            positions.map(move |(position, &output)| (output, (node, position)))
        };
        Self {
            graph,
            producers: graph.nodes.iter().flat_map(outputs).collect(),
            opset,
            parent,
        }
    }

    /// The attribute of a node. In a function it may refer to an attribute of the calling node.
    fn attribute(&self, node: &'s OnnxNode<'a>, name: &[u8]) -> Option<&'s NodeAttribute<'a>> {
        let attribute = named(&node.attributes, name)?;
        if attribute.reference.is_empty() {
            Some(attribute)
        } else {
            self.attribute_of_call(attribute.reference)
        }
    }

    fn attribute_of_call(&self, name: &[u8]) -> Option<&'s NodeAttribute<'a>> {
        match &self.parent {
            ParentScope::None => None,
            ParentScope::Graph(outer) => outer.attribute_of_call(name),
            ParentScope::Caller {
                scope,
                node,
                function,
            } => scope
                .attribute(node, name)
                .or_else(|| named(&function.defaults, name)),
        }
    }

    /// Whether a tensor is constant and zero (or false) or not; `None` if it is not constant.
    fn is_zero(&self, name: &[u8], steps: usize) -> Option<bool> {
        let before = steps.checked_sub(1)?;
        if let Some(tensor) = self.graph.initializers.get(name) {
            return is_zero(tensor);
        }
        if let Some((node, _)) = self.producers.get(name) {
            return self.node_is_zero(node, before);
        }
        let position = self.graph.inputs.iter().position(|input| *input == name);
        match (&self.parent, position) {
            (ParentScope::Graph(outer), None) => outer.is_zero(name, before),
            (ParentScope::Caller { scope, node, .. }, Some(position)) => {
                scope.is_zero(node.inputs.get(position)?, before)
            }
            _ => None,
        }
    }

    fn node_is_zero(&self, node: &'s OnnxNode<'a>, steps: usize) -> Option<bool> {
        let input = || self.is_zero(node.inputs.first()?, steps);
        match node.op {
            _ if !node.is_standard() => None,
            b"Constant" => {
                let tensor = || is_zero(self.attribute(node, b"value")?.tensor?);
                let int = || Some(self.attribute(node, b"value_int")?.int == 0);
                tensor().or_else(int)
            }
            b"Identity" | b"Cast" | b"CastLike" | b"Reshape" | b"Squeeze" | b"Unsqueeze" => input(),
            b"Not" => input().map(|zero| !zero),
            _ => None,
        }
    }

    /// Whether a dropout node drops values: it is in training mode, or may be, and its ratio is not
    /// 0. The arguments are the positions of these inputs.
    fn drops(&self, node: &OnnxNode<'a>, ratio: usize, training: usize) -> bool {
        let is_zero = |position: usize| {
            let input = node.inputs.get(position);
            input
                .filter(|input| !input.is_empty())
                .map(|input| self.is_zero(input, MAX_CONSTANT_STEPS))
        };
        // Without these inputs, the node is not in training mode, and its ratio is 0.5.
        !matches!(is_zero(training), None | Some(Some(true))) && is_zero(ratio) != Some(Some(true))
    }

    /// The effect of a node by its operator and its attributes.
    fn effect(&self, node: &'s OnnxNode<'a>) -> Option<NondeterministicEffect> {
        use NondeterministicEffect::{BatchScale, BatchStatistics, Dropout, Random};
        let int = |name: &[u8]| self.attribute(node, name).map(|attribute| attribute.int);
        // Before version 7, a node is in training mode unless `is_test` is set.
        let is_old_training = || self.opset < 7 && int(b"is_test").unwrap_or(0) == 0;
        let domain = if node.is_standard() { b"" } else { node.domain };
        match (domain, node.op) {
            (b"", b"RandomNormal" | b"RandomNormalLike" | b"RandomUniform")
            | (b"", b"RandomUniformLike" | b"Multinomial" | b"Bernoulli")
            | (b"com.microsoft", b"Sampling") => Some(Random),
            // From version 7 to 11, it is never in training mode.
            (b"", b"Dropout") => {
                let drops = is_old_training() || (self.opset >= 12 && self.drops(node, 1, 2));
                drops.then_some(Dropout)
            }
            (b"com.microsoft", b"BitmaskDropout") => self.drops(node, 1, 2).then_some(Dropout),
            (b"com.microsoft", b"BiasDropout" | b"BitmaskBiasDropout") => {
                self.drops(node, 3, 4).then_some(Dropout)
            }
            (b"", b"BatchNormalization") => {
                // From version 7 to 13, outputs of the statistics mark training mode.
                let statistics = node.outputs.iter().skip(1).any(|output| !output.is_empty());
                let training = match self.opset {
                    14.. => int(b"training_mode").is_some_and(|mode| mode != 0),
                    7.. => statistics,
                    _ => is_old_training(),
                };
                training.then_some(BatchStatistics)
            }
            (b"com.microsoft", b"BatchNormInternal") => {
                (int(b"training_mode") != Some(0)).then_some(BatchStatistics)
            }
            (b"", b"DynamicQuantizeLinear")
            | (b"com.microsoft", b"DynamicQuantizeMatMul" | b"DynamicQuantizeLSTM") => {
                Some(BatchScale)
            }
            // The default axes are 0, 2 and 3.
            (b"", b"MeanVarianceNormalization") => {
                let axes = self.attribute(node, b"axes");
                axes.is_none_or(|axes| axes.ints.contains(&0))
                    .then_some(BatchScale)
            }
            _ => None,
        }
    }
}

fn named<'s, 'a>(
    attributes: &'s [NodeAttribute<'a>],
    name: &[u8],
) -> Option<&'s NodeAttribute<'a>> {
    attributes.iter().find(|attribute| attribute.name == name)
}

/// The domain, the name and the overload of a function.
type FunctionKey<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Follows outputs to the nodes on which they depend.
struct NodeSearch<'m, 'a> {
    functions: HashMap<FunctionKey<'a>, &'m OnnxFunction<'a>>,
    found: BTreeSet<NondeterministicNode>,
    /// The number of tensors that may still be followed.
    visits: usize,
}

impl<'a> NodeSearch<'_, 'a> {
    fn count(&mut self, visits: usize) -> Result<(), &'static str> {
        self.visits = self.visits.checked_sub(visits).ok_or(TOO_MANY)?;
        Ok(())
    }

    /// Follows the tensors `targets` of a scope. Returns the tensors on which they depend and that no
    /// node of the scope computes.
    fn upstream(
        &mut self,
        scope: &NodeScope<'_, 'a>,
        targets: Vec<&'a [u8]>,
        depth: usize,
    ) -> Result<Vec<&'a [u8]>, &'static str> {
        let inner = depth.checked_sub(1).ok_or(TOO_DEEP)?;
        self.count(scope.graph.nodes.len())?;
        let (mut pending, mut free, mut seen) = (targets, Vec::new(), HashSet::new());
        while let Some(name) = pending.pop() {
            if !seen.insert(name) {
                continue;
            }
            match scope.producers.get(name) {
                Some(&(node, position)) => {
                    let mut required = self.required(scope, node, position, inner)?;
                    self.count(required.len())?;
                    pending.append(&mut required);
                }
                None => free.push(name),
            }
        }
        Ok(free)
    }

    /// The tensors that the output at `position` of a node depends on.
    fn required<'s>(
        &mut self,
        scope: &NodeScope<'s, 'a>,
        node: &'s OnnxNode<'a>,
        position: usize,
        depth: usize,
    ) -> Result<Vec<&'a [u8]>, &'static str> {
        let key = (node.domain, node.op, node.overload);
        if let Some(function) = self.functions.get(&key).copied() {
            return self.required_by_call(scope, node, function, position, depth);
        }
        if let Some(effect) = scope.effect(node) {
            self.found.insert(NondeterministicNode {
                op: text(node.op),
                name: text(node.name),
                effect,
            });
        }
        let is_if = node.is_standard() && node.op == b"If";
        let condition = match node.inputs.first() {
            Some(input) if is_if => scope.is_zero(input, MAX_CONSTANT_STEPS),
            _ => None,
        };
        let mut required = node.inputs.clone();
        for attribute in &node.attributes {
            let excluded = match condition {
                Some(true) => b"then_branch".as_slice(),
                Some(false) => b"else_branch",
                None => b"",
            };
            if !excluded.is_empty() && attribute.name == excluded {
                continue;
            }
            let Some(resolved) = scope.attribute(node, attribute.name) else {
                continue;
            };
            for graph in &resolved.graphs {
                let targets = match graph.outputs.get(position) {
                    Some(output) if is_if => vec![*output],
                    _ => graph.outputs.clone(),
                };
                let subgraph = NodeScope::new(graph, scope.opset, ParentScope::Graph(scope));
                let mut free = self.upstream(&subgraph, targets, depth)?;
                free.retain(|name| !graph.inputs.contains(name));
                required.append(&mut free);
            }
        }
        Ok(required)
    }

    fn required_by_call<'s>(
        &mut self,
        scope: &NodeScope<'s, 'a>,
        node: &'s OnnxNode<'a>,
        function: &OnnxFunction<'a>,
        position: usize,
        depth: usize,
    ) -> Result<Vec<&'a [u8]>, &'static str> {
        let caller = ParentScope::Caller {
            scope,
            node,
            function,
        };
        let opset = function.opset.unwrap_or(scope.opset);
        let body = NodeScope::new(&function.body, opset, caller);
        let targets = function.body.outputs.get(position).copied();
        let free = self.upstream(&body, targets.into_iter().collect(), depth)?;
        let arguments = free.iter().filter_map(|name| {
            let mut inputs = function.body.inputs.iter();
            node.inputs.get(inputs.position(|input| input == name)?)
        });
        Ok(arguments.copied().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use expect_test::{Expect, expect};

    use super::*;
    use crate::model::testing::file;

    /// The outputs of a file under `tests/models` with their nodes, one per line.
    fn check(name: &str, expected: Expect) {
        let outputs = find(&std::fs::read(file(name)).unwrap()).unwrap();
        let line = |(output, nodes): (&String, &BTreeSet<NondeterministicNode>)| {
            let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            format!("{output}: {}\n", nodes.join(", "))
        };
        expected.assert_eq(&outputs.iter().map(line).collect::<String>());
    }

    #[test]
    fn random_nodes_are_found_for_each_output() {
        check(
            "random.onnx",
            expect![[r#"
                bernoulli: Bernoulli draws random numbers
                branch: RandomNormalLike `noise of if_drawn` draws random numbers
                code: 
                dead_branch: 
                default: 
                dropout: Dropout draws random numbers in training mode
                dropped: Dropout `inside` draws random numbers in training mode
                evaluated: 
                kept: 
                loop: RandomUniformLike `inside` draws random numbers
                multinomial: Multinomial draws random numbers
                normal: RandomNormalLike `noise of normal` draws random numbers
                not_dropped: 
                same: 
                sampled: RandomUniformLike `inside` draws random numbers
                uniform: RandomUniformLike draws random numbers
            "#]],
        );
    }

    #[test]
    fn nodes_that_mix_records_are_found_for_each_output() {
        check(
            "batch.onnx",
            expect![[r#"
                all_axes: MeanVarianceNormalization scales a record by the values of all records of its batch
                centered: 
                code: 
                own_axis: 
                quantized: DynamicQuantizeLinear scales a record by the values of all records of its batch
                trained: 
                without_batch: 
            "#]],
        );
    }

    #[test]
    fn node_in_training_mode_changes_all_outputs() {
        let node = "normalizes a record by the other records of its batch in training mode";
        for (name, op, outputs) in [
            (
                "training_mode",
                "BatchNormalization",
                ["code", "training"].as_slice(),
            ),
            (
                "training_mode_of_call",
                "BatchNormalization `inside`",
                &["y"],
            ),
            (
                "old_batch",
                "BatchNormalization",
                &["dropped", "training", "y"],
            ),
        ] {
            let found = find(&std::fs::read(file(&format!("{name}.onnx"))).unwrap()).unwrap();
            let nodes: Vec<(&str, Vec<String>)> = found
                .iter()
                .map(|(output, nodes)| {
                    (
                        output.as_str(),
                        nodes.iter().map(ToString::to_string).collect(),
                    )
                })
                .collect();
            let expected: Vec<_> = outputs
                .iter()
                .map(|&output| (output, vec![format!("{op} {node}")]))
                .collect();
            assert_eq!(nodes, expected);
        }
    }

    #[test]
    fn message_names_the_nodes_and_other_outputs() {
        let node = |op: &str, effect| NondeterministicNode {
            op: op.to_owned(),
            name: "n".to_owned(),
            effect,
        };
        let scale = node("DynamicQuantizeLinear", NondeterministicEffect::BatchScale);
        let random = node("RandomNormal", NondeterministicEffect::Random);
        let outputs = BTreeMap::from([
            ("z".to_owned(), BTreeSet::from([random, scale.clone()])),
            ("mu".to_owned(), BTreeSet::from([scale])),
        ]);
        let message = |output: &str, single: bool| {
            fault(&outputs, output, single, Some("output")).map(|fault| fault.message)
        };
        assert_eq!(message("mu", true), None);
        let expected = "the output `z` is not the same in every run: RandomNormal `n` draws random \
                        numbers; set `output` to an output that does not depend on it (`mu`), or \
                        export the model without random numbers, such as the mean of a VAE instead \
                        of a sample, or set `allow_nondeterministic = true`";
        assert_eq!(message("z", true).as_deref(), Some(expected));
        let of_mean = "the output `mu` is not the same in every run: DynamicQuantizeLinear `n` \
                        scales a record by the values of all records of its batch; export the model \
                        with a batch size of 1, or set `allow_nondeterministic = true`";
        assert_eq!(message("mu", false).as_deref(), Some(of_mean));
        assert_eq!(message("unknown", false), None);
    }

    #[test]
    fn functions_that_call_each_other_endlessly_are_refused() {
        // A function whose only node calls the function itself.
        let bytes = |number: u8, value: &[u8]| {
            let len = u8::try_from(value.len()).unwrap();
            [&[number << 3 | 2, len], value].concat()
        };
        let call = |output: &[u8]| [bytes(2, output), bytes(4, b"F"), bytes(7, b"d")].concat();
        let function = [
            bytes(1, b"F"),
            bytes(5, b"y"),
            bytes(7, &call(b"y")),
            bytes(10, b"d"),
        ]
        .concat();
        let graph = [bytes(1, &call(b"z")), bytes(12, &bytes(1, b"z"))].concat();
        let len = u8::try_from(function.len()).unwrap();
        let model = [
            bytes(7, &graph),
            [&[0xca, 1, len], function.as_slice()].concat(),
        ]
        .concat();
        assert_eq!(find(&model), Err(TOO_DEEP));
    }
}
