"""The meshes and skeletons of a precomputed layer: where they are, what their ``info`` says, and each by label."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError, StoreError, StoreNotFoundError
from daskflow.geometry import VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.objects.files import names_below, read_file, require_file
from daskflow.stores.objects.mesh_files import (
    LEGACY,
    MULTIRES,
    Mesh,
    MultiresManifest,
    decode_draco,
    decode_fragment,
    decode_manifest,
    manifest_name,
    stacked,
    transformed,
    weld,
)
from daskflow.stores.objects.shards import Shards
from daskflow.stores.objects.skeleton_files import ATTRIBUTE_TYPES, SKELETONS, Skeleton, decode_skeleton
from daskflow.stores.precomputed_info import edit_info, load_info, specs_of
from daskflow.stores.refusals import OBJECT, TEXT, check_forms, list_of, numbers, object_of, one_of, parse_object, whole

_MANIFEST = re.compile(r"(\d+):0")
_MULTIRES = re.compile(r"(\d+)\.index")
_KINDS = {LEGACY: "mesh", MULTIRES: "mesh", SKELETONS: "skeletons"}
_ATTRIBUTE = {"id": TEXT, "data_type": one_of(*ATTRIBUTE_TYPES), "num_components": whole(1, 2**16)}
_SIZES = {"resolution": numbers(3, positive=True), "chunk_size": numbers(3, positive=True)}
_FORMS = {
    "@type": TEXT,
    "mip": whole(0, 2**16),
    "sharding": OBJECT,
    "spatial_index": object_of(_SIZES),
    "transform": numbers(12),
    "vertex_attributes": list_of(object_of(_ATTRIBUTE)),
    "vertex_quantization_bits": whole(1, 31),
}


def object_directory(layer: str, key: str, directory: str | None = None) -> str:
    """Return the URL of a layer's directory of meshes or skeletons, which the info has under `key` unless it is given.

    Raises:
        StoreNotFoundError: the info names none, or there is no layer.
        ParameterError: a name that leads out of the layer.
    """
    name = directory or load_info(layer).get(key)
    if not isinstance(name, str) or not name:
        raise StoreNotFoundError(f"{kvstore.redact(layer)} has no {key}: its info names no such directory")
    return kvstore.join(layer, name)


def name_objects(layer: str, keep: bool = False, /, **directories: str) -> None:
    """Name directories, as ``mesh`` or ``skeletons``, in the ``info`` of their layer, of which nothing else changes.

    `keep` leaves those that the ``info`` names already.

    Raises:
        StoreNotFoundError: there is no layer.
        StoreAccessError: the location refuses.
    """
    edit_info(layer, lambda info: {**info, **{k: v for k, v in directories.items() if not (keep and info.get(k))}})


def layer_above(url: str) -> str | None:
    """Return the URL of the precomputed layer that a directory of objects lies in, None when it lies in none."""
    parent, _, name = url.rpartition("/")
    if not name or parent.endswith(":/"):
        return None
    try:
        load_info(parent)
    except (StoreNotFoundError, ValueError, OSError):
        return None
    return parent


def object_sets(layer: str) -> Iterator[tuple[str, str]]:
    """Yield kind and name of the directories right in a layer whose ``info`` is of meshes or skeletons."""
    path = kvstore.local_path(layer)
    if path is None:
        names = (name.removesuffix("/info") for name in names_below(layer) if name.endswith("/info"))
    else:
        names = (child.name for child in path.iterdir() if (child / "info").is_file())
    for name in names:
        with contextlib.suppress(StoreError):  # the info of something else
            if "/" not in name and (kind := _KINDS.get(load_object_info(kvstore.join(layer, name)).get("@type", ""))):
                yield kind, name


def made_from(layer: str, info: dict[str, Any]) -> VolumeSpec | None:
    """Return the level that objects were made of, as the ``info`` of their directory says; None if it is not there."""
    levels, mip = specs_of(load_info(layer), layer), int(info.get("mip", 0))
    return levels[mip] if mip < len(levels) else None


def load_object_info(directory: str) -> dict[str, Any]:
    """Return the ``info`` of a directory of objects without what is null there, {} when it has none.

    Raises:
        StoreError: it is not a JSON object, or what daskflow reads from it has another form than it must have.
    """
    data = read_file(directory, "info")
    name = kvstore.redact(kvstore.join(directory, "info"))
    info = {} if data is None else {k: v for k, v in parse_object(data, name).items() if v is not None}
    check_forms(info, _FORMS, name)
    return info


class Objects:
    """The meshes or skeletons of a layer.

    Attributes:
        key: of the layer's info.
        names: of files, one for each label, which is their first group.
        directory: URL.
        info: its JSON, {} where a directory of legacy meshes has none.

    Raises:
        StoreNotFoundError: the layer has none, or there is no layer.
        StoreError: a format that is not known.
    """

    key: str
    names: re.Pattern[str]

    def __init__(self, layer: str, *, directory: str | None = None) -> None:
        self.directory = object_directory(layer, self.key, directory)
        self.info = load_object_info(self.directory)

    @functools.cached_property
    def shards(self) -> Shards | None:
        """The shards, None when each label has files of its own."""
        sharding = self.info.get("sharding")
        return None if sharding is None else Shards(self.directory, sharding)

    def labels(self) -> npt.NDArray[np.uint64]:
        """Return the labels that have one, ascending, by listing the directory.

        Raises:
            StoreAccessError: it cannot be listed, e.g. over http.
        """
        if self.shards is not None:
            return self.shards.labels()
        found = (self.names.fullmatch(name) for name in names_below(self.directory))
        labels = {int(match[1]) for match in found if match}
        return np.array(sorted(label for label in labels if label < 2**64), np.uint64)


class Meshes(Objects):
    """Reads the meshes of a layer, in whichever of the formats: legacy, multi-resolution, sharded or not."""

    key = "mesh"

    def __init__(self, layer: str, *, directory: str | None = None) -> None:
        super().__init__(layer, directory=directory)
        self.kind = self.info.get("@type", LEGACY)
        if self.kind not in (LEGACY, MULTIRES):
            raise StoreError(f"{kvstore.redact(self.directory)} holds {self.kind}; known kinds: {LEGACY}, {MULTIRES}")
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

        Levels of detail begin with 0, the finest; -1 is the coarsest.

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
        parts = [decode_draco(b"")]
        for cell, data in zip(level.positions, self.fragments(label, manifest, lod), strict=True):
            points, triangles = decode_draco(data)
            parts.append((points + cell.astype(np.int64) * steps, triangles))
        points, triangles = weld(*stacked(parts))
        cell_shape = np.array(manifest.chunk_shape, np.float64) * 2**lod
        places = np.array(manifest.origin) + np.array(level.offset) + cell_shape * (points / steps)
        return Mesh(transformed(places, self.info.get("transform")), triangles)


def read_mesh(layer: str, label: int, *, lod: int = 0) -> Mesh | None:
    """Return the mesh of a label of a precomputed layer, None when it has none; see `Meshes`."""
    return Meshes(layer).read(label, lod=lod)


class Skeletons(Objects):
    """Reads the skeletons of a layer, sharded or not."""

    key = "skeletons"
    names = re.compile(r"(\d+)")

    def __init__(self, layer: str, *, directory: str | None = None) -> None:
        super().__init__(layer, directory=directory)
        if self.info.get("@type") != SKELETONS:
            raise StoreError(f"{kvstore.redact(self.directory)}/info does not describe {SKELETONS}")

    def encoded(self, label: int) -> bytes | None:
        """Return the file of a label's skeleton, None when it has none."""
        return read_file(self.directory, str(label)) if self.shards is None else self.shards.read(label)

    def read(self, label: int) -> Skeleton | None:
        """Return the skeleton of a label, None when it has none.

        Raises:
            CorruptChunkError: its file is damaged.
        """
        data = self.encoded(label)
        return None if data is None else decode_skeleton(data, self.info)


def read_skeleton(layer: str, label: int) -> Skeleton | None:
    """Return the skeleton of a label of a precomputed layer, None when it has none; see `Skeletons`."""
    return Skeletons(layer).read(label)
