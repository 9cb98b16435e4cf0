"""What a layer of chunks consists of in storage: the objects of each level, by name and bytes.

Names are only ever those that the format gives its chunks and shards, right below the directory of their level; links
are not followed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from daskflow.errors import ParameterError, StoreAccessError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.base import Layout, Store
from daskflow.stores.precomputed import PrecomputedStore
from daskflow.stores.precomputed_info import load_info
from daskflow.stores.stored_chunks import StoredObject, precomputed_objects
from daskflow.stores.zarr_arrays import ZarrStore

_ZARR_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


@dataclass(frozen=True)
class LevelContents:
    """One level of a layer, and where its objects are.

    Attributes:
        mip: 0 is the finest.
        spec: geometry.
        layout: encoding and compression.
        url: of the directory, or of the zarr array.
        zarr: whether it is a zarr array.
        per_place: objects beside each other at one place, which hold different channels.
        background: what chunks hold that were left out, as the metadata say.
    """

    mip: int
    spec: VolumeSpec
    layout: Layout
    url: str
    zarr: bool
    per_place: int = 1
    background: float | None = None

    @property
    def expected(self) -> int:
        """How many objects the level has when none is missing."""
        unit = self.spec.shard or self.spec.chunk or self.spec.box.shape
        return self.per_place * math.prod(-(-n // u) for n, u in zip(self.spec.box.shape, unit, strict=True))

    def objects(self) -> Iterator[StoredObject]:
        """Yield what is stored, in no order.

        Raises:
            StoreAccessError: it cannot be listed, or the directory is a link.
        """
        path = kvstore.local_path(self.url)
        if path is not None and path.is_symlink():
            raise StoreAccessError(f"{path} is a link to another place; name that layer instead")
        yield from _zarr_objects(self.url) if self.zarr else precomputed_objects(self.url)


def chunks_of_two_names(url: str) -> Iterator[BoundingBox]:
    """Yield the chunks of a local precomputed level that several files hold, of which the newest counts."""
    seen: set[BoundingBox] = set()
    for one in precomputed_objects(url):
        if one.box is not None and one.box in seen:
            yield one.box
        elif one.box is not None:
            seen.add(one.box)


def levels_of(store: Store) -> list[LevelContents]:
    """Return the levels of a layer, finest first.

    Raises:
        ParameterError: a format that is no layer of chunks, e.g. a TIFF file.
    """
    stores = [store.with_mip(mip) for mip in range(len(store.mips))]
    if isinstance(store, PrecomputedStore):
        urls = [kvstore.join(store.url, scale["key"]) for scale in load_info(store.url)["scales"]]
        return [
            LevelContents(mip, level.spec, level.layout, url, zarr=False, background=level.background)
            for mip, (level, url) in enumerate(zip(stores, urls, strict=True))
        ]
    arrays = [level.array for level in stores if isinstance(level, ZarrStore)]
    if not arrays:
        raise ParameterError(f"{kvstore.redact(store.url)} is one file, no layer of chunks")
    return [
        LevelContents(
            mip,
            level.spec,
            level.layout,
            array.url,
            zarr=True,
            per_place=-(-(level.spec.channels or 1) // array.channel_chunk),
            background=level.background,
        )
        for mip, (level, array) in enumerate(zip(stores, arrays, strict=True))
    ]


def _zarr_objects(url: str) -> Iterator[StoredObject]:
    path = kvstore.local_path(url)
    if path is None:
        names = kvstore.list_names(url)
        yield from (StoredObject(f"{url}/{n}", 0) for n in names if n.rpartition("/")[2] not in _ZARR_METADATA)
        return
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder, name)
            if name not in _ZARR_METADATA and not name.startswith(".") and not file.is_symlink():
                yield StoredObject(f"file://{file}", file.stat().st_size)
