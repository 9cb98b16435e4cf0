"""Which patches of a section its grey levels are counted in: the same ones for any blocks."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, Zyx

PATCH = (2048, 2048)


@dataclass(frozen=True)
class Sampling:
    """Some of the patches that tile each section, drawn by seed and z.

    Attributes:
        box: the volume, from whose corner patches are counted.
        coverage: share of the patches of a section that is drawn, rounded up to whole patches.
        seed: another one draws other patches.
        patch: voxels of a patch (yx).

    Raises:
        ParameterError: a coverage that is not above 0 and at most 1.
    """

    box: BoundingBox
    coverage: float
    seed: int
    patch: tuple[int, int] = PATCH

    def __post_init__(self) -> None:
        if not 0 < self.coverage <= 1:
            raise ParameterError(f"coverage {self.coverage} must be above 0 and at most 1, the share that is sampled")

    @functools.cached_property
    def _patches(self) -> BlockGrid:
        (_, *start), (_, *stop) = self.box.start, self.box.stop
        flat = BoundingBox((0, start[0], start[1]), (1, stop[0], stop[1]))
        return BlockGrid(flat, (1, *self.patch))

    @property
    def _whole(self) -> bool:
        return self.count >= len(self._patches)

    @property
    def count(self) -> int:
        """Patches drawn in each section."""
        return math.ceil(len(self._patches) * self.coverage - 1e-9)

    @property
    def patch_shape(self) -> Zyx:
        """Voxels of a patch that lies wholly in the section (zyx)."""
        _, y, x = self._patches[0].shape
        return 1, y, x

    def patches(self, z: int) -> list[int]:
        """Return the numbers of the patches drawn in the section at z, ascending."""
        total, count = len(self._patches), self.count
        if count >= total:
            return list(range(total))
        ranks = _mixed(np.arange(total, dtype=np.uint64), self.seed, z)
        return sorted(np.argsort(ranks, kind="stable")[:count].tolist())

    def voxels(self, z: int) -> int:
        """Return how many voxels of the section at z are sampled."""
        return sum(self._patches[patch].size for patch in self.patches(z))

    def hull(self, box: BoundingBox) -> BoundingBox | None:
        """Return the box around what is sampled of another; None when nothing is."""
        if self._whole:
            return box
        parts = [part for section in self.within(box).values() for part in section]
        return functools.reduce(BoundingBox.union, parts) if parts else None

    def within(self, box: BoundingBox) -> dict[int, list[BoundingBox]]:
        """Return the parts of `box` that are sampled, by section."""
        if self._whole:
            return {z: [_section(box, z)] for z in range(box.start[0], box.stop[0])}
        (_, y0, x0), (_, y1, x1) = box.start, box.stop
        near = set(self._patches.touching(BoundingBox((0, y0, x0), (1, y1, x1))))
        found: dict[int, list[BoundingBox]] = {}
        for z in range(box.start[0], box.stop[0]):
            drawn = near.intersection(self.patches(z))
            parts = [self._patches[patch].shift((z, 0, 0)).clip(box) for patch in sorted(drawn)]
            if parts:
                found[z] = parts
        return found


def _section(box: BoundingBox, z: int) -> BoundingBox:
    (_, y0, x0), (_, y1, x1) = box.start, box.stop
    return BoundingBox((z, y0, x0), (z + 1, y1, x1))


def _mixed(
    numbers: np.ndarray[tuple[int], np.dtype[np.uint64]], seed: int, z: int
) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Return pseudo-random numbers that follow from some numbers, a seed and z: rounds of splitmix64."""
    mask = (1 << 64) - 1
    mixed = numbers
    for salt in (seed, z, 0x9E3779B97F4A7C15):
        mixed = mixed + np.uint64((salt * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & mask)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed
