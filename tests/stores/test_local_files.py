from __future__ import annotations

import os
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import ParameterError, StoreAccessError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import Layout
from daskflow.stores.local_files import begins_with, deflate, deflate_level, local_file, natural_order, replacing, slabs
from daskflow.testing.stores import triples


@given(size=triples(1, 300), start=triples(-50, 50), unit=st.integers(1, 100))
def test_slabs_tile_the_volume_in_whole_units(size, start, unit):
    spec = VolumeSpec(BoundingBox.from_size(start, size), np.dtype("uint8"))
    parts = list(slabs(spec, unit))
    assert [part.start[0] for part in parts[1:]] == [part.stop[0] for part in parts[:-1]]
    assert (parts[0].start, parts[-1].stop) == (spec.box.start, spec.box.stop)
    assert all((part.start[0] - start[0]) % unit == 0 for part in parts)
    assert all(part.start[1:] == start[1:] and part.stop[1:] == spec.box.stop[1:] for part in parts)


def test_slabs_of_large_sections_are_thin():
    spec = VolumeSpec(BoundingBox((0, 0, 0), (500, 30_000, 30_000)), np.dtype("uint8"))
    assert next(slabs(spec)).shape[0] == 1
    assert next(slabs(spec, 16)).shape[0] == 16


def test_names_are_ordered_as_people_count():
    names = ["z10b", "z9", "a", "z10a", "z007", "10", "9"]
    assert sorted(names, key=natural_order) == ["9", "10", "a", "z007", "z9", "z10a", "z10b"]


def test_a_file_takes_its_place_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file"
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    with pytest.raises(FileNotFoundError), replacing(path) as temporary:
        temporary.with_name("missing").read_text()
    assert path.read_text() == "whole"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_write_permission_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(StoreAccessError, match="cannot write"), replacing(tmp_path / "file") as temporary:
        temporary.write_text("")


@given(data=st.binary(max_size=300), level=st.integers(0, 9))
def test_every_level_makes_what_zlib_reads(data, level):
    assert zlib.decompress(deflate(level)(data)) == data


@pytest.mark.parametrize("level", [-1, 10])
def test_other_levels_are_refused(level):
    with pytest.raises(ParameterError, match=f"level {level}"):
        deflate_level(Layout(quality=level), ("gzip",), "HDF5")


def test_files_are_known_by_their_first_bytes_and_must_be_local(tmp_path):
    (tmp_path / "a").write_bytes(b"MAGIC and more")
    assert begins_with(str(tmp_path / "a"), (b"other", b"MAGIC"))
    assert not begins_with(str(tmp_path / "a"), (b"other",))
    assert not begins_with(str(tmp_path), (b"MAGIC",))
    assert not begins_with("s3://bucket/a", (b"MAGIC",))
    with pytest.raises(StoreAccessError, match="copy it there first"):
        local_file("s3://bucket/a")
