"""Pipelines whose records the caller reads and writes."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import itertools
import os
import pathlib
import sys
import tomllib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

from . import _latentflow
from ._embedded_models import EmbeddedModels
from ._latentflow import Engine, RecordBatches, Schema
from ._table import Table

Rejects = Literal["column", "separate", "drop", "raise"]

#: The kinds of sources whose records are images.
_IMAGE_SOURCES = {"images", "tar", "embedded"}

#: The engines of this process. Sessions of models are expensive, so equal pipelines share them.
_engines: dict[str, Engine] = {}
#: The process that has opened a model. ONNX Runtime does not survive a fork.
_process: int | None = None


class PipelineError(ValueError):
    """A pipeline that cannot run. `faults` lists every fault that was found."""

    def __init__(self, message: str, faults: Sequence[Fault] = ()):
        super().__init__(message)
        self.faults = list(faults)


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault of a pipeline."""

    location: str  #: The file and the line, such as "photos.toml:12".
    key: str  #: The key, such as "stages.pixels.size"; may be empty.
    message: str  #: What was found, what was expected, and what to do.


class RunError(RuntimeError):
    """A stage that failed for a reason other than a record. `stage` is its name."""

    def __init__(self, message: str, stage: str):
        super().__init__(f"{stage}: {message}")
        self.stage = stage


class RejectedRecords(RuntimeError):
    """Rejected records of a pipeline with `rejects="raise"`. `rejects` is their table."""

    def __init__(self, message: str, rejects: Table):
        super().__init__(message)
        self.rejects = rejects

    @classmethod
    def of(cls, rejects: Table) -> RejectedRecords:
        """The exception for a table of rejects that is not empty."""
        first = dict(rejects.batches.preview(1))
        return cls(
            f"rejected {len(rejects)} record{'s' if len(rejects) > 1 else ''}; the first one, at index {first['index'][0]}, by the stage "
            f"{first['stage'][0]}: {first['reason'][0]}",
            rejects,
        )


@dataclasses.dataclass(frozen=True)
class StageStats:
    """The counters of a stage since the pipeline was opened in this process."""

    kind: str  #: The kind of the stage, such as "encode".
    records_in: int  #: Number of input records.
    records_out: int  #: Number of output records.
    rejects: int  #: Number of rejected records.
    seconds: float  #: Time spent in the stage, summed over all threads.


