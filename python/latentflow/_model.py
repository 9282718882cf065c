"""Models over NumPy arrays, and over tables."""

from __future__ import annotations

import functools
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import _latentflow
from ._latentflow import RecordBatches, Schema
from ._pipeline import Pipeline, PipelineError, Rejects, claim_process, schema_of
from ._table import Table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]

File = str | os.PathLike[str] | bytes

Stage = dict[str, Any]

_PIXELS: Stage = {"kind": "pixels", "model": "model"}
_FEATURES: Stage = {"kind": "features", "model": "model"}
_ENCODE: Stage = {"kind": "encode", "model": "model"}
_RECONSTRUCT: Stage = {**_ENCODE, "reconstruct": True}
_DENOISE: Stage = {"kind": "denoise", "model": "model", "to": "reconstruction"}
_SCORE: Stage = {"kind": "score", "original": "input", "reconstruction": "reconstruction"}

#: Number of faults in a message.
_SHOWN_FAULTS = 3
#: Number of values of the input that are processed at a time: 16 MiB.
_SLICE_VALUES = 1 << 22
#: Number of bytes of encoded images that are processed at a time. The last image may exceed it.
_SLICE_BYTES = 64 << 20


class Model:
    """A model folder.

    :param path: a folder with `model.toml` and ONNX files.
    :param threads: number of threads of a call, each with its own sessions. The values do not depend on it.
    :param allow_nondeterministic: whether to accept a model whose output depends on random numbers or on other records.

    Arrays are float32, with one record per row: `[n, *input_shape]`. They hold what the network takes, so images and
    features are scaled as in the training: :meth:`images` and :meth:`features` return such arrays. For the columns of
    tables, :func:`encode` does both.

    :raises ValueError: if the folder is not a model, or the model cannot be used.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, threads: int = 1, allow_nondeterministic: bool = False
    ):
        if threads < 1:
            raise ValueError(f"threads is {threads}; expected at least 1")
        claim_process()
        self.path = pathlib.Path(path)
        self.threads = threads
        self.allow_nondeterministic = allow_nondeterministic
        self._native = _latentflow.NativeModel(os.fspath(path), allow_nondeterministic)
        self._about: dict[str, Any] = json.loads(self._native.describe())

    @property
    def name(self) -> str:
        """The name of the model."""
        return str(self._about["name"])

    @property
    def digest(self) -> str:
        """SHA-256 over everything that determines the results: the ONNX files and the preprocessing, in hexadecimal."""
        return str(self._about["digest"])

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """The shape of a record, without the dimension of the batch. None: images of any size, or not known."""
        shape = self._about["input_shape"]
        return None if shape is None else tuple(shape)

    @property
    def code_size(self) -> int | None:
        """Number of values of a latent. None for a model without one, such as a denoiser."""
        size: int | None = self._about["code_size"]
        return size

    @property
    def columns(self) -> list[str]:
        """The columns of a model of features, in the order of its input."""
        return list(self._about["columns"])

    @property
    def loss(self) -> str:
        """The loss that defines the reconstruction error: `mse` or `bce`."""
        return str(self._about["loss"])

    @property
    def card(self) -> dict[str, Any]:
        """The model card, as a dictionary; empty without a card."""
        return dict(self._about["card"] or {})

    def encode(self, x: npt.ArrayLike) -> Array:
        """Encodes records.

        :param x: `[n, *input_shape]`.
        :returns: the latents, `[n, code_size]`. The row of a record with a value that is not finite, or on which the
            model fails, is NaN.
        :raises ValueError: if the model has no latent, or the shape of `x` does not fit.
        """
        if self.code_size is None:
            raise ValueError(f"the model `{self.name}` returns no latent; use `reconstruct`")
        return self._process(x, [_ENCODE], "latent", (self.code_size,))

    def reconstruct(self, x: npt.ArrayLike) -> Array:
        """Encodes and decodes records; for a denoiser or another model without a latent, its output.

        :param x: `[n, *input_shape]`, or images of one size for a model of images of any size.
        :returns: the reconstructions, in the shape of `x`. Rows of failed records are NaN.
        """
        encode = {**_RECONSTRUCT, "keep_reconstruction": True}
        return self._process(x, [_DENOISE if self.code_size is None else encode], "reconstruction", None)

    def error(self, x: npt.ArrayLike) -> Array:
        """The reconstruction error of records: the mean loss over the values of a record.

        :param x: `[n, *input_shape]`.
        :returns: `[n]`, in the squared units of `x` for `mse` and in nats for `bce`. Failed records are NaN.
        """
        if self.code_size is None:
            return self._process(x, [_DENOISE, {**_SCORE, "metrics": [self.loss]}], self.loss, ())
        return self._process(x, [_RECONSTRUCT], "reconstruction_error", ())

    def images(self, files: Iterable[File]) -> Array:
        """Decodes images and scales their pixels as in the training.

        :param files: paths, or the contents of image files.
        :returns: `[n, *input_shape]`. For a model of images of any size, all images must have the same size.
        :raises RejectedRecords: if a file is not a valid image. Its table of rejects names each one.
        """
        import numpy as np

        if self._about["takes"] != "images":
            raise ValueError(f"the model `{self.name}` takes {self._about['takes']}, not images")
        pipeline = self._pipeline([_PIXELS], None, "raise")
        parts = [pipeline.transform(records).batches for records in _image_slices(files)]
        shape = self.input_shape
        if shape is None:
            shapes = {tuple(shape) for part in parts for shape in _latentflow.tensor_shapes(part, "pixels")}
            if len(shapes) > 1:
                raise ValueError(
                    f"the images have the shapes {sorted(shapes)}; an array has one shape, so pass images of one size"
                )
            shape = shapes.pop() if shapes else (0, 0, 0)
        array = np.empty((sum(map(len, parts)), *shape), np.float32)
        row = 0
        for part in parts:
            _latentflow.copy_values(part, "pixels", array[row : row + len(part)])
            row += len(part)
        return array

    def features(self, data: Any) -> Array:
        """Selects the columns of a model of features, and scales their values as in the training.

        :param data: a table with `__arrow_c_stream__` or `__arrow_c_array__`, such as one of pandas or Polars.
        :returns: `[n, *input_shape]`.
        :raises RejectedRecords: if a record has a null or another value that is not a number.
        """
        import numpy as np

        pipeline = self._pipeline([_FEATURES], schema_of(data), "raise")
        records, _ = pipeline.process(data)
        array = np.empty((len(records), *(self.input_shape or ())), np.float32)
        _latentflow.copy_values(records, "features", array)
        return array

    def _process(
        self, x: npt.ArrayLike, transforms: list[Stage], column: str, shape: tuple[int, ...] | None
    ) -> Array:
        """Returns the values of a column of the result. `shape` is that of its rows; None: the shape of the rows of `x`."""
        import numpy as np

        array = np.ascontiguousarray(x, dtype=np.float32)
        if array.ndim < 2:
            raise ValueError(f"x has the shape {array.shape}; expected one record per row: [n, ...]")
        row_shape = array.shape[1:]
        expected = self.input_shape
        if expected is not None and math.prod(row_shape) != math.prod(expected):
            raise ValueError(f"x has the shape {list(array.shape)}; expected [n, {str(list(expected))[1:]}")
        out = np.empty((len(array), *(row_shape if shape is None else shape)), np.float32)
        pipeline = self._pipeline(transforms, self._native.tensor_schema(list(row_shape)), "column")
        step = max(1, _SLICE_VALUES // max(math.prod(row_shape), 1))
        starts = range(0, len(array), step)
        slices = (self._native.tensors(array[start : start + step], list(row_shape)) for start in starts)
        for start, result in zip(starts, pipeline.stream(slices, threads=self.threads)):
            _latentflow.copy_values(result.batches, column, out[start : start + step])
        return out

    def _pipeline(self, transforms: list[Stage], columns: Schema | None, rejects: Rejects) -> Pipeline:
        """A pipeline of transforms, each of which takes the output of the one before it."""
        tables: dict[str, Stage] = {
            "models.model": {"path": str(self.path), "allow_nondeterministic": self.allow_nondeterministic},
            "stages.in": {"kind": "embedded"},
        }
        before = "in"
        for stage in [*transforms, {"kind": "discard"}]:
            tables[f"stages.{stage['kind']}"] = {"inputs": [before], **stage}
            before = stage["kind"]
        lines = ["name = 'model'"]
        for name, table in tables.items():
            # A string or a list of JSON is one of TOML, if it has no surrogates.
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())]
        try:
            return Pipeline("\n".join(lines), input=columns, rejects=rejects)
        except PipelineError as error:
            # The lines of a generated pipeline mean nothing to the caller.
            shown = [fault.message for fault in error.faults[:_SHOWN_FAULTS]]
            more = len(error.faults) - len(shown)
            shown += [f"and {more} more"] if more > 0 else []
            raise PipelineError(f"{self.path}: " + "; ".join(shown), error.faults) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(Model, threads=self.threads, allow_nondeterministic=self.allow_nondeterministic), (
            str(self.path),
        )

    def __repr__(self) -> str:
        return f"latentflow.Model({str(self.path)!r}): {self._about['summary']}"

    def _repr_html_(self) -> str | None:
        return self._native.html()


def encode(
    data: Any,
    model: Model | str | os.PathLike[str],
    *,
    reconstruct: bool = False,
    rejects: Rejects = "column",
    threads: int = 1,
) -> Any:
    """Encodes images or feature records to latents, with the preprocessing of the model card.

    :param data: a table with the column `image` (encoded images), or with the columns of a model of features; for a model
        of images also paths or contents of image files.
    :param model: a model folder, or a :class:`Model`.
    :param reconstruct: whether to add the column `reconstruction_error`.
    :param rejects: the form of rejected records, as that of :class:`Pipeline`.
    :param threads: number of threads for paths and contents of files.
    :returns: the columns of the input without the image or the features, and `latent` (`code_size` float32 values).
    """
    opened = model if isinstance(model, Model) else Model(model)
    transforms = [
        _PIXELS if opened._about["takes"] == "images" else _FEATURES,
        _RECONSTRUCT if reconstruct else _ENCODE,
    ]
    if opened._about["takes"] != "images" or _is_table(data):
        return opened._pipeline(transforms, schema_of(data), rejects).transform(data)
    results = list(opened._pipeline(transforms, None, rejects).stream(_image_slices(data), threads=threads))
    if rejects == "separate":
        return tuple(_joined([result[index] for result in results]) for index in (0, 1))
    return _joined(results)


def _is_table(data: Any) -> bool:
    return hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__")


def _joined(tables: Sequence[Table]) -> Table:
    return Table(RecordBatches.concat([table.batches for table in tables]))


def _image_slices(files: Iterable[File] | File) -> Iterator[RecordBatches]:
    """Records of some files at a time; without files, a table without records."""
    files = [files] if isinstance(files, (str, os.PathLike, bytes)) else files
    sources: list[str] = []
    images: list[bytes] = []
    size, is_first = 0, True
    for index, file in enumerate(files):
        if isinstance(file, bytes):
            sources.append(f"image {index}")
            images.append(file)
        else:
            sources.append(os.fspath(file))
            images.append(pathlib.Path(file).read_bytes())
        size += len(images[-1])
        if size >= _SLICE_BYTES:
            yield _latentflow.image_records(sources, images)
            sources, images, size, is_first = [], [], 0, False
    if images or is_first:
        yield _latentflow.image_records(sources, images)
