"""One meshing: its blocks, what is meshed and how, and where meshes go."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import daskflow
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.fragments import Shuffle
from daskflow.operators.counting.stages import LabelCounts
from daskflow.operators.meshing.multires import Detail
from daskflow.stores.objects.spatial_index import SpatialIndex
from daskflow.volume import Expression

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
class Meshing:
    """One meshing.

    Attributes:
        expression: gives the labels; one output.
        grid: the blocks, of one shape from the volume's start.
        voxel_size: nm (zyx).
        max_error: nm that simplification may move surfaces; 0 for none.
        closed: whether surfaces are closed where the volume ends.
        selection: which labels.
        counting: voxels of each label in the whole volume; None when that does not matter.
        shuffle: gathers the pieces of each label.
        detail: how levels of detail are made.
        memory: bytes that the pieces of one label may take while it is written.
        target: where meshes go.
    """

    expression: Expression
    grid: BlockGrid
    voxel_size: tuple[float, float, float]
    max_error: float
    closed: bool
    selection: Selection
    counting: LabelCounts | None
    shuffle: Shuffle
    detail: Detail
    memory: int
    target: Target

    @property
    def index(self) -> SpatialIndex:
        """The cells of the spatial index: the blocks."""
        return SpatialIndex(self.grid.box, self.grid.block, self.voxel_size)

    @property
    def buckets(self) -> BlockGrid:
        """The tasks of the passes by label."""
        return BlockGrid(BoundingBox((0, 0, 0), (self.shuffle.buckets, 1, 1)), (1, 1, 1))

    @property
    def turns(self) -> int:
        """How many tasks share the parts of one large label."""
        return min(len(self.grid), _TURNS)

    @property
    def parts(self) -> BlockGrid:
        """The tasks that make parts of large labels, by bucket and turn."""
        return BlockGrid(BoundingBox((0, 0, 0), (self.shuffle.buckets, self.turns, 1)), (1, 1, 1))

    def parts_of(self, label: int) -> str:
        """Return the name of the records of the parts of a large label."""
        return f"{self.shuffle.source}-parts-{label}"

    def describe_pieces(self) -> dict[str, Any]:
        """Return all that the surfaces of blocks depend on, as JSON."""
        target = self.target
        return {
            "daskflow": daskflow.__version__,
            "expression": self.expression.describe(),
            "blocks": {"box": str(self.grid.box), "shape": self.grid.block},
            "voxel_size": self.voxel_size,
            "max_error": self.max_error,
            "closed": self.closed,
            "selection": dataclasses.asdict(self.selection),
            "target": dataclasses.asdict(target),
        }

    def describe_levels(self) -> dict[str, Any]:
        """Return all that meshes depend on beside the surfaces of blocks, as JSON."""
        sharding = self.shuffle.sharding
        return {
            "pieces": self.shuffle.source,
            "detail": dataclasses.asdict(self.detail),
            "memory": self.memory,
            "sharding": None if sharding is None else dict(sharding),
        }

    def bind(self, directory: str) -> Meshing:
        """Return it with what its expression waits for below the URL `directory`."""
        return dataclasses.replace(self, expression=self.expression.bind(directory))
