"""Synapses from files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, as_voxel_size
from daskflow.operators import options
from daskflow.operators.objects._line_objects import file_to_read, required_bytes
from daskflow.stores.objects.synapses import Synapses, decode_synapses
from daskflow.volume import Flag, operator


def _of_task(values: dict[str, Any], box: BoundingBox) -> dict[str, Any]:
    return values if values["start"] is not None else {**values, "start": box.start, "stop": box.stop}


@operator(in_task=_of_task)
def load_synapses(
    *,
    file_path: Annotated[str, Flag("-f")],
    suffix: Annotated[str | None, Flag("-s")] = None,
    c_order: bool = True,
    resolution: Annotated[Sequence[float] | None, Flag("-r")] = None,
    remove_outside: bool = False,
    start: Annotated[Sequence[int] | None, "first voxel (zyx) of the box that they are of; that of the task."] = None,
    stop: Annotated[Sequence[int] | None, "where the box ends (zyx), itself outside; that of the task."] = None,
    size: Annotated[Sequence[int] | None, "voxels of the box (zyx), instead of a stop."] = None,
) -> Synapses:
    """Load synapses from HDF5 or JSON, as chunkflow writes them, or a JSON list of DVID's.

    Args:
        file_path: a file; or a directory or prefix, to which the box of the task is added.
        suffix: end of the name of the file, after the box; by default .h5, .hdf5 or .json.
        c_order: places in the file are zyx; otherwise xyz.
        resolution: nm per voxel (zyx), instead of that in the file.
        remove_outside: leave out presynaptic sites outside the box, which has its start and not its stop in it, and the
            postsynaptic sites that belong to them.

    Returns:
        The synapses; none of an empty file.

    Raises:
        StoreNotFoundError: there is no such file.
        CorruptChunkError: it holds something else.
        ParameterError: half a box, or none where one is needed.
    """
    if (start is None) != (stop is None and size is None) or (remove_outside and start is None):
        raise ParameterError("give the start and the stop or size of a box, or a task, e.g. by generate-tasks")
    box = None
    if start is not None:
        box = options.part_of(BoundingBox.from_size(start, (1, 1, 1)), start, stop, size)
    url = file_to_read(file_path, box, suffix)
    synapses = decode_synapses(required_bytes(url), url)
    synapses = synapses if c_order else synapses.flipped()
    if resolution is not None:
        synapses = dataclasses.replace(synapses, voxel_size=as_voxel_size(resolution))
    return synapses.within(box) if remove_outside and box is not None else synapses
