"""What a layer says of its meshes and skeletons: in which directory they are, and the ``info`` of that."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import StoreError, StoreNotFoundError
from daskflow.geometry import VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.objects.files import names_below, read_file
from daskflow.stores.objects.mesh_files import LEGACY, MULTIRES
from daskflow.stores.objects.shards import Shards
from daskflow.stores.objects.skeleton_files import ATTRIBUTE_TYPES, SKELETONS
from daskflow.stores.precomputed_info import load_info, specs_of
from daskflow.stores.refusals import (
    OBJECT,
    TEXT,
    check_forms,
    list_of,
    numbers,
    object_of,
    one_of,
    parse_object,
    whole,
)

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
    """Return the URL of a layer's directory of meshes or skeletons.

    Args:
        layer: URL.
        key: of the layer's info: mesh or skeletons.
        directory: its name, where it is not the one in the info.

    Raises:
        StoreNotFoundError: the info names none, or there is no layer.
        ParameterError: a name that leads out of the layer.
    """
    name = directory or load_info(layer).get(key)
    if not isinstance(name, str) or not name:
        raise StoreNotFoundError(f"{kvstore.redact(layer)} has no {key}: its info names no such directory")
    return kvstore.join(layer, name)


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
        StoreError: it is no JSON object, or what daskflow reads from it has another form than it must have.
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
