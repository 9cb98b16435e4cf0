"""The skeletons of a precomputed layer: which there are, and each of them."""

from __future__ import annotations

import functools
import re

import numpy as np
import numpy.typing as npt

from daskflow.errors import StoreError
from daskflow.stores import kvstore
from daskflow.stores.objects.files import names_below, read_file
from daskflow.stores.objects.object_info import load_object_info, object_directory
from daskflow.stores.objects.shards import Shards
from daskflow.stores.objects.skeleton_files import SKELETONS, Skeleton, decode_skeleton

_LABEL = re.compile(r"\d+")


class Skeletons:
    """Reads the skeletons of a layer, sharded or not.

    Attributes:
        directory: URL.
        info: its JSON.

    Raises:
        StoreNotFoundError: the layer has no skeletons, or there is no layer.
        StoreError: a format that is not known.
    """

    def __init__(self, layer: str, *, directory: str | None = None) -> None:
        self.directory = object_directory(layer, "skeletons", directory)
        self.info = load_object_info(self.directory)
        if self.info.get("@type") != SKELETONS:
            raise StoreError(f"{kvstore.redact(self.directory)}/info does not describe {SKELETONS}")

    @functools.cached_property
    def shards(self) -> Shards | None:
        """The shards, None when each label has a file of its own."""
        sharding = self.info.get("sharding")
        return None if sharding is None else Shards(self.directory, sharding)

    def labels(self) -> npt.NDArray[np.uint64]:
        """Return the labels that have a skeleton, ascending, by listing the directory.

        Raises:
            StoreAccessError: it cannot be listed, e.g. over http.
        """
        if self.shards is not None:
            return self.shards.labels()
        names = {int(name) for name in names_below(self.directory) if _LABEL.fullmatch(name)}
        return np.array(sorted(label for label in names if label < 2**64), np.uint64)

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
