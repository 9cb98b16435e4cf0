"""Tables of voxels per label as files: IntMap, CSV and NPY."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.operators.segmentation.voxel_counts.blocks import Table
from daskflow.operators.segmentation.voxel_counts.stages import LabelCounts
from daskflow.scratch.records import Arrays
from daskflow.stores import kvstore
from daskflow.stores.kvstore import transaction
from daskflow.stores.objects.files import writing
from daskflow.stores.objects.intmap import write_intmap_in_parts
from daskflow.volume import BlockResult, Task

ENDINGS = (".im", ".csv", ".npy")
_LINES = 2**16


@dataclass(frozen=True)
class WriteCounts(Task):
    """Write the counts of the whole to files; the one block is the volume.

    Attributes:
        counting: what was counted.
        outputs: URLs of the files, each with one of `ENDINGS`.
        background: also write how many voxels are 0.
    """

    counting: LabelCounts
    outputs: tuple[str, ...]
    background: bool

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        known = self.counting.summary()
        rows = known["labels"] + int(self.background and known["background"] > 0)
        for url in self.outputs:
            write_table(url, rows, self._tables())
        return BlockResult()

    def _tables(self) -> Iterator[Table]:
        for rows in self.counting.table.tables():
            kept = np.ones(len(rows["labels"]), bool) if self.background else rows["labels"] != 0
            yield rows["labels"][kept], rows["counts"][kept]

    def intact(self) -> bool:
        """Return whether the files are still there."""
        return all(kvstore.exists(url) for url in self.outputs)

    def check(self) -> None:
        for url in self.outputs:
            keeping_time(url)
            kvstore.check_writable(url.rpartition("/")[0])

    def describe(self) -> dict[str, Any]:
        return {"counts": self.counting.table.name, "outputs": list(self.outputs), "background": self.background}


def check_ending(url: str) -> None:
    """Raise unless a file of counts can have this name.

    Raises:
        ParameterError: it has none of `ENDINGS`.
    """
    if not url.endswith(ENDINGS):
        raise ParameterError(f"counts are written to {', '.join(ENDINGS)} files, not {kvstore.redact(url)}")


def write_table(url: str, rows: int, tables: Iterator[Table]) -> None:
    """Write labels and counts to a file of the kind that its ending says, one table after the other, atomically.

    Args:
        url: of the file: ``.im`` (IntMap), ``.csv`` (label,voxels) or ``.npy`` (two columns of uint64).
        rows: of all tables together.
        tables: labels rise from table to table and within each.
    """
    if url.endswith(".im"):
        parts = ((labels, counts.astype(np.uint64)) for labels, counts in tables)
        write_intmap_in_parts(url, rows, parts)
        return
    with writing(url) as file:
        if url.endswith(".csv"):
            write_csv(file, ({"label": labels, "voxels": counts} for labels, counts in tables))
            return
        np.lib.format.write_array_header_1_0(file, {"descr": "<u8", "fortran_order": False, "shape": (rows, 2)})
        for labels, counts in tables:
            file.write(np.stack((labels, counts.astype(np.uint64)), axis=1).astype("<u8").tobytes())


def keeping_time(url: str) -> None:
    """Make the local directory of a file; the time of the one above it, by which new chunks are noticed, stays."""
    path = kvstore.local_path(url)
    if path is None or path.parent.exists() or transaction() is not None:
        return
    above: Path = path.parent.parent
    before = above.stat() if above.is_dir() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    if before is not None:
        os.utime(above, ns=(before.st_atime_ns, before.st_mtime_ns))


def write_csv(file: IO[bytes], tables: Iterable[Arrays]) -> int:
    """Write tables of the same columns one after the other, under one header, and return the number of rows."""
    rows = 0
    for number, table in enumerate(tables):
        columns = list(table.values())
        if not number:
            file.write((",".join(table) + "\n").encode())
        for at in range(0, len(columns[0]), _LINES):
            lines = zip(*(column[at : at + _LINES].tolist() for column in columns), strict=True)
            file.write("".join(f"{','.join(map(str, line))}\n" for line in lines).encode())
        rows += len(columns[0])
    return rows
