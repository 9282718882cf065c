//! Reads the nodes of an ONNX file: the graph, its subgraphs, and the functions that the file
//! defines.
//!
//! Names and tensors are slices of the file. Field numbers are those of `onnx.proto`.

use std::collections::HashMap;

use crate::model::onnx_metadata::{MAX_DEPTH, ProtoField, ProtoFields, TOO_DEEP, read_opset};

/// The graph of a file, and its functions.
#[derive(Default)]
pub(super) struct OnnxNodes<'a> {
    pub graph: NodeGraph<'a>,
    pub functions: Vec<OnnxFunction<'a>>,
    /// The version of the ONNX domain.
    pub opset: u64,
}

/// A graph, a subgraph, or the body of a function.
#[derive(Default)]
pub(super) struct NodeGraph<'a> {
    pub nodes: Vec<OnnxNode<'a>>,
    pub inputs: Vec<&'a [u8]>,
    pub outputs: Vec<&'a [u8]>,
    /// The serialized tensors of constants, by name.
    pub initializers: HashMap<&'a [u8], &'a [u8]>,
}

/// A function that the file defines.
#[derive(Default)]
pub(super) struct OnnxFunction<'a> {
    pub domain: &'a [u8],
    pub name: &'a [u8],
    pub overload: &'a [u8],
    pub body: NodeGraph<'a>,
    /// The defaults of its attributes.
    pub defaults: Vec<NodeAttribute<'a>>,
    /// The version of the ONNX domain; `None` for that of the file.
    pub opset: Option<u64>,
}

/// A node.
#[derive(Default)]
pub(super) struct OnnxNode<'a> {
    pub domain: &'a [u8],
    pub op: &'a [u8],
    pub overload: &'a [u8],
    pub name: &'a [u8],
    pub inputs: Vec<&'a [u8]>,
    pub outputs: Vec<&'a [u8]>,
    pub attributes: Vec<NodeAttribute<'a>>,
}

/// An attribute of a node.
#[derive(Default)]
pub(super) struct NodeAttribute<'a> {
    pub name: &'a [u8],
    /// The attribute of the enclosing function that has the value; empty if this one has it.
    pub reference: &'a [u8],
    pub int: i64,
    pub ints: Vec<i64>,
    pub tensor: Option<&'a [u8]>,
    pub graphs: Vec<NodeGraph<'a>>,
}

impl OnnxNode<'_> {
    /// Whether the node has an operator of the ONNX domain.
    pub(crate) fn is_standard(&self) -> bool {
        is_onnx_domain(self.domain)
    }
}

fn is_onnx_domain(domain: &[u8]) -> bool {
    matches!(domain, b"" | b"ai.onnx")
}

/// The maximum number of nodes, names and attributes. The largest networks have about 100,000
/// nodes.
const MAX_ENTRIES: usize = 1 << 22;
const TOO_MANY: &str = "the graph has more than 4,194,304 nodes, names and attributes";

impl<'a> OnnxNodes<'a> {
    /// Reads a serialized `ModelProto`.
    ///
    /// # Errors
    /// When the bytes are malformed, or nested or numerous beyond the limits. The text is a phrase.
    pub fn read(model: &'a [u8]) -> Result<Self, &'static str> {
        let mut read = Self::default();
        let mut reader = NodeReader {
            entries: MAX_ENTRIES,
        };
        for field in ProtoFields(model) {
            match field? {
                // Several occurrences of a message are one message with the fields of all.
                (7, ProtoField::Bytes(graph)) => reader.graph(graph, MAX_DEPTH, &mut read.graph)?,
                (8, ProtoField::Bytes(opset)) => {
                    read.opset = onnx_opset(opset)?.unwrap_or(read.opset);
                }
                (25, ProtoField::Bytes(function)) => {
                    read.functions.push(reader.function(function)?);
                }
                _ => {}
            }
        }
        Ok(read)
    }
}

/// The version in an entry of operator sets, if it is that of the ONNX domain.
fn onnx_opset(entry: &[u8]) -> Result<Option<u64>, &'static str> {
    let (domain, version) = read_opset(entry)?;
    Ok(is_onnx_domain(domain.as_bytes()).then_some(version))
}

struct NodeReader {
    /// The number of entries that may still be read.
    entries: usize,
}

