"""chunkflow's names for operators: what they do is what the operators do that they name."""

from __future__ import annotations

import inspect
import pickle
import re

import numpy as np
import pytest
import zarr

import daskflow
from daskflow.operators.aliases import ALIASES
from daskflow.volume import load_operator

SHAPE = (8, 24, 20)


@pytest.fixture(scope="module")
def image():
    array = np.random.default_rng(1).integers(0, 250, SHAPE, np.uint8)
    return daskflow.open(array, voxel_offset=(10, 0, 5), voxel_size=(40, 4, 4))


def test_an_alias_is_a_function_with_the_signature_and_help_of_what_it_calls():
    signature = inspect.signature(daskflow.load_h5)
    assert list(signature.parameters)[:3] == ["file_name", "dataset_path", "dtype"]
    assert signature.parameters["file_name"].default is inspect.Parameter.empty
    assert signature.parameters["dtype"].default is None
    assert "cutout_size: voxels of the box (zyx)" in inspect.getdoc(daskflow.load_h5)
    assert pickle.loads(pickle.dumps(daskflow.load_h5)) is daskflow.load_h5
    with pytest.raises(TypeError, match="cutout"):
        daskflow.load_h5(file_name="a.h5", cutout=1)


@pytest.mark.parametrize("name", ALIASES)
def test_options_of_an_alias_are_those_of_its_line_in_the_table(name):
    said = [re.split(r"[=|]", words.split()[-1])[0] for words in ALIASES[name].options.split(", ")]
    assert [one.name for one in load_operator(name).parameters] == said


def test_a_part_of_a_file_is_cast_and_keeps_its_place(image, tmp_path):
    pytest.importorskip("h5py")
    daskflow.save_h5(image, file_name=tmp_path / "a.h5", dtype="uint16", chunk_size=(4, 8, 8)).run(progress=False)
    stored = daskflow.open(tmp_path / "a.h5")
    assert (stored.dtype, stored.spec.chunk) == (np.uint16, (4, 8, 8))
    start, size = (12, 4, 6), (3, 10, 9)
    part = daskflow.load_h5(file_name=tmp_path / "a.h5", cutout_start=start, cutout_size=size, dtype="float32")
    expected = daskflow.crop(image, start=start, size=size)
    assert (part.dtype, part.box) == (np.float32, expected.box)
    np.testing.assert_array_equal(part.read(), expected.read())
    assert daskflow.load_h5(file_name=tmp_path / "a.h5", cutout_stop=(12, 4, 6)).box.shape == (2, 4, 1)


def test_a_prefix_stands_for_the_file_of_a_box(image, tmp_path):
    pytest.importorskip("h5py")
    daskflow.save_h5(image, file_name=f"{tmp_path}/seg_", compression="lzf").run(progress=False)
    assert (tmp_path / f"seg_{image.box}.h5").exists()
    start = image.box.start
    part = daskflow.load_h5(file_name=f"{tmp_path}/seg_", cutout_start=start, cutout_size=SHAPE)
    np.testing.assert_array_equal(part.read(), image.read())
    daskflow.save_tif(image, file_name=tmp_path / "section", compression="lzw").run(progress=False)
    stack = daskflow.load_tif(file_name=tmp_path / f"section{image.box}.tif")
    np.testing.assert_array_equal(stack.read(), image.read())


def test_channels_and_all_that_is_left_along_an_axis_are_loaded(tmp_path):
    pytest.importorskip("h5py")
    array = np.random.default_rng(0).random((3, *SHAPE), np.float32)
    daskflow.save_h5(daskflow.open(array), file_name=tmp_path / "a.h5").run(progress=False)
    part = daskflow.load_h5(
        file_name=tmp_path / "a.h5", channels=(2, 0), cutout_start=(1, 2, 3), cutout_size=(-1, 4, -1)
    )
    np.testing.assert_array_equal(part.read(), array[[2, 0], 1:, 2:6, 3:])


def test_floats_become_bytes_in_a_tiff_as_255_times_what_they_are(tmp_path):
    volume = daskflow.open(np.array([0, 0.5, 1], np.float32).reshape(1, 1, 3))
    daskflow.save_tif(volume, file_name=tmp_path / "a.tif", dtype="uint8").run(progress=False)
    assert daskflow.load_tif(file_name=tmp_path / "a.tif").read().ravel().tolist() == [0, 127, 255]
    daskflow.save_pngs(volume, output_path=tmp_path / "pngs").run(progress=False)
    assert daskflow.load_png(path=tmp_path / "pngs", dtype="float32").read().ravel().tolist() == [0, 127, 255]


def test_an_array_inside_a_zarr_is_named_by_its_path(image, tmp_path):
    zarr.save_array(tmp_path / "x" / "a" / "b", image.read(), zarr_format=2)
    volume = daskflow.load_zarr(store=tmp_path / "x", path="/a/b/", chunk_start=(1, 2, 3), voxel_size=(40, 4, 4))
    np.testing.assert_array_equal(volume.read(), image.read()[1:, 2:, 3:])
    daskflow.save_zarr(image, store=tmp_path / "y.zarr", chunk_size=(4, 8, 8), shard=(8, 16, 16)).run(progress=False)
    np.testing.assert_array_equal(daskflow.load_zarr(store=tmp_path / "y.zarr").read(), image.read())


def test_a_compression_that_a_file_cannot_have_is_refused(image, tmp_path):
    for save, name in ((daskflow.save_h5, "a.h5"), (daskflow.save_tif, "a.tif")):
        with pytest.raises(daskflow.errors.ParameterError, match="br"):
            save(image, file_name=tmp_path / name, compression="br").check()


def test_what_a_volume_is_can_be_said_where_it_is_saved(image, tmp_path):
    pytest.importorskip("h5py")
    said = daskflow.declare(image, voxel_size=(30, 3, 3), layer_type="segmentation")
    assert (said.voxel_size, said.layer_type, said.box) == ((30, 3, 3), "segmentation", image.box)
    np.testing.assert_array_equal(said.with_block((3, 7, 9)).compute(), image.read())
    daskflow.save_h5(image, file_name=tmp_path / "a.h5", voxel_size=(30, 3, 3), to=(0, 0, 0)).run(progress=False)
    stored = daskflow.load_h5(file_name=tmp_path / "a.h5")
    assert (stored.voxel_size, stored.box.start) == ((30, 3, 3), (0, 0, 0))
    with pytest.raises(daskflow.errors.ParameterError, match="voxel_size="):
        daskflow.declare(image)


def test_a_zarr_may_be_larger_than_what_is_saved_into_it(tmp_path):
    part = daskflow.create_chunk(size=(4, 8, 8), voxel_offset=(4, 0, 8), pattern="random")
    options = {"store": tmp_path / "a.zarr", "shape": (8, 16, 16), "resolution": (40, 4, 4), "chunk_size": (4, 8, 8)}
    daskflow.save_zarr(part, **options, dtype="uint16").run(progress=False)
    stored = daskflow.load_zarr(store=tmp_path / "a.zarr", fill_missing=True)
    assert (stored.shape, stored.voxel_size, stored.dtype) == ((8, 16, 16), (40, 4, 4), np.uint16)
    np.testing.assert_array_equal(stored.read(part.box), part.read())
    assert not stored[:4].read().any()
