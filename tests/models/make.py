"""Generates the ONNX files of this folder, which the tests run. Needs `pip install onnx numpy`.

The files are committed, so the tests do not need this program.
"""

from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save_model

HERE = Path(__file__).parent
FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8


def save(name, nodes, inputs, outputs, weights=(), external=None, functions=(), opset=17):
    """Saves a graph. Tensors are (name, element type, dimensions); weights are (name, array)."""
    ports = [[helper.make_tensor_value_info(*port) for port in ports] for ports in (inputs, outputs)]
    tensors = [numpy_helper.from_array(np.asarray(array), weight) for weight, array in weights]
    graph = helper.make_graph(nodes, name, *ports, tensors)
    opsets = [helper.make_opsetid("", opset)] + [helper.make_opsetid("local", 1)] * bool(functions)
    model = helper.make_model(
        graph, producer_name="make.py", opset_imports=opsets, ir_version=8, functions=functions
    )
    if external:
        (HERE / external).unlink(missing_ok=True)
        save_model(model, HERE / f"{name}.onnx", save_as_external_data=True, location=external, size_threshold=0)
    else:
        checker.check_model(model, full_check=True)
        save_model(model, HERE / f"{name}.onnx")


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, **attributes)


def dense(name, weight, batch="batch", **options):
    rows, columns = weight.shape
    save(
        name,
        [node("MatMul", ["x", "w"], ["y"])],
        [("x", FLOAT, [batch, rows])],
        [("y", FLOAT, [batch, columns])],
        [("w", weight)],
        **options,
    )


# The latent is the sums of adjacent features; the decoder returns half of the sum for each of them.
pairs = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
dense("encoder", pairs)
dense("decoder", pairs.T / 2)
dense("fixed_batch", pairs, batch=3)
dense("external", pairs, external="external.bin")
dense("wide_decoder", np.ones((3, 4), np.float32))

# A latent of unknown size: the graph selects the columns whose maximum is above -1.
save(
    "untold",
    [
        node("MatMul", ["x", "w"], ["code"]),
        node("ReduceMax", ["code"], ["most"], axes=[0], keepdims=0),
        node("Greater", ["most", "low"], ["taken"]),
        node("Compress", ["code", "taken"], ["y"], axis=1),
    ],
    [("x", FLOAT, ["batch", 4])],
    [("y", FLOAT, ["batch", "code"])],
    [("w", pairs), ("low", np.float32(-1))],
)

# Logarithms: zero gives -infinity, a negative number gives NaN.
save("log", [node("Log", ["x"], ["y"])], [("x", FLOAT, ["batch", 2])], [("y", FLOAT, ["batch", 2])])

# Fails on a batch whose maximum is above 5: the maximum is an index into a table of six zeros.
save(
    "picky",
    [
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Cast", ["most"], ["index"], to=TensorProto.INT64),
        node("Gather", ["table", "index"], ["bias"]),
        node("Add", ["x", "bias"], ["y"]),
    ],
    [("x", FLOAT, ["batch", 2])],
    [("y", FLOAT, ["batch", 2])],
    [("table", np.zeros(6, np.float32))],
)

# Two outputs, the second of which tests select; input and output of bytes; two inputs.
save(
    "two_outputs",
    [node("Neg", ["x"], ["minus"]), node("Add", ["x", "x"], ["twice"])],
    [("x", FLOAT, ["batch", 2])],
    [("minus", FLOAT, ["batch", 2]), ("twice", FLOAT, ["batch", 2])],
)
save(
    "bytes",
    [node("Identity", ["x"], ["y"])],
    [("x", UINT8, ["batch", 2, 2, 3])],
    [("y", UINT8, ["batch", 2, 2, 3])],
)
save(
    "two_inputs",
    [node("Add", ["x", "state"], ["y"])],
    [("x", FLOAT, ["batch", 2]), ("state", FLOAT, ["batch", 2])],
    [("y", FLOAT, ["batch", 2])],
)
save(
    "whole_numbers",
    [node("Cast", ["x"], ["y"], to=TensorProto.INT64)],
    [("x", FLOAT, ["batch", 2])],
    [("y", TensorProto.INT64, ["batch", 2])],
)

