"""Histograms that are counted block by block and added up in a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from daskflow.operators.image.contrast.levels import Counts
from daskflow.scratch.records import Arrays
from daskflow.scratch.tables import Table
from daskflow.volume.stage import Bound, Scope

_PAGE = 256
_MERGED_BYTES = 2**27


@dataclass(frozen=True)
class Histograms(Bound):
    """Histograms by number; a row of the table is a page, 256 neighbouring grey values of one histogram.

    Attributes:
        table: the pages in which there are any.
        bins: grey values that the dtype has.
    """

    table: Table
    bins: int

    @classmethod
    def named(cls, name: str, blocks: int, bins: int, most: int, scope: Scope) -> Histograms:
        """Return the histograms that blocks count, of which each has a part of at most so many."""
        fan_in = max(2, min(64, _MERGED_BYTES // (8 * bins * most)))
        return cls(Table(name, blocks, {"pages": "key", "counts": "sum"}, scope, fan_in=fan_in), bins)

    def rows(self, numbers: npt.ArrayLike, counts: npt.NDArray[np.integer]) -> Arrays:
        """Return the rows of some histograms, whose numbers ascend; their grey values are the last axis."""
        pages = counts.reshape(-1, _PAGE)
        present = pages.any(axis=1)
        return {"pages": self._pages(numbers)[present], "counts": pages[present]}

    def read(self, numbers: npt.ArrayLike) -> Counts:
        """Return some histograms, shape (numbers, bins), after the stages ran.

        Raises:
            JobError: they are gone.
        """
        counts = self.table.of(self._pages(numbers))["counts"]
        return counts.reshape(-1, self.bins).astype(np.int64, copy=False)

    def _pages(self, numbers: npt.ArrayLike) -> npt.NDArray[np.uint64]:
        first = np.asarray(numbers, np.int64).reshape(-1, 1) * (self.bins // _PAGE)
        return (first + np.arange(self.bins // _PAGE)).ravel().astype(np.uint64)
