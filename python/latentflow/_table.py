"""Tables of records, for other Arrow libraries."""

from __future__ import annotations

import html
from typing import Any

from ._latentflow import RecordBatches, Schema

#: Number of records in the HTML form of a table.
_SHOWN = 10
#: Maximum number of characters of a value in the HTML form of a table.
_SHOWN_CHARACTERS = 80


class Table:
    """Records in Arrow memory.

    Libraries take it over `__arrow_c_stream__` without a copy: `pyarrow.table(t)`, `polars.DataFrame(t)`,
    `duckdb.sql("from t")`.
    """

    def __init__(self, batches: RecordBatches):
        #: The records in the native module.
        self.batches = batches

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.batches.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self.batches.__arrow_c_schema__()

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def schema(self) -> Schema:
        """The names and the types of the columns."""
        return self.batches.schema

    @property
    def column_names(self) -> list[str]:
        """The names of the columns."""
        return self.schema.names

    def to_pyarrow(self) -> Any:
        """The records as a `pyarrow.Table`."""
        import pyarrow

        return pyarrow.table(self)

    def to_polars(self) -> Any:
        """The records as a `polars.DataFrame`."""
        import polars

        return polars.DataFrame(self)

    def to_pandas(self) -> Any:
        """The records as a `pandas.DataFrame`. Requires pyarrow."""
        return self.to_pyarrow().to_pandas()

    def __repr__(self) -> str:
        return f"latentflow.Table of {len(self)} records\n{self.schema!r}"

    def _repr_html_(self) -> str:
        columns = self.batches.preview(_SHOWN)
        head = "".join(f"<th>{html.escape(name)}</th>" for name, _ in columns)
        rows = zip(*(values for _, values in columns))
        body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
        more = len(self) - _SHOWN
        foot = f"<p>and {more} more records</p>" if more > 0 else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{foot}"


def _cell(value: str) -> str:
    short = value if len(value) <= _SHOWN_CHARACTERS else value[: _SHOWN_CHARACTERS - 1] + "…"
    return html.escape(short)
