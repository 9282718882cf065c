"""Generates the ONNX files of this folder, which the tests run. Needs `pip install onnx numpy`.

The files are committed, so the tests do not need this program.
"""

from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save_model

HERE = Path(__file__).parent
FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8


def save(name, nodes, inputs, outputs, weights=(), external=None):
    """Saves a graph. Tensors are (name, element type, dimensions); weights are (name, array)."""
    ports = [[helper.make_tensor_value_info(*port) for port in ports] for ports in (inputs, outputs)]
    tensors = [numpy_helper.from_array(np.asarray(array), weight) for weight, array in weights]
    graph = helper.make_graph(nodes, name, *ports, tensors)
    model = helper.make_model(graph, producer_name="make.py", opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
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
