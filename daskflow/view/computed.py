"""A volume as a precomputed layer whose chunks are computed when they are asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.view.levels import ShownLevel, chunk_of

_CHUNK = re.compile(r"(\d+)/(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)")
_IMAGE_DTYPES = {"bool": "uint8", "int64": "float32", "uint64": "float32", "float16": "float32", "float64": "float32"}
_LABEL_DTYPES = {"bool": "uint8", "int8": "uint8", "int16": "uint16", "int32": "uint32", "int64": "uint64"}


class ComputedLayer:
    """Answers for the objects of an unsharded, raw precomputed layer: ``info`` and chunks.

    Format: neuroglancer's ``src/datasource/precomputed/volume.md``. Its chunks are Fortran-ordered xyzc, which are the
    same bytes as C-ordered czyx; names and sizes in ``info`` are xyz.

    Attributes:
        levels: the scales, finest first.
        objects: further keys of the ``info``, which name the directories of meshes and skeletons.

    Raises:
        ParameterError: labels that are no integers.
    """

    def __init__(self, levels: Sequence[ShownLevel], objects: Mapping[str, str] | None = None) -> None:
        self.levels = tuple(levels)
        self.objects = dict(objects or {})
        self._dtype = served_dtype(self.levels[0].spec)

    def info(self) -> bytes:
        """Return the object ``info``."""
        spec = self.levels[0].spec
        info = {
            **self.objects,
            "@type": "neuroglancer_multiscale_volume",
            "type": "segmentation" if spec.kind == "segmentation" else "image",
            "data_type": self._dtype.name,
            "num_channels": spec.channels or 1,
            "scales": [_scale(str(mip), level.spec) for mip, level in enumerate(self.levels)],
        }
        return json.dumps(info).encode()

    def chunk(self, name: str) -> bytes | None:
        """Return the chunk ``<mip>/x0-x1_y0-y1_z0-z1``, or None when the layer has no such object.

        Raises:
            DaskflowError: the voxels cannot be read or computed.
        """
        match = _CHUNK.fullmatch(name)
        if match is None:
            return None
        mip, x0, x1, y0, y1, z0, z1 = map(int, match.groups())
        if mip >= len(self.levels) or not (x0 < x1 and y0 < y1 and z0 < z1):
            return None
        level = self.levels[mip]
        box = BoundingBox((z0, y0, x0), (z1, y1, x1))
        aligned = box.align(chunk_of(level.spec), level.spec.box.start).clip(level.spec.box)
        if box != aligned:
            return None
        return np.ascontiguousarray(level.read(box).astype(self._dtype, copy=False)).tobytes()


def served_dtype(spec: VolumeSpec) -> np.dtype[Any]:
    """Return the type that voxels are sent as: precomputed has no bool, no float64, and labels have no sign.

    Raises:
        ParameterError: labels that are no integers.
    """
    if spec.kind != "segmentation":
        return np.dtype(_IMAGE_DTYPES.get(spec.dtype.name, spec.dtype.name))
    if spec.dtype.kind not in "iub":
        raise ParameterError(f"cannot show {spec.dtype} as a segmentation; cast it with astype('uint32')")
    return np.dtype(_LABEL_DTYPES.get(spec.dtype.name, spec.dtype.name))


def _scale(key: str, spec: VolumeSpec) -> dict[str, Any]:
    return {
        "key": key,
        "size": spec.box.shape[::-1],
        "resolution": spec.spacing[::-1],
        "voxel_offset": spec.box.start[::-1],
        "chunk_sizes": [chunk_of(spec)[::-1]],
        "encoding": "raw",
    }
