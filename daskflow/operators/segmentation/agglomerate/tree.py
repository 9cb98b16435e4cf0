"""Merge trees as files, for other programs and for relabelling at any threshold."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox
from daskflow.operators.segmentation._affinities import ONE
from daskflow.operators.segmentation.agglomerate.stages import Agglomeration
from daskflow.scratch import Table
from daskflow.scratch.records import Arrays
from daskflow.stores import kvstore
from daskflow.stores.objects.files import writing
from daskflow.stores.parquet import load_pyarrow, write_parquet
from daskflow.volume import BlockResult, Task
from daskflow.volume.stage import Output

Names = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class MergeTree:
    """The merges of an agglomeration: each region but the last of an object ends once, in a parent that goes on.

    Attributes:
        child: regions that end, rising, uint64.
        parent: what each is merged into.
        score: mean affinity of each merge, from 0 to 1.
    """

    child: Names
    parent: Names
    score: npt.NDArray[np.float64]

    def names(self, threshold: float) -> tuple[Names, Names]:
        """Return the regions that merge at a threshold, rising, and what each is called in the end."""
        kept = self.score >= threshold
        child, parent = self.child[kept], self.parent[kept]
        at = np.minimum(np.searchsorted(child, parent), max(0, len(child) - 1))
        goes_on = child[at] == parent if len(child) else np.zeros(0, bool)
        further = np.where(goes_on, at, np.arange(len(child)))
        while not np.array_equal(again := further[further], further):
            further = again
        return child, parent[further]


def read_tree(url: str) -> MergeTree:
    """Return the merge tree in a Parquet file.

    Raises:
        StoreNotFoundError: there is none.
        ParameterError: it is not a merge tree.
        MissingDependencyError: pyarrow is not installed.
    """
    arrow, name, data = load_pyarrow(), kvstore.redact(url), kvstore.read_bytes(url)
    if data is None:
        raise StoreNotFoundError(f"there is no merge tree {name}; agglomerate writes one with tree (--tree)")
    try:
        table = arrow.parquet.read_table(io.BytesIO(data), columns=["child", "parent", "score"])
        child, parent, score = (column.to_numpy() for column in table.columns)
    except (ValueError, KeyError, OSError) as error:
        raise ParameterError(f"{name} is not a merge tree, with columns child, parent and score: {error}") from error
    order = np.argsort(child)
    if np.any(child[order][1:] == child[order][:-1]):
        raise ParameterError(f"{name} is not a merge tree: a region ends twice in it")
    return MergeTree(child[order].astype(np.uint64), parent[order].astype(np.uint64), score[order].astype(np.float64))


@dataclass(frozen=True)
class _WriteFile(Task):
    """Write what an agglomeration found to a Parquet file, part by part; the one block is the volume."""

    agglomeration: Agglomeration
    url: str

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        with writing(self.url) as file:
            rows = write_parquet(file, self._tables())
        return BlockResult(counts={"rows": rows})

    def _tables(self) -> Iterator[Arrays]:
        raise NotImplementedError

    def makes(self) -> tuple[Output, ...]:
        return (Output(self.url, "table"),)

    def intact(self) -> bool:
        return kvstore.exists(self.url)

    def check(self) -> None:
        kvstore.check_writable(self.url.rpartition("/")[0])

    def describe(self) -> dict[str, Any]:
        return {"file": kvstore.redact(self.url)}


class WriteTree(_WriteFile):
    """Write the merges of all boxes: child, parent, score, sum (65535 being an affinity of 1) and count."""

    def _tables(self) -> Iterator[Arrays]:
        for level, grid in enumerate(self.agglomeration.levels):
            for box in range(len(grid)):
                (done,) = self.agglomeration.read("merged", level, [box])
                yield {"child": done["child"], "parent": done["parent"], **scored(done["sums"], done["counts"])}


@dataclass(frozen=True)
class WriteGraph(_WriteFile):
    """Write the region graph: u < v, score, sum and count of each pair that touches, and these per axis."""

    pairs: Table

    def _tables(self) -> Iterator[Arrays]:
        for rows in self.pairs.tables():
            axes = {
                f"{name}_{axis}": rows[f"{name}s"][:, number]
                for name in ("sum", "count")
                for number, axis in enumerate("zyx")
            }
            yield {
                "u": rows["u"],
                "v": rows["v"],
                **scored(rows["sums"].sum(axis=1), rows["counts"].sum(axis=1)),
                **axes,
            }


def scored(sums: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> Arrays:
    """Return columns of mean affinities, from 0 to 1, and of what they are the quotient of."""
    return {"score": sums / counts / ONE, "sum": sums, "count": counts}
