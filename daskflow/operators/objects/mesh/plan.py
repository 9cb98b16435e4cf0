"""One meshing: its blocks, what is meshed and how, and where meshes go."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec, Zyx
from daskflow.operators.objects._destination import fits_float32
from daskflow.operators.objects.mesh.multires import Detail
from daskflow.operators.objects.mesh.surface import Points
from daskflow.operators.segmentation.voxel_counts.stages import LabelCounts
from daskflow.scratch.pieces import Pieces
from daskflow.stores.objects.spatial_index import SpatialIndex
from daskflow.volume.stage import Bound

Format = Literal["sharded", "multires", "legacy"]
Dust = Literal["volume", "block"]

_TURNS = 16


@dataclass(frozen=True)
class Selection:
    """Which labels are meshed.

    Attributes:
        labels: these alone; all but background if None.
        exclude: and not these.
        dust: labels of fewer voxels are left out ...
        within: ... of fewer in the whole volume, or in a block.
        fill_holes: what a label encloses belongs to it.
    """

    labels: tuple[int, ...] | None = None
    exclude: tuple[int, ...] = ()
    dust: int = 0
    within: Dust = "volume"
    fill_holes: bool = False

    @property
    def partial(self) -> bool:
        """Whether labels were chosen by name, which shall not take the place of all in the layer's info."""
        return self.labels is not None or bool(self.exclude)


@dataclass(frozen=True)
class Target:
    """Where meshes go, and in what form.

    Attributes:
        url: of the directory.
        format: sharded, multires or legacy.
        mip: level that is meshed.
        compression: second stage of legacy fragments and of the spatial index: none, gzip or br.
        index: whether there is a spatial index.
    """

    url: str
    format: Format
    mip: int
    compression: str = "none"
    index: bool = True


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
        max_error: nm that simplification may move surfaces; 0 for none.
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
    max_error: float
    closed: bool
    selection: Selection
    counting: LabelCounts | None
    pieces: Pieces
    detail: Detail
    memory: int
    target: Target

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Size of the voxels; nm (zyx)."""
        return self.frame.voxel_size

    @property
    def index(self) -> SpatialIndex:
        """The cells of the spatial index: the blocks."""
        return SpatialIndex(self.grid.box, self.grid.block, self.voxel_size)

    @property
    def buckets(self) -> BlockGrid:
        """The tasks of the passes by label."""
        return BlockGrid(BoundingBox((0, 0, 0), (self.pieces.buckets, 1, 1)), (1, 1, 1))

    @property
    def turns(self) -> int:
        """How many tasks share the parts of one large label."""
        return min(len(self.grid), _TURNS)

    @property
    def parts(self) -> BlockGrid:
        """The tasks that make parts of large labels, by bucket and turn."""
        return BlockGrid(BoundingBox((0, 0, 0), (self.pieces.buckets, self.turns, 1)), (1, 1, 1))

    def parts_of(self, label: int) -> str:
        """Return the name of the records of the parts of a large label."""
        return f"{self.pieces.source}-parts-{label}"

    def describe_pieces(self) -> dict[str, Any]:
        """Return all that the surfaces of blocks depend on, as JSON."""
        target = self.target
        return {
            "blocks": {"box": str(self.grid.box), "shape": self.grid.block},
            "frame": dataclasses.asdict(self.frame),
            "max_error": self.max_error,
            "closed": self.closed,
            "selection": dataclasses.asdict(self.selection),
            "target": dataclasses.asdict(target),
        }

    def describe_levels(self) -> dict[str, Any]:
        """Return all that meshes depend on beside the surfaces of blocks, as JSON."""
        sharding = self.pieces.sharding
        return {
            "pieces": self.pieces.source,
            "detail": dataclasses.asdict(self.detail),
            "memory": self.memory,
            "sharding": None if sharding is None else dict(sharding),
        }