# Codes beside their reconstruction. `vae` has the order of PyTorch, in `sampled` the reconstruction is that of a random
# sample, and no name of `unnamed` says which of the two small outputs is the code.
def autoencoder(name, reconstruction, mean, variance, sampled=False):
    code = "sample" if sampled else mean
    save(
        name,
        [
            node("MatMul", ["x", "w"], [mean]),
            node("Neg", [mean], [variance]),
            *([node("RandomNormalLike", [mean], ["noise"]), node("Add", [mean, "noise"], ["sample"])] * sampled),
            node("MatMul", [code, "v"], [reconstruction]),
        ],
        [("x", FLOAT, ["batch", 4])],
        [
            (reconstruction, FLOAT, ["batch", 4]),
            (mean, FLOAT, ["batch", 2]),
            (variance, FLOAT, ["batch", 2]),
        ],
        [("w", pairs), ("v", pairs.T / 2)],
    )


autoencoder("vae", "recon", "mu", "logvar")
autoencoder("sampled", "recon", "mu", "logvar", sampled=True)
autoencoder("unnamed", "4", "5", "6")

# Images of any size. `blur` is a 3x3 mean that excludes the padding at the border; the input is interleaved.
any_size = ["batch", "height", "width", 3]
save(
    "blur",
    [
        node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2]),
        node("AveragePool", ["planes"], ["blurred"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=0),
        node("Transpose", ["blurred"], ["y"], perm=[0, 2, 3, 1]),
    ],
    [("x", FLOAT, any_size)],
    [("y", FLOAT, any_size)],
)

# Halves an image and doubles it again; sides must be even.
gray = ["batch", 1, "height", "width"]
save(
    "halve",
    [node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])],
    [("x", FLOAT, gray)],
    [("y", FLOAT, gray)],
)
save(
    "double",
    [node("Resize", ["x", "", "scales"], ["y"], mode="nearest")],
    [("x", FLOAT, gray)],
    [("y", FLOAT, gray)],
    [("scales", np.array([1, 1, 2, 2], np.float32))],
)

# The sums of adjacent features in float16.
save(
    "float16",
    [node("MatMul", ["x", "w"], ["y"])],
    [("x", TensorProto.FLOAT16, ["batch", 4])],
    [("y", TensorProto.FLOAT16, ["batch", 2])],
    [("w", pairs.astype(np.float16))],
)

# Outputs that draw random numbers, and outputs that only seem to. The graphs of `branch`, `dead_branch` and `loop` and
# the functions draw them inside.
BOOL, INT64 = TensorProto.BOOL, TensorProto.INT64
CODE = [("code", FLOAT, ["batch", 2])]


def value(name, element=FLOAT, dims=None):
    return helper.make_tensor_value_info(name, element, dims)


def subgraph(name, nodes, inputs=(), outputs=()):
    return helper.make_graph(nodes, name, list(inputs), list(outputs))


def reference(node, name):
    """Adds an attribute to the node of a function whose value is that of the attribute of the call."""
    node.attribute.add(name=name, ref_attr_name=name, type=2)
    return node


def noise(result):
    return [
        node("RandomNormalLike", ["code"], [f"{result}_noise"], name=f"noise of {result}"),
        node("Add", ["code", f"{result}_noise"], [result]),
    ]


def imports():
    return [helper.make_opsetid("", 17)]


sample = helper.make_function(
    "local",
    "Sample",
    ["mean"],
    ["same", "drawn"],
    [node("Identity", ["mean"], ["same"]), node("RandomUniformLike", ["mean"], ["drawn"], name="inside")],
    imports(),
)
normalize = helper.make_function(
    "local",
    "Normalize",
    ["x", "one", "zero"],
    ["y"],
    [reference(node("BatchNormalization", ["x", "one", "zero", "zero", "one"], ["y", "mean", "var"], name="inside"), "training_mode")],
    imports(),
    attributes=["training_mode"],
)
drop = helper.make_function(
    "local", "Drop", ["x", "training"], ["y"], [node("Dropout", ["x", "", "training"], ["y"], name="inside")], imports()
)


