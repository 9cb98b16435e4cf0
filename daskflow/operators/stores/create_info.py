"""The metadata of a precomputed layer, before any of its voxels."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec, Zyx, as_voxel_size, as_zyx
from daskflow.jobs import Job
from daskflow.jobs.sinks import LayerSink
from daskflow.operators import options
from daskflow.operators.stores.downsample.levels import coarser
from daskflow.stores import Layout, kvstore
from daskflow.stores.base import NUMBERS
from daskflow.volume import BlockResult, Flag, Volume, numbered, operator
from daskflow.volume.stage import Stage, Task


@operator()
def create_info(
    volume: Volume | None = None,
    *,
    volume_path: Annotated[str | os.PathLike[str], Flag("-v")],
    block_size: Annotated[Sequence[int], Flag("-b")],
    volume_size: Annotated[Sequence[int] | None, Flag("-z")] = None,
    voxel_size: Annotated[Sequence[float] | None, Flag("-s")] = None,
    voxel_offset: Annotated[Sequence[int] | None, Flag("-o")] = None,
    channel_num: Annotated[int, Flag("-c")] = 1,
    data_type: Annotated[str | None, Flag("-d")] = None,
    layer_type: Annotated[Literal["image", "segmentation"] | None, Flag("-t")] = None,
    encoding: options.Encoding = "raw",
    factor: options.Factor = (2, 2, 2),
    max_mip: int = 0,
) -> Job:
    """Create a precomputed layer without voxels, for several jobs or programs that fill parts of it.

    A layer that is there and agrees stays; one that differs is refused. `save` creates a layer by itself.

    Args:
        volume: where size, offset, voxel size, channels and dtype are not given, those of this volume.
        volume_path: path or URL of the layer.
        block_size: voxels per chunk (zyx), of every level.
        volume_size: voxels of the finest level (zyx).
        voxel_size: nm per voxel of the finest level (zyx).
        voxel_offset: global coordinates of the first voxel (zyx).
        channel_num: how many channels.
        data_type: dtype of the voxels.
        layer_type: meaning of the voxels; by default an image of uint8 and floats, a segmentation of other integers.
        max_mip: the coarsest level that is created, the finest is 0.

    Returns:
        The job; nothing has been written.

    Raises:
        ParameterError: neither a volume nor size, dtype and voxel size are given.
    """
    spec = _finest(volume, volume_size, voxel_size, voxel_offset, channel_num, data_type, layer_type)
    location = os.fspath(volume_path).removeprefix("precomputed://")
    layout = Layout(chunk=as_zyx(block_size, name="block_size"), encoding=encoding)
    creating = CreateLevels.of(location, spec, max_mip, layout, as_zyx(factor, name="factor"))
    return Job((Stage("create-info", numbered(1), creating, True),), None, name="create-info")


@dataclass(frozen=True)
class CreateLevels(Task):
    """Create levels of a layer, which is done when that is checked."""

    levels: tuple[LayerSink, ...]

    @classmethod
    def of(cls, url: str, finest: VolumeSpec, max_mip: int, layout: Layout, factor: Zyx) -> CreateLevels:
        """Return what creates a precomputed layer: its finest level, and those that are coarser by a factor each."""
        location = kvstore.normalise(url)
        levels = itertools.accumulate(range(max_mip), lambda level, _: coarser(level, factor), initial=finest)
        return cls(tuple(LayerSink(location, one, mip, "precomputed", layout) for mip, one in enumerate(levels)))

    def replace(self) -> None:
        """Create the levels, instead of what the layer said of itself."""
        kvstore.delete(kvstore.join(self.levels[0].url, "info"))
        self.check()

    def check(self) -> None:
        for level in self.levels:
            level.check()

    def write(self, box: BoundingBox, outputs: Any) -> BlockResult:  # noqa: ARG002
        return BlockResult()

    def describe(self) -> dict[str, Any]:
        return {"levels": [level.describe() for level in self.levels]}


def _dtype(name: str) -> np.dtype[Any]:
    if name not in NUMBERS:
        raise ParameterError(f"data_type {name!r} is none of {', '.join(NUMBERS)}")
    return np.dtype(name)


def _finest(
    volume: Volume | None,
    size: Sequence[int] | None,
    voxel_size: Sequence[float] | None,
    offset: Sequence[int] | None,
    channels: int,
    dtype: str | None,
    layer_type: Any,
) -> VolumeSpec:
    """Return what the finest level is, by a volume or by options, which win."""
    if volume is None:
        if size is None or dtype is None or voxel_size is None:
            raise ParameterError("create-info needs a volume, or volume_size, data_type and voxel_size")
        known = VolumeSpec(BoundingBox.from_size((0, 0, 0), size), _dtype(dtype))
    else:
        known = volume.spec
    held = known.dtype if dtype is None else _dtype(dtype)
    start = known.box.start if offset is None else as_zyx(offset, name="voxel_offset")
    shape = known.box.shape if size is None else as_zyx(size, name="volume_size")
    return VolumeSpec(
        BoundingBox.from_size(start, shape),
        held,
        channels=known.channels if channels == 1 else channels,
        voxel_size=known.voxel_size if voxel_size is None else as_voxel_size(voxel_size),
        layer_type=layer_type or ("image" if held == np.uint8 or held.kind == "f" else "segmentation"),
    )
