from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from daskflow.errors import (
    GeometryError,
    MissingChunkError,
    MissingDependencyError,
    StoreAccessError,
    StoreNotFoundError,
    UnknownFormatError,
)
from daskflow.geometry import BoundingBox
from daskflow.stores.counting import counting
from daskflow.stores.opening import open_store

VOXELS = np.arange(1, 61, dtype="u1").reshape(3, 4, 5)
TWO = np.stack([VOXELS, 100 + VOXELS])


def saved(path, array=VOXELS, name="raw", **attributes):
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(name, data=array)
        dataset.attrs.update(attributes)
    return path


def all_of(store):
    return store.read(store.spec.box)


def tags(names, **more):
    axes = [{"key": name, **{key: value.get(name) for key, value in more.items()}} for name in names]
    return json.dumps({"axes": axes})


@pytest.mark.parametrize("order", ["zyxc", "xyzc", "czyx", "tzyxc", "txyzc"])
def test_ilastik_names_its_axes(tmp_path, order):
    array = TWO.transpose(["czyx".index(name) for name in order.removeprefix("t")])
    array = array[np.newaxis] if "t" in order else array
    store = open_store(saved(tmp_path / "a.h5", array, "exported_data", axistags=tags(order)))
    np.testing.assert_array_equal(all_of(store), TWO)
    assert store.sources["axes"] == "attribute axistags of /exported_data"


def test_single_channels_and_time_points_of_ilastik_are_left_out(tmp_path):
    store = open_store(saved(tmp_path / "a.h5", VOXELS[np.newaxis, ..., np.newaxis], axistags=tags("tzyxc")))
    assert store.spec.channels is None
    np.testing.assert_array_equal(all_of(store), VOXELS)


def test_a_channel_of_ilastik_is_known_by_its_flag(tmp_path):
    said = tags("zyxk", typeFlags={"k": 1, "z": 2, "y": 2, "x": 2})
    store = open_store(saved(tmp_path / "a.h5", np.moveaxis(TWO, 0, -1), axistags=said))
    np.testing.assert_array_equal(all_of(store), TWO)


def test_resolutions_of_axistags_are_known_with_their_units_and_named_without(tmp_path):
    said = tags("xyz", resolution={"x": 4.0, "y": 4.0, "z": 0.04})
    path = saved(tmp_path / "a.h5", VOXELS.T, axistags=said, axis_units=json.dumps({"x": "nm", "y": "nm", "z": "um"}))
    assert open_store(path).spec.voxel_size == (40, 4, 4)
    bare = open_store(saved(tmp_path / "b.h5", VOXELS.T, axistags=said))
    assert bare.spec.voxel_size is None
    assert "z 0.04 ''" in bare.sources["voxel_size"]


@pytest.mark.parametrize(
    "attributes",
    [
        {"axes": "zyxc"},
        {"axis_names": ["z", "y", "x", "c^"]},
        {"axis_order": b"z y x c"},
        {"dims": np.array([b"z", b"y", b"x", b"c"])},
        {"_ARRAY_DIMENSIONS": ["z", "y", "x", "channel"]},
        {"AXES": '["z", "y", "x", "c"]'},
        {"axis_order": "slice-row-column-channel"},
        {"axistags": "zyxc"},
    ],
)
def test_attributes_name_axes(tmp_path, attributes):
    store = open_store(saved(tmp_path / "a.h5", np.moveaxis(TWO, 0, -1), **attributes))
    np.testing.assert_array_equal(all_of(store), TWO)
    assert next(iter(attributes)) in store.sources["axes"]


@pytest.mark.parametrize("scales", [np.arange(4), "zyxc", [b"z", b"y", b"x", b"c"]])
def test_dimension_labels_and_scales_as_plain_text_or_numbers_do_not_crash_h5py(tmp_path, scales):
    said = np.array([b"z", b"y", b"x", b"c"])
    path = saved(tmp_path / "a.h5", np.moveaxis(TWO, 0, -1), DIMENSION_LABELS=said, DIMENSION_LIST=scales)
    np.testing.assert_array_equal(all_of(open_store(path)), TWO)
    saved(tmp_path / "b.h5", DIMENSION_LIST=scales)
    np.testing.assert_array_equal(all_of(open_store(tmp_path / "b.h5")), VOXELS)


