"""What every store of chunks must do, as a test suite to subclass.

    class TestMyStore(StoreSuite):
        format = "myformat"
        dtypes = ("uint8", "float32")

Needs pytest and hypothesis.
"""

from __future__ import annotations

import json
import pickle
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskflow.errors import (
    AlignmentError,
    BoundsError,
    CorruptChunkError,
    MetadataMismatchError,
    MissingChunkError,
    ParameterError,
    StoreNotFoundError,
)
from daskflow.geometry import LAYER_TYPES, BlockGrid, BoundingBox, LayerType, VolumeSpec, Zyx
from daskflow.stores import kvstore
from daskflow.stores.base import Array, Layout, Store
from daskflow.stores.counting import counting
from daskflow.stores.opening import create_store, open_store

_shared = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.differing_executors])


def boxes_in(box: BoundingBox) -> st.SearchStrategy[BoundingBox]:
    """Return a strategy of boxes inside `box`, some of them empty."""
    ends = [
        st.tuples(st.integers(a, b), st.integers(a, b)).map(sorted) for a, b in zip(box.start, box.stop, strict=True)
    ]
    return st.tuples(*ends).map(lambda e: BoundingBox((e[0][0], e[1][0], e[2][0]), (e[0][1], e[1][1], e[2][1])))


def triples(low: int, high: int) -> st.SearchStrategy[Zyx]:
    """Return a strategy of three integers from `low` to `high`."""
    return st.tuples(*[st.integers(low, high)] * 3)


def damaged(value: Any) -> Iterator[Any]:
    """Yield copies of a JSON value in each of which one part is something else."""
    yield from (None, [], {}, -1, 2**70, 1.5, "x", True)
    if isinstance(value, dict):
        for key in value:
            yield {k: v for k, v in value.items() if k != key}
            yield from ({**value, key: part} for part in damaged(value[key]))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from ([*value[:place], one, *value[place + 1 :]] for one in damaged(part))


def voxels(spec: VolumeSpec, seed: int = 0) -> Array:
    """Return reproducible noise without zeros, of the shape and dtype of a volume."""
    high = min(200, np.iinfo(spec.dtype).max) if spec.dtype.kind in "iu" else 200
    return np.random.default_rng(seed).integers(1, high, spec.shape).astype(spec.dtype)


def write_all(store: Store, array: Array) -> None:
    """Write a whole volume by its write units."""
    for box in BlockGrid(store.spec.box, store.spec.write_unit or store.spec.box.shape, store.spec.chunk_origin):
        store.write(box, array[(..., *box.slices(store.spec.box))])


