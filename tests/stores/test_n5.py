"""N5: what daskflow writes, what others write, and blocks as the specification has them."""

from __future__ import annotations

import gzip
import json
import struct

import numpy as np
import pytest
import tensorstore as ts
from hypothesis import given, settings
from hypothesis import strategies as st

import daskflow
from daskflow.errors import DaskflowError, GeometryError, MetadataMismatchError, ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores.base import Layout
from daskflow.stores.opening import create_store, open_store
from daskflow.testing.stores import StoreSuite, damaged, voxels, write_all

SPEC = VolumeSpec(BoundingBox((-3, 5, 8), (9, 20, 30)), np.uint16, voxel_size=(40.0, 4.0, 5.0), layer_type="image")


class TestN5(StoreSuite):
    format = "n5"
    suffix = ".n5"
    dtypes = ("uint8", "uint16", "uint64", "int32", "float32", "float64")
    plain_layout = Layout(chunk=(4, 4, 4), encoding="gzip")


def attributes(path):
    return json.loads((path / "attributes.json").read_text())


def put(path, **values):
    path.mkdir(parents=True, exist_ok=True)
    (path / "attributes.json").write_text(json.dumps(values))


def array(path, shape=(6, 8, 10), dtype="uint16", **more):
    """Write an array as tensorstore does, in xyz."""
    sizes = {"dimensions": shape[::-1], "blockSize": [4] * len(shape)}
    metadata = {**sizes, "dataType": dtype, "compression": {"type": "gzip"}}
    content = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    spec = {"driver": "n5", "kvstore": f"file://{path}", "metadata": metadata}
    ts.open(spec, create=True).result().T[...].write(content).result()
    if more:
        put(path, **{**attributes(path), **more})
    return content


def test_a_block_is_as_the_specification_has_it(tmp_path):
    create_store(tmp_path / "a.n5", SPEC, layout=Layout(chunk=(4, 8, 16))).write(SPEC.box, voxels(SPEC))
    data = (tmp_path / "a.n5/s0/1/0/2").read_bytes()
    mode, ndim, *size = struct.unpack(">HHIII", data[:16])
    assert (mode, ndim, size) == (0, 3, [16, 8, 4])  # x, y, z
    found = np.frombuffer(gzip.decompress(data[16:]), ">u2").reshape(size[::-1])
    assert (found[:, :, :6] == voxels(SPEC)[8:12, 0:8, 16:22]).all()


def test_a_block_that_was_written_by_hand_is_read(tmp_path):
    put(tmp_path / "a", dimensions=[5, 2, 2], blockSize=[3, 2, 2], dataType="int32", compressionType="raw")
    content = np.arange(20).reshape(2, 2, 5)
    for number, part in enumerate((content[:, :, :3], content[:, :, 3:])):  # the second is cut, as Java writes it
        block = tmp_path / f"a/{number}/0/0"
        block.parent.mkdir(parents=True)
        block.write_bytes(struct.pack(">HHIII", 0, 3, *part.shape[::-1]) + part.astype(">i4").tobytes())
    assert (open_store(tmp_path / "a").read(BoundingBox((0, 0, 0), (2, 2, 5))) == content).all()


def test_tensorstore_reads_what_is_written(tmp_path):
    spec = SPEC.replace(channels=2)
    create_store(tmp_path / "a.n5", spec, layout=Layout(chunk=(4, 8, 16))).write(spec.box, voxels(spec))
    opened = ts.open({"driver": "n5", "kvstore": f"file://{tmp_path}/a.n5/s0"}).result()
    assert opened.domain.labels == ("x", "y", "z", "c")
    assert [str(unit) for unit in opened.dimension_units][:3] == ["5 nm", "4 nm", "40 nm"]
    assert (voxels(spec) == opened.read().result().T).all()


def test_the_metadata_of_an_image_are_those_of_viewers(tmp_path):
    volume = daskflow.Volume.from_array(voxels(SPEC), voxel_size=(40, 4, 5), voxel_offset=(2, 4, 8))
    daskflow.save(volume, tmp_path / "a.n5", levels=2).run(progress=False)
    group = attributes(tmp_path / "a.n5")
    assert group["downsamplingFactors"] == [[1, 1, 1], [2, 2, 1], [4, 4, 1]]
    assert (group["axes"], group["units"], group["resolution"]) == (["x", "y", "z"], ["nm"] * 3, [5, 4, 40])
    assert (group["offset"], group["multiScale"]) == ([40, 16, 80], True)
    assert attributes(tmp_path / "a.n5/s2")["downsamplingFactors"] == [4, 4, 1]


HALF = {"downsamplingFactors": [2, 2, 1]}
IN_UM = {"resolution": [0.005, 0.004, 0.04], "units": ["um"] * 3}
PLACED = {f: {"axes": ["z", "y", "x"], "scale": [40, 4 * f, 5 * f], "units": ["nm"] * 3} for f in (1, 2)}


