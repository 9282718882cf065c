//! The export of a network as an ONNX graph, with a node for each step.

mod normalization;
mod proto;
mod sample;

use prost::Message as _;

use super::sequential::Sequential;
use crate::train::layer_spec::{Activation, ConvolutionSpec, LEAK, LayerSpec};
use crate::train::parameter::Parameter;
use crate::train::record_shape::RecordShape;

use self::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
    ValueInfoProto,
};

/// The operator set, the first with the current definition of all operators that are used here.
pub(crate) const OPSET: i64 = 17;
/// The IR version that belongs to this operator set.
const IR_VERSION: i64 = 8;

/// Returns the chain as an ONNX file with one input and one output, float32, with a batch dimension
/// of any size, and with height and width of any size if the chain does not fix them. An encoder of
/// distributions has `logvar` as a second output if the code has fewer values than a record:
/// otherwise nothing but names would distinguish codes from records. `weights` are the chain's
/// parameters in order; `metadata` becomes `metadata_props`.
pub fn write(
    name: &str,
    value_names: [&str; 2],
    chain: &Sequential,
    weights: &[Vec<f32>],
    metadata: &[(&str, String)],
) -> Vec<u8> {
    let mut writer = OnnxGraphWriter {
        parameters: chain.parameters(),
        weights,
        next: 0,
        graph: GraphProto::default(),
        value: value_names[0].to_owned(),
        outputs: Vec::new(),
        returns_variance: chain.output().len() < chain.input().len(),
        is_image: matches!(chain.input(), RecordShape::Planes { .. }),
    };
    let mut kept = Vec::new();
    for (index, step) in chain.layers().iter().enumerate() {
        writer.step(index, step, &mut kept);
    }
    // The last node gives the output its name, and an empty chain still needs one node.
    writer.node("Identity", "output", &[], vec![]);
    let renamed = writer
        .graph
        .node
        .last_mut()
        .expect("`node` has appended a node");
    renamed.output = vec![value_names[1].to_owned()];
    let more_outputs = writer.outputs;
    let mut graph = writer.graph;
    graph.name = name.to_owned();
    graph.input = vec![value_info(value_names[0], chain.input())];
    graph.output = vec![value_info(value_names[1], chain.output())];
    graph.output.extend(more_outputs);
    let properties = metadata.iter().map(|(key, value)| StringStringEntryProto {
        key: (*key).to_owned(),
        value: value.clone(),
    });
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "latentflow".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: OPSET,
        }],
        graph: Some(graph),
        metadata_props: properties.collect(),
    };
    model.encode_to_vec()
}

struct OnnxGraphWriter<'a> {
    parameters: Vec<Parameter>,
    weights: &'a [Vec<f32>],
    /// Index of the next parameter.
    next: usize,
    graph: GraphProto,
    /// Name of the current value.
    value: String,
    /// Outputs in addition to the last value.
    outputs: Vec<ValueInfoProto>,
    /// Whether the variance of a code is an output.
    returns_variance: bool,
    /// Whether a record of the current value is an image.
    is_image: bool,
}

