"""Instances that a function of the user's own finds block by block, joined over the volume."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec, as_zyx
from daskflow.operators.segmentation.connected_components.stages import labelled
from daskflow.operators.segmentation.instances.matching import Array
from daskflow.operators.segmentation.instances.stages import InstanceLabelling, LabelInstances
from daskflow.operators.tasks.plugin.file import PluginFile, array_of, parse_arguments, places_of
from daskflow.volume import Flag, Volume, operator
from daskflow.volume.stage import Scope


@operator()
def instances(
    volume: Volume,
    *,
    file: Annotated[str, Flag("-f")],
    args: Annotated[str | None, Flag("-a")] = None,
    depth: Sequence[int],
    block: Annotated[Sequence[int] | None, Flag("-b")] = None,
    iou: float | None = None,
    containment: float | None = None,
    gpu: bool = False,
) -> Volume:
    """Label instances by the function ``execute`` of a Python file, e.g. cellpose, joined across blocks.

    ``execute(chunk, ...)`` gets each block with the voxels around it, once, and returns labels of all it is given:
    integers, 0 for background. A voxel is labelled by the block that owns it. Labels of two blocks that share a face
    are one instance where they agree in the voxels that both blocks saw, counting only those that own voxels in their
    block; over edges and corners, instances join by the blocks in between. They are numbered 1 to n in the order of
    their first voxels, and counted as components. The result depends on blocks and depth, as what the function finds
    does. The report counts joins; uncertain ones, of an overlap within 0.1 of the threshold (joined or not), or of an
    instance with several partners in the neighbour; and instances cut at faces, which their block sees beyond the face,
    without a partner there. The file is executed: use only what you trust.

    Args:
        volume: an image, zyx or czyx.
        file: path, or name of a file in the working directory or in ``$CHUNKFLOW_PLUGIN_DIR``, as for `plugin`.
        args: arguments: ``name=value;name=value`` become keywords, any other text is passed as ``args``.
        depth: voxels around each block that the function sees, too (zyx): an instance's diameter or more, so that both
            blocks see the same of it, and at most a block.
        block: voxels per block (zyx); by default those of the volume.
        iou: least intersection over union of labels that are one, above 0 and at most 1; 0.5 by default. Above 0.5, no
            instance has several partners in a neighbour.
        containment: instead of iou, the least part of the smaller of two labels that lies in the other.
        gpu: run the function on the workers of a cluster that declare GPUs, if any do.

    Returns:
        A segmentation, zyx: uint32, or uint64 from 2^32 voxels on.

    Raises:
        ParameterError: there is no such file, it has no ``execute``, two thresholds or one out of range, or a depth
            below 1, where there are several blocks, or above a block. While blocks are read: results that are no
            labels of these.
    """
    execute = PluginFile.find(file, parse_arguments(args))
    if execute is None:
        raise ParameterError(f"there is no plugin {file!r}; looked for {', '.join(map(str, places_of(file)))}")
    joining: dict[str, Any] = {"depth": depth, "block": block, "iou": iou, "containment": containment}
    return map_instances(volume, _labels_of, **joining, gpu=gpu, plugin=execute, seen=volume.spec)


def map_instances(
    image: Volume,
    function: Callable[..., Any],
    *,
    depth: int | Sequence[int],
    block: int | Sequence[int] | None = None,
    iou: float | None = None,
    containment: float | None = None,
    gpu: bool = False,
    **options: Any,
) -> Volume:
    """Label instances by a function that is called once per block, joined across blocks; see `daskflow.instances`.

    Args:
        image: zyx or czyx.
        function: gets a copy of each block with the voxels around it, cut at the volume, and returns integer labels of
            all of these (zyx), 0 for background; with parameters named `box` or `read_box` it receives the global box
            of the block, and of the array.
        depth: voxels around each block that the function sees, too: one number, or one per axis (zyx).
        block: voxels per block, likewise; by default those of the volume.
        iou: as there.
        containment: as there.
        gpu: as there.
        **options: handed to the function.

    Returns:
        A segmentation, zyx: uint32, or uint64 from 2^32 voxels on.

    Raises:
        ParameterError: as there.
    """
    if iou is not None and containment is not None:
        raise ParameterError(f"iou {iou:g} and containment {containment:g} exclude each other; give one")
    name, threshold = ("containment", containment) if containment is not None else ("iou", 0.5 if iou is None else iou)
    if not 0 < threshold <= 1:
        raise ParameterError(f"{name} {threshold:g} must be above 0 and at most 1")
    around = as_zyx(depth, name="depth")
    if min(around) < 0:
        raise ParameterError(f"depth {around} (zyx) must be at least 0 voxels")
    image = image if block is None else image.with_block(block)
    grid = BlockGrid(image.box, image.block, image.spec.chunk_origin)
    for axis, along in enumerate("zyx"):
        if grid.shape[axis] > 1 and not 1 <= around[axis] <= grid.block[axis]:
            raise ParameterError(
                f"depth {around} with block {grid.block} (zyx): {grid.shape[axis]} blocks along {along} are joined by"
                f" what two of them see, so the depth must be 1 to {grid.block[axis]}; give at least the diameter of an"
                " instance, and larger blocks where that is more"
            )
    function = functools.partial(function, **options) if options else function
    numbers = np.dtype(np.uint32 if image.box.size < 2**32 else np.uint64)
    scope = Scope("instances", (image.expression, function, around, name, threshold, grid))
    labelling = InstanceLabelling(grid, 6, scope, depth=around, threshold=threshold, of_smaller=name == "containment")
    return labelled(LabelInstances(labelling, function, gpu), image.expression, image.spec.of_labels(numbers))


def _labels_of(image: Array, read_box: BoundingBox, plugin: PluginFile, seen: VolumeSpec) -> Array:
    """Return the labels that a plugin gives for an array that holds a box."""
    results = plugin.run_on([image], read_box, seen)
    if len(results) != 1:
        raise ParameterError(
            f"plugin {plugin.path} returned {len(results)} results for the voxels {read_box} (z0-z1_y0-y1_x0-x1), not"
            " one array of labels"
        )
    return array_of(results[0])
