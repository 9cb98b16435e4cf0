"""The meshes of a precomputed layer: which there are, and each as one mesh."""

from __future__ import annotations

import functools
import re

import numpy as np

from daskflow.errors import ParameterError, StoreError
from daskflow.stores import kvstore
from daskflow.stores.objects.files import read_file, require_file
from daskflow.stores.objects.mesh_files import (
    LEGACY,
    MULTIRES,
    Mesh,
    MultiresManifest,
    decode_draco,
    decode_fragment,
    decode_manifest,
    manifest_name,
    transformed,
    weld,
)
from daskflow.stores.objects.object_info import Objects
from daskflow.stores.objects.shards import Shards

_MANIFEST = re.compile(r"(\d+):0")
_MULTIRES = re.compile(r"(\d+)\.index")


class Meshes(Objects):
    """Reads the meshes of a layer, in whichever of the formats: legacy, multi-resolution, sharded or not."""

    key = "mesh"

    def __init__(self, layer: str, *, directory: str | None = None) -> None:
        super().__init__(layer, directory=directory)
        self.kind = self.info.get("@type", LEGACY)
        if self.kind not in (LEGACY, MULTIRES):
            raise StoreError(f"{kvstore.redact(self.directory)} holds {self.kind}; known are {LEGACY} and {MULTIRES}")
        if self.multires and "vertex_quantization_bits" not in self.info:
            raise StoreError(f"{kvstore.redact(self.directory)}/info lacks vertex_quantization_bits; add it there")
        self.names = _MULTIRES if self.multires else _MANIFEST

    @property
    def multires(self) -> bool:
        """Whether meshes have levels of detail."""
        return bool(self.kind == MULTIRES)

    @functools.cached_property
    def shards(self) -> Shards | None:
        return super().shards if self.multires else None

    def read(self, label: int, *, lod: int = 0) -> Mesh | None:
        """Return the mesh of a label, None when it has none; vertices at one place are one.

        Args:
            label: which.
            lod: level of detail, 0 the finest; -1 the coarsest.

        Raises:
            ParameterError: a level that the mesh has not.
            StoreNotFoundError: a fragment that the manifest names is missing.
            CorruptChunkError: a file is damaged.
        """
        if self.multires:
            manifest = self.manifest(label)
            return None if manifest is None else self._read_level(label, manifest, lod)
        if lod not in (0, -1):
            raise ParameterError(f"legacy meshes have no level of detail {lod}")
        data = read_file(self.directory, manifest_name(label))
        if data is None:
            return None
        fragments = [decode_fragment(require_file(self.directory, name)) for name in decode_manifest(data)]
        return Mesh.joined(fragments).welded()

    def manifest(self, label: int) -> MultiresManifest | None:
        """Return where the fragments of a multi-resolution mesh are, None when the label has none."""
        data = read_file(self.directory, f"{label}.index") if self.shards is None else self.shards.read(label)
        return None if data is None else MultiresManifest.decode(data)

    def fragments(self, label: int, manifest: MultiresManifest, lod: int) -> list[bytes]:
        """Return the Draco fragments of one level of detail, cell by cell."""
        sizes = manifest.bytes_of_levels
        start, stop = sum(sizes[:lod]), sum(sizes[: lod + 1])
        if self.shards is not None:
            data = self.shards.read_before(label, sum(sizes) - start, sum(sizes) - stop)
        else:
            found = kvstore.read_range(kvstore.join(self.directory, str(label)), start, stop)
            data = require_file(self.directory, str(label))[start:stop] if found is None else found
        ends = np.cumsum(manifest.levels[lod].sizes, dtype=np.int64).tolist()
        return [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]

    def _read_level(self, label: int, manifest: MultiresManifest, lod: int) -> Mesh:
        count = len(manifest.levels)
        if not -count <= lod < count:
            raise ParameterError(f"the mesh of {label} has {count} levels of detail, no level {lod}")
        lod %= count
        level, steps = manifest.levels[lod], 2 ** int(self.info["vertex_quantization_bits"]) - 1
        positions, faces, start = [np.zeros((0, 3), np.int64)], [np.zeros((0, 3), np.uint32)], 0
        for cell, data in zip(level.positions, self.fragments(label, manifest, lod), strict=True):
            points, triangles = decode_draco(data)
            positions.append(points + cell.astype(np.int64) * steps)
            faces.append(triangles + np.uint32(start))
            start += len(points)
        points, triangles = weld(np.concatenate(positions), np.concatenate(faces))
        cell_shape = np.array(manifest.chunk_shape, np.float64) * 2**lod
        places = np.array(manifest.origin) + np.array(level.offset) + cell_shape * (points / steps)
        return Mesh(transformed(places, self.info.get("transform")), triangles)


def read_mesh(layer: str, label: int, *, lod: int = 0) -> Mesh | None:
    """Return the mesh of a label of a precomputed layer, None when it has none; see `Meshes`."""
    return Meshes(layer).read(label, lod=lod)