def branch(name, condition, drawn, still):
    return node(
        "If",
        [condition],
        [name],
        then_branch=subgraph("then", noise(drawn), outputs=[value(drawn)]),
        else_branch=subgraph("else", [node("Identity", ["code"], [still])], outputs=[value(still)]),
    )


body = subgraph(
    "body",
    [
        node("Identity", ["go"], ["go_on"]),
        node("RandomUniformLike", ["outside"], ["step"], name="inside"),
        node("Add", ["state", "step"], ["next"]),
    ],
    [value("index", INT64, []), value("go", BOOL, []), value("state")],
    [value("go_on", BOOL, []), value("next")],
)
save(
    "random",
    [
        node("MatMul", ["x", "w"], ["code"]),
        *noise("normal"),
        node("RandomUniformLike", ["code"], ["uniform"], seed=1.0),
        node("Multinomial", ["code"], ["drawn"]),
        node("Cast", ["drawn"], ["multinomial"], to=FLOAT),
        node("Dropout", ["code", "ratio", "on"], ["dropout"]),
        node("Dropout", ["code", "ratio", "off"], ["evaluated"]),
        node("Dropout", ["code"], ["default"]),
        node("Dropout", ["code", "none", "on"], ["kept"]),
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Greater", ["most", "none"], ["positive"]),
        branch("branch", "positive", "if_drawn", "if_still"),
        branch("dead_branch", "off", "dead_drawn", "dead_still"),
        node("Add", ["code", "code"], ["outside"]),
        node("Sigmoid", ["code"], ["half"]),
        node("Bernoulli", ["half"], ["bernoulli"]),
        node("Loop", ["two", "on", "code"], ["loop"], body=body),
        node("Sample", ["code"], ["same", "sampled"], domain="local"),
        node("Drop", ["code", "on"], ["dropped"], domain="local"),
        node("Drop", ["code", "off"], ["not_dropped"], domain="local"),
    ],
    [("x", FLOAT, ["batch", 4])],
    CODE
    + [
        (name, FLOAT, ["batch", 2])
        for name in (
            "normal uniform bernoulli dropout evaluated default kept branch dead_branch loop same sampled dropped not_dropped"
        ).split()
    ]
    + [("multinomial", FLOAT, ["batch", 1])],
    [
        ("w", pairs),
        ("ratio", np.float32(0.5)),
        ("none", np.float32(0)),
        ("on", np.array(True)),
        ("off", np.array(False)),
        ("two", np.int64(2)),
    ],
    functions=[sample, drop],
)

# Outputs that mix the records of a batch. Only a trial run shows it for `centered`.
save(
    "batch",
    [
        node("MatMul", ["x", "w"], ["code"]),
        node("BatchNormalization", ["code", *["ones"] * 4], ["trained"]),
        node("DynamicQuantizeLinear", ["code"], ["bytes", "scale", "point"]),
        node("DequantizeLinear", ["bytes", "scale", "point"], ["quantized"]),
        node("MeanVarianceNormalization", ["code"], ["all_axes"], axes=[0]),
        node("MeanVarianceNormalization", ["code"], ["own_axis"], axes=[1]),
        node("ReduceMean", ["code"], ["mean"], axes=[0]),
        node("Sub", ["code", "mean"], ["centered"]),
        node("ReduceMean", ["code"], ["without_batch"], axes=[0], keepdims=0),
    ],
    [("x", FLOAT, ["batch", 4])],
    CODE
    + [(name, FLOAT, ["batch", 2]) for name in "trained quantized all_axes own_axis centered".split()]
    + [("without_batch", FLOAT, [2])],
    [("w", pairs), ("ones", np.ones(2, np.float32))],
)

# ONNX Runtime overwrites the mean and the variance of a node in training mode, and equal constants share their memory:
# `code` changes from call to call, although it does not depend on that node.
statistics = ["ones", "zeros", "zeros", "ones"]
inputs, weights = [("x", FLOAT, ["batch", 2])], [("ones", np.ones(2, np.float32)), ("zeros", np.zeros(2, np.float32))]
save(
    "training_mode",
    [
        node("BatchNormalization", ["x", *statistics], ["code"]),
        node("BatchNormalization", ["x", *statistics], ["training", "mean", "variance"], training_mode=1),
    ],
    inputs,
    [(name, FLOAT, ["batch", 2]) for name in ("code", "training")],
    weights,
)
save(
    "training_mode_of_call",
    [node("Normalize", ["x", "ones", "zeros"], ["y"], domain="local", training_mode=1)],
    inputs,
    [("y", FLOAT, ["batch", 2])],
    weights,
    functions=[normalize],
)

