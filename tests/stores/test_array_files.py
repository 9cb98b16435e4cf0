"""NIfTI, NRRD and crackle files: what is written is what their libraries read, and the other way round."""

from __future__ import annotations

import bz2
import gzip
import tracemalloc

import numpy as np
import pytest

import daskflow
from daskflow.errors import CorruptChunkError, GeometryError, ParameterError
from daskflow.geometry import BoundingBox

BOX = BoundingBox((-3, 20, 7), (67, 29, 19))  # more sections than one slab


def _volume(dtype: str, channels: int | None, layer_type: str | None = None) -> daskflow.Volume:
    shape = (*(() if channels is None else (channels,)), *BOX.shape)
    array = np.random.default_rng(0).integers(0, 120, shape).astype(dtype)
    return daskflow.open(array, voxel_offset=BOX.start, voxel_size=(40, 8.1, 4), layer_type=layer_type)


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize(
    ("name", "compression"), [("a.nii", None), ("a.nii.gz", None), ("a.nrrd", None), ("a.nrrd", "none")]
)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint64", "float32"])
def test_a_file_that_was_saved_opens_as_the_same_volume(tmp_path, name, compression, dtype, channels):
    volume = _volume(dtype, channels, "segmentation" if dtype == "uint64" else None)
    daskflow.save(volume, tmp_path / name, compression=compression).run(progress=False)
    again = daskflow.open(tmp_path / name)
    assert (again.box, again.dtype, again.channels) == (volume.box, volume.dtype, channels)
    assert (again.voxel_size, again.layer_type) == (volume.voxel_size, volume.layer_type)
    np.testing.assert_array_equal(again.read(), volume.read())
    part = BoundingBox((60, 21, 9), (66, 22, 18))
    np.testing.assert_array_equal(again.read(part), volume.read(part))


def test_nibabel_reads_what_was_saved_and_its_own_files_open(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    volume = _volume("int16", None)
    daskflow.save(volume, tmp_path / "a.nii.gz").run(progress=False)
    image = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, volume.read())
    assert image.header.get_xyzt_units()[0] == "micron"
    np.testing.assert_allclose(image.affine @ [0, 0, 0, 1], [7 * 0.004, 20 * 0.0081, -3 * 0.04, 1], rtol=1e-6)

    turned = np.diag([-0.5, 0.5, 2.0, 1.0])  # mm; the position of a turned image is not one of voxels here
    turned[:3, 3] = 90
    theirs = nibabel.Nifti1Image(volume.read().T.astype(np.float32), turned)
    theirs.header.set_xyzt_units("mm")
    nibabel.save(theirs, tmp_path / "b.nii")
    opened = daskflow.open(tmp_path / "b.nii")
    assert (opened.box.start, opened.voxel_size) == ((0, 0, 0), (2e6, 0.5e6, 0.5e6))
    np.testing.assert_array_equal(opened.read(), volume.read())

    theirs.header.set_slope_inter(0.5, 3)
    theirs.header.set_data_dtype(np.int16)
    nibabel.save(theirs, tmp_path / "scaled.nii")
    np.testing.assert_allclose(
        daskflow.open(tmp_path / "scaled.nii").read(), np.asarray(nibabel.load(tmp_path / "scaled.nii").dataobj).T
    )

    movie = nibabel.Nifti1Image(np.zeros((4, 5, 6, 2), np.uint8), np.eye(4))
    nibabel.save(movie, tmp_path / "movie.nii")
    with pytest.raises(GeometryError, match="--time"):
        daskflow.open(tmp_path / "movie.nii")
    assert daskflow.open(tmp_path / "movie.nii", axes="xyzc").shape == (2, 6, 5, 4)


def test_pynrrd_reads_what_was_saved_and_its_own_files_open(tmp_path):
    nrrd = pytest.importorskip("nrrd")
    volume = _volume("uint16", None)
    daskflow.save(volume, tmp_path / "a.nrrd").run(progress=False)
    array, header = nrrd.read(str(tmp_path / "a.nrrd"))
    np.testing.assert_array_equal(array.T, volume.read())
    np.testing.assert_array_equal(header["space directions"], np.diag([4, 8.1, 40]))

    colours = np.random.default_rng(1).integers(0, 255, (3, 6, 5, 4), np.uint8)
    stated = {"spacings": [np.nan, 6, 5, 4], "units": ["", "nm", "nm", "nm"]}
    kinds = {"kinds": ["RGB-color", "domain", "domain", "domain"]}
    nrrd.write(str(tmp_path / "b.nhdr"), colours, {**kinds, **stated})  # whose voxels are in a file beside it
    opened = daskflow.open(tmp_path / "b.nhdr")
    assert (opened.shape, opened.voxel_size) == ((3, 4, 5, 6), (4, 5, 6))
    np.testing.assert_array_equal(opened.read(), colours.transpose(0, 3, 2, 1))
    before = opened.stored.fingerprint()
    beside = next(file for file in tmp_path.glob("b.raw*"))
    beside.write_bytes(beside.read_bytes() + b" ")
    assert opened.stored.fingerprint() != before