impl OnnxGraphWriter<'_> {
    fn step(&mut self, index: usize, step: &LayerSpec, kept: &mut Vec<String>) {
        match *step {
            LayerSpec::Affine { scale, offset } => {
                let scale = self.constant(format!("{index}.scale"), &[scale]);
                let offset = self.constant(format!("{index}.offset"), &[offset]);
                self.node("Mul", &format!("{index}.scaled"), &[&scale], vec![]);
                self.node("Add", &format!("{index}.shifted"), &[&offset], vec![]);
            }
            LayerSpec::Dense { .. } => {
                let (weight, bias) = (self.learned(), self.learned());
                self.node("Gemm", &format!("{index}.dense"), &[&weight, &bias], vec![]);
            }
            LayerSpec::Conv(conv) => self.convolution("Conv", index, &conv),
            LayerSpec::ConvTranspose(conv) => self.convolution("ConvTranspose", index, &conv),
            LayerSpec::Activate(activation) => self.activation(index, activation),
            LayerSpec::Flatten => {
                let axis = vec![AttributeProto::int("axis", 1)];
                self.node("Flatten", &format!("{index}.flat"), &[], axis);
                self.is_image = false;
            }
            LayerSpec::Unflatten {
                shape: [channels, height, width],
            } => {
                // A leading 0 keeps the batch dimension unchanged.
                let shape = [0, channels as i64, height as i64, width as i64];
                let name = self.integers(format!("{index}.shape"), &shape);
                self.node("Reshape", &format!("{index}.planes"), &[&name], vec![]);
                self.is_image = true;
            }
            LayerSpec::SpaceToDepth => {
                self.node(
                    "SpaceToDepth",
                    &format!("{index}.folded"),
                    &[],
                    vec![AttributeProto::int("blocksize", 2)],
                );
            }
            LayerSpec::DepthToSpace => {
                self.node(
                    "DepthToSpace",
                    &format!("{index}.unfolded"),
                    &[],
                    vec![AttributeProto::int("blocksize", 2)],
                );
            }
            LayerSpec::Normalize { over, channels } => self.normalize(index, over, channels),
            LayerSpec::Sample { code } => self.sample(index, code),
            LayerSpec::SaveSkip => kept.push(self.value.clone()),
            LayerSpec::AddSkip => {
                let other = kept
                    .pop()
                    .expect("`Sequential::new` checks that a value is stored before it is added");
                self.node("Add", &format!("{index}.sum"), &[&other], vec![]);
            }
            LayerSpec::ConcatSkip => {
                let other = kept
                    .pop()
                    .expect("`Sequential::new` checks that a value is stored before it is used");
                self.node(
                    "Concat",
                    &format!("{index}.joined"),
                    &[&other],
                    vec![AttributeProto::int("axis", 1)],
                );
            }
        }
    }

    fn convolution(&mut self, operator: &str, index: usize, conv: &ConvolutionSpec) {
        let (weight, bias) = (self.learned(), self.learned());
        let square = |name: &str, size: usize| AttributeProto::ints(name, &[size as i64; 2]);
        let attributes = vec![
            square("kernel_shape", conv.kernel),
            square("strides", conv.stride),
            AttributeProto::ints("pads", &[conv.padding as i64; 4]),
        ];
        self.node(
            operator,
            &format!("{index}.conv"),
            &[&weight, &bias],
            attributes,
        );
    }

    fn activation(&mut self, index: usize, activation: Activation) {
        let output = format!("{index}.{}", activation.as_str());
        match activation {
            Activation::Linear => {}
            Activation::Relu => self.node("Relu", &output, &[], vec![]),
            Activation::LeakyRelu => self.node(
                "LeakyRelu",
                &output,
                &[],
                vec![AttributeProto::float("alpha", LEAK)],
            ),
            Activation::Elu => self.node(
                "Elu",
                &output,
                &[],
                vec![AttributeProto::float("alpha", 1.0)],
            ),
            Activation::Tanh => self.node("Tanh", &output, &[], vec![]),
            Activation::Sigmoid => self.node("Sigmoid", &output, &[], vec![]),
            Activation::Silu => {
                let before = self.value.clone();
                self.node("Sigmoid", &format!("{index}.gate"), &[], vec![]);
                self.node("Mul", &output, &[&before], vec![]);
            }
        }
    }

    /// Appends a node whose first input is the current value; its output becomes the current value.
    fn node(
        &mut self,
        operator: &str,
        output: &str,
        others: &[&str],
        attribute: Vec<AttributeProto>,
    ) {
        let input = std::iter::once(self.value.as_str())
            .chain(others.iter().copied())
            .map(str::to_owned)
            .collect();
        let node = NodeProto {
            input,
            output: vec![output.to_owned()],
            name: output.to_owned(),
            op_type: operator.to_owned(),
            attribute,
        };
        self.graph.node.push(node);
        self.value = output.to_owned();
    }

    fn constant(&mut self, name: String, values: &[f32]) -> String {
        self.graph
            .initializer
            .push(TensorProto::float(&name, &[], values));
        name
    }

    fn integers(&mut self, name: String, values: &[i64]) -> String {
        self.graph
            .initializer
            .push(TensorProto::int64(&name, values));
        name
    }

    fn learned(&mut self) -> String {
        let shape = self.parameters[self.next].shape.clone();
        self.learned_as(&shape)
    }

    /// Appends the next parameter with other dimensions.
    fn learned_as(&mut self, shape: &[usize]) -> String {
        let (parameter, values) = (&self.parameters[self.next], &self.weights[self.next]);
        self.next += 1;
        let tensor = TensorProto::float(&parameter.name, shape, values);
        self.graph.initializer.push(tensor);
        parameter.name.clone()
    }
}

fn value_info(name: &str, shape: RecordShape) -> ValueInfoProto {
    let fixed = |size: usize| DimensionProto {
        value: Some(size as i64),
        param: None,
    };
    let open = |dimension: &str| DimensionProto {
        value: None,
        param: Some(dimension.to_owned()),
    };
    let mut dims = vec![open("batch")];
    match shape {
        RecordShape::Flat(len) => dims.push(fixed(len)),
        RecordShape::Planes {
            channels,
            size: Some((height, width)),
        } => dims.extend([channels, height, width].map(fixed)),
        RecordShape::Planes {
            channels,
            size: None,
        } => dims.extend([fixed(channels), open("height"), open("width")]),
    }
    let tensor = TensorTypeProto {
        elem_type: proto::FLOAT,
        shape: Some(TensorShapeProto { dim: dims }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            tensor_type: Some(tensor),
        }),
    }
}
