//! The nodes that a name refers to, and their effects.

use std::collections::HashMap;

use crate::model::nondeterminism::NondeterministicEffect;
use crate::model::onnx_graph::{NodeAttribute, NodeGraph, OnnxFunction, OnnxNode, is_zero};

/// The maximum nesting of subgraphs and of calls of functions.
pub(super) const MAX_SCOPES: usize = 50;

pub(super) const TOO_DEEP: &str = "subgraphs and functions are nested more than 50 levels deep";

/// The maximum number of nodes between a constant and its use, scopes included.
pub(super) const MAX_CONSTANT_STEPS: usize = 100;

/// The names that are visible to a node: those of its graph, and those of the enclosing one.
pub(super) struct NodeScope<'s, 'a> {
    pub(super) graph: &'s NodeGraph<'a>,
    /// The node of each tensor, and the position of the tensor among its outputs.
    pub(super) producers: HashMap<&'a [u8], (&'s OnnxNode<'a>, usize)>,
    /// The version of the ONNX domain.
    pub(super) opset: u64,
    parent: ParentScope<'s, 'a>,
}

pub(super) enum ParentScope<'s, 'a> {
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
    pub(super) fn new(graph: &'s NodeGraph<'a>, opset: u64, parent: ParentScope<'s, 'a>) -> Self {
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
    pub(super) fn attribute(
        &self,
        node: &'s OnnxNode<'a>,
        name: &[u8],
    ) -> Option<&'s NodeAttribute<'a>> {
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
    pub(super) fn is_zero(&self, name: &[u8], steps: usize) -> Option<bool> {
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
    pub(super) fn effect(&self, node: &'s OnnxNode<'a>) -> Option<NondeterministicEffect> {
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
pub(super) type FunctionKey<'a> = (&'a [u8], &'a [u8], &'a [u8]);