def test_labels_of_a_crackle_file_are_read_by_sections(tmp_path):
    crackle = pytest.importorskip("crackle")
    labels = np.random.default_rng(2).integers(0, 9, (6, 5, 4)).astype(np.uint32)
    crackle.save(labels, str(tmp_path / "a.ckl"))
    opened = daskflow.open(tmp_path / "a.ckl", voxel_size=(40, 4, 4))
    assert (opened.dtype, opened.layer_type) == (np.uint32, "segmentation")
    np.testing.assert_array_equal(opened.read(), labels.T)
    np.testing.assert_array_equal(opened.read(BoundingBox((1, 2, 3), (3, 5, 6))), labels.T[1:3, 2:5, 3:6])
    with pytest.raises(ParameterError, match="only read"):
        daskflow.save(opened, tmp_path / "b.ckl", format="crackle")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd"])
def test_a_file_that_is_cut_short_is_damaged(tmp_path, name):
    daskflow.save(_volume("uint8", None), tmp_path / name).run(progress=False)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptChunkError, match=name):
        daskflow.open(tmp_path / name).read()


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd"])
def test_a_gzip_file_that_disagrees_with_its_checksum_is_damaged(tmp_path, name):
    daskflow.save(_volume("uint8", None), tmp_path / name).run(progress=False)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:])
    with pytest.raises(CorruptChunkError, match=name):
        daskflow.open(tmp_path / name).read()


@pytest.mark.parametrize("packing", ["gzip", "bzip2"])
def test_no_more_is_unpacked_than_the_header_states(tmp_path, packing):
    nrrd = pytest.importorskip("nrrd")
    array = np.random.default_rng(0).integers(0, 9, (4, 5, 6)).astype(np.int16)
    nrrd.write(str(tmp_path / "a.nrrd"), array, {"encoding": packing})
    np.testing.assert_array_equal(daskflow.open(tmp_path / "a.nrrd").read(), array.T)
    header, _, _ = (tmp_path / "a.nrrd").read_bytes().partition(b"\n\n")
    module = {"gzip": gzip, "bzip2": bz2}[packing]
    bomb = module.compress(bytes(2**26), 1)
    (tmp_path / "a.nrrd").write_bytes(header + b"\n\n" + bomb)
    tracemalloc.start()
    with pytest.raises(CorruptChunkError, match=r"holds more bytes, and its header states 240: int16 \(4, 5, 6\)"):
        daskflow.open(tmp_path / "a.nrrd").read()
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_a_name_that_tells_nothing_of_gzip_is_refused(tmp_path):
    with pytest.raises(ParameterError, match=r"\.nii"):
        daskflow.save(_volume("uint8", None), tmp_path / "a", format="nifti").check()


def test_damaged_labels_are_refused_and_break_no_process(tmp_path):
    crackle = pytest.importorskip("crackle")
    labels = np.random.default_rng(2).integers(0, 9, (6, 5, 4)).astype(np.uint32)
    whole = crackle.compress(labels)
    place = tmp_path / "a.ckl"
    refused = []
    for at in (6, 25, 60, 193, 207, 228, 235):  # with some the labels are right nevertheless
        place.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            np.testing.assert_array_equal(daskflow.open(place).read(), labels.T)
        except CorruptChunkError:
            refused.append(at)
    assert {6, 25, 60} <= set(refused)
    place.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptChunkError, match=r"a\.ckl"):
        daskflow.open(place).read()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("a.nrrd", b"uint8", b"uimt8"),
        ("a.nrrd", b"encoding", b"encodimg"),
        ("a.nrrd", b"(", b"["),
        ("a.nii", b"n+1\0", b"n\0+1"),
        ("a.npy", b"'descr'", b"'descr "),
    ],
)
def test_a_damaged_header_is_refused_in_words(tmp_path, name, old, new):
    daskflow.save(_volume("uint8", None), tmp_path / name).run(progress=False)
    whole = (tmp_path / name).read_bytes()
    assert old in whole
    (tmp_path / name).write_bytes(whole.replace(old, new, 1))
    with pytest.raises(CorruptChunkError, match=name):
        daskflow.open(tmp_path / name).read()


@pytest.mark.parametrize("named", ["../secret", "/etc/hostname"])
def test_a_header_cannot_name_files_elsewhere(tmp_path, named):
    (tmp_path / "secret").write_bytes(bytes(8))
    place = tmp_path / "in" / "a.nhdr"
    place.parent.mkdir()
    head = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n"
    place.write_text(f"{head}data file: {named}\n")
    with pytest.raises(CorruptChunkError, match="beside"):
        daskflow.open(place).read()


def test_a_position_with_more_digits_than_nifti_holds_is_refused(tmp_path):
    volume = daskflow.open(np.ones((2, 2, 2), np.uint8), voxel_offset=(123456789, 0, 0), voxel_size=(40, 4, 4))
    with pytest.raises(ParameterError, match="float32"):
        daskflow.save(volume, tmp_path / "a.nii").check()