@pytest.mark.parametrize(
    ("group", "finest", "coarse", "where"),
    [
        ({"pixelResolution": {"unit": "um", "dimensions": [0.005, 0.004, 0.04]}}, {}, HALF, "pixelResolution"),  # Java
        ({"multiScale": True, "resolution": [5, 4, 40]}, {}, HALF, "resolution"),  # Paintera, BigDataViewer
        ({"scales": [[1, 1, 1], [2, 2, 1]], **IN_UM}, {}, {}, "resolution"),  # Neuroglancer
        ({}, {"transform": PLACED[1]}, {"transform": PLACED[2]}, "transform"),  # COSEM
        ({"resolution": [40, 4, 5], "axis_names": ["z", "y", "x"]}, {}, {}, "resolution"),  # Python
    ],
)
def test_levels_of_others_have_their_voxel_size(tmp_path, group, finest, coarse, where):
    put(tmp_path / "a.n5", n5="2.0.0")
    put(tmp_path / "a.n5/raw", **group)
    array(tmp_path / "a.n5/raw/s0", (6, 8, 10), **finest)
    content = array(tmp_path / "a.n5/raw/s1", (6, 4, 5), **coarse)
    store = open_store(f"{tmp_path}/a.n5/raw", mip=1)
    assert [spec.voxel_size for spec in store.mips] == [(40, 4, 5), (40, 8, 10)]
    assert store.sources["voxel_size"] == f"attribute {where}"
    assert (store.read(store.spec.box) == content).all()
    assert open_store(tmp_path / "a.n5", dataset="raw").mips == store.mips
    if "axis_names" not in group:
        assert open_store(tmp_path / "a.n5/raw/s1").spec.voxel_size == (40, 8, 10)


def test_what_is_stated_holds_for_all_levels(tmp_path):
    for name, shape in (("s0", (6, 8, 10)), ("s1", (6, 4, 5))):
        array(tmp_path / "a.n5" / name, shape)
    assert [spec.coarseness for spec in open_store(tmp_path / "a.n5").mips] == [(1, 1, 1), (1, 2, 2)]
    store = open_store(tmp_path / "a.n5", mip=1, voxel_size=(40, 8, 10), voxel_offset=(3, 5, 7))
    assert [spec.voxel_size for spec in store.mips] == [(40, 4, 5), (40, 8, 10)]
    assert [spec.box.start for spec in store.mips] == [(3, 10, 14), (3, 5, 7)]


def test_a_group_an_image_with_unnamed_channels_and_what_is_not_n5_are_refused_with_what_helps(tmp_path):
    put(tmp_path / "a.n5", n5="2.0.0")
    array(tmp_path / "a.n5/volumes/raw")
    with pytest.raises(ParameterError, match="dataset=, below volumes"):
        open_store(tmp_path / "a.n5")
    array(tmp_path / "b", (3, 6, 8, 10))
    with pytest.raises(GeometryError, match="--axes zyxc"):
        open_store(tmp_path / "b")
    assert open_store(tmp_path / "b", axes="czyx").spec.shape == (3, 6, 8, 10)
    with pytest.raises(MetadataMismatchError, match="N5 array already"):
        create_store(tmp_path / "b", SPEC, format="n5")
    with pytest.raises(ParameterError, match="encoding 'png'"):
        create_store(tmp_path / "c.n5", SPEC, layout=Layout(encoding="png"))


@pytest.mark.parametrize("encoding", ["raw", "gzip", "zstd", "blosc", "bzip2", "xz"])
def test_every_compression_is_read_back_and_kept_for_further_levels(tmp_path, encoding):
    store = create_store(tmp_path / "a.n5", SPEC, layout=Layout(chunk=(4, 4, 4), encoding=encoding))
    write_all(store, voxels(SPEC))
    assert (open_store(tmp_path / "a.n5").read(SPEC.box) == voxels(SPEC)).all()
    assert store.layout.encoding == encoding


def test_blocks_of_background_are_left_out_if_it_is_0(tmp_path):
    content = np.zeros((8, 8, 8), np.uint8)
    content[:4] = 1
    volume = daskflow.Volume.from_array(content)
    daskflow.save(volume, tmp_path / "a.n5", chunk=(4, 4, 4), delete_background=True).run(progress=False)
    assert len([path for path in (tmp_path / "a.n5/s0").rglob("*") if path.name.isdecimal() and path.is_file()]) == 4
    assert (np.asarray(daskflow.open(tmp_path / "a.n5")) == content).all()
    store = open_store(tmp_path / "a.n5")
    with pytest.raises(ParameterError, match="are zeros, not 7"):
        store.write(BoundingBox((0, 0, 0), (4, 4, 4)), content[:4, :4, :4], drop=7)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_metadata_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "a.n5"
    for mip, spec in enumerate((SPEC, SPEC.coarsened((1, 2, 2)))):
        write_all(create_store(path, spec, mip=mip, layout=Layout(chunk=(8, 8, 16))), voxels(spec))
    file = path / data.draw(st.sampled_from(["attributes.json", "s0/attributes.json", "s1/attributes.json"]))
    file.write_text(json.dumps(data.draw(st.sampled_from(list(damaged(json.loads(file.read_text())))))))
    try:
        for mip in (0, 1):
            store = open_store(path, mip=mip)
            if store.spec.box.size < 10**6:
                store.read(store.spec.box)
            store.fingerprint()
    except DaskflowError:
        pass
