"""Autoencoders over images and feature records.

A pipeline declares a source, transforms and a sink. A :class:`Pipeline` runs the transforms on records that the caller
reads and writes:

    import latentflow, polars as pl

    pipeline = latentflow.Pipeline("pipelines/photos.toml")
    latents = pl.DataFrame(pipeline.transform(images))  # columns: source, row, image

Records come and go over the Arrow PyCapsule interface, so tables of pyarrow, Polars, DuckDB, pandas and other libraries
are accepted and returned without a copy of their values.
"""

from . import _library

_library.prepare()

from ._evaluation import Evaluation, EvaluationError, evaluate  # noqa: E402
from ._latentflow import Schema, __version__  # noqa: E402
from ._model import Model, encode  # noqa: E402
from ._pipeline import Pipeline, PipelineError, RejectedRecords, RunError, StageStats  # noqa: E402
from ._table import Table  # noqa: E402
from ._training import Epoch, TrainingError, TrainingWarning, TrainResult, train  # noqa: E402

__all__ = [
    "Epoch",
    "Evaluation",
    "EvaluationError",
    "Model",
    "Pipeline",
    "PipelineError",
    "RejectedRecords",
    "RunError",
    "Schema",
    "StageStats",
    "Table",
    "TrainResult",
    "TrainingError",
    "TrainingWarning",
    "__version__",
    "encode",
    "evaluate",
    "train",
]
