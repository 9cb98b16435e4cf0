"""Which chunks are stored, asked of names alone."""

from __future__ import annotations

import numpy as np
import pytest

from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import Layout, Store
from daskflow.stores.opening import create_store

BOX = BoundingBox((-8, 16, 5), (24, 47, 40))
SPEC = VolumeSpec(BOX, np.uint8, voxel_size=(8, 8, 8))


@pytest.mark.parametrize(
    ("format_name", "shard", "compression"),
    [
        ("precomputed", None, None),
        ("precomputed", None, "gzip"),
        ("precomputed", (16, 16, 16), None),
        ("zarr2", None, None),
        ("zarr3", None, None),
        ("zarr3", (16, 16, 16), None),
        ("ome-zarr", (16, 16, 16), None),
    ],
)
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_stored_chunks_are_those_that_were_written(tmp_path, place, format_name, shard, compression, request):
    if compression and place == "memory":
        pytest.skip("names of CloudVolume are for local disks")
    url = tmp_path / "layer" if place == "disk" else f"memory://{request.node.nodeid.replace('/', '_')}/layer"
    layout = Layout(chunk=(8, 8, 8), shard=shard, compression=compression)
    store = create_store(url, SPEC, format=format_name, layout=layout)
    assert list(store.stored_chunks(BOX)) == []
    unit = shard or (8, 8, 8)
    part = BoundingBox((8, 16, 21), (24, 47, 40)).align(unit, BOX.start).clip(BOX)
    store.write(part, np.full(part.shape, 3, np.uint8))
    for asked in (BOX, part, BoundingBox((-8, 16, 5), (9, 17, 40)), BoundingBox((-8, 16, 5), (8, 47, 40))):
        common = asked.clip(part)
        found = set(store.stored_chunks(asked))
        wanted = set()
        if not common.empty:
            low = common.align(unit, BOX.start)
            wanted = {
                BoundingBox.from_size((z, y, x), unit).clip(BOX)
                for z in range(low.start[0], low.stop[0], unit[0])
                for y in range(low.start[1], low.stop[1], unit[1])
                for x in range(low.start[2], low.stop[2], unit[2])
            }
        assert found == wanted, asked


def test_a_store_whose_names_do_not_tell_is_read_at_three_places(tmp_path):
    store = create_store(tmp_path / "a", SPEC, format="zarr3", layout=Layout(chunk=(8, 8, 8)))
    assert list(Store.stored_chunks(store, BOX)) == []
    first = BoundingBox((-8, 16, 5), (0, 24, 13))
    store.write(first, np.ones(first.shape, np.uint8))
    assert list(Store.stored_chunks(store, BOX)) == [first]
    next(path for path in (tmp_path / "a" / "c").rglob("*") if path.is_file()).write_bytes(b"damaged")
    assert list(Store.stored_chunks(store, BOX)) == [first]
    assert list(Store.stored_chunks(store, BoundingBox((-8, 16, 5), (-8, 16, 5)))) == []
