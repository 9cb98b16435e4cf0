"""One meshing: its blocks, what is meshed and how, and where meshes go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BlockGrid, VolumeSpec, Zyx
from daskflow.operators.objects._label_objects import Selection, fits_float32
from daskflow.operators.objects.mesh.multires import Detail
from daskflow.operators.objects.mesh.surface import Points
from daskflow.operators.segmentation.voxel_counts import LabelCounts
from daskflow.scratch.pieces import Pieces
from daskflow.stores.objects.spatial_index import SpatialIndex
from daskflow.volume.stage import Bound

_TURNS = 16


@dataclass(frozen=True)
class MeshSelection(Selection):
    """Which labels are meshed.

    Attributes:
        within: whether dust is counted in the whole volume, or in a block.
        fill_holes: how far what a label encloses belongs to it, see `options.FillHoles`.
    """

    within: Literal["volume", "block"]
    fill_holes: int


@dataclass(frozen=True)
class Target:
    """Where meshes go, and in what form.

    Attributes:
        url: of the directory.
        mip: level that is meshed.
        compression: second stage of legacy fragments and of the spatial index: none, gzip or br.
        index: whether there is a spatial index.
    """

    url: str
    format: Literal["sharded", "multires", "legacy", "ply", "obj", "stl"]
    mip: int
    compression: str
    index: bool


@dataclass(frozen=True)
class Frame:
    """Where the voxels of a volume are, and from where meshes count them.

    Attributes:
        corner: where the volume's first voxel begins; nm (zyx).
        start: its global coordinates (zyx).
        voxel_size: nm (zyx).
        near: whether float32 holds all coordinates; otherwise meshes count from the first voxel.
    """

    corner: tuple[float, float, float]
    start: Zyx
    voxel_size: tuple[float, float, float]
    near: bool

    @classmethod
    def of(cls, spec: VolumeSpec) -> Frame:
        """Return the frame of a volume."""
        return cls(spec.corner, spec.box.start, spec.spacing, fits_float32(spec.box))

    @property
    def first(self) -> npt.NDArray[np.float64]:
        """Coordinates of the volume's first voxel in meshes (xyz)."""
        return np.array(self.start[::-1] if self.near else (0, 0, 0), np.float64)

    @property
    def translation(self) -> npt.NDArray[np.float64]:
        """Where voxel 0 of meshes begins; nm (xyz)."""
        shift: npt.NDArray[np.float64] = np.array(self.corner[::-1]) - self.first * self._size
        return shift

    @property
    def _size(self) -> npt.NDArray[np.float64]:
        return np.array(self.voxel_size[::-1])

    def voxels(self, vertices: Points) -> Points:
        """Return where vertices of a `Surface` are in meshes, in voxels (xyz)."""
        return vertices / 2 + self.first

    def near_nm(self, vertices: Points) -> Points:
        """Return where vertices of a `Surface` are; nm (xyz) from voxel 0 of meshes."""
        places: Points = self.voxels(vertices) * self._size
        return places

    def nm(self, vertices: Points) -> Points:
        """Return where vertices of a `Surface` are; nm (xyz)."""
        return self.near_nm(vertices) + self.translation

    def moved(self, bounds: Sequence[float]) -> list[float]:
        """Return bounds (x0, y0, z0, x1, y1, z1) that are counted from voxel 0 of meshes, as nm."""
        return [a + b for a, b in zip(bounds, [*self.translation.tolist()] * 2, strict=True)]


@dataclass(frozen=True)
class Meshing(Bound):
    """One meshing.

    Attributes:
        grid: the blocks, of one shape from the volume's start.
        frame: where the voxels are.
        closed: whether surfaces are closed where the volume ends.
        selection: which labels.
        counting: voxels of each label in the whole volume; None when that does not matter.
        pieces: gathers the pieces of each label.
        detail: how levels of detail are made.
        memory: bytes that the pieces of one label may take while it is written.
        target: where meshes go.
    """

    grid: BlockGrid
    frame: Frame
    closed: bool
    selection: MeshSelection
    counting: LabelCounts | None
    pieces: Pieces
    detail: Detail
    memory: int
    target: Target

    @property
    def index(self) -> SpatialIndex:
        """The cells of the spatial index: the blocks."""
        return SpatialIndex(self.grid.box, self.grid.block, self.frame.voxel_size)

    @property
    def turns(self) -> int:
        """How many tasks share the parts of one large label."""
        return min(len(self.grid), _TURNS)

    def parts_of(self, label: int) -> str:
        """Return the name of the records of the parts of a large label."""
        return f"{self.pieces.source}-parts-{label}"
