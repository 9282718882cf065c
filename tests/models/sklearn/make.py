"""Exports scikit-learn models with skl2onnx, and writes the outputs of ONNX Runtime in Python.

Needs `pip install scikit-learn skl2onnx onnxruntime pandas`. The files are committed, so the tests do not need it.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

HERE = Path(__file__).parent
rng = np.random.default_rng(0)

# People with a column each, and gaps in `income`.
people = pd.DataFrame(
    {
        "city": rng.choice(["Oslo", "Łódź", "Rome"], 40),
        "children": rng.integers(0, 5, 40),
        "age": rng.normal(40, 12, 40).astype(np.float32),
        "income": rng.normal(3e4, 1e4, 40).astype(np.float32),
    }
)
people.loc[::7, "income"] = np.nan
label = np.where(people.age + 5 * people.children + rng.normal(0, 9, 40) > 48, "yes", "no")
pipeline = make_pipeline(
    ColumnTransformer(
        [
            ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
            ("children", StandardScaler(), ["children"]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
        ]
    ),
    LogisticRegression(),
).fit(people, label)
types = [
    ("city", StringTensorType([None, 1])),
    ("children", Int64TensorType([None, 1])),
    ("age", FloatTensorType([None, 1])),
    ("income", FloatTensorType([None, 1])),
]


def export(name, model, types, **options):
    exported = to_onnx(model, initial_types=types, target_opset=17, **options)
    (HERE / f"{name}.onnx").write_bytes(exported.SerializeToString())


export("people", pipeline, types, options={LogisticRegression: {"zipmap": False}})
export("people_zipmap", pipeline, types)

# A projection of four columns in float64.
numbers = rng.normal(0, 1, (40, 4)) * [1, 10, 100, 1000]
export("pca", PCA(2).fit(numbers), [("X", DoubleTensorType([None, 4]))])


def run(name, feed):
    return onnxruntime.InferenceSession(HERE / f"{name}.onnx").run(None, feed)


rows = pd.concat([people.head(9), pd.DataFrame({"city": ["Unseen"], "children": [2], "age": [50.0], "income": [np.nan]})])
feed = {
    "city": rows[["city"]].to_numpy(object),
    "children": rows[["children"]].to_numpy(np.int64),
    "age": rows[["age"]].to_numpy(np.float32),
    "income": rows[["income"]].to_numpy(np.float32),
}
labels, probabilities = run("people", feed)
(projected,) = run("pca", {"X": numbers[:9]})
expected = {
    "people": {name: [None if value != value else value for value in values[:, 0].tolist()] for name, values in feed.items()},
    "label": labels.tolist(),
    "probabilities": probabilities.tolist(),
    "numbers": numbers[:9].tolist(),
    "projected": projected.tolist(),
}
(HERE / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")
