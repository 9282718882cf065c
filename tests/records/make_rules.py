"""Writes rules.csv, a table with gaps and categories, and rules.json, the inputs that scikit-learn
computes from its first rows. Requires scikit-learn and pandas."""

import json
import pathlib

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

HERE = pathlib.Path(__file__).parent
ROWS, SHOWN = 300, 60

random = np.random.default_rng(5)
table = pd.DataFrame(
    {
        "temperature": random.normal(20, 3, ROWS).round(3),
        "power": np.exp(random.normal(5, 1, ROWS)).round(3),
        "flow": random.uniform(-4, 9, ROWS).round(3),
        "level": random.integers(0, 12, ROWS).astype(float),
        "mode": random.choice(["eco", "boost", "idle", "test"], ROWS, p=[0.5, 0.3, 0.15, 0.05]),
        "device": random.choice(["d10", "d2", "d7"], ROWS, p=[0.2, 0.5, 0.3]),
        "code": random.choice([2, 10, 7], ROWS, p=[0.5, 0.2, 0.3]),
        "open": random.random(ROWS) < 0.3,
        "time": pd.date_range("2026-02-27 00:07", periods=ROWS, freq="7h13min"),
    }
)
for column in ["temperature", "power", "flow", "level", "mode"]:
    table.loc[random.random(ROWS) < 0.1, column] = None
table.to_csv(HERE / "rules.csv", index=False)
table = pd.read_csv(HERE / "rules.csv", parse_dates=["time"])


def fitted(column, *steps):
    return make_pipeline(*steps).fit_transform(table[[column]])


class Clip(FunctionTransformer):
    """Clips to quantiles of the values that it is fitted to."""

    def fit(self, X, y=None):
        self.bounds = np.quantile(X, [0.05, 0.95])
        return super().fit(X, y)

    def transform(self, X):
        return np.clip(X, *self.bounds)


scaled = StandardScaler()
temperature = fitted("temperature", SimpleImputer(strategy="mean"), scaled)
time = table["time"]
seconds = time.dt.hour * 3600 + time.dt.minute * 60
phases = [
    seconds / 86400,
    (time.dt.day_of_week + seconds / 86400) / 7,
    (time.dt.day_of_year - 1 + seconds / 86400) / 365,
]
columns = {
    "temperature": np.hstack([temperature, table[["temperature"]].isna()]),
    "power": fitted(
        "power",
        SimpleImputer(strategy="median"),
        Clip(),
        FunctionTransformer(np.log1p),
        RobustScaler(),
    ),
    "flow": fitted("flow", SimpleImputer(strategy="constant", fill_value=5), MinMaxScaler()),
    "level": fitted(
        "level", SimpleImputer(strategy="most_frequent"), QuantileTransformer(n_quantiles=20)
    ),
    "mode": fitted(
        "mode",
        SimpleImputer(strategy="most_frequent"),
        OneHotEncoder(
            max_categories=3, handle_unknown="infrequent_if_exist", sparse_output=False
        ),
    ),
    "device": fitted("device", OrdinalEncoder(), StandardScaler()),
    "code": fitted("code", OrdinalEncoder(), MinMaxScaler()),
    "open": fitted("open", FunctionTransformer(lambda x: x.astype(float)), StandardScaler()),
    "time": np.column_stack(
        [wave(2 * np.pi * phase) for phase in phases for wave in (np.sin, np.cos)]
    ),
}
expected = {name: values[:SHOWN].astype(float).round(9).tolist() for name, values in columns.items()}
(HERE / "rules.json").write_text(json.dumps(expected) + "\n")
