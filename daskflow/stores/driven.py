"""Voxels of arrays through tensorstore's drivers for chunked arrays, e.g. zarr."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from daskflow.errors import CorruptChunkError, MissingChunkError, ParameterError, UnknownFormatError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec, Zyx, as_zyx
from daskflow.stores import kvstore, states
from daskflow.stores.answers import translated, wait
from daskflow.stores.axes import Axes
from daskflow.stores.base import DEFAULT_CHUNK, Array, Layout, Store, StoredObject
from daskflow.stores.counting import count
from daskflow.stores.refusals import refuse_mismatch, refuse_unknown_size

BACKGROUND_KEY = "daskflow_background"


@dataclass(frozen=True)
class StoredArray:
    """One array as tensorstore must open it; small, hashable and picklable.

    Metadata are its own JSON, without the attributes; `fortran` is whether these list axes the other way round than
    `axes`, which is in C order.
    """

    url: str
    metadata: str
    axes: Axes
    channel_chunk: int
    driver: str = field(repr=False)
    fortran: bool = field(default=False, repr=False)

    def view(self, *, background: float | None = None) -> Any:
        """Return the voxels as a tensorstore, (c)zyx, that refuses missing chunks and stores every chunk.

        With `background` chunks that are missing hold that value, and those that hold nothing else are deleted.
        """
        return _view(self, background)


@functools.lru_cache(maxsize=64)
def _view(array: StoredArray, background: float | None) -> Any:
    import tensorstore as ts

    metadata = json.loads(array.metadata)
    if background is not None and array.driver != "n5":  # where it is always 0
        metadata["fill_value"] = background
    spec = {
        "driver": array.driver,
        "kvstore": kvstore.kvstore_spec(array.url),
        "metadata": metadata,
        "fill_missing_data_reads": background is not None,
        "store_data_equal_to_fill_value": background is None,
    }
    try:
        with translated(array.url, "open"):
            opened = wait(ts.open(spec, open=True, assume_metadata=True, context=kvstore.context()), array.url)
    except (OSError, OverflowError, TypeError, ValueError) as error:
        raise UnknownFormatError(f"tensorstore cannot open the {array.driver.rstrip('3')} array: {error}") from error
    return array.axes.view(opened.T if array.fortran else opened)


class DrivenStore(Store):
    """The voxels of an array that tensorstore reads and writes; files of `metadata_names` are not chunks."""

    of_chunks = True
    metadata_names: ClassVar[frozenset[str]]

    def __init__(
        self, url: str, mips: Sequence[VolumeSpec], array: StoredArray, *, mip: int = 0, fill_missing: bool = False
    ) -> None:
        super().__init__(url, mips, mip=mip, fill_missing=fill_missing)
        self.array = array

    def _read(self, box: BoundingBox) -> Array:
        part = self.array.view(background=self.background)[(..., *box.slices(self.spec.box))]
        try:
            with translated(self.array.url, "read"):
                voxels: Array = wait(part.read(order="C"), self.array.url)
        except MissingChunkError as error:
            if not self.fill_missing:
                raise MissingChunkError(f"{error}; fill_missing reads such chunks as zeros") from error
            return self._read_filled(box)
        return voxels

    def _read_filled(self, box: BoundingBox) -> Array:
        """Read chunk by chunk, so that missing chunks can be counted."""
        import tensorstore as ts

        spec, view = self.spec, self.array.view()
        assert spec.chunk is not None
        voxels = np.full(spec.shape_of(box), view.fill_value or 0, spec.dtype)
        step = self.array.channel_chunk
        total = spec.channels
        channels = [()] if total is None else [(slice(c, min(c + step, total)),) for c in range(0, total, step)]
        pieces = list(itertools.product(channels, BlockGrid(box, spec.chunk, spec.chunk_origin)))
        batch = ts.Batch()
        futures = [view[(*c, *piece.slices(spec.box))].read(order="C", batch=batch) for c, piece in pieces]
        batch.submit()
        missing = 0
        for (c, piece), future in zip(pieces, futures, strict=True):
            try:
                with translated(self.array.url, "read"):
                    voxels[(*c, *piece.slices(box))] = wait(future, self.array.url)
            except MissingChunkError:
                missing += 1
        count("missing_chunks", missing)
        return voxels

    @property
    def directory(self) -> str:
        return self.array.url

    @property
    def expected(self) -> int | None:
        return (super().expected or 0) * -(-(self.spec.channels or 1) // self.array.channel_chunk)

    def _contents(self) -> Iterator[StoredObject]:
        url = self.array.url
        path = kvstore.local_path(url)
        if path is None:
            names = kvstore.list_names(url)
            yield from (StoredObject(f"{url}/{n}", 0) for n in names if n.rpartition("/")[2] not in self.metadata_names)
            return
        for folder, _, names in os.walk(path):
            for name in names:
                file = Path(folder, name)
                if name not in self.metadata_names and not name.startswith(".") and not file.is_symlink():
                    yield StoredObject(f"file://{file}", file.stat().st_size)

    def _write(self, box: BoundingBox, array: Array) -> None:
        self._store(self.array.view(), box, array)

    def _write_dropping(self, box: BoundingBox, array: Array, drop: float) -> None:
        filled = json.loads(self.array.metadata).get("fill_value")
        if filled and filled != drop:
            raise ParameterError(
                f"missing chunks of {kvstore.redact(self.array.url)} read as {filled}, not as {drop}; so chunks of"
                " background cannot be deleted"
            )
        self._store(self.array.view(background=self.spec.dtype.type(drop).item()), box, array)

    def stored_chunks(self, box: BoundingBox) -> Iterator[BoundingBox]:
        """Yield all chunks, or shards, that share a voxel with `box` and are stored, by halving it where any is.

        tensorstore lists names by their prefixes, so that a box in which nothing is stored takes few requests.
        """
        spec, unit, left = self.spec, self.spec.write_unit, [box.clip(self.spec.box)]
        assert unit is not None
        assert spec.chunk_origin is not None
        while left:
            one = left.pop()
            if one.empty or self._bare(one):
                continue
            whole, pieces = one.align(unit, spec.chunk_origin), BlockGrid(one, unit, spec.chunk_origin).shape
            if max(pieces) == 1:
                yield whole.clip(spec.box)
                continue
            longest = pieces.index(max(pieces))
            half = [
                u * (-(-n // 2) if axis == longest else n) for axis, (u, n) in enumerate(zip(unit, pieces, strict=True))
            ]
            left += [part.clip(one) for part in BlockGrid(whole, as_zyx(half))]

    def _bare(self, box: BoundingBox) -> bool:
        """Return whether no chunk that shares a voxel with `box` is stored."""
        part = self.array.view()[(..., *box.slices(self.spec.box))]
        with translated(self.array.url, "list"):
            return bool(wait(part.storage_statistics(query_not_stored=True), self.array.url).not_stored)

    def _store(self, view: Any, box: BoundingBox, array: Array) -> None:
        kvstore.refuse_http(self.array.url)
        part = view[(..., *box.slices(self.spec.box))]
        while True:
            try:
                with translated(self.array.url, "write"):
                    wait(part.write(array), self.array.url)
            except CorruptChunkError as error:
                self._delete_damaged(error)
            else:
                return

    def _delete_damaged(self, error: CorruptChunkError) -> None:
        """Delete the damaged chunk that stands in the way of being replaced: tensorstore reads those at edges first."""
        directory = kvstore.local_path(self.array.url)
        named = re.findall(r'"([^"]+)"', str(error))
        if directory is None or not named or not Path(named[-1]).is_relative_to(directory):
            raise error
        Path(named[-1]).unlink()

    def fingerprint(self) -> dict[str, Any]:
        """Return the location, the level, a hash of what the metadata say, and what changes when it is rewritten."""
        name, depth = self._metadata_file
        written = {
            "metadata": states.object_state(kvstore.join(self.array.url, name)),
            "provenance": states.provenance_state(self.provenance_url(self.url), self.mip),
        }
        directory = kvstore.local_path(self.array.url)
        if directory is not None:
            written["chunks"] = states.directory_state(directory, depth)
        digest = states.digest(f"{self.array}{self.spec}")
        return {"url": kvstore.redact(self.url), "mip": self.mip, "metadata": digest, "written": written}

    @property
    @abstractmethod
    def _metadata_file(self) -> tuple[str, int]:
        """Name of the file with the array's metadata, and levels of directories between it and the chunks."""

    def check_writable(self) -> None:
        """Raise StoreAccessError unless objects can be written beside the chunks."""
        kvstore.check_writable(self.array.url)


