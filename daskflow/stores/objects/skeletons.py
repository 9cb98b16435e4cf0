"""The skeletons of a precomputed layer: which there are, and each of them."""

from __future__ import annotations

import re

from daskflow.errors import StoreError
from daskflow.stores import kvstore
from daskflow.stores.objects.files import read_file
from daskflow.stores.objects.object_info import Objects
from daskflow.stores.objects.skeleton_files import SKELETONS, Skeleton, decode_skeleton


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
