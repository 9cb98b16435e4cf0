"""Functions over volumes: the nodes that map them block by block, and the verbs that make these nodes."""

from __future__ import annotations

import dataclasses
import enum
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from daskflow.errors import GeometryError, ParameterError
from daskflow.geometry import BoundingBox, LayerType, VolumeSpec, Zyx
from daskflow.volume.boundary import (
    Boundaries,
    BoundaryLike,
    DepthLike,
    Depths,
    as_boundaries,
    as_depths,
    check_depths,
    extend,
)
from daskflow.volume.description import describe
from daskflow.volume.node import Array, Calling, Memory, Node, Step, Waiting, checked
from daskflow.volume.stage import Bound, Scopes, Stage


@dataclass(frozen=True)
class Reading:
    """How a mapped function sees one of its inputs.

    Attributes:
        finer: how many voxels of the input make one of the output, per axis (zyx).
        coarser: how many voxels of the output one of the input covers, per axis (zyx).
        depth: voxels of the input read around a block.
        boundary: what stands beyond the volume's edge.
    """

    finer: Zyx
    coarser: Zyx
    depth: Depths
    boundary: Boundaries

    def core(self, box: BoundingBox) -> BoundingBox:
        """Return the input's voxels that lie in the output's `box`."""
        return box.refine(self.finer).coarsen(self.coarser)

    def wanted(self, box: BoundingBox, whole: BoundingBox) -> BoundingBox:
        """Return what the function is given for `box`: core and halo, edges extended where the boundary says so."""
        core = self.core(box).clip(whole)
        grown = core.grow(self.depth.before, self.depth.after)
        inside = grown.clip(whole)
        start, stop = (
            tuple(
                inner if self.boundary[axis] == "none" else outer
                for axis, (inner, outer) in enumerate(zip(side_in, side_out, strict=True))
            )
            for side_in, side_out in ((inside.start, grown.start), (inside.stop, grown.stop))
        )
        return BoundingBox((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))

    def read(self, wanted: BoundingBox, whole: BoundingBox) -> BoundingBox:
        """Return what is asked of the input; a periodic edge asks for the whole axis."""
        inside = wanted.clip(whole)
        start, stop = list(inside.start), list(inside.stop)
        for axis in range(3):
            beyond = wanted.start[axis] < whole.start[axis] or wanted.stop[axis] > whole.stop[axis]
            if beyond and self.boundary[axis] == "periodic":
                start[axis], stop[axis] = whole.start[axis], whole.stop[axis]
        return BoundingBox((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


@dataclass(frozen=True, eq=False)
class _OfVolumes(Calling, Step):
    """A function over its inputs, of which it gets an array each, and options; memory as for `Volume.map_overlap`."""

    function: Callable[..., Any]
    volumes: tuple[Node, ...]
    options: dict[str, Any]
    memory: Memory

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.volumes

    def with_inputs(self, inputs: tuple[Node, ...]) -> Self:
        return dataclasses.replace(self, volumes=inputs)

    def working(self, box: BoundingBox) -> float:
        read = self.needs(box)
        if self.memory is None:
            inputs = sum(node.spec.nbytes_of(part) for node, part in zip(self.inputs, read, strict=True))
            return inputs + self.spec.nbytes_of(box)
        return self.memory(box) if callable(self.memory) else self.memory * read[0].size


@dataclass(frozen=True, eq=False)
class Mapped(_OfVolumes):
    """A function over blocks of its inputs, with context around them.

    Attributes:
        readings: how each input is seen.
        trim: whether the function's result still holds the halo of the first input.
        box_names: which of `box` (the output's) and `read_box` (of the first array) the function asks for.
    """

    readings: tuple[Reading, ...]
    trim: bool
    box_names: frozenset[str]

    def needs(self, box: BoundingBox) -> tuple[BoundingBox, ...]:
        return tuple(
            reading.read(reading.wanted(box, node.spec.box), node.spec.box)
            for reading, node in zip(self.readings, self.volumes, strict=True)
        )

    def compute(self, box: BoundingBox, arrays: Sequence[Array]) -> Array:
        wanted = [r.wanted(box, n.spec.box) for r, n in zip(self.readings, self.volumes, strict=True)]
        seen = [
            extend(array, have, want, node.spec.box, reading.boundary)
            for array, have, want, node, reading in zip(
                arrays, self.needs(box), wanted, self.volumes, self.readings, strict=True
            )
        ]
        places = {"box": box, "read_box": wanted[0]}
        result = self.function(*seen, **self.options, **{name: places[name] for name in self.box_names})
        return checked(self._trimmed(np.asarray(result), box, wanted[0]), box, self.spec, self.function)

    def _trimmed(self, result: Array, box: BoundingBox, wanted: BoundingBox) -> Array:
        if not self.trim:
            return result
        reading = self.readings[0]
        core = reading.core(box).clip(self.volumes[0].spec.box)
        whole = wanted.refine(reading.coarser).coarsen(reading.finer)
        inner = core.refine(reading.coarser).coarsen(reading.finer).clip(box)
        if result.shape[-3:] != whole.shape:
            return result
        return result[(..., *inner.slices(whole))]

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "readings": [repr(reading) for reading in self.readings]}


class Once(ABC):
    """How a job evaluates a function of boxes so that no part of it, e.g. a patch, is computed by two blocks."""

    @abstractmethod
    def counts(self, box: BoundingBox) -> Zyx:
        """Return how many parts along each axis (zyx) a box of the result is made of."""

    @abstractmethod
    def kept(self, node: MappedBoxes, box: BoundingBox, block_bytes: float, otherwise: float) -> Waiting:
        """Return the node that has the voxels of a box once a stage, its only one, has computed every part of it.

        Blocks of the stage have about so many bytes; `otherwise` is how often parts would be computed without it.
        """


@dataclass(frozen=True, eq=False)
class MappedBoxes(_OfVolumes):
    """A function over boxes of inputs over one box, that reads a box of its own choosing around each.

    Attributes:
        function: also gets `box=` and `read_box=`.
        reads: the inputs' box needed for an output box.
        dear: evaluating it twice costs more than keeping its voxels.
        gpu: the function computes on a GPU where there is one.
        once: how it is evaluated without computing parts of it twice, if it can be.
    """

    reads: Callable[[BoundingBox], BoundingBox]
    dear: bool = False
    gpu: bool = False
    once: Once | None = None

    def _read_box(self, box: BoundingBox) -> BoundingBox:
        return self.reads(box).clip(self.volumes[0].spec.box)

    def needs(self, box: BoundingBox) -> tuple[BoundingBox, ...]:
        return (self._read_box(box),) * len(self.volumes)

    def compute(self, box: BoundingBox, arrays: Sequence[Array]) -> Array:
        result = np.asarray(self.function(*arrays, box=box, read_box=self._read_box(box), **self.options))
        return checked(result, box, self.spec, self.function)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "reads": describe(self.reads)}


