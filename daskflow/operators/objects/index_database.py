"""The spatial index of meshes or skeletons as a database."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox
from daskflow.jobs import Job
from daskflow.operators import options
from daskflow.operators.objects.index_objects import Kind
from daskflow.stores import kvstore
from daskflow.stores.objects.files import writing
from daskflow.stores.objects.layer_objects import load_object_info, made_from, object_directory
from daskflow.stores.objects.spatial_index import SpatialIndex
from daskflow.volume import BlockResult, Stage, Task, numbered, operator
from daskflow.volume.stage import Output

_MOST = 2**63 - 1  # a number in sqlite
_TABLES = (  # as CloudVolume and igneous have them
    "CREATE TABLE index_files (id INTEGER PRIMARY KEY AUTOINCREMENT, filename VARCHAR(100) NOT NULL)",
    "CREATE TABLE file_lookup (label INTEGER NOT NULL, fid INTEGER NOT NULL)",
)
_INDEXES = (
    "CREATE INDEX idxfname ON index_files (filename)",
    "CREATE UNIQUE INDEX pk_label_fid ON file_lookup (label, fid)",
    "CREATE INDEX fname ON file_lookup (fid)",
    "ANALYZE file_lookup",
)


@operator()
def index_database(layer: str, output: options.Destination, *, objects: Kind = "mesh") -> Job:
    """Write the spatial index of a layer's meshes or skeletons to an SQLite database, as igneous does.

    Args:
        layer: path or URL of a precomputed layer.
        output: path or URL of the file: `index_files` names the cells of the index, `file_lookup` the labels in each.
        objects: mesh or skeletons.

    Returns:
        The job; its report counts cells and rows.

    Raises:
        StoreNotFoundError: the layer has no such objects, or these no spatial index.
    """
    layer, url = kvstore.normalise(layer), kvstore.normalise(output)
    directory = object_directory(layer, objects)
    info = load_object_info(directory)
    level = made_from(layer, info)
    index = None if level is None else SpatialIndex.of(info, level.box)
    if index is None:
        raise StoreNotFoundError(f"{kvstore.redact(directory)} has no spatial index; index-objects writes it")
    stage = Stage("write-database", numbered(1), WriteDatabase(directory, index, url), numbered=True)
    return Job((stage,), f"{url}.daskflow/", name="index database", makes=(Output(url, "database"),), renewable=True)


@dataclass(frozen=True)
class WriteDatabase(Task):
    """Write the database of all cells; the one block is all of them."""

    directory: str
    index: SpatialIndex
    url: str

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        with tempfile.TemporaryDirectory(prefix="daskflow-index-") as folder:
            path = Path(folder, "index.db")
            with closing(sqlite3.connect(path)) as database:
                cells, rows = self._fill(database)
            with writing(self.url) as file:
                file.write(path.read_bytes())
        return BlockResult(counts={"cells": cells, "rows": rows})

    def _fill(self, database: sqlite3.Connection) -> tuple[int, int]:
        cells = rows = 0
        with database:
            for statement in _TABLES:
                database.execute(statement)
            for cells, cell in enumerate(self.index.cells(), 1):
                labels = sorted(self.index.read(self.directory, cell))
                if labels and labels[-1] > _MOST:
                    raise ParameterError(f"label {labels[-1]} is larger than the numbers of SQLite, 2^63 - 1")
                database.execute("INSERT INTO index_files VALUES (?, ?)", (cells, self.index.name(cell)))
                database.executemany("INSERT INTO file_lookup VALUES (?, ?)", ((label, cells) for label in labels))
                rows += len(labels)
            for statement in _INDEXES:
                database.execute(statement)
        return cells, rows

    def check(self) -> None:
        kvstore.check_writable(self.url.rpartition("/")[0])

    def intact(self) -> bool:
        return kvstore.exists(self.url)

    def describe(self) -> dict[str, Any]:
        return {"does": "WriteDatabase", "directory": self.directory, "index": self.index.info, "url": self.url}
