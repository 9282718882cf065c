"""Pipelines on Apache Spark.

    from latentflow.spark import transform

    images = spark.read.format("binaryFile").load("photos/*.jpg")
    transform(images, "pipelines/photos.toml").write.parquet("latents")

Executors need this package and the model folders of the pipeline; `docs/spark.md` describes both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.accumulators import AccumulatorParam

from ._pipeline import Pipeline

if TYPE_CHECKING:
    from pyspark.accumulators import Accumulator
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

#: The columns of Spark's source `binaryFile`, by the names that pipelines of images use.
_BINARY_FILE = {"path": "source", "content": "image"}

Counts = dict[tuple[str, str], int]


def transform(
    df: DataFrame,
    pipeline: Pipeline | Any,
    *,
    counts: Accumulator[Counts] | None = None,
    **options: Any,
) -> DataFrame:
    """Runs a pipeline on the rows of a DataFrame, in the Python workers of the executors.

    :param df: the records. The columns `path` and `content` of the source `binaryFile` become `source` and `image`.
    :param pipeline: a :class:`latentflow.Pipeline` with `rejects="column"` or `rejects="drop"`, or the path or the text of
        a pipeline file.
    :param counts: receives the number of records by stage and cause; see :func:`accumulator`.
    :param options: the options of :class:`latentflow.Pipeline` for a path or a text, such as `set` and `base`.
    :returns: the columns of the result. Lists of fixed size are `array<...>` and unsigned integers `bigint`, since Spark
        has no others. The column `rejected` is null for processed records; :func:`split` separates the rejects.
    :raises latentflow.PipelineError: on the driver, before the job, for a pipeline that cannot run.
    """
    from pyspark.sql.pandas.types import to_arrow_schema

    if set(_BINARY_FILE) <= set(df.columns):
        df = df.select([df[name].alias(alias) for name, alias in _BINARY_FILE.items()])
    if not isinstance(pipeline, Pipeline):
        pipeline = Pipeline(pipeline, input=to_arrow_schema(df.schema), **options)
    if pipeline._rejects not in ("column", "drop"):
        raise ValueError('a pipeline on Spark needs rejects="column" or rejects="drop"; `split` separates the rejects')
    names = [name for name in pipeline.input_schema.names if name in df.columns]
    stored = _spark_arrow_schema(pa.schema(pipeline.output_schema))

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            result = pipeline.transform(batch)
            if counts is not None:
                counts.add(_counts_of(result))
            columns = [column.cast(field.type) for column, field in zip(_storage(result), stored)]
            yield pa.RecordBatch.from_arrays(columns, schema=stored)

    return df.select(names).mapInArrow(work, _struct_type(stored))


def split(df: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Separates the result of :func:`transform` into the processed records and the rejects."""
    rejected = df.where(df.rejected.isNotNull())
    return df.where(df.rejected.isNull()).drop("rejected"), rejected


class _SumCounts(AccumulatorParam[Counts]):  # type: ignore[misc]
    def zero(self, value: Counts) -> Counts:
        return {}

    def addInPlace(self, value1: Counts, value2: Counts) -> Counts:  # noqa: N802: the name is Spark's
        for key, count in value2.items():
            value1[key] = value1.get(key, 0) + count
        return value1


def accumulator(spark: SparkSession) -> Accumulator[Counts]:
    """An accumulator of the number of records by stage and cause. The key of processed records is `("", "processed")`.

    Spark counts each task once, also if an executor is lost or a task runs twice, in actions; in a DataFrame that is
    computed several times, records are counted several times.
    """
    return spark.sparkContext.accumulator({}, _SumCounts())


def _counts_of(result: pa.RecordBatch) -> Counts:
    if "rejected" not in result.schema.names:
        return {("", "processed"): result.num_rows}
    rejected = result.column("rejected")
    counts: Counts = {("", "processed"): rejected.null_count}
    for reject in rejected.drop_null().to_pylist():
        key = reject["stage"], reject["code"]
        counts[key] = counts.get(key, 0) + 1
    return counts


def _plain(data_type: pa.DataType) -> pa.DataType:
    """The type that Spark has for a type of Arrow. Spark refuses lists of fixed size when a task returns them."""
    if isinstance(data_type, pa.BaseExtensionType):
        return _plain(data_type.storage_type)
    if pa.types.is_fixed_size_list(data_type) or pa.types.is_list(data_type) or pa.types.is_large_list(data_type):
        return pa.list_(_plain(data_type.value_type))
    if pa.types.is_struct(data_type):
        return pa.struct([_plain_field(data_type.field(index)) for index in range(data_type.num_fields)])
    wider = {
        pa.uint8(): pa.int16(),
        pa.uint16(): pa.int32(),
        pa.uint32(): pa.int64(),
        pa.uint64(): pa.int64(),
        pa.float16(): pa.float32(),
        pa.large_string(): pa.string(),
        pa.string_view(): pa.string(),
        pa.large_binary(): pa.binary(),
        pa.binary_view(): pa.binary(),
    }
    return wider.get(data_type, data_type)


def _plain_field(field: pa.Field) -> pa.Field:
    return pa.field(field.name, _plain(field.type), field.nullable)


def _spark_arrow_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([_plain_field(field) for field in schema])


def _struct_type(schema: pa.Schema) -> StructType:
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema)


def _storage(batch: pa.RecordBatch) -> list[pa.Array]:
    """The columns of a batch, with those of extension types as their storage."""
    return [column.storage if isinstance(column, pa.ExtensionArray) else column for column in batch.columns]