def chosen_chunks(spec: VolumeSpec, layout: Layout) -> tuple[Zyx, Zyx | None]:
    """Return the chunk and shard (zyx) of a new array: from the layout, else from the spec, else 64x64x64 unsharded."""
    chunk = layout.chunk or spec.chunk or DEFAULT_CHUNK
    shard = layout.shard or (None if layout.chunk else spec.shard)
    return chunk, shard


def check_same(store: Store, spec: VolumeSpec, layout: Layout) -> None:
    """Raise unless an existing level is what would be created now; what either does not state is taken as it is."""
    there, location = store.spec, f"mip {store.mip} of {kvstore.redact(store.url)}"
    refuse_unknown_size(location, there, spec)
    wanted: dict[str, Any] = {"shape": spec.shape, "voxel_offset": spec.box.start, "dtype": spec.dtype.name}
    if not np.allclose(there.spacing, spec.spacing, rtol=1e-9, atol=0):
        wanted["voxel_size"] = spec.voxel_size
    meaning = ("layer_type", "channel_names")
    wanted |= {name: getattr(spec, name) for name in meaning if getattr(spec, name) and getattr(there, name)}
    if layout.chunk or spec.chunk:
        wanted["chunk"], wanted["shard"] = chosen_chunks(spec, layout)
    stored = {name: getattr(there, name, None) for name in wanted}
    stored |= {"voxel_offset": there.box.start, "dtype": there.dtype.name}
    refuse_mismatch(location, stored, wanted)
