"""PNG files, one per section."""

from __future__ import annotations

import numpy as np
import pytest

import daskflow
from daskflow.errors import CorruptChunkError, GeometryError, MetadataMismatchError, MissingChunkError, ParameterError
from daskflow.geometry import BoundingBox

imagecodecs = pytest.importorskip("imagecodecs")


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", None), ("uint16", None), ("uint8", 3)])
def test_sections_that_were_saved_open_at_their_z(tmp_path, dtype, channels):
    shape = (*(() if channels is None else (channels,)), 70, 6, 5)
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    volume = daskflow.open(array, voxel_offset=(98, 0, 0))
    daskflow.save(volume, tmp_path / "stack", format="png").run(progress=False)
    assert sorted(file.name for file in (tmp_path / "stack").iterdir())[:2] == ["00098.png", "00099.png"]
    again = daskflow.open(tmp_path / "stack")
    assert (again.box, again.dtype, again.channels) == (volume.box, volume.dtype, channels)
    part = BoundingBox((160, 1, 2), (166, 5, 4))
    np.testing.assert_array_equal(again.read(part), volume.read(part))


def test_jobs_of_other_sections_add_files_to_a_directory(tmp_path):
    for z in (0, 4):
        volume = daskflow.create_chunk(size=(4, 8, 8), voxel_offset=(z, 0, 0), pattern="random")
        daskflow.save(volume, tmp_path / "stack", format="png").run(progress=False)
    assert daskflow.open(tmp_path / "stack").shape == (8, 8, 8)
    with pytest.raises(MetadataMismatchError, match="exists"):
        daskflow.save(daskflow.create_chunk(size=(5, 8, 8)), tmp_path / "stack", format="png").check()


def test_what_lacks_or_differs_among_sections_is_refused(tmp_path):
    for z in (3, 4, 6):
        (tmp_path / f"s{z}.png").write_bytes(imagecodecs.png_encode(np.full((4, 5), z, np.uint8)))
    with pytest.raises(MissingChunkError, match=r"s5\.png"):
        daskflow.open(tmp_path)
    filled = daskflow.open(tmp_path, fill_missing=True)
    assert filled.box == BoundingBox((3, 0, 0), (7, 4, 5))
    assert filled.read()[:, 0, 0].tolist() == [3, 4, 0, 6]
    (tmp_path / "t1.png").write_bytes(imagecodecs.png_encode(np.full((2, 2), 9, np.uint8)))
    assert daskflow.open(tmp_path / "t").box == BoundingBox((1, 0, 0), (2, 2, 2))
    (tmp_path / "t1.png").unlink()
    (tmp_path / "s5.png").write_bytes(imagecodecs.png_encode(np.zeros((4, 6), np.uint8)))
    with pytest.raises(GeometryError, match="4 x 6"):
        daskflow.open(tmp_path)
    (tmp_path / "s5.png").write_bytes((tmp_path / "s4.png").read_bytes()[:-20])
    with pytest.raises(CorruptChunkError, match=r"s5\.png"):
        daskflow.open(tmp_path).read()


def test_sections_do_not_move_when_the_first_goes(tmp_path):
    for z in (3, 4, 5):
        (tmp_path / f"{z}.png").write_bytes(imagecodecs.png_encode(np.full((4, 5), z, np.uint8)))
    opened = daskflow.open(tmp_path)
    (tmp_path / "3.png").unlink()
    with pytest.raises(CorruptChunkError, match="2 sections; it had 3"):
        opened.read(BoundingBox((4, 0, 0), (5, 4, 5)))


def test_what_sections_in_files_cannot_be_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="directory"):
        daskflow.save(daskflow.create_chunk(size=(4, 8, 8)), tmp_path / "a.png").check()
    with pytest.raises(ParameterError, match="float32"):
        daskflow.save(daskflow.create_chunk(size=(4, 8, 8), dtype="float32"), tmp_path / "a", format="png").check()
