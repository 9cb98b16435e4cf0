"""Tables as Parquet files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import IO, Any

import numpy.typing as npt

from daskflow.errors import optional_module

Arrays = dict[str, npt.NDArray[Any]]


def write_parquet(file: IO[bytes], tables: Iterator[Arrays], **said: str) -> int:
    """Write tables of the same columns as Parquet, and what is `said` of them, and return the number of rows."""
    arrow, rows = load_pyarrow(), 0
    first = arrow.table(next(tables))
    with arrow.parquet.ParquetWriter(file, first.schema) as writer:
        writer.add_key_value_metadata(said)
        for table in itertools.chain([first], map(arrow.table, tables)):
            writer.write_table(table)
            rows += table.num_rows
    return rows


def load_pyarrow() -> ModuleType:
    """Return pyarrow, with its module for Parquet.

    Raises:
        MissingDependencyError: it is not installed.
    """
    optional_module("pyarrow.parquet", package="pyarrow", extra="parquet")
    module: ModuleType = optional_module("pyarrow", package="pyarrow", extra="parquet")
    return module
