"""Pipelines on Apache Spark.

    from latentflow.spark import transform

    images = spark.read.format("binaryFile").load("photos/*.jpg")
    transform(images, "pipelines/photos.toml").write.parquet("latents")

Executors need this package and the model folders of the pipeline; `docs/guides/spark.md` describes both.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.accumulators import AccumulatorParam

from ._pipeline import Pipeline, PipelineError

if TYPE_CHECKING:
    from pyspark.accumulators import Accumulator
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import StructType

#: The columns of Spark's source `binaryFile`, by the names that pipelines of images use.
_BINARY_FILE = {"path": "source", "content": "image"}
#: Its other columns.
_FILE_DETAILS = {"modificationTime", "length"}

Counts = dict[tuple[str, str], int]


def transform(
    df: DataFrame,
    pipeline: Pipeline | Any,
    *,
    counts: Accumulator[Counts] | None = None,
    **options: Any,
) -> DataFrame:
    """Runs a pipeline on the rows of a DataFrame, in the Python workers of the executors.

    :param df: the records. The columns `path` and `content` of the source `binaryFile` become `source` and `image`; its
        columns `modificationTime` and `length` are dropped.
    :param pipeline: a :class:`latentflow.Pipeline` with `rejects="column"` or `rejects="drop"`, or the path or the text of
        a pipeline file. A path or a text is planned for all columns of the DataFrame, which the stages find by their exact
        names. A :class:`latentflow.Pipeline` takes the columns that it was created for, found as Spark finds names.
    :param counts: receives the number of records by stage and cause; see :func:`accumulator`.
    :param options: the options of :class:`latentflow.Pipeline` for a path or a text, such as `set` and `base`.
    :returns: the columns of the result. Lists of fixed size are `array<...>` and unsigned integers `bigint`, since Spark
        has neither. The column `rejected` is null for processed records; :func:`split` separates the rejects.
    :raises latentflow.PipelineError: on the driver, before the job, for a pipeline that cannot run or a column that is
        missing.
    """
    df = _with_image_names(df)
    if isinstance(pipeline, Pipeline):
        if options:
            raise TypeError(f"options of a pipeline that exists: {', '.join(options)}; pass them to latentflow.Pipeline")
        df = _select_input(df, pipeline)
    else:
        pipeline = Pipeline(pipeline, input=_arrow_schema(df.schema), **options)
    if pipeline._rejects not in ("column", "drop"):
        raise ValueError('a pipeline on Spark needs rejects="column" or rejects="drop"; `split` separates the rejects')
    stored = _spark_arrow_schema(pa.schema(pipeline.output_schema))
    names = df.columns

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            result = pipeline.transform(batch.rename_columns(names))
            if counts is not None:
                counts.add(_counts_of(result))
            columns = [column.cast(field.type) for column, field in zip(_storage(result), stored)]
            yield pa.RecordBatch.from_arrays(columns, schema=stored)

    # `mapInArrow` of Spark 4 does not find columns with a dot in their names.
    numbered = df.toDF(*(f"column{index}" for index in range(len(names))))
    return numbered.mapInArrow(work, _struct_type(stored))


def _with_image_names(df: DataFrame) -> DataFrame:
    """Renames the columns of the source `binaryFile`. Columns of partitions are kept."""
    types = dict(df.dtypes)
    if types.get("path") != "string" or types.get("content") != "binary" or {"source", "image"} & set(types):
        return df
    kept = [name for name in df.columns if name not in _FILE_DETAILS]
    return df.select([_column(df, name).alias(_BINARY_FILE.get(name, name)) for name in kept])


def _select_input(df: DataFrame, pipeline: Pipeline) -> DataFrame:
    """The columns that a pipeline was created for. Spark finds them by name, by default without regard to case."""
    is_exact = df.sparkSession.conf.get("spark.sql.caseSensitive") == "true"
    has_source = pipeline._columns is None or "source" in pipeline._columns.names
    optional = {"row"} if has_source else {"source", "row"}
    selected, missing = [], []
    for name in pipeline.input_schema.names:
        same = [column for column in df.columns if column == name]
        similar = [column for column in df.columns if not is_exact and column.lower() == name.lower()]
        if same or similar:
            selected.append(_column(df, (same or similar)[0]).alias(name))
        elif name not in optional:
            missing.append(name)
    if missing:
        raise PipelineError(
            f"the DataFrame has no column {_quoted(missing)}, which the pipeline needs; it has {_quoted(df.columns)}; rename "
            "columns with `withColumnRenamed`, or create the pipeline with `input` for these columns"
        )
    return df.select(selected)


def _column(df: DataFrame, name: str) -> Column:
    """A column by its complete name, which may contain dots."""
    quoted = name.replace("`", "``")
    return df[f"`{quoted}`"]


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


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


def _arrow_schema(schema: StructType) -> pa.Schema:
    from pyspark.sql.pandas.types import to_arrow_schema

    # Spark 3.5 uses UTC and has no parameter for it.
    has_timezone = "timezone" in inspect.signature(to_arrow_schema).parameters
    return to_arrow_schema(schema, **({"timezone": "UTC"} if has_timezone else {}))


def _struct_type(schema: pa.Schema) -> StructType:
    from pyspark.sql.pandas.types import from_arrow_schema

    # The default of Spark 3.5 would shift timestamps without a time zone to that of the session.
    return from_arrow_schema(schema, prefer_timestamp_ntz=True)


def _storage(batch: pa.RecordBatch) -> list[pa.Array]:
    """The columns of a batch, with those of extension types as their storage."""
    return [column.storage if isinstance(column, pa.ExtensionArray) else column for column in batch.columns]
