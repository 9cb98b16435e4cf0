"""Merge trees of agglomeration, as files have them, and what they make of regions at a threshold."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.operators.segmentation.connected_components.blocks import ends_of
from daskflow.scratch.tables import found_in
from daskflow.stores import kvstore
from daskflow.stores.parquet import load_pyarrow

Names = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class MergeTree:
    """The merges of an agglomeration: each region but the last of an object ends once, in a parent that goes on.

    Attributes:
        child: regions that end, rising, uint64.
        parent: what each is merged into.
        score: mean affinity of each merge, from 0 to 1.
        least: score down to which regions were merged; what lower ones would merge is not known.
    """

    child: Names
    parent: Names
    score: npt.NDArray[np.float64]
    least: float = 0.0

    def names(self, threshold: float) -> tuple[Names, Names]:
        """Return the regions that merge at a threshold, rising, and what each is called in the end.

        Raises:
            ParameterError: a threshold below `least`.
        """
        if threshold < self.least:
            raise ParameterError(
                f"the merge tree was made down to a mean affinity of {self.least:g}, so it cannot be cut at"
                f" {threshold:g}; agglomerate with a lower threshold"
            )
        kept = self.score >= threshold
        child, parent = self.child[kept], self.parent[kept]
        at, goes_on = found_in(child, parent)
        return child, parent[ends_of(np.where(goes_on, at, np.arange(len(child))))]


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
        file = arrow.parquet.ParquetFile(io.BytesIO(data))
        table = file.read(columns=["child", "parent", "score"])
        child, parent, score = (column.to_numpy() for column in table.columns)
        least = float((file.metadata.metadata or {}).get(b"threshold", 0))
    except (ValueError, KeyError, OSError) as error:
        raise ParameterError(f"{name} is not a merge tree, with columns child, parent and score: {error}") from error
    order = np.argsort(child)
    if np.any(child[order][1:] == child[order][:-1]):
        raise ParameterError(f"{name} is not a merge tree: a region ends twice in it")
    child, parent = child[order].astype(np.uint64), parent[order].astype(np.uint64)
    return MergeTree(child, parent, score[order].astype(np.float64), least)
