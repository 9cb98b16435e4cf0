"""The verbs: from volumes and a function to the node that maps it."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from daskflow.errors import GeometryError, ParameterError
from daskflow.geometry import BoundingBox, LayerType, VolumeSpec, Zyx
from daskflow.volume.boundary import BoundaryLike, DepthLike, as_boundaries, as_depths, check_depths
from daskflow.volume.node import Mapped, MappedBoxes, Memory, Node, Reading


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
    return Mapped(spec, function, tuple(nodes), dict(options), memory, tuple(readings), trim, _box_names(function))


def map_boxes(
    function: Callable[..., Any],
    nodes: Sequence[Node],
    reads: Callable[[BoundingBox], BoundingBox],
    spec: VolumeSpec,
    memory: Memory,
    options: Mapping[str, Any],
    *,
    dear: bool,
) -> MappedBoxes:
    """Return the node that `Volume.map_boxes` describes."""
    boxes = {node.spec.box for node in nodes}
    if len(boxes) > 1:
        raise GeometryError(f"volumes over different boxes: {', '.join(map(str, sorted(boxes)))}; crop them to one")
    return MappedBoxes(spec, function, tuple(nodes), dict(options), memory, reads, dear)


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


def _box_names(function: Callable[..., Any]) -> frozenset[str]:
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
    boxes = dict.fromkeys(_box_names(function), corner)
    try:
        with np.errstate(all="ignore"):
            return np.asarray(function(*sample, **options, **boxes)).dtype
    except Exception as error:
        name = getattr(function, "__qualname__", repr(function))
        raise ParameterError(f"{name} failed on a block of ones ({error!r}); pass dtype= to skip this trial") from error