impl NodeReader {
    fn count(&mut self) -> Result<(), &'static str> {
        self.entries = self.entries.checked_sub(1).ok_or(TOO_MANY)?;
        Ok(())
    }

    fn graph<'a>(
        &mut self,
        bytes: &'a [u8],
        depth: usize,
        graph: &mut NodeGraph<'a>,
    ) -> Result<(), &'static str> {
        let inner = depth.checked_sub(1).ok_or(TOO_DEEP)?;
        for field in ProtoFields(bytes) {
            let (number, ProtoField::Bytes(value)) = field? else {
                continue;
            };
            self.count()?;
            match number {
                1 => graph.nodes.push(self.node(value, inner)?),
                5 => {
                    graph.initializers.insert(text_field(value, 8)?, value);
                }
                11 => graph.inputs.push(text_field(value, 1)?),
                12 => graph.outputs.push(text_field(value, 1)?),
                _ => {}
            }
        }
        Ok(())
    }

    fn function<'a>(&mut self, bytes: &'a [u8]) -> Result<OnnxFunction<'a>, &'static str> {
        let mut function = OnnxFunction::default();
        for field in ProtoFields(bytes) {
            let (number, ProtoField::Bytes(value)) = field? else {
                continue;
            };
            self.count()?;
            match number {
                1 => function.name = value,
                4 => function.body.inputs.push(value),
                5 => function.body.outputs.push(value),
                7 => function.body.nodes.push(self.node(value, MAX_DEPTH)?),
                9 => function.opset = onnx_opset(value)?.or(function.opset),
                10 => function.domain = value,
                11 => function.defaults.push(self.attribute(value, MAX_DEPTH)?),
                13 => function.overload = value,
                _ => {}
            }
        }
        Ok(function)
    }

    fn node<'a>(&mut self, bytes: &'a [u8], depth: usize) -> Result<OnnxNode<'a>, &'static str> {
        let inner = depth.checked_sub(1).ok_or(TOO_DEEP)?;
        let mut node = OnnxNode::default();
        for field in ProtoFields(bytes) {
            let (number, ProtoField::Bytes(value)) = field? else {
                continue;
            };
            self.count()?;
            match number {
                1 => node.inputs.push(value),
                2 => node.outputs.push(value),
                3 => node.name = value,
                4 => node.op = value,
                5 => node.attributes.push(self.attribute(value, inner)?),
                7 => node.domain = value,
                8 => node.overload = value,
                _ => {}
            }
        }
        Ok(node)
    }

    fn attribute<'a>(
        &mut self,
        bytes: &'a [u8],
        depth: usize,
    ) -> Result<NodeAttribute<'a>, &'static str> {
        let inner = depth.checked_sub(1).ok_or(TOO_DEEP)?;
        let mut attribute = NodeAttribute::default();
        let mut own_graph: Option<NodeGraph<'a>> = None;
        for field in ProtoFields(bytes) {
            match field? {
                (1, ProtoField::Bytes(name)) => attribute.name = name,
                (3, ProtoField::Varint(int)) => attribute.int = int.cast_signed(),
                (5, ProtoField::Bytes(tensor)) => attribute.tensor = Some(tensor),
                (6, ProtoField::Bytes(graph)) => {
                    self.graph(graph, inner, own_graph.get_or_insert_default())?;
                }
                (8, ProtoField::Varint(int)) => {
                    self.count()?;
                    attribute.ints.push(int.cast_signed());
                }
                (8, ProtoField::Bytes(packed)) => {
                    let mut packed = ProtoFields(packed);
                    while let Some(int) = packed.next_varint() {
                        self.count()?;
                        attribute.ints.push(int?.cast_signed());
                    }
                }
                (11, ProtoField::Bytes(graph)) => {
                    let mut listed = NodeGraph::default();
                    self.graph(graph, inner, &mut listed)?;
                    attribute.graphs.push(listed);
                }
                (21, ProtoField::Bytes(reference)) => attribute.reference = reference,
                _ => {}
            }
        }
        attribute.graphs.extend(own_graph);
        Ok(attribute)
    }
}

/// The last value of a text field of a message; empty if there is none.
fn text_field(message: &[u8], number: u64) -> Result<&[u8], &'static str> {
    let mut text: &[u8] = b"";
    for field in ProtoFields(message) {
        match field? {
            (at, ProtoField::Bytes(value)) if at == number => text = value,
            _ => {}
        }
    }
    Ok(text)
}

/// Whether all values of a serialized `TensorProto` are zero or false; `None` if the values are not
/// in the file, or not numbers.
pub(super) fn is_zero(tensor: &[u8]) -> Option<bool> {
    let (mut has_values, mut zero) = (false, true);
    for field in ProtoFields(tensor) {
        match field.ok()? {
            // float_data, int32_data, int64_data, raw_data, double_data and uint64_data. The
            // serialized form of zeros has only zero bytes, packed or not.
            (4 | 5 | 7 | 9 | 10 | 11, ProtoField::Bytes(values)) => {
                has_values |= !values.is_empty();
                zero &= values.iter().all(|&byte| byte == 0);
            }
            (5 | 7 | 11, ProtoField::Varint(value)) => {
                has_values = true;
                zero &= value == 0;
            }
            (4 | 10, ProtoField::Other) | (6 | 13, _) => return None,
            _ => {}
        }
    }
    has_values.then_some(zero)
}
