"""Pipelines on Ray Data.

    import ray.data
    import latentflow
    from latentflow.ray import Transform

    pipeline = latentflow.Pipeline("pipelines/photos.toml", models="embed")
    images = ray.data.read_binary_files("photos", include_paths=True)
    latents = images.map_batches(
        Transform,
        fn_constructor_args=(pipeline,),
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

    :param pipeline: a :class:`latentflow.Pipeline` with `rejects="column"` or `rejects="drop"`, or the path or the text of
        a pipeline file. Each actor opens its own models.
    :param options: the options of :class:`latentflow.Pipeline` for a path or a text, such as `set` and `base`.

    The columns `path` and `bytes` of `read_binary_files` become `source` and `image`.
    """

    def __init__(self, pipeline: Any, **options: Any):
        if isinstance(pipeline, Pipeline) and options:
            raise TypeError(f"options of a pipeline that exists: {', '.join(options)}; pass them to latentflow.Pipeline")
        self._pipeline = pipeline if isinstance(pipeline, Pipeline) else Pipeline(pipeline, **options)
        if self._pipeline._rejects not in ("column", "drop"):
            raise ValueError('a pipeline on Ray needs rejects="column" or rejects="drop"')

    def __call__(self, table: pa.Table) -> pa.Table:
        if not isinstance(table, pa.Table):
            raise TypeError(f'a batch is a {type(table).__name__}; pass batch_format="pyarrow" to `map_batches`')
        if set(_BINARY_FILES) <= set(table.column_names):
            table = table.rename_columns([_BINARY_FILES.get(name, name) for name in table.column_names])
        return self._pipeline.transform(table)
