"""One skeletonization: its blocks and tasks, what is traced, and where things lie."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.operators.objects._label_objects import Selection, fits_float32
from daskflow.operators.objects.skeletonize.pieces import Piece
from daskflow.operators.objects.skeletonize.teasar import Tracing
from daskflow.operators.segmentation.voxel_counts import LabelCounts, add_tables
from daskflow.scratch.pieces import Pieces
from daskflow.stores.objects.spatial_index import SpatialIndex
from daskflow.volume.stage import Bound

Labels = npt.NDArray[np.uint64]

_TASKS = 8  # for a volume of one block: enough that the label which takes longest does not keep all waiting
_TILE = 2**24


@dataclass(frozen=True)
class Pruning:
    """What is left out of joined skeletons, by length of cable in nm.

    Attributes:
        shortest: components with less cable.
        longest: skeletons with more; None for none.
        tick: terminal branches that are shorter.
    """

    shortest: float
    longest: float | None
    tick: float


@dataclass(frozen=True)
class Target:
    """Where skeletons go.

    Attributes:
        url: of the directory.
        mip: level that is skeletonized.
        compression: second stage of unsharded files: none, gzip or br.
    """

    url: str
    mip: int
    compression: str


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
        pruning: what is left out once they are joined.
        target: where skeletons go.
    """

    grid: BlockGrid
    shares: int
    origin: tuple[float, float, float]
    tracing: Tracing
    selection: Selection
    counting: LabelCounts | None
    pieces: Pieces
    pruning: Pruning
    target: Target

    def task(self, box: BoundingBox) -> tuple[int, int, int]:
        """Return what a box of tasks, with blocks along z and shares along y, stands for: both, and its number."""
        block, share, _ = box.start
        return block, share, block * self.shares + share

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


def share_count(blocks: int) -> int:
    """Return how many tasks each of some blocks is traced by; 1 where there are blocks enough to go round.

    Every task reads the block and measures the distance to surfaces again, a few per cent of the time.
    """
    return max(1, min(_TASKS, -(-2 * _TASKS // blocks)))


def share_labels(voxels: npt.NDArray[Any], labels: Labels, number: int) -> list[Labels]:
    """Return labels dealt out to `number` tasks of about the same work; each list ascends.

    The label with most work goes first, each to the task that has least so far. Tasks with most work come in the places
    that a job runs first: the middle, the last, and then from the first one on. Labels are those of a block (zyx) that
    are traced, ascending.
    """
    if number == 1 or not len(labels):
        return [labels, *[labels[:0]] * (number - 1)]
    work = _work(voxels, labels)
    dealt: list[list[int]] = [[] for _ in range(number)]
    loads = np.zeros(number)
    for place in np.lexsort((labels, -work)).tolist():
        least = int(loads.argmin())
        dealt[least].append(place)
        loads[least] += work[place]
    heaviest = np.argsort(-loads, kind="stable").tolist()
    first = list(dict.fromkeys([number // 2, number - 1, *range(number)]))
    shares = {place: np.sort(labels[dealt[share]]) for place, share in zip(first, heaviest, strict=True)}
    return [shares[place] for place in range(number)]


def _work(voxels: npt.NDArray[Any], labels: Labels) -> npt.NDArray[np.float64]:
    """Return about how long each label takes to trace, in any unit.

    Paths are searched for one by one among all voxels, and there are many in what is thin: of 60 neurites the time went
    with the number of runs of voxels to the power 1.1, and with that of voxels to the power 0.5.
    """
    flat = (voxels.view(np.uint8) if voxels.dtype == bool else voxels).reshape(-1)
    tiles = [_runs(flat[at : at + _TILE]) for at in range(0, flat.size, _TILE)]
    names, runs = add_tables([(tile[0], tile[1]) for tile in tiles])
    _, sizes = add_tables([(tile[0], tile[2]) for tile in tiles])
    at = np.searchsorted(names, labels)
    work: npt.NDArray[np.float64] = runs[at].astype(np.float64) ** 1.1 * sizes[at].astype(np.float64) ** 0.5
    return work


def _runs(flat: npt.NDArray[Any]) -> tuple[Labels, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the labels of some voxels, how many runs of equal ones each has, and how many voxels."""
    import fastremap

    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), flat.size - 1)
    lengths = np.diff(ends, prepend=-1)
    names, places, runs = fastremap.unique(flat[ends], return_inverse=True, return_counts=True)
    sizes = np.bincount(places.reshape(-1), lengths, minlength=len(names))
    return names.astype(np.uint64), runs.astype(np.int64), sizes.astype(np.int64)
