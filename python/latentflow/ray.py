"""Pipelines on Ray Data.

    import ray.data
    from latentflow.ray import Transform

    images = ray.data.read_binary_files("photos", include_paths=True)
    latents = images.map_batches(
        Transform,
        fn_constructor_args=("pipelines/photos.toml",),
        batch_format="pyarrow",
        batch_size=64,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=8),
    )
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ._pipeline import Pipeline

#: The columns of `ray.data.read_binary_files`, by the names that pipelines of images use.
_BINARY_FILES = {"path": "source", "bytes": "image"}


class Transform:
    """A pipeline as a callable class for `Dataset.map_batches` with an actor pool and `batch_format="pyarrow"`.

    :param pipeline: the path or the text of a pipeline file. Each actor opens its own models.
    :param options: the options of :class:`latentflow.Pipeline`, such as `set` and `base`. Rejected records stay in the
        result, in the column `rejected`, unless `rejects="drop"`.

    The columns `path` and `bytes` of `read_binary_files` become `source` and `image`.
    """

    def __init__(self, pipeline: Any, **options: Any):
        self._pipeline = pipeline if isinstance(pipeline, Pipeline) else Pipeline(pipeline, **options)

    def __call__(self, table: pa.Table) -> pa.Table:
        if set(_BINARY_FILES) <= set(table.column_names):
            table = table.rename_columns([_BINARY_FILES.get(name, name) for name in table.column_names])
        return self._pipeline.transform(table)
