"""A network's answer for a box: patches cut out, run in batches, weighted and added up.

    volume   |-----------------------------------------------|
    patches    [----------]   [----------]                      anchored to the volume, not to the box
                      [----------]   [----------]
    box                |-------------|                          only what falls into it is added

Every voxel is the sum, over the patches of the whole volume that cover it, of their outputs times their shares, and the
shares add up to 1. So the result does not depend on how the volume is cut into blocks. Where answers are not blended,
every voxel belongs to the patch in which it lies deepest, and takes that one's answer. A patch whose input is zero
everywhere is not run: it adds zeros, whatever the network would answer. That too is decided per patch, not per block.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from daskflow.errors import ModelError, ParameterError
from daskflow.geometry import BoundingBox
from daskflow.inference.augment import augmented
from daskflow.inference.engine import Accumulator, Engine, Mosaic
from daskflow.inference.network import Network
from daskflow.inference.patches import Patch, PatchGrid
from daskflow.stores.counting import count

Array = np.ndarray[Any, np.dtype[Any]]
NanPolicy = Literal["error", "zero", "keep"]

_OVERFLOW = " values within it may have passed 65504, the greatest of float16: compute in dtype='bfloat16';"


def infer(
    *arrays: Array,
    box: BoundingBox,
    read_box: BoundingBox,
    grid: PatchGrid,
    network: Network,
    nan: NanPolicy = "error",
    dtype: str = "float32",
) -> Array:
    """Return what a network answers for `box`, czyx: float32, or `dtype` where answers are not blended.

    Args:
        *arrays: the voxels of `read_box`, zyx or czyx, one for each input of the network. Integers are divided by the
            greatest of their type (uint8 by 255); other types are taken as they are.
        box: voxels to answer for, covered by the patches of `grid`.
        read_box: what the arrays hold, at least ``grid.reads(box)``.
        grid: the patches of the whole volume.
        network: what is run on each.
        nan: a NaN or an infinity fails the box (error), becomes 0 and is counted as non_finite_voxels (zero), or
            stays (keep).
        dtype: what the network answers where answers are not blended.
    """
    engine = network.engine()
    sources = as_sources(arrays)
    if nan == "error":
        # types that hold no NaN hide it: all that the network sees is looked at, not only the box
        hidden = not np.issubdtype(np.dtype(dtype), np.floating)
        for source in sources:
            check_image(source, read_box, read_box if hidden else box)
    patches = grid.patches(box)
    total: Accumulator
    if network.blend == "bump":
        total = engine.accumulator(network.channels, box.shape)
    else:
        total = Mosaic(network.channels, box.shape, np.dtype(dtype), network.name)
        patches = (patch for patch in patches if not patch.owned.clip(box).empty)
    with engine.guard:
        for patch, output in answers(sources, read_box, grid, patches, network):
            inside = (patch.output if network.blend == "bump" else patch.owned).clip(box)
            total.add(inside.slices(box), output, inside.slices(patch.output), patch)
        result = total.result
        suspects = total.suspects if nan != "keep" else []
    if nan == "error":
        refuse_non_finite(result, box, suspects, sources, read_box, grid, network)
    elif suspects:
        zero_non_finite(result)
    return result


def as_sources(arrays: Iterable[Array]) -> list[Array]:
    """Return arrays, zyx or czyx, as czyx."""
    return [array[None] if array.ndim == 3 else array for array in arrays]


def answers(
    sources: list[Array], read_box: BoundingBox, grid: PatchGrid, patches: Iterable[Patch], network: Network
) -> Iterator[tuple[Patch, Any]]:
    """Yield what a network answers for each patch that is not zero, as its engine does; its guard must be held."""
    engine = network.engine()
    answer: Callable[[Array], Any] = engine
    if network.augment != "none":
        answer = functools.partial(augmented, engine, affinities=network.augment == "affinities")
    for batch, inputs in _batches(sources, read_box, grid, patches, engine):
        yield from zip(batch, answer(inputs), strict=True)


def refuse_non_finite(
    result: Array,
    box: BoundingBox,
    suspects: Sequence[Patch],
    sources: Sequence[Array],
    read_box: BoundingBox,
    grid: PatchGrid,
    network: Network,
) -> None:
    """Raise where the result of a box holds NaN or infinity, of which some patches are suspected."""
    bad = int((~np.isfinite(result)).sum()) if suspects else 0
    if not bad:
        return
    for patch, source in itertools.product(suspects, sources):
        check_image(source, read_box, patch.input.clip(grid.box))
    raise ModelError(
        f"network {network.name} answered NaN or infinity in {bad} of {result.size} values of box {box},"
        f" first in the patch {suspects[0].output} (z0-z1_y0-y1_x0-x1);"
        f"{_OVERFLOW if network.dtype == 'float16' else ''}"
        " mend the network, or pass nan='zero' to write zeros there"
    )


def zero_non_finite(result: Array) -> None:
    """Set NaN and infinities to zero, and count them."""
    bad = ~np.isfinite(result)
    if bad.any():
        result[bad] = 0
        count("non_finite_voxels", int(bad.sum()))


def check_image(array: Array, read_box: BoundingBox, box: BoundingBox) -> None:
    """Refuse an image (czyx, of `read_box`) that has, in `box`, a NaN, an infinity or what is not a finite float32."""
    if not np.issubdtype(array.dtype, np.floating):
        return
    voxels = array[(slice(None), *box.slices(read_box))]
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(voxels.astype(np.float32, copy=False))
    if not bad.any():
        return
    channel, *local = (int(i) for i in np.argwhere(bad)[0])
    place = tuple(i + start for i, start in zip(local, box.start, strict=True))
    raise ParameterError(
        f"the image holds {voxels[(channel, *local)]} at voxel {place} zyx"
        f"{f' of channel {channel}' if len(array) > 1 else ''}, and {int(bad.sum())} values that are not finite float32"
        f" in {box} (z0-z1_y0-y1_x0-x1): the network is not at fault. Correct the image there, or pass nan='zero' to"
        " write zeros where the network answers NaN"
    )


def _batches(
    sources: list[Array], read_box: BoundingBox, grid: PatchGrid, patches: Iterable[Patch], engine: Engine
) -> Iterator[tuple[list[Patch], Array]]:
    """Yield patches that are not zero and their inputs (batch, channels, zyx), in a buffer used again for the next."""
    ends = list(itertools.accumulate(map(len, sources)))
    buffer = np.empty((engine.batch_size, ends[-1], *grid.input_patch), np.float32)
    batch: list[Patch] = []
    for patch in patches:
        inputs = [_cut(source, read_box, patch.input, grid.box) for source in sources]
        if not any(section.any() for voxels in inputs for channel in voxels for section in channel):
            continue
        for voxels, end in zip(inputs, ends, strict=True):
            part = buffer[len(batch), end - len(voxels) : end]
            part[:] = voxels
            if np.issubdtype(voxels.dtype, np.integer):
                part /= np.float32(np.iinfo(voxels.dtype).max)
        batch.append(patch)
        if len(batch) >= engine.batch_size:
            yield batch, buffer[: len(batch)]
            batch = []
    if batch:
        yield batch, buffer[: len(batch)]


def _cut(array: Array, read_box: BoundingBox, patch: BoundingBox, volume: BoundingBox) -> Array:
    """Return the voxels of a patch; where it reaches beyond the volume, those inside reflected at the edge."""
    inside = patch.clip(volume)
    voxels = array[(slice(None), *inside.slices(read_box))]
    for axis in range(3):
        before, after = inside.start[axis] - patch.start[axis], patch.stop[axis] - inside.stop[axis]
        if before or after:
            index = np.pad(np.arange(inside.shape[axis]), (before, after), mode="reflect")
            voxels = voxels.take(index, axis=axis + 1)
    return voxels