@pytest.mark.parametrize("scales", [False, True])
def test_labels_and_scales_of_dimensions_name_axes(tmp_path, scales):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("raw", data=np.moveaxis(TWO, 0, -1))
        for dim, name in zip(dataset.dims, "zyxc", strict=True):
            if scales:
                file[f"axis/{name}"] = np.arange(len(dim))
                file[f"axis/{name}"].make_scale(name)
                dim.attach_scale(file[f"axis/{name}"])
            else:
                dim.label = name
    np.testing.assert_array_equal(all_of(open_store(tmp_path / "a.h5", dataset="raw")), TWO)


def test_four_axes_that_nobody_names_are_refused_and_one_of_several_times_is_chosen(tmp_path):
    path = saved(tmp_path / "a.h5", TWO)
    with pytest.raises(GeometryError, match="--axes zyxc"):
        open_store(path)
    np.testing.assert_array_equal(all_of(open_store(path, axes="czyx")), TWO)
    np.testing.assert_array_equal(all_of(open_store(path, axes="tzyx", time=1)), TWO[1])


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"element_size_um": [0.25, 0.1, 0.1]}, (250, 100, 100)),
        ({"resolution": [40, 4, 4]}, (40, 4, 4)),
        ({"resolution": [0.04, 0.004, 0.004], "units": "um"}, (40, 4, 4)),
        ({"resolution": [0.04, 4, 4], "unit": [b"micron", b"nm", b"nm"]}, (40, 4, 4)),
        ({"voxel_size": "40 4 4"}, (40, 4, 4)),
        ({"pixel_size": [0.25, 0.1, 0.1], "units": "um"}, (250, 100, 100)),
        ({"element_size": [0.25, 0.1, 0.1], "element_size_unit": b"um"}, (250, 100, 100)),
        ({"spacing": [0.25, 0.1, 0.1]}, None),
        ({"VoxelSize": [0.25, 0.1, 0.1], "Unit": "um"}, (250, 100, 100)),
        ({"resolution": [1, 2, 3], "units": "furlong"}, None),
        ({}, None),
    ],
)
def test_voxel_sizes_in_attributes(tmp_path, attributes, size):
    store = open_store(saved(tmp_path / "a.h5", **attributes))
    assert store.spec.voxel_size == size
    assert next(iter(attributes), "not stated") in store.sources["voxel_size"]


def test_sizes_go_with_axes_that_are_stored_as_xyz(tmp_path):
    path = saved(tmp_path / "a.h5", VOXELS.T, axistags=tags("xyz"), resolution=[4, 5, 40], offset=[8, 10, 400])
    spec = open_store(path).spec
    assert (spec.voxel_size, spec.box.start) == ((40, 5, 4), (10, 2, 2))


