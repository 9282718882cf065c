//! The search for nodes on which outputs depend.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::model::nondeterminism::scope::{
    FunctionKey, MAX_CONSTANT_STEPS, NodeScope, ParentScope, TOO_DEEP,
};
use crate::model::nondeterminism::{NondeterministicNode, text};
use crate::model::onnx_graph::{OnnxFunction, OnnxNode};

/// The maximum number of tensors that are followed, over all outputs and all calls of functions.
pub(super) const MAX_VISITS: usize = 1 << 24;

const TOO_MANY: &str = "the graph is too large, or calls its functions too often";

/// Follows outputs to the nodes on which they depend.
pub(super) struct NodeSearch<'m, 'a> {
    pub(super) functions: HashMap<FunctionKey<'a>, &'m OnnxFunction<'a>>,
    pub(super) found: BTreeSet<NondeterministicNode>,
    /// The number of tensors that may still be followed.
    pub(super) visits: usize,
}

impl<'a> NodeSearch<'_, 'a> {
    fn count(&mut self, visits: usize) -> Result<(), &'static str> {
        self.visits = self.visits.checked_sub(visits).ok_or(TOO_MANY)?;
        Ok(())
    }

    /// Follows the tensors `targets` of a scope. Returns the tensors on which they depend and that no
    /// node of the scope computes.
    pub(super) fn upstream(
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
