"""tensorstore's precomputed driver, seen as C-ordered zyx or czyx.

The driver's Fortran-ordered xyzc is the same memory as C-ordered czyx: read through the transposed view it is four
times faster than as it lies.
"""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from daskflow.errors import StoreError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.answers import plain_message, wait
from daskflow.stores.base import Array

Load = Callable[[], bytes | None]
Put = Callable[[BoundingBox, bytes | memoryview | None], None]


def open_view(store: dict[str, Any], metadata: str, spec: VolumeSpec, *, strict: bool = True) -> Any:
    """Return one scale as a tensorstore view czyx, or zyx when `spec` has no channels.

    Nothing is read to open it: the metadata are given.

    Args:
        store: tensorstore's JSON spec of the layer's key-value store.
        metadata: what `precomputed_info.driver_metadata` returned, as text.
        spec: the scale.
        strict: whether a missing chunk is an error; else it reads as zeros.

    Raises:
        StoreError: metadata that tensorstore refuses.
    """
    import tensorstore as ts

    request = {
        "driver": "neuroglancer_precomputed",
        "kvstore": store,
        "fill_missing_data_reads": not strict,
        "store_data_equal_to_fill_value": True,
        **json.loads(metadata),
    }
    try:
        handle = ts.open(request, open=True, assume_metadata=True, context=kvstore.context()).result()
    except (ValueError, OverflowError) as error:
        raise StoreError(f"cannot open {spec} as its info describes it: {plain_message(error)}") from error
    return handle[..., 0].T if spec.channels is None else handle.T


def shared_view(url: str, metadata: str, spec: VolumeSpec) -> Any:
    """Return the strict view of a layer's scale, opened once per process while it is in use."""
    return _shared_view(json.dumps(kvstore.kvstore_spec(url)), metadata, spec)


@functools.lru_cache(maxsize=256)
def _shared_view(store: str, metadata: str, spec: VolumeSpec) -> Any:
    return open_view(json.loads(store), metadata, spec)


@contextmanager
def view_in_memory(metadata: str, spec: VolumeSpec) -> Iterator[tuple[Any, Any]]:
    """Yield an empty key-value store, keyed by plain chunk names, and the scale as if its chunks were stored there.

    Chunks that are not put there read as zeros.
    """
    import tensorstore as ts

    given = json.loads(metadata)
    given["scale_metadata"]["sharding"] = None
    root = f"chunks-{uuid.uuid4().hex}/"
    location = {"driver": "memory", "path": root}
    beside = {"driver": "memory", "path": f"{root}{given['scale_metadata']['key']}/"}
    chunks = ts.KvStore.open(beside, context=kvstore.context()).result()
    try:
        yield chunks, open_view(location, json.dumps(given), spec, strict=False)
    finally:
        chunks.delete_range(ts.KvStore.KeyRange()).result()


def chunk_name(chunk: BoundingBox) -> str:
    """Return the name that precomputed gives to the object of an unsharded chunk."""
    return "_".join(f"{a}-{b}" for a, b in zip(reversed(chunk.start), reversed(chunk.stop), strict=True))


def chunks_of(spec: VolumeSpec, box: BoundingBox) -> list[BoundingBox]:
    """Return the chunks that share a voxel with `box`, whole but for the volume's edge."""
    assert spec.chunk is not None
    grid = BlockGrid(spec.box, spec.chunk, spec.chunk_origin)
    return [grid[index] for index in grid.touching(box)]


def part(view: Any, spec: VolumeSpec, box: BoundingBox) -> Any:
    """Return the part of a view that holds `box`."""
    slices = tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))
    return view[slices] if spec.channels is None else view[(slice(None), *slices)]


def read_box(view: Any, spec: VolumeSpec, box: BoundingBox, url: str = "memory://") -> Array:
    """Return the voxels of `box`, of the layer at `url`, as a new C-ordered array."""
    array: Array = wait(part(view, spec, box).read(order="C"), url)
    return array


def write_box(view: Any, spec: VolumeSpec, box: BoundingBox, array: Array, url: str = "memory://") -> None:
    """Write the voxels of `box` to the layer at `url` and wait until they are stored.

    The array is copied: tensorstore 0.1.86 told that it may keep it stores zeros in shards of several channels.
    """
    wait(part(view, spec, box).write(array), url)