def test_bigdataviewer_keeps_sizes_in_the_xml_beside_it(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for level in range(2):
            file[f"t00000/s00/{level}/cells"] = VOXELS
        file["s00/resolutions"] = [[1.0, 1, 1], [2, 2, 1]]
    name = "t00000/s00/1/cells"
    assert "a.xml" in open_store(tmp_path / "a.h5", dataset=name).sources["voxel_size"]
    setup = "<ViewSetup><id>0</id><voxelSize><unit>µm</unit><size>0.004 0.005 0.04</size></voxelSize></ViewSetup>"
    (tmp_path / "a.xml").write_text(f"<SpimData>{setup}</SpimData>", encoding="utf-8")
    assert open_store(tmp_path / "a.h5", dataset=name).spec.voxel_size == (40, 10, 8)


def test_imaris_gives_extents(tmp_path):
    def letters(text):
        return np.array([*str(text)], "S1")

    with h5py.File(tmp_path / "a.ims", "w") as file:
        image = file.create_group("DataSetInfo/Image")
        image.attrs.update({f"ExtMin{axis}": letters(0) for axis in range(3)}, Unit=letters("um"))
        image.attrs.update({f"ExtMax{axis}": letters(size) for axis, size in enumerate((0.02, 0.016, 0.12))})
        channel = file.create_group("DataSet/ResolutionLevel 0/TimePoint 0/Channel 0")
        channel.attrs.update({f"ImageSize{a}": letters(n) for a, n in zip("ZYX", VOXELS.shape, strict=True)})
        channel["Data"] = np.pad(VOXELS, [(0, 2), (0, 0), (0, 5)])  # to whole chunks, as Imaris does
    store = open_store(tmp_path / "a.ims")
    assert store.spec.voxel_size == pytest.approx((40, 4, 4))
    np.testing.assert_array_equal(store.read(store.spec.box), VOXELS)


def virtual(path, sources, shape=(2, *VOXELS.shape[1:])):
    layout = h5py.VirtualLayout(shape, "u1")
    for z, name in enumerate(sources):
        layout[z] = h5py.VirtualSource(name, "d", VOXELS.shape[1:])
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("d", layout, fillvalue=9)


def test_virtual_datasets_name_the_files_that_are_gone_and_read_those_that_are_not(tmp_path):
    saved(tmp_path / "s0.h5", VOXELS[0], "d")
    saved(tmp_path / "s1.h5", VOXELS[1], "d")
    virtual(tmp_path / "a.h5", ["s0.h5", "s1.h5"])
    store = open_store(tmp_path / "a.h5")
    np.testing.assert_array_equal(all_of(store), VOXELS[:2])
    before = store.fingerprint()
    (tmp_path / "s1.h5").unlink()
    assert store.fingerprint() != before
    with pytest.raises(MissingChunkError, match=r"s1\.h5 is missing"):
        all_of(store)
    with pytest.raises(MissingChunkError, match=r"s1\.h5 is missing"):
        open_store(tmp_path / "a.h5")
    with counting() as counts:
        found = all_of(open_store(tmp_path / "a.h5", fill_missing=True))
    assert counts == {"missing_chunks": 1}
    np.testing.assert_array_equal(found, [VOXELS[0], np.full((4, 5), 9)])


def test_virtual_datasets_of_virtual_datasets_are_followed(tmp_path):
    layout = h5py.VirtualLayout(VOXELS.shape, "u1")
    layout[:] = h5py.VirtualSource("gone.h5", "d", VOXELS.shape)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_virtual_dataset("d", layout)
    layout = h5py.VirtualLayout(VOXELS.shape, "u1")
    layout[:] = h5py.VirtualSource("b.h5", "d", VOXELS.shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("d", layout)
    with pytest.raises(MissingChunkError, match=r"gone\.h5"):
        open_store(tmp_path / "a.h5")


@pytest.mark.parametrize("lack", ["dataset", "chunks", "map"])
def test_other_gaps_of_virtual_datasets_are_missing_too(tmp_path, lack):
    with h5py.File(tmp_path / "s0.h5", "w") as file:
        if lack == "chunks":
            file.create_dataset("d", (4, 5), "u1", chunks=(2, 5))
        else:
            file["e" if lack == "dataset" else "d"] = VOXELS[0]
    virtual(tmp_path / "a.h5", ["s0.h5"], (2 if lack == "map" else 1, 4, 5))
    said = {"dataset": "no dataset 'd'", "chunks": "chunks of d", "map": "mapped to no file"}[lack]
    with pytest.raises(MissingChunkError, match=said):
        open_store(tmp_path / "a.h5")


def test_files_numbered_by_a_pattern_are_followed(tmp_path):
    for z in (0, 1, 2):
        saved(tmp_path / f"s-{z}.h5", VOXELS[z][np.newaxis], "d")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        space = h5py.h5s.create_simple((3, 4, 5), (h5py.h5s.UNLIMITED, 4, 5))
        space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (1, 1, 1), (1, 4, 5))
        source = h5py.h5s.create_simple((1, 4, 5))
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_virtual(space, b"s-%b.h5", b"d", source)
        h5py.h5d.create(file.id, b"d", h5py.h5t.NATIVE_UINT8, space, plist)
    np.testing.assert_array_equal(all_of(open_store(tmp_path / "a.h5")), VOXELS)


def external(path, name, voxels=VOXELS):
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", voxels.shape, voxels.dtype, external=[(name, 0, voxels.nbytes)])


def test_external_storage_is_read_from_beside_the_file_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    VOXELS.tofile(tmp_path / "in/v.raw")
    external("in/a.h5", "v.raw")
    np.testing.assert_array_equal(all_of(open_store(tmp_path / "in/a.h5")), VOXELS)
    (tmp_path / "in/v.raw").write_bytes(b"short")
    with pytest.raises(MissingChunkError, match=r"v\.raw"):
        open_store(tmp_path / "in/a.h5")
    for elsewhere in (str(tmp_path / "v.raw"), "../v.raw"):
        external(f"in/b{len(elsewhere)}.h5", elsewhere)
        with pytest.raises(StoreAccessError, match="not beside the file"):
            open_store(tmp_path / f"in/b{len(elsewhere)}.h5")


def test_a_dataset_that_is_not_there_is_told_from_a_group(tmp_path):
    with h5py.File(saved(tmp_path / "a.h5"), "a") as file:
        file.create_group("volumes")
    with pytest.raises(StoreNotFoundError, match="no dataset 'labels'; it has raw"):
        open_store(tmp_path / "a.h5", dataset="labels")
    with pytest.raises(StoreNotFoundError, match="no dataset 'volumes', which is a group; it has raw"):
        open_store(tmp_path / "a.h5", dataset="volumes")


def test_datasets_go_by_all_their_names_and_broken_links_break_nothing(tmp_path):
    saved(tmp_path / "other.h5", VOXELS, "deep/raw")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["volumes/raw"] = VOXELS
        file["alias"] = file["volumes/raw"]
        file["soft"] = h5py.SoftLink("/volumes/raw")
        file["loop"] = file["/"]
        file["dangling"] = h5py.SoftLink("/nothing")
        file["gone"] = h5py.ExternalLink("gone.h5", "/raw")
    np.testing.assert_array_equal(all_of(open_store(tmp_path / "a.h5")), VOXELS)
    for name in ("volumes/raw", "alias", "soft", "/loop/alias"):
        np.testing.assert_array_equal(all_of(open_store(tmp_path / "a.h5", dataset=name)), VOXELS)
    with pytest.raises(StoreNotFoundError, match=r"gone is a link to /raw in gone\.h5, a file that is not there"):
        open_store(tmp_path / "a.h5", dataset="gone/deeper")
    with pytest.raises(StoreNotFoundError, match=r"link to /raw in gone\.h5"):
        open_store(tmp_path / "a.h5", dataset="gone")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["far"] = h5py.ExternalLink("other.h5", "/deep/raw")
    store = open_store(tmp_path / "b.h5")
    before = store.fingerprint()
    np.testing.assert_array_equal(all_of(store), VOXELS)
    saved(tmp_path / "other.h5", VOXELS[:2], "deep/raw")
    assert store.fingerprint() != before


def test_a_filter_that_is_not_installed_is_named_with_its_package(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        space = h5py.h5s.create_simple(VOXELS.shape)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(VOXELS.shape)
        plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
        h5py.h5d.create(file.id, b"raw", h5py.h5t.NATIVE_UINT8, space, plist)
    monkeypatch.setitem(__import__("sys").modules, "hdf5plugin", None)
    with pytest.raises(MissingDependencyError, match=r"32015.*pip install hdf5plugin"):
        open_store(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("dtype", "named"),
    [([("a", "u1"), ("b", "f4")], "records"), (complex, "complex128"), (h5py.string_dtype(), "object")],
)
@pytest.mark.parametrize("name", ["main", "volumes/raw"])
def test_what_is_no_number_is_named(tmp_path, dtype, named, name):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset(name, (2, 2, 2), dtype)
    with pytest.raises(UnknownFormatError, match=named):
        open_store(tmp_path / "a.h5")


def test_voxels_in_the_other_byte_order_are_read(tmp_path):
    store = open_store(saved(tmp_path / "a.h5", VOXELS.astype(">u4")))
    found = store.read(BoundingBox((1, 0, 0), (2, 4, 5)))
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, VOXELS[1:2])


def test_a_file_behind_a_header_such_as_matlabs_is_hdf5(tmp_path):
    with h5py.File(tmp_path / "volume.mat", "w", userblock_size=512) as file:
        file["volume"] = VOXELS
    np.testing.assert_array_equal(all_of(open_store(tmp_path / "volume.mat")), VOXELS)


def test_bigdataviewer_keeps_uint16_as_int16(tmp_path):
    voxels = (VOXELS.astype("u2") * 1000).astype("u2")
    with h5py.File(tmp_path / "image.h5", "w") as file:
        file["s00/resolutions"] = np.ones((1, 3))
        file.create_dataset("t00000/s00/0/cells", data=voxels.view("i2"), chunks=(2, 2, 2))
    store = open_store(tmp_path / "image.h5", dataset="t00000/s00/0/cells")
    assert store.spec.dtype == "u2"
    np.testing.assert_array_equal(all_of(store), voxels)


@pytest.mark.parametrize(
    "attributes",
    [{"resolution": 8.0}, {"voxel_size": [8]}, {"resolution": [0.008] * 3, "units": "um, um, um"}],
)
def test_one_number_or_text_stands_for_all_axes(tmp_path, attributes):
    assert open_store(saved(tmp_path / "cube.h5", **attributes)).spec.voxel_size == (8, 8, 8)