class Pipeline:
    """The stages of a pipeline between its source and its sink.

    :param pipeline: the path of a pipeline file, or its text. Any file that `latentflow run` accepts can be used: the
        files that its source and its sink name are not accessed.
    :param input: the columns of the records: an object with `__arrow_c_schema__`, such as a `pyarrow.Schema`. Default:
        `source` (string), `row` (uint64) and `image` (binary, encoded images) for a pipeline of images, otherwise the
        columns of the first records.
    :param source: the name of the source, if the pipeline has several.
    :param sink: the name of the sink whose columns are the result. Default: the first one.
    :param set: overrides of keys, as `--set` of the command line: `["stages.pixels.size=[64, 64]"]`.
    :param base: the folder that relative paths of models refer to. Default: the working folder of the process.
    :param memory: the maximum memory of the pipeline in this process, in bytes or as text such as "1GiB", for one
        thread. Batches are cut until they fit. Default: batches of at most 32 MiB of decoded pixels.
    :param models: "path": other processes read the models from the same paths. "embed": a pickled pipeline contains the
        files of its models, at most 256 MiB; each machine writes them once to its folder for temporary files.
    :param rejects: the form of rejected records. "column": they stay in the result, with nulls, and the column
        `rejected` (struct of `stage`, `code`, `reason`). "separate": `transform` returns a second table. "drop": they
        are only counted by :meth:`stats`. "raise": :class:`RejectedRecords`.

    A record is identified by `source` and `row`, on which only random noise (`corrupt`) depends. For records without
    `source`, pass `input` without it: the result has neither column, and `corrupt` is refused. Results do not depend on the size of batches or on the number of
    threads. The methods may be called from several threads; each uses its own sessions. A pipeline can be pickled, and is
    opened once in each process. A process that was forked afterwards is refused.

    :raises PipelineError: for a pipeline that cannot run, with all faults.
    """

    def __init__(
        self,
        pipeline: str | os.PathLike[str],
        *,
        input: Any = None,
        source: str | None = None,
        sink: str | None = None,
        set: Sequence[str] = (),
        base: str | os.PathLike[str] | None = None,
        memory: int | str | None = None,
        rejects: Rejects = "column",
        models: Literal["path", "embed"] = "path",
    ):
        if rejects not in ("column", "separate", "drop", "raise"):
            raise ValueError(f'rejects is {rejects!r}; expected "column", "separate", "drop" or "raise"')
        if models not in ("path", "embed"):
            raise ValueError(f'models is {models!r}; expected "path" or "embed"')
        if isinstance(set, str):
            raise TypeError('set is a text; expected a list of texts such as ["stages.out.columns=[\'latent\']"]')
        text = os.fspath(pipeline)
        self._name = "pipeline.toml"
        if "\n" not in text:
            path = pathlib.Path(text)
            try:
                self._name, text = str(path), path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise PipelineError(f"{path}: cannot read the pipeline file: {error}") from error
        self._text = text
        self._source, self._sink = source, sink
        self._set = list(set) + ([f"limits.memory='{memory}'"] if memory is not None else [])
        self._base = None if base is None else os.fspath(base)
        self._rejects: Rejects = rejects
        self._models: dict[str, str] = {}
        self._embeds = models == "embed"
        #: The models that a pickled pipeline contained.
        self._embedded: EmbeddedModels | None = None
        self._columns = None if input is None else Schema(input)
        # Faults are raised here, and not by a worker. Without columns, the pipeline is opened for the first records.
        self._is_deferred = self._columns is None and not self._takes_images()
        if not self._is_deferred:
            self._models = self._engine().models

    def _takes_images(self) -> bool:
        try:
            stages = tomllib.loads(self._text).get("stages", {})
            sources = [table for table in stages.values() if not table.get("inputs")]
            if self._source is not None:
                sources = [stages[self._source]]
            kinds = [table.get("kind") in _IMAGE_SOURCES and not table.get("columns") for table in sources]
            return all(kinds) or any(table.get("records") == "images" for table in sources)
        except (tomllib.TOMLDecodeError, AttributeError, KeyError):
            # The native module describes the faults.
            return True

    def _engine(self) -> Engine:
        columns = self._columns
        models = None if self._embedded is None else self._embedded.digest
        parts = (self._name, self._text, self._source, self._sink, self._set, self._base, models)
        digest = hashlib.sha256(repr(parts).encode())
        digest.update(columns.serialize() if columns is not None else b"")
        key = digest.hexdigest()
        claim_process()
        if key not in _engines:
            overrides = self._set + ([] if self._embedded is None else self._embedded.overrides())
            try:
                engine = Engine(
                    self._name, self._text, overrides, columns, self._source, self._sink, self._base
                )
            except _latentflow.NativePipelineError as error:
                raise pipeline_error(error) from None
            if self._models and engine.models != self._models:
                raise PipelineError(
                    f"the models of this process differ from those that the pipeline was created with: {engine.models}, "
                    f"expected {self._models}; copy the same model folders to all machines"
                )
            _engines[key] = engine
        return _engines[key]

    @property
    def input_schema(self) -> Schema:
        """The columns that the records have to have; `source` and `row` may be absent."""
        return self._opened().input_schema()

    @property
    def output_schema(self) -> Schema:
        """The columns of the result, which are fixed before the first record."""
        return self._opened().output_schema(self._rejects == "column")

    @property
    def rejects_schema(self) -> Schema:
        """The columns of the table of rejects: `index` of the record in the input, `source`, `row`, `stage`, `code`, `reason`."""
        return self._opened().rejects_schema()

    @property
    def digest(self) -> str:
        """The digest of the options and models of all stages before the sink, in hexadecimal."""
        return self._opened().digest

    def _opened(self) -> Engine:
        if self._is_deferred:
            raise ValueError("the columns of the records are not known yet; pass `input`, such as a pyarrow.Schema")
        return self._engine()

    def transform(self, data: Any) -> Any:
        """Processes records and returns the result.

        :param data: records with `__arrow_c_stream__` or `__arrow_c_array__`, such as a table of pyarrow, Polars, DuckDB
            or pandas. Columns are found by name; others are ignored.
        :returns: a `pyarrow.Table` or `pyarrow.RecordBatch` for one of these, otherwise a :class:`Table`; with
            `rejects="separate"` a pair of the records and the rejects. Records are in the order of the input.
        :raises RunError: if a stage fails for a reason other than a record.
        :raises RejectedRecords: with `rejects="raise"`, if a record was rejected.
        """
        records, rejects = self.process(data)
        result = _as_given(data, Table(records))
        return (result, _as_given(data, Table(rejects))) if self._rejects == "separate" else result

    def process(self, data: Any) -> tuple[RecordBatches, RecordBatches]:
        """As :meth:`transform`, for any form of rejects: the records and the rejects in the native module."""
        if self._is_deferred:
            self._columns, self._is_deferred = schema_of(data), False
            self._models = self._engine().models
        engine = self._engine()
        try:
            records, rejects = engine.process(data, self._rejects == "column")
        except _latentflow.NativeRunError as error:
            raise RunError(*error.args) from None
        if self._rejects == "raise" and len(rejects) > 0:
            raise RejectedRecords.of(Table(rejects))
        return records, rejects

    def stream(self, data: Any, threads: int = 1) -> Stream:
        """Processes batches of records, and returns the results of :meth:`transform` in the order of the batches.

        :param data: an iterable of batches, or a stream of batches with `__arrow_c_stream__`, such as a
            `pyarrow.RecordBatchReader`.
        :param threads: number of threads, each with its own sessions. At most two batches for each are in memory.
        :returns: an iterator of the results. Arrow libraries take it as a stream:
            `pyarrow.RecordBatchReader.from_stream(pipeline.stream(batches))`.
        """
        if threads < 1:
            raise ValueError(f"threads is {threads}; expected at least 1")
        return Stream(self, iter(_batches(data)), threads)

    def _results(self, work: Callable[[Any], Any], batches: Iterator[Any], threads: int) -> Iterator[Any]:
        """The results of `work` for each batch, in order."""
        if threads == 1:
            yield from map(work, batches)
            return
        with concurrent.futures.ThreadPoolExecutor(threads, "latentflow") as pool:
            running: deque[concurrent.futures.Future[Any]] = deque()
            try:
                for batch in batches:
                    if self._is_deferred:
                        yield work(batch)
                        continue
                    running.append(pool.submit(work, batch))
                    if len(running) >= 2 * threads:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for future in running:
                    future.cancel()

    def stats(self) -> dict[str, StageStats]:
        """The counters of each stage in this process."""
        return {name: StageStats(*counters) for name, counters in self._opened().stats()}

    def __reduce__(self) -> tuple[Any, ...]:
        columns = None if self._columns is None else self._columns.serialize()
        return _rebuild, (
            {
                "_name": self._name,
                "_text": self._text,
                "_source": self._source,
                "_sink": self._sink,
                "_set": self._set,
                "_base": self._base,
                "_rejects": self._rejects,
                "_models": self._models,
                "_is_deferred": self._is_deferred,
                "_embeds": self._embeds,
                "_embedded": self._embedded or (EmbeddedModels(self._opened()) if self._embeds else None),
            },
            columns,
        )

    def __repr__(self) -> str:
        return f"latentflow.Pipeline({self._name!r})"


