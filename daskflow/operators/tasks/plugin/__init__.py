"""A function of the user's own."""

from __future__ import annotations

from typing import Annotated

from daskflow.geometry import as_zyx
from daskflow.operators.tasks.plugin.file import Grown, PluginFile, parse_arguments
from daskflow.volume import Flag, Volume, operator


@operator()
def plugin(
    volume: Volume,
    *others: Volume,
    file: Annotated[str, Flag("-f")],
    args: Annotated[str | None, Flag("-a")] = None,
    depth: int = 0,
) -> Volume:
    """Run the function ``execute`` of a Python file on every block.

    The file is written as for chunkflow: ``execute(chunk, ...)`` gets arrays zyx or czyx that know their
    `voxel_offset`, `voxel_size` and `layer_type`, and returns an array. One that returns less than it was given is
    taken to have cut the same margin off both sides, and the volume becomes smaller by it. The file is executed: use
    only what you trust.

    Args:
        volume: the first argument of the function.
        *others: further arguments, over the same box.
        file: path, or name of a file in the working directory or in ``$CHUNKFLOW_PLUGIN_DIR``.
        args: arguments: ``name=value;name=value`` become keywords, any other text is passed as ``args``.
        depth: voxels of context that the function needs around each block; they are cut off its result.

    Returns:
        A lazy volume of what the function returns.

    Raises:
        ParameterError: there is no such file, it has no ``execute``, or that fails on a small block of ones.
    """
    execute = PluginFile.find(file, parse_arguments(args))
    dtype, channels, margin = execute.trial([volume, *others], depth)
    spec = volume.spec.replace(
        box=volume.box.shrink(margin),
        dtype=dtype,
        channels=channels,
        channel_names=volume.channel_names if channels == volume.channels else (),
        chunk_origin=volume.box.shrink(margin).start,
    )
    reach = as_zyx([m + depth for m in margin])
    return volume.map_boxes(execute, *others, reads=Grown(reach), spec=spec, margin=margin, seen=volume.spec)