# The same quantization for one record at a time.
save(
    "single_record",
    [node("DynamicQuantizeLinear", ["x"], ["bytes", "scale", "point"]), node("DequantizeLinear", ["bytes", "scale", "point"], ["y"])],
    [("x", FLOAT, [1, 4])],
    [("y", FLOAT, [1, 4])],
)

# Training mode before version 14, which additional outputs mark.
save(
    "old_batch",
    [
        node("BatchNormalization", ["x", *statistics], ["training", "mean", "var", "saved_mean", "saved_var"]),
        node("BatchNormalization", ["x", *statistics], ["y"]),
        node("Dropout", ["x"], ["dropped", "mask"], ratio=0.5),
    ],
    inputs,
    [(name, FLOAT, ["batch", 2]) for name in "y training dropped".split()],
    weights,
    opset=9,
)

# Graphs for the stage `onnx`. `types` returns every input as it is, `ids` as single values and as a tensor of one value.
TYPES = "FLOAT16 FLOAT DOUBLE INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64 BOOL STRING".split()
save(
    "types",
    [node("Identity", [name.lower()], [f"{name.lower()}_out"]) for name in TYPES],
    [(name.lower(), getattr(TensorProto, name), ["batch", 1]) for name in TYPES],
    [(f"{name.lower()}_out", getattr(TensorProto, name), ["batch", 1]) for name in TYPES],
)

# The number of features and their sum, of float64.
save(
    "sums",
    [
        node("ReduceSum", ["x", "axis"], ["sum"], keepdims=0),
        node("Shape", ["x"], ["size"], start=1, end=2),
        node("Shape", ["x"], ["records"], start=0, end=1),
        node("Expand", ["size", "records"], ["width"]),
    ],
    [("x", TensorProto.DOUBLE, ["batch", "features"])],
    [("sum", TensorProto.DOUBLE, ["batch"]), ("width", INT64, ["batch"])],
    [("axis", np.array([1]))],
)

# Sequences: the sum of the steps is a code; the partial sums of each step are a tensor, and their first feature a list.
save(
    "sequence",
    [
        node("ReduceSum", ["x", "axis"], ["code"], keepdims=0),
        node("CumSum", ["x", "one"], ["partial"]),
        node("Gather", ["partial", "zero"], ["first"], axis=2),
    ],
    [("x", FLOAT, ["batch", "time", 3])],
    [("code", FLOAT, ["batch", 3]), ("partial", FLOAT, ["batch", "time", 3]), ("first", FLOAT, ["batch", "time"])],
    [("axis", np.array([1])), ("one", np.int64(1)), ("zero", np.int64(0))],
)

# Images of any size, which the graph resizes to 2x2, and a mask: the code are the pixels where the mask is set.
resized = [node("Resize", ["x", "", "", "sizes"], ["small"], mode="linear", antialias=1, axes=[2, 3])]
save(
    "resize",
    [*resized, node("Flatten", ["small"], ["code"]), node("Neg", ["code"], ["minus"]), node("ReduceMax", ["code", "axis"], ["most"], keepdims=0)],
    [("x", FLOAT, ["batch", 3, "height", "width"])],
    [("code", FLOAT, ["batch", 12]), ("minus", FLOAT, ["batch", 12]), ("most", FLOAT, ["batch"])],
    [("sizes", np.array([2, 2])), ("axis", np.array([1]))],
    opset=18,
)
save(
    "masked",
    [node("Where", ["mask", "x", "zero"], ["y"])],
    [("x", FLOAT, ["batch", "height", "width"]), ("mask", BOOL, ["batch", "height", "width"])],
    [("y", FLOAT, ["batch", "height", "width"])],
    [("zero", np.float32(0))],
)
