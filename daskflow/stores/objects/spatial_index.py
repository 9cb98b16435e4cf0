"""Which objects are where: one small JSON file per cell of a grid, as igneous and CloudVolume have them.

Boxes and cells are xyz in nm, as in the files; the grid begins at the start of the volume.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import CorruptChunkError, MissingChunkError, StoreError
from daskflow.geometry import BoundingBox, Zyx
from daskflow.stores import kvstore
from daskflow.stores.objects.files import read_file, write_file
from daskflow.stores.refusals import numbers, parse_object

Box = Sequence[float]
_Number = int | float


@dataclass(frozen=True)
class SpatialIndex:
    """The cells of one directory of objects.

    Attributes:
        box: the volume, voxels (zyx) of the level that the objects were made from.
        cell: voxels (zyx) of a cell; those at the end of the volume are cut.
        voxel_size: nm (zyx) of that level.
    """

    box: BoundingBox
    cell: Zyx
    voxel_size: tuple[float, float, float]

    @classmethod
    def of(cls, info: Mapping[str, Any], box: BoundingBox) -> SpatialIndex | None:
        """Return the index that the ``info`` of a directory of objects describes, None when it has none.

        The box is that of the volume, in voxels (zyx) of the level ``info["mip"]``.

        Raises:
            StoreError: its cells are less than a voxel.
        """
        index = info.get("spatial_index")
        if index is None:
            return None
        x, y, z = (float(v) for v in index["resolution"])
        cz, cy, cx = (round(c / v) for c, v in zip(reversed(index["chunk_size"]), (z, y, x), strict=True))
        if min(cz, cy, cx) < 1:
            raise StoreError(f"cells of {index['chunk_size']} nm of a spatial index are less than a voxel")
        return cls(box, (cz, cy, cx), (z, y, x))

    @property
    def info(self) -> dict[str, Any]:
        """What the ``info`` of the directory has under ``spatial_index``."""
        size = self._resolution
        return {"resolution": size, "chunk_size": [c * v for c, v in zip(reversed(self.cell), size, strict=True)]}

    @property
    def _resolution(self) -> list[_Number]:
        return [int(v) if float(v).is_integer() else float(v) for v in reversed(self.voxel_size)]

    def name(self, cell: BoundingBox) -> str:
        """Return the name of the file of a cell, given in voxels (zyx)."""
        size = self._resolution
        decimals = max(len(kvstore.plain_number(v).partition(".")[2]) for v in size)
        whole = all(isinstance(v, int) for v in size)

        def shown(value: _Number) -> str:
            return str(value) if whole else f"{round(value, decimals):.{decimals}f}"

        starts, stops = reversed(cell.start), reversed(cell.stop)
        sides = [f"{shown(a * v)}-{shown(b * v)}" for a, b, v in zip(starts, stops, size, strict=True)]
        return "_".join(sides) + ".spatial"

    def cells(self, within: BoundingBox | None = None) -> Iterator[BoundingBox]:
        """Yield the cells, or those that touch a box, in voxels (zyx)."""
        box = self.box if within is None else within.clip(self.box)
        if box.empty:
            return
        ranges = [
            range(start + (a - start) // c * c, b, c)
            for start, a, b, c in zip(self.box.start, box.start, box.stop, self.cell, strict=True)
        ]
        for z, y, x in itertools.product(*ranges):
            yield BoundingBox.from_size((z, y, x), self.cell).clip(self.box)

    def write(self, directory: str, cell: BoundingBox, boxes: Mapping[int, Box], *, compression: str = "none") -> None:
        """Store which objects are in one of the `cells`; every cell needs that, also where there are none.

        Boxes are x0, y0, z0, x1, y1, z1 in nm of the part of each label's object in the cell.
        """
        values = {str(label): [_plain(v) for v in boxes[label]] for label in sorted(boxes)}
        write_file(directory, self.name(cell), json.dumps(values).encode(), compression=compression)

    def read(self, directory: str, cell: BoundingBox) -> dict[int, npt.NDArray[np.float64]]:
        """Return what `write` stored.

        Raises:
            MissingChunkError: nothing was stored for the cell, so that one cannot know what is there.
            CorruptChunkError: the file is damaged.
        """
        name = self.name(cell)
        data = read_file(directory, name)
        if data is None:
            raise MissingChunkError(f"the spatial index in {kvstore.redact(directory)} has no {name}")
        name = kvstore.redact(kvstore.join(directory, name))
        found = parse_object(data, name, CorruptChunkError)
        right, meant = numbers(6)
        for label, box in found.items():
            if not (label.isdecimal() and int(label) < 2**64 and right(box)):
                raise CorruptChunkError(f"{name} is damaged: label {label!r} has {box!r} instead of {meant}")
        return {int(label): np.array(box, np.float64) for label, box in found.items()}

    def query(self, directory: str, within: BoundingBox | None = None) -> dict[int, npt.NDArray[np.float64]]:
        """Return the labels of the objects that reach into a box, with the bounds of the parts that were looked at.

        The box is in voxels (zyx), None for the whole volume.

        Raises:
            MissingChunkError: a cell is not stored.
        """
        found: dict[int, npt.NDArray[np.float64]] = {}
        low: npt.NDArray[np.float64] = np.full(3, -np.inf)
        high: npt.NDArray[np.float64] = np.full(3, np.inf)
        if within is not None:
            size = np.array(self.voxel_size[::-1])
            low, high = np.array(within.start[::-1]) * size, np.array(within.stop[::-1]) * size
        for cell in self.cells(within):
            for label, box in self.read(directory, cell).items():
                if (box[:3] <= high).all() and (box[3:] >= low).all():
                    found[label] = box if label not in found else _union(found[label], box)
        return dict(sorted(found.items()))


def _union(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.concatenate([np.minimum(a[:3], b[:3]), np.maximum(a[3:], b[3:])])


def _plain(value: float) -> _Number:
    number = float(value)
    return int(number) if number.is_integer() else number