class StoreSuite:
    """The battery; subclasses say what their format can do by class attributes and may override any method.

    Attributes:
        format: name of the format.
        suffix: ending of locations.
        dtypes: dtypes it holds.
        channels: channel counts it holds; None is a volume without channel axis.
        layer_types: layer types that it keeps; the first is used where it does not matter.
        keeps_names: whether channel names are kept.
        keeps_offset: whether a box may start anywhere, also below zero.
        several_mips: whether more mips can be added.
        zeros_are_missing: whether a format cannot distinguish a chunk of zeros from a missing one.
        detects_truncation: whether a chunk cut short is noticed.
    """

    format: ClassVar[str]
    suffix: ClassVar[str] = ""
    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
    channels: ClassVar[tuple[int | None, ...]] = (None, 1, 3)
    layer_types: ClassVar[tuple[LayerType | None, ...]] = LAYER_TYPES
    keeps_names: ClassVar[bool] = True
    keeps_offset: ClassVar[bool] = True
    several_mips: ClassVar[bool] = True
    zeros_are_missing: ClassVar[bool] = False
    detects_truncation: ClassVar[bool] = True

    @contextmanager
    def location(self) -> Iterator[str]:
        """Yield a fresh URL; in memory unless overridden."""
        url = f"memory://suite-{uuid.uuid4().hex}/layer{self.suffix}"
        yield url
        kvstore.delete_tree(url)

    @contextmanager
    def local_location(self) -> Iterator[Path]:
        """Yield a fresh path on local disk."""
        with tempfile.TemporaryDirectory() as directory:
            yield Path(directory) / f"layer{self.suffix}"

    def layouts(self) -> st.SearchStrategy[Layout]:
        """Return a strategy of layouts that the format can hold losslessly; some with shards when it has them."""
        return st.builds(Layout, chunk=triples(2, 8))

    def create(self, url: str | Path, spec: VolumeSpec, layout: Layout, mip: int = 0) -> Store:
        """Create a layer of the format."""
        return create_store(url, spec, mip=mip, format=self.format, layout=layout)

    @contextmanager
    def written(self, spec: VolumeSpec, layout: Layout | None = None) -> Iterator[tuple[str, Store, Array]]:
        """Yield a fresh URL, a layer that is created there, and its voxels, all of which are written."""
        with self.location() as url:
            store, array = self.create(url, spec, layout or self.plain_layout), voxels(spec)
            write_all(store, array)
            yield url, store, array

    def chunk_objects(self, path: Path) -> list[Path]:
        """Return the files of a local layer that hold voxels."""
        metadata = {"info", "zarr.json", ".zarray", ".zattrs", ".zgroup", "attributes.json"}
        files = (p for p in path.rglob("*") if p.is_file() and p.name not in metadata and not p.name.endswith("__lock"))
        return sorted(files)

    def specs(self) -> st.SearchStrategy[VolumeSpec]:
        """Return a strategy of small volumes that the format can hold."""
        starts = triples(-12, 12) if self.keeps_offset else st.just((0, 0, 0))

        @st.composite
        def spec(draw: st.DrawFn) -> VolumeSpec:
            channels = draw(st.sampled_from(self.channels))
            names = tuple(f"channel {i}" for i in range(channels or 1))
            return VolumeSpec(
                BoundingBox.from_size(draw(starts), draw(triples(1, 14))),
                np.dtype(draw(st.sampled_from(self.dtypes))),
                channels=channels,
                voxel_size=draw(st.tuples(*[st.sampled_from((1.0, 4.0, 4.5, 40.0, 0.123456789))] * 3)),
                layer_type=draw(st.sampled_from(self.layer_types)),
                channel_names=names if draw(st.booleans()) and self.keeps_names else (),
            )

        return spec()

    def plain_spec(self, size: Zyx = (6, 10, 12)) -> VolumeSpec:
        """Return one fixed volume, for tests in which the geometry does not matter."""
        start = (-3, 5, 7) if self.keeps_offset else (0, 0, 0)
        box = BoundingBox.from_size(start, size)
        return VolumeSpec(
            box=box, dtype=np.dtype(self.dtypes[0]), layer_type=self.layer_types[0], voxel_size=(40.0, 4.0, 4.0)
        )

    plain_layout: ClassVar[Layout] = Layout(chunk=(4, 4, 4))
    uncompressed_layout: ClassVar[Layout] = Layout(chunk=(4, 8, 8), encoding="raw")

    @_shared
    @given(data=st.data())
    def test_what_is_written_is_read(self, data: st.DataObject) -> None:
        spec, layout = data.draw(self.specs()), data.draw(self.layouts())
        with self.written(spec, layout) as (_, store, array):
            found = store.read(spec.box)
            np.testing.assert_array_equal(found, array)
            assert found.dtype == spec.dtype
            assert found.flags.c_contiguous
            assert found.flags.writeable

    @_shared
    @given(data=st.data())
    def test_a_box_reads_as_the_same_box_cut_from_the_whole(self, data: st.DataObject) -> None:
        spec, layout = data.draw(self.specs()), data.draw(self.layouts())
        box = data.draw(boxes_in(spec.box))
        with self.written(spec, layout) as (_, store, array):
            np.testing.assert_array_equal(store.read(box), array[(..., *box.slices(spec.box))])

    @_shared
    @given(data=st.data())
    def test_geometry_and_meaning_survive(self, data: st.DataObject) -> None:
        spec, layout = data.draw(self.specs()), data.draw(self.layouts())
        with self.location() as url:
            created = self.create(url, spec, layout)
            opened = open_store(url)
            assert opened.spec == created.spec
            plain = opened.spec.replace(chunk=None, shard=None, chunk_origin=None)
            assert plain == spec.replace(chunk=None, shard=None, chunk_origin=None)
            assert opened.spec.chunk == layout.chunk

    def test_changing_an_array_after_it_was_written_changes_nothing_stored(self) -> None:
        spec = self.plain_spec((8, 8, 8))
        with self.location() as url:
            store = self.create(url, spec, self.uncompressed_layout)
            array = voxels(spec)
            store.write(spec.box, array)
            array[:] = 0
            np.testing.assert_array_equal(open_store(url).read(spec.box), voxels(spec))

    def test_zeros_are_stored_like_any_other_voxel(self) -> None:
        if self.zeros_are_missing:
            pytest.skip("the format cannot distinguish zeros from missing chunks")
        spec = self.plain_spec()
        with self.location() as url:
            store = self.create(url, spec, self.plain_layout)
            write_all(store, np.zeros(spec.shape, spec.dtype))
            assert not open_store(url).read(spec.box).any()

    def test_a_missing_chunk_is_an_error_unless_told(self) -> None:
        spec = self.plain_spec()
        with self.location() as url:
            store = self.create(url, spec, self.plain_layout)
            units = list(BlockGrid(spec.box, store.spec.write_unit or spec.box.shape, store.spec.chunk_origin))
            array = voxels(spec)
            for box in units[1:]:
                store.write(box, array[box.slices(spec.box)])
            with pytest.raises(MissingChunkError):
                open_store(url).read(spec.box)
            array[units[0].slices(spec.box)] = 0
            with counting() as counts:
                np.testing.assert_array_equal(open_store(url, fill_missing=True).read(spec.box), array)
            assert store.spec.chunk is not None
            assert counts["missing_chunks"] == len(BlockGrid(units[0], store.spec.chunk, store.spec.chunk_origin))

    def test_a_chunk_cut_short_is_an_error_that_names_it(self) -> None:
        if not self.detects_truncation:
            pytest.skip("the format has no way to notice")
        spec = self.plain_spec()
        for kept in (0, 0.6):
            with self.local_location() as path:
                write_all(self.create(path, spec, self.plain_layout), voxels(spec))
                for chunk in self.chunk_objects(path):
                    chunk.write_bytes(chunk.read_bytes()[: int(kept * chunk.stat().st_size)])
                with pytest.raises(CorruptChunkError, match="layer"):
                    open_store(path, fill_missing=True).read(spec.box)

    def test_a_store_travels_to_other_processes_small(self) -> None:
        spec = self.plain_spec()
        with self.written(spec) as (_, store, array):
            sent = pickle.dumps(store)
            assert len(sent) < 4000
            np.testing.assert_array_equal(pickle.loads(sent).read(spec.box), array)

    def test_threads_write_and_read_their_own_units(self) -> None:
        spec = self.plain_spec((16, 16, 16))
        with self.location() as url:
            store = self.create(url, spec, self.plain_layout)
            array = voxels(spec)
            units = list(BlockGrid(spec.box, store.spec.write_unit or spec.box.shape, store.spec.chunk_origin))

            def write_and_read(box: BoundingBox) -> bool:
                part = array[box.slices(spec.box)]
                store.write(box, part)
                return bool((store.read(box) == part).all())

            with ThreadPoolExecutor(4) as pool:
                assert all(pool.map(write_and_read, units))
            np.testing.assert_array_equal(store.read(spec.box), array)

    def test_boxes_outside_the_volume_are_refused(self) -> None:
        spec = self.plain_spec()
        with self.location() as url:
            store = self.create(url, spec, self.plain_layout)
            beyond = spec.box.grow(0, (0, 0, 1))
            with pytest.raises(BoundsError, match="not inside"):
                store.read(beyond)
            with pytest.raises(BoundsError, match="not inside"):
                store.write(beyond, np.zeros(beyond.shape, spec.dtype))

    def test_a_write_that_would_share_a_unit_is_refused_with_the_nearest(self) -> None:
        spec = self.plain_spec((16, 16, 16))
        with self.location() as url:
            store = self.create(url, spec, self.plain_layout)
            unit = store.spec.write_unit
            assert unit is not None
            box = BoundingBox.from_size(spec.box.start, (unit[0], unit[1], unit[2] - 1))
            nearest = BoundingBox.from_size(spec.box.start, unit)
            with pytest.raises(AlignmentError, match=f"nearest is {nearest}"):
                store.write(box, np.ones(box.shape, spec.dtype))

    def test_an_array_of_another_shape_or_dtype_is_refused(self) -> None:
        spec = self.plain_spec()
        other = "float32" if spec.dtype != np.float32 else "uint8"
        with self.location() as url:
            store = self.create(url, spec, self.plain_layout)
            with pytest.raises(ParameterError, match="shape"):
                store.write(spec.box, np.ones((1, 1, 1), spec.dtype))
            with pytest.raises(ParameterError, match="astype"):
                store.write(spec.box, np.ones(spec.shape, other))

    def test_a_mip_that_is_not_there_is_named_with_those_that_are(self) -> None:
        with self.location() as url:
            self.create(url, self.plain_spec(), self.plain_layout)
            with pytest.raises(StoreNotFoundError, match="no mip 3; it has only mip 0"):
                open_store(url, mip=3)

    def test_a_second_mip_leaves_the_first_as_it_was(self) -> None:
        if not self.several_mips:
            pytest.skip("the format holds one mip")
        spec = self.plain_spec()
        coarse = spec.replace(box=spec.box.coarsen(2), voxel_size=(80.0, 8.0, 8.0), chunk_origin=None)
        with self.written(spec) as (url, first, array):
            second = self.create(url, coarse, self.plain_layout, mip=1)
            write_all(second, voxels(coarse, seed=1))
            assert open_store(url).mips == (first.spec, second.spec)
            np.testing.assert_array_equal(open_store(url).read(spec.box), array)
            np.testing.assert_array_equal(open_store(url, mip=1).read(coarse.box), voxels(coarse, seed=1))
            assert open_store(url, mip=-1).fingerprint() == open_store(url, mip=1).fingerprint()

    def test_another_mip_is_opened_with_all_that_was_stated(self) -> None:
        if not self.several_mips:
            pytest.skip("the format holds one mip")
        spec = self.plain_spec()
        coarse = spec.replace(box=spec.box.coarsen(2), voxel_size=(80.0, 8.0, 8.0), chunk_origin=None)
        with self.location() as url:
            for mip, level in enumerate((spec, coarse)):
                self.create(url, level, self.plain_layout, mip=mip)
            other = open_store(url, fill_missing=True, layer_type="probability_map").with_mip(1)
            assert (other.mip, other.fill_missing) == (1, True)
            assert other.spec.box == coarse.box
            assert {level.layer_type for level in other.mips} == {"probability_map"}
            assert other.with_mip(0).mips == other.mips
            assert not open_store(url).with_mip(1).fill_missing
            with pytest.raises(StoreNotFoundError, match="no mip 2"):
                other.with_mip(2)

    def test_creating_what_is_there_and_agrees_opens_it(self) -> None:
        spec = self.plain_spec()
        with self.written(spec) as (url, _, array):
            again = self.create(url, spec, self.plain_layout)
            np.testing.assert_array_equal(again.read(spec.box), array)

    def test_metadata_that_differ_are_refused_with_both_values(self) -> None:
        spec = self.plain_spec()
        wider = spec.replace(box=BoundingBox.from_size(spec.box.start, (6, 10, 99)), chunk_origin=None)
        with self.location() as url:
            self.create(url, spec, self.plain_layout)
            before = {name: kvstore.read_bytes(f"{url}/{name}") for name in kvstore.list_names(url)}
            for changed, layout in ((wider, self.plain_layout), (spec, Layout(chunk=(2, 2, 2)))):
                with pytest.raises(MetadataMismatchError) as caught:
                    self.create(url, changed, layout)
                assert ("99" if changed is wider else "2, 2, 2") in str(caught.value)
                assert ("12" if changed is wider else "4, 4, 4") in str(caught.value)
            assert {name: kvstore.read_bytes(f"{url}/{name}") for name in kvstore.list_names(url)} == before

    def test_the_fingerprint_is_json_and_the_same_for_the_same_layer(self) -> None:
        with self.location() as url:
            store = self.create(url, self.plain_spec(), self.plain_layout)
            assert json.loads(json.dumps(store.fingerprint())) == open_store(url).fingerprint()

    def test_the_fingerprint_changes_with_the_geometry(self) -> None:
        prints = []
        for size in ((6, 10, 12), (6, 10, 13)):
            with self.location() as url:
                print_of = self.create(url, self.plain_spec(size), self.plain_layout).fingerprint()
                prints.append({name: value for name, value in print_of.items() if name != "url"})
        assert prints[0] != prints[1]

    def test_reading_and_asking_leave_the_fingerprint_as_it_is(self) -> None:
        spec = self.plain_spec()
        with self.location() as url, self.local_location() as path:
            for place in (url, path):
                store = self.create(place, spec, self.plain_layout)
                write_all(store, voxels(spec))
                before = store.fingerprint()
                time.sleep(0.02)
                open_store(place).read(spec.box)
                self.create(place, spec, self.plain_layout).check_writable()
                assert open_store(place).fingerprint() == before

    def test_voxels_rewritten_on_disk_change_the_fingerprint(self) -> None:
        spec = self.plain_spec()
        with self.local_location() as path:
            store = self.create(path, spec, self.plain_layout)
            write_all(store, voxels(spec))
            before = store.fingerprint()
            time.sleep(0.02)
            write_all(store, voxels(spec, seed=1))
            assert store.fingerprint() != before

    def test_a_layer_that_is_deleted_and_made_anew_has_another_fingerprint(self) -> None:
        spec = self.plain_spec()
        with self.location() as url:
            prints = []
            for _ in range(2):
                kvstore.delete_tree(url)
                store = self.create(url, spec, self.plain_layout)
                write_all(store, voxels(spec))
                prints.append(store.fingerprint())
                time.sleep(0.02)
            assert prints[0] != prints[1]

    def test_a_second_mip_leaves_the_fingerprint_of_the_first_as_it_was(self) -> None:
        if not self.several_mips:
            pytest.skip("the format holds one mip")
        spec = self.plain_spec()
        with self.location() as url, self.local_location() as path:
            for place in (url, path):
                first = self.create(place, spec, self.plain_layout)
                write_all(first, voxels(spec))
                before = first.fingerprint()
                for mip in (1, 2):
                    time.sleep(0.02)
                    size = (40.0 * 2**mip, 4.0 * 2**mip, 4.0 * 2**mip)
                    coarse = spec.replace(box=spec.box.coarsen(2**mip), voxel_size=size, chunk_origin=None)
                    write_all(self.create(place, coarse, self.plain_layout, mip=mip), voxels(coarse))
                    assert open_store(place).fingerprint() == before
                    assert open_store(place, mip=mip).fingerprint() != before

    def test_asking_whether_it_is_writable_leaves_nothing_behind(self) -> None:
        with self.location() as url:
            store = self.create(url, self.plain_spec(), self.plain_layout)
            before = kvstore.list_names(url)
            store.check_writable()
            assert kvstore.list_names(url) == before

    @pytest.mark.parametrize("dtype", ["bool", "complex64"])
    def test_a_dtype_the_format_cannot_hold_is_refused_with_a_cast(self, dtype: str) -> None:
        if dtype in self.dtypes:
            pytest.skip(f"the format holds {dtype}")
        with self.location() as url, pytest.raises(ParameterError, match=r"astype\('"):
            self.create(url, self.plain_spec().replace(dtype=np.dtype(dtype)), self.plain_layout)
