# usage: check.py EXPECTED: reads Parquet files with pyarrow, pandas, Polars and DuckDB, and compares all values with those
# that EXPECTED has for each column, in the form of values.rs.
import json
import struct
import sys

import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def value(scalar):
    """The value of a pyarrow scalar, as text with its kind."""
    kind = scalar.type
    if isinstance(kind, pa.BaseExtensionType):
        return None if not scalar.is_valid else value(scalar.value)
    if not scalar.is_valid or pa.types.is_null(kind):
        return None
    if pa.types.is_boolean(kind):
        return scalar.as_py()
    if pa.types.is_integer(kind):
        return str(scalar.as_py())
    if pa.types.is_floating(kind):
        number = float(scalar.as_py())
        return "float nan" if number != number else "float " + struct.pack(">d", number).hex()
    if pa.types.is_date32(kind):
        return f"date {scalar.value}"
    if pa.types.is_date64(kind):
        return f"date {scalar.value // 86_400_000}"
    if pa.types.is_time(kind):
        return f"time {scalar.value * NANOSECONDS[kind.unit]}"
    if pa.types.is_timestamp(kind):
        name = "instant" if kind.tz else "timestamp"
        return f"{name} {scalar.value * NANOSECONDS[kind.unit]}"
    if pa.types.is_duration(kind):
        return f"duration {scalar.value * NANOSECONDS[kind.unit]}"
    if pa.types.is_decimal(kind):
        text = format(scalar.as_py(), "f")
        return "decimal " + (text.rstrip("0").rstrip(".") if "." in text else text)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text " + scalar.as_py()
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return "bytes " + scalar.as_py().hex()
    if pa.types.is_fixed_size_binary(kind):
        return "bytes " + scalar.as_py().hex()
    if pa.types.is_struct(kind):
        return [value(scalar[index]) for index in range(kind.num_fields)]
    if pa.types.is_map(kind) or pa.types.is_nested(kind):
        return [value(item) for item in scalar.values]
    raise TypeError(f"no value of type {kind}")


def check(reader, table, expected):
    for name, values in expected.items():
        column = table[name]
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        found = [value(scalar) for scalar in column]
        if reader == "duckdb":
            values = [of_duckdb(name, item) for item in values]
        assert len(found) == len(values), (reader, name, len(found), len(values))
        for row, (mine, theirs) in enumerate(zip(values, found)):
            assert mine == theirs, (reader, name, str(column.type), row, mine, theirs)


def of_duckdb(name, item):
    """DuckDB has no durations of 64 bits: it shows their number. It exports a UUID as text."""
    if item is not None and name.startswith("duration_"):
        return str(int(item.split()[1]) // NANOSECONDS[name.split("_")[1]])
    if item is not None and name == "uuid":
        digits = item.split()[1]
        parts = [digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]]
        return "text " + "-".join(parts)
    return item


def check_pandas(path, schema, expected):
    frame = pandas.read_parquet(path)
    for name in expected:
        kind = schema.field(name).type
        # Pandas has no type for nested values, and reads them as arrays of Python objects.
        if pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType):
            assert len(frame[name]) == len(expected[name]), name
            continue
        column = pa.Array.from_pandas(frame[name], type=kind)
        check("pandas", {name: column}, {name: of_pandas(expected[name])})


def of_pandas(values):
    """NaN is null in pandas."""
    return [None if item == "float nan" else item for item in values]


def main():
    with open(sys.argv[1]) as file:
        outputs = json.load(file)
    for output in outputs:
        path, expected = output["path"], output["columns"]
        table = pq.read_table(path)
        tensor = table.schema.field("tensor").type
        assert isinstance(tensor, pa.FixedShapeTensorType) and tensor.shape == [2, 3], tensor
        assert table["tensor"].combine_chunks().to_numpy_ndarray().shape[1:] == (2, 3)
        assert isinstance(table.schema.field("uuid").type, pa.UuidType), table.schema.field("uuid")
        assert isinstance(table.schema.field("json").type, pa.JsonType), table.schema.field("json")
        own = table.schema.field("own_type").metadata
        assert own[b"ARROW:extension:name"] == b"latentflow.test", own
        assert own[b"ARROW:extension:metadata"] == b'{"unit":"mm"}', own
        check("pyarrow", table, expected)
        check("polars", polars.read_parquet(path).to_arrow(), expected)
        connection = duckdb.connect()
        connection.sql("set timezone = 'UTC'")
        relation = connection.sql(f"select * from read_parquet('{path}')")
        types = dict(zip(relation.columns, map(str, relation.types)))
        assert types["uuid"] == "UUID" and types["json"] == "JSON", types
        check("duckdb", relation.to_arrow_table(), expected)
        check_pandas(path, table.schema, expected)


main()