class Stream:
    """The results of :meth:`Pipeline.stream`, each of which is read once: by iteration, or by an Arrow library."""

    def __init__(self, pipeline: Pipeline, batches: Iterator[Any], threads: int):
        self._pipeline, self._batches, self._threads = pipeline, batches, threads
        self._results: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._results is None:
            self._results = self._pipeline._results(self._pipeline.transform, self._batches, self._threads)
        return next(self._results)

    def __arrow_c_schema__(self) -> object:
        return self._pipeline.output_schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        pipeline = self._pipeline
        if pipeline._rejects == "separate":
            raise TypeError('a stream of pairs is not a stream of records; use another value of `rejects` than "separate"')
        if self._results is not None:
            raise ValueError("the first results of the stream were read already; call `stream` again")
        # Other libraries change the types of tensors, so the results are not converted to the library of the input.
        results = pipeline._results(lambda batch: pipeline.process(batch)[0], self._batches, self._threads)
        self._results = results
        if pipeline._is_deferred:
            # The columns are known after the first result.
            first = next(results, None)
            if first is None:
                raise ValueError("the columns of a stream without records are not known; pass `input`, such as a pyarrow.Schema")
            results = itertools.chain([first], results)
        return _latentflow.stream_of(pipeline.output_schema, results)


def claim_process() -> None:
    """Refuses a process that was forked from one with ONNX Runtime."""
    global _process
    if _process not in (None, os.getpid()):
        raise RuntimeError(
            "a pipeline was opened before this process was forked, and a forked process cannot use ONNX Runtime; start "
            "processes with the method `spawn`, or open pipelines only in the forked processes"
        )
    _process = os.getpid()


def pipeline_error(error: _latentflow.NativePipelineError) -> PipelineError:
    """The error of the native module, with its faults."""
    message, faults = error.args
    return PipelineError(message, [Fault(*fault) for fault in faults])


def _rebuild(state: dict[str, Any], columns: bytes | None) -> Pipeline:
    pipeline = Pipeline.__new__(Pipeline)
    pipeline.__dict__.update(state)
    pipeline._columns = None if columns is None else Schema.deserialize(columns)
    return pipeline


def schema_of(data: Any) -> Schema:
    """The columns of records. A stream that can be read once is not read, if it states its columns."""
    if hasattr(data, "__arrow_c_schema__"):
        return Schema(data)
    if hasattr(getattr(data, "schema", None), "__arrow_c_schema__"):
        return Schema(data.schema)
    return _latentflow.schema_of(data)


def _pyarrow() -> Any:
    """pyarrow, if the caller has imported it."""
    return sys.modules.get("pyarrow")


def _as_given(data: Any, result: Table) -> Any:
    pyarrow = _pyarrow()
    if pyarrow is not None and isinstance(data, pyarrow.Table):
        return pyarrow.table(result)
    if pyarrow is not None and isinstance(data, pyarrow.RecordBatch):
        batches = pyarrow.table(result).combine_chunks().to_batches()
        schema = pyarrow.schema(result.schema)
        return batches[0] if batches else pyarrow.RecordBatch.from_pylist([], schema)
    return result


def _batches(data: Any) -> Iterable[Any]:
    pyarrow = _pyarrow()
    if pyarrow is not None and isinstance(data, pyarrow.Table):
        data = data.to_batches()
    elif pyarrow is not None and isinstance(data, pyarrow.RecordBatchReader):
        pass
    elif hasattr(data, "__arrow_c_stream__"):
        data = _latentflow.BatchReader(data)
    batches: Iterable[Any] = data
    return batches