@dataclass(frozen=True, eq=False)
class MappedAfter(_OfVolumes):
    """A function over blocks of its inputs and what some stages have left, e.g. a table in which it looks voxels up.

    Attributes:
        function: also gets `box=` and `left=`.
        left: what the stages leave; it knows where that lies once it is bound.
        stages: what must run first, in order; those that the inputs wait for apart.
    """

    left: Bound
    stages: tuple[Stage, ...]

    def bound(self, scopes: Scopes) -> MappedAfter:
        """Return the node that finds what the stages left."""
        return dataclasses.replace(self, left=self.left.bind(scopes), stages=())

    def needs(self, box: BoundingBox) -> tuple[BoundingBox, ...]:
        return (box,) * len(self.volumes)

    def compute(self, box: BoundingBox, arrays: Sequence[Array]) -> Array:
        result = np.asarray(self.function(*arrays, box=box, left=self.left, **self.options))
        return checked(result, box, self.spec, self.function)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "stages": [stage.task.describe() for stage in self.stages]}


def same_box(box: BoundingBox) -> BoundingBox:
    """Return a box, which is what a function of it reads."""
    return box


class Same(enum.Enum):
    """Stands for "as in the first input" where None means something else."""

    SAME = enum.auto()


SAME: Final = Same.SAME


