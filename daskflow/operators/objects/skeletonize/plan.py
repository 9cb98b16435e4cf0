"""One skeletonization: its blocks and tasks, what is traced, and where things lie."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.operators.objects._destination import fits_float32
from daskflow.operators.objects.skeletonize.pieces import Piece
from daskflow.operators.objects.skeletonize.teasar import Tracing
from daskflow.operators.segmentation.voxel_counts.stages import LabelCounts
from daskflow.scratch.pieces import Pieces
from daskflow.stores.objects.spatial_index import SpatialIndex
from daskflow.volume.stage import Bound

Labels = npt.NDArray[np.uint64]

TRACED = "traced"  # the records of what was traced in each task
WRITTEN = "written"  # those of the skeletons of each bucket


@dataclass(frozen=True)
class Selection:
    """Which labels are skeletonized.

    Attributes:
        labels: these alone; all but background if None.
        exclude: and not these.
        dust: labels of fewer voxels in the whole volume are left out.
    """

    labels: tuple[int, ...] | None = None
    exclude: tuple[int, ...] = ()
    dust: int = 1000

    @property
    def partial(self) -> bool:
        """Whether labels were chosen by name, which shall not take the place of all in the layer's info."""
        return self.labels is not None or bool(self.exclude)

    def chosen(self, labels: Labels) -> Labels:
        """Return the labels that are wanted, whatever their size."""
        keep = labels != 0
        if self.labels is not None:
            keep &= np.isin(labels, np.array(self.labels, np.uint64))
        keep &= ~np.isin(labels, np.array(self.exclude, np.uint64))
        found: Labels = labels[keep]
        return found


@dataclass(frozen=True)
class Pruning:
    """What is left out of joined skeletons, by length of cable in nm.

    Attributes:
        shortest: components with less cable.
        longest: skeletons with more; None for none.
        tick: terminal branches that are shorter.
    """

    shortest: float = 1000.0
    longest: float | None = None
    tick: float = 0.0


@dataclass(frozen=True)
class Skeletonizing(Bound):
    """One skeletonization.

    Attributes:
        grid: the blocks, of one shape from the volume's start.
        shares: tasks for each block, among which its labels are dealt out.
        origin: where the middle of the volume's first voxel is; nm, xyz.
        tracing: how blocks are traced.
        selection: which labels.
        counting: voxels of each label in the whole volume; None when that does not matter.
        pieces: gathers the pieces of each label.
    """

    grid: BlockGrid
    shares: int
    origin: tuple[float, float, float]
    tracing: Tracing
    selection: Selection
    counting: LabelCounts | None
    pieces: Pieces

    @property
    def tasks(self) -> BlockGrid:
        """The tasks by block and share: along z the blocks, along y the shares."""
        return BlockGrid(BoundingBox((0, 0, 0), (len(self.grid), self.shares, 1)), (1, 1, 1))

    def task(self, box: BoundingBox) -> tuple[int, int, int]:
        """Return what a box of `tasks` stands for: block, share, and number of the task."""
        block, share, _ = box.start
        return block, share, block * self.shares + share

    def inner(self, block: BoundingBox) -> BoundingBox:
        """Return a block with the voxels on its high sides that it shares with the next ones."""
        return block.grow(0, 1).clip(self.grid.box)

    @property
    def index(self) -> SpatialIndex:
        """The cells of the spatial index: the blocks."""
        return SpatialIndex(self.grid.box, self.grid.block, self.tracing.voxel_size)

    @property
    def translation(self) -> tuple[float, float, float]:
        """What files leave out of positions because float32 could not hold it; nm, xyz."""
        return (0.0, 0.0, 0.0) if fits_float32(self.grid.box) else self.origin

    def faces_of_ends(self, piece: Piece) -> npt.NDArray[np.uint8]:
        """Return the faces of the volume on which each end of a joined piece lies, a bit for each; 0 elsewhere."""
        ends = np.bincount(piece.edges.ravel(), minlength=len(piece.vertices)) == 1
        last = np.array(self.grid.box.shape[::-1]) - 1
        on = np.concatenate([piece.vertices == 0, piece.vertices == last], axis=1) & ends[:, None]
        faces: npt.NDArray[np.uint8] = np.packbits(on & self.tracing.fix_borders, axis=1)[:, 0]
        return faces

    def places(self, piece: Piece) -> npt.NDArray[np.float64]:
        """Return where vertices are, in the middle of their voxels; nm, xyz."""
        places: npt.NDArray[np.float64] = np.array(self.origin) + piece.vertices * np.array(self.tracing.anisotropy)
        return places

    def positions(self, piece: Piece) -> npt.NDArray[np.float32]:
        """Return where vertices are in files; nm, xyz, from `translation` on."""
        near: npt.NDArray[np.float32] = (self.places(piece) - np.array(self.translation)).astype(np.float32)
        return near

    def describe(self) -> dict[str, Any]:
        """Return all that pieces depend on, as JSON."""
        return {
            "blocks": {"box": str(self.grid.box), "shape": self.grid.block, "shares": self.shares},
            "origin": self.origin,
            "tracing": dataclasses.asdict(self.tracing),
            "selection": dataclasses.asdict(self.selection),
        }
