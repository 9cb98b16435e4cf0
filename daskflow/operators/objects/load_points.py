"""Points from files."""

from __future__ import annotations

import io
from typing import Annotated

from daskflow.errors import CorruptChunkError
from daskflow.geometry import as_voxel_size
from daskflow.operators.objects._line_objects import file_to_read, required_bytes
from daskflow.stores.hdf5 import load_h5py
from daskflow.stores.objects.located import Points
from daskflow.volume import Flag, operator


@operator()
def load_points(*, file_path: Annotated[str, Flag("-f")]) -> Points:
    """Load points from an HDF5 file, as chunkflow writes them.

    Args:
        file_path: path or URL of a file with the datasets `points` (n, 3), zyx in voxels, `voxel_size` (nm, zyx) and,
            as detect-points writes them, `confidences`.

    Returns:
        The points.

    Raises:
        StoreNotFoundError: there is no such file.
        CorruptChunkError: it holds something else.
    """
    url = file_to_read(file_path, None, None)
    try:
        with load_h5py().File(io.BytesIO(required_bytes(url)), "r") as file:
            size = as_voxel_size(file["voxel_size"][...]) if "voxel_size" in file else None
            confidences = file["confidences"][...] if "confidences" in file else None
            return Points(file["points"][...], size, confidences)
    except (KeyError, OSError, ValueError) as error:
        raise CorruptChunkError(f"{url} holds no points that can be read: {error!r}") from error