def map_overlap(
    function: Callable[..., Any],
    nodes: Sequence[Node],
    *,
    depth: DepthLike | list[DepthLike],
    boundary: BoundaryLike | list[BoundaryLike],
    trim: bool,
    dtype: Any,
    channels: int | Same | None,
    factor: Zyx,
    layer_type: LayerType | Same | None,
    memory: Memory,
    options: Mapping[str, Any],
) -> Mapped:
    """Return the node that `Volume.map_overlap` describes."""
    first = nodes[0].spec
    depths = depth if isinstance(depth, list) else [depth] * len(nodes)
    boundaries = boundary if isinstance(boundary, list) else [boundary] * len(nodes)
    if not len(nodes) == len(depths) == len(boundaries):
        raise GeometryError(
            f"{len(nodes)} volumes with {len(depths)} depths and {len(boundaries)} boundaries; give one or all"
        )
    readings = []
    for node, deep, edge in zip(nodes, depths, boundaries, strict=True):
        finer, coarser = _relation(first, node.spec, factor)
        reading = Reading(finer, coarser, as_depths(deep), as_boundaries(edge))
        check_depths(reading.depth, reading.boundary, node.spec.box.shape)
        readings.append(reading)
    box = first.box.coarsen(factor)
    _check_covered(box, nodes, readings)
    kept = channels if not isinstance(channels, Same) else first.channels
    spec = first.coarsened(
        factor,
        box=box,
        dtype=dtype if dtype is not None else _infer_dtype(function, nodes, readings, options),
        channels=kept,
        chunk=None,
        shard=None,
        layer_type=first.layer_type if isinstance(layer_type, Same) else layer_type,
        channel_names=first.channel_names if kept == first.channels else (),
        chunk_origin=first.chunk_origin if factor == (1, 1, 1) else None,
    )
    return Mapped(spec, function, tuple(nodes), dict(options), memory, tuple(readings), trim, box_names(function))


def _relation(first: VolumeSpec, other: VolumeSpec, factor: Zyx) -> tuple[Zyx, Zyx]:
    """Return how many voxels of `other` make one of the output, and how many of the output one of `other` covers."""
    finer, coarser = [], []
    for ratio in first.coarsened(factor).ratio(other):
        down, up = round(ratio), round(1 / ratio)
        if down >= 1 and abs(ratio - down) < 1e-6 * ratio:
            finer.append(down)
            coarser.append(1)
        elif up >= 1 and abs(1 / ratio - up) < 1e-6 / ratio:
            finer.append(1)
            coarser.append(up)
        else:
            raise GeometryError(
                f"voxels of {first.size_text}, times {factor}, and of {other.size_text} are not whole multiples"
            )
    return (finer[0], finer[1], finer[2]), (coarser[0], coarser[1], coarser[2])


def _check_covered(box: BoundingBox, nodes: Sequence[Node], readings: Sequence[Reading]) -> None:
    for node, reading in zip(nodes[1:], readings[1:], strict=True):
        core = reading.core(box)
        # the last window of a downsampled axis may reach over the edge
        if core.clip(node.spec.box).coarsen(reading.finer).refine(reading.coarser).clip(box) != box:
            raise GeometryError(
                f"a volume over {node.spec.box} does not cover {core}, which the first volume's blocks need"
                " (z0-z1_y0-y1_x0-x1, in its own voxels)"
            )


def box_names(function: Callable[..., Any]) -> frozenset[str]:
    """Return which of `box` and `read_box` a function asks for."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:
        return frozenset()
    return frozenset(("box", "read_box")) & frozenset(parameters)


def _infer_dtype(
    function: Callable[..., Any], nodes: Sequence[Node], readings: Sequence[Reading], options: Mapping[str, Any]
) -> np.dtype[Any]:
    sample = []
    for node, reading in zip(nodes, readings, strict=True):
        core = (max(f, 1) for f in reading.finer)
        shape = [c + b + a for c, b, a in zip(core, reading.depth.before, reading.depth.after, strict=True)]
        lead = () if node.spec.channels is None else (node.spec.channels,)
        sample.append(np.ones((*lead, *shape), node.spec.dtype))
    corner = BoundingBox((0, 0, 0), (1, 1, 1))
    boxes = dict.fromkeys(box_names(function), corner)
    try:
        with np.errstate(all="ignore"):
            return np.asarray(function(*sample, **options, **boxes)).dtype
    except Exception as error:
        name = getattr(function, "__qualname__", repr(function))
        raise ParameterError(f"{name} failed on a block of ones ({error!r}); pass dtype= to skip this trial") from error
