"""Points as files."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from daskflow.jobs import Job
from daskflow.operators.objects._line_objects import file_to_write, writing_job
from daskflow.stores.objects.located import Points
from daskflow.stores.objects.synapses import encode_arrays
from daskflow.volume import Flag, operator


@operator()
def save_points(points: Points, *, file_path: Annotated[str, Flag("-f")]) -> Job:
    """Write points to an HDF5 file, as chunkflow does: `points`, zyx in voxels, and `voxel_size` in nm.

    Args:
        points: the points.
        file_path: path or URL; .h5 is added where it does not end in it. In a line of several tasks the name gets the
            box of each.

    Returns:
        The job.
    """
    url = file_to_write(file_path)
    known = {"points": points.points, "voxel_size": points.voxel_size, "confidences": points.confidences}
    arrays = {name: np.asarray(values) for name, values in known.items() if values is not None}
    return writing_job("save points", url, [(url, encode_arrays(arrays, {}))])
