"""What an agglomeration found as Parquet files: its merge tree, and the region graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox
from daskflow.operators.segmentation._affinities import ONE
from daskflow.operators.segmentation.agglomerate.boxes import Agglomeration
from daskflow.scratch.records import Arrays
from daskflow.stores import kvstore
from daskflow.stores.objects.files import writing
from daskflow.stores.parquet import write_parquet
from daskflow.volume import BlockResult, Task
from daskflow.volume.stage import Output


@dataclass(frozen=True)
class _WriteFile(Task):
    """Write what an agglomeration found to a Parquet file, part by part; the one block is the volume."""

    agglomeration: Agglomeration
    url: str

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        with writing(self.url) as file:
            rows = write_parquet(file, self._tables(), threshold=str(min(self.agglomeration.thresholds)))
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
        one = self.agglomeration
        for level, grid in enumerate(one.levels):
            for part in range(len(grid) * one.parts(level)):
                (done,) = one.read("merged", level, [part])
                yield {"child": done["child"], "parent": done["parent"], **scored(done["sums"], done["counts"])}


class WriteGraph(_WriteFile):
    """Write the region graph: u < v, score, sum and count of each pair that touches, and these per axis."""

    def _tables(self) -> Iterator[Arrays]:
        for rows in self.agglomeration.pairs.tables():
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
