from __future__ import annotations

import json
import logging
import pickle

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import (
    CorruptChunkError,
    GeometryError,
    MetadataMismatchError,
    MissingChunkError,
    ParameterError,
    StoreAccessError,
    StoreNotFoundError,
)
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.base import Layout
from daskflow.stores.opening import create_store, open_store
from daskflow.testing.stores import StoreSuite, triples, voxels, write_all

SPEC = VolumeSpec(
    BoundingBox((-3, 5, 7), (9, 20, 30)), np.dtype("uint8"), voxel_size=(40.0, 4.0, 4.0), layer_type="image"
)
SMALL = Layout(chunk=(4, 4, 4))


class TestOmeZarr05(StoreSuite):
    format = "ome-zarr"
    dtypes = ("uint8", "uint16", "uint64", "int32", "float32", "bool")
    plain_layout = Layout(chunk=(4, 4, 4), shard=(4, 8, 8))

    def layouts(self) -> st.SearchStrategy[Layout]:
        def layout(chunk: tuple[int, int, int], times: tuple[int, int, int] | None) -> Layout:
            return Layout(chunk, times and tuple(c * t for c, t in zip(chunk, times, strict=True)))

        return st.builds(layout, triples(2, 6), st.none() | triples(1, 3))


class TestOmeZarr04(StoreSuite):
    format = "ome-zarr-0.4"
    dtypes = ("uint8", "uint16", "uint64", "int32", "float32", "bool")


def peer_image(path, *, version="0.4", axes="zyx", units="micrometer", scales=((0.04, 0.004, 0.004),), **options):
    """Write an image as OME-Zarr writers do; `translations` per level, `outer` for all, `ome` for further keys."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    sizes = {"t": 1, "c": 2, "z": 8, "y": 12, "x": 16}
    names = [{"name": a, "type": {"t": "time", "c": "channel"}.get(a, "space")} for a in axes]
    for axis in names:
        if axis["type"] == "space" and units:
            axis["unit"] = units
    datasets = []
    for level, scale in enumerate(scales):
        shape = tuple(sizes[a] // (2**level if a in "yx" else 1) for a in axes)
        extra = {"dimension_names": list(axes)} if version == "0.5" else {}
        array = group.create_array(str(level), shape=shape, chunks=(4,) * len(axes), dtype="uint16", **extra)
        array[:] = np.random.default_rng(level).integers(1, 99, shape)
        lead = [1.0] * (len(axes) - 3)
        steps = [{"type": "scale", "scale": [*lead, *scale]}]
        translations = options.get("translations")
        if translations:
            steps.append({"type": "translation", "translation": [*(0 * v for v in lead), *translations[level]]})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    image = {"axes": names, "datasets": datasets, "name": "peer", "type": "gaussian"}
    if "outer" in options:
        image["coordinateTransformations"] = options["outer"]
    if version == "0.4":
        group.attrs.update({"multiscales": [{"version": "0.4", **image}], **options.get("ome", {})})
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image], **options.get("ome", {})}
    return group


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["zyx", "czyx", "tczyx"])
def test_images_of_other_writers_are_read(tmp_path, version, axes):
    group = peer_image(tmp_path / "a.zarr", version=version, axes=axes)
    store = open_store(tmp_path / "a.zarr")
    assert store.spec.voxel_size == (40.0, 4.0, 4.0)
    assert store.spec.channels == (2 if "c" in axes else None)
    expected = group["0"][:]
    np.testing.assert_array_equal(store.read(store.spec.box), expected[0] if "t" in axes else expected)


@pytest.mark.parametrize(
    ("unit", "nm"), [("nanometer", 1), ("micrometer", 1e3), ("angstrom", 0.1), ("millimeter", 1e6), ("µm", 1e3)]
)
def test_units_become_nm(tmp_path, unit, nm):
    peer_image(tmp_path / "a.zarr", units=unit, scales=((3.0, 0.7, 0.5),))
    assert open_store(tmp_path / "a.zarr").spec.voxel_size == pytest.approx((3 * nm, 0.7 * nm, 0.5 * nm), rel=1e-12)


@pytest.mark.parametrize("unit", [None, "pixel"])
def test_axes_without_a_unit_of_length_leave_the_voxel_size_unknown(tmp_path, unit):
    scales = ((10.0, 1.0, 1.0), (10.0, 2.0, 2.0))
    peer_image(tmp_path / "a.zarr", units=unit, scales=scales)
    unknown = open_store(tmp_path / "a.zarr")
    assert [(spec.voxel_size, spec.spacing) for spec in unknown.mips] == [(None, (1, 1, 1)), (None, (1, 2, 2))]
    assert "not stated" in unknown.sources["voxel_size"]
    store = open_store(tmp_path / "a.zarr", voxel_size=(40, 4, 4))
    assert [spec.voxel_size for spec in store.mips] == [(40, 4, 4), (40, 8, 8)]
    assert open_store(tmp_path / "a.zarr", voxel_size=(40, 8, 8), mip=1).mips == store.mips


def test_transformations_of_the_whole_image_are_applied_after_those_of_a_level(tmp_path):
    outer = [{"type": "scale", "scale": [2.0, 2.0, 2.0]}, {"type": "translation", "translation": [160.0, 0.0, -16.0]}]
    options = {"scales": ((20.0, 2.0, 2.0),), "translations": ((20.0, 2.0, 0.0),), "outer": outer}
    peer_image(tmp_path / "a.zarr", units="nanometer", **options)
    spec = open_store(tmp_path / "a.zarr").spec
    assert (spec.voxel_size, spec.box.start) == ((40.0, 4.0, 4.0), (5, 1, -4))


@pytest.mark.parametrize("half", [0.0, 2.0], ids=["strided", "averaged"])
def test_coarse_levels_start_at_the_same_corner_whether_writers_shift_half_a_voxel_or_not(tmp_path, half, caplog):
    translations = ((400.0, 16.0, -8.0), (400.0, 16.0 + half, -8.0 + half))
    scales = ((40.0, 4.0, 4.0), (40.0, 8.0, 8.0))
    peer_image(tmp_path / "a.zarr", units="nanometer", scales=scales, translations=translations)
    with caplog.at_level(logging.WARNING):
        mips = open_store(tmp_path / "a.zarr").mips
    assert [spec.box.start for spec in mips] == [(10, 4, -2), (10, 2, -1)]
    assert not caplog.text


def test_an_origin_between_voxels_is_rounded_and_warned_of(tmp_path, caplog):
    peer_image(tmp_path / "a.zarr", units="nanometer", scales=((40.0, 4.0, 4.0),), translations=((40.0, 5.0, 0.0),))
    with caplog.at_level(logging.WARNING):
        assert open_store(tmp_path / "a.zarr").spec.box.start == (1, 1, 0)
    assert "0.25" in caplog.text


def test_a_level_added_to_an_image_between_voxels_lies_between_voxels_too(tmp_path):
    peer_image(tmp_path / "a.zarr", units="nanometer", scales=((40.0, 4.0, 4.0),), translations=((40.0, 5.0, 0.0),))
    fine = open_store(tmp_path / "a.zarr").spec
    coarse = fine.replace(box=fine.box.coarsen((1, 2, 2)), voxel_size=(40, 8, 8), chunk_origin=None)
    assert create_store(tmp_path / "a.zarr", coarse, mip=1, layout=SMALL).spec.box == coarse.box
    datasets = json.loads((tmp_path / "a.zarr/.zattrs").read_text())["multiscales"][0]["datasets"]
    assert datasets[1]["coordinateTransformations"][1]["translation"] == [40, (1 + 5) / 2, (0 + 4) / 2]


@given(start=triples(-(10**7), 10**7), factor=triples(1, 5), fine=triples(1, 400))
def test_offsets_and_voxel_sizes_come_back_exactly_at_every_level(start, factor, fine):
    url = "memory://ome-levels/a.zarr"
    kvstore.delete_tree(url)
    box = BoundingBox.from_size(start, (4, 4, 4))
    for mip in range(3):
        size = tuple(v / 7 * f**mip for v, f in zip(fine, factor, strict=True))
        level = box.coarsen(tuple(f**mip for f in factor))
        spec = VolumeSpec(level, np.dtype("uint8"), voxel_size=size)
        create_store(url, spec, mip=mip, layout=SMALL)
        assert open_store(url, mip=mip).spec.box == level
        assert open_store(url, mip=mip).spec.voxel_size == size


def test_a_coarse_level_is_written_with_the_half_voxel(tmp_path):
    create_store(tmp_path / "a.zarr", SPEC, layout=SMALL)
    coarse = SPEC.replace(box=SPEC.box.coarsen((1, 2, 2)), voxel_size=(40.0, 8.0, 8.0), chunk_origin=None)
    create_store(tmp_path / "a.zarr", coarse, mip=1, layout=SMALL)
    ome = json.loads((tmp_path / "a.zarr/zarr.json").read_text())["attributes"]["ome"]
    steps = [level["coordinateTransformations"] for level in ome["multiscales"][0]["datasets"]]
    assert steps[0][0]["scale"] == [40, 4, 4]
    assert steps[0][1]["translation"] == [-120, 20, 28]
    assert steps[1][0]["scale"] == [40, 8, 8]
    assert steps[1][1]["translation"] == [-120, 8 * 2 + 2, 8 * 3 + 2]


def test_a_level_added_to_an_image_of_another_writer_keeps_its_units_and_keys(tmp_path):
    outer = [{"type": "scale", "scale": [1.0, 2.0, 2.0]}, {"type": "translation", "translation": [0.0, 0.08, 0.0]}]
    peer_image(
        tmp_path / "a.zarr",
        scales=((0.04, 0.002, 0.002),),
        translations=((0.4, 0.0, -0.008),),
        outer=outer,
        ome={"mine": {"kept": [1]}},
    )
    fine = open_store(tmp_path / "a.zarr").spec
    assert fine.box.start == (10, 20, -4)
    coarse = fine.replace(box=fine.box.coarsen((1, 2, 2)), voxel_size=(40, 8, 8), chunk_origin=None)
    store = create_store(tmp_path / "a.zarr", coarse, mip=1, layout=SMALL)
    assert store.mips[0] == fine
    assert store.spec.box == coarse.box
    assert store.spec.voxel_size == (40, 8, 8)
    attributes = json.loads((tmp_path / "a.zarr/.zattrs").read_text())
    assert attributes["mine"] == {"kept": [1]}
    assert attributes["multiscales"][0]["type"] == "gaussian"
    assert [axis["unit"] for axis in attributes["multiscales"][0]["axes"]] == ["micrometer"] * 3


@pytest.mark.parametrize(("kind", "version"), [("ome-zarr", "0.5"), ("ome-zarr-0.4", "0.4")])
def test_what_is_written_follows_the_specification(tmp_path, kind, version):
    spec = SPEC.replace(channels=2, channel_names=("dapi", "gfp"))
    write_all(create_store(tmp_path / "a.zarr", spec, format=kind, layout=SMALL), voxels(spec))
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    ome = group.attrs["ome"] if version == "0.5" else dict(group.attrs)
    image = ome["multiscales"][0]
    assert (ome if version == "0.5" else image)["version"] == version
    assert [axis["name"] for axis in image["axes"]] == ["c", "z", "y", "x"]
    assert [axis.get("unit") for axis in image["axes"]] == [None, *["nanometer"] * 3]
    steps = image["datasets"][0]["coordinateTransformations"]
    assert steps == [
        {"type": "scale", "scale": [1, 40, 4, 4]},
        {"type": "translation", "translation": [0, -120, 20, 28]},
    ]
    assert [channel["label"] for channel in ome["omero"]["channels"]] == ["dapi", "gfp"]
    assert all(set(channel["window"]) == {"min", "max", "start", "end"} for channel in ome["omero"]["channels"])
    array = group[image["datasets"][0]["path"]]
    np.testing.assert_array_equal(array[:], voxels(spec))
    if version == "0.5":
        assert array.metadata.dimension_names == ("c", "z", "y", "x")
    else:
        assert json.loads((tmp_path / "a.zarr/0/.zarray").read_text())["dimension_separator"] == "/"


def test_zarr_is_written_as_ome_zarr_0_5_and_read_under_its_prefix(tmp_path):
    store = create_store(tmp_path / "a.zarr", SPEC, layout=SMALL)
    write_all(store, voxels(SPEC))
    assert (tmp_path / "a.zarr/0/zarr.json").exists()
    assert open_store(f"zarr://{tmp_path}/a.zarr").spec == store.spec


def test_a_bare_array_is_read_under_the_prefix_too(tmp_path):
    zarr.create_array(tmp_path / "odd-name", shape=(4, 4, 4), dtype="uint8")[:] = 5
    store = open_store(f"zarr://{tmp_path}/odd-name")
    assert (store.read(store.spec.box) == 5).all()


@pytest.mark.parametrize("kind", ["ome-zarr", "ome-zarr-0.4"])
def test_a_segmentation_in_a_labels_group_is_listed_and_points_to_its_image(tmp_path, kind):
    labels = SPEC.replace(dtype=np.dtype("uint64"), layer_type="segmentation")
    create_store(tmp_path / "a.zarr", SPEC, format=kind, layout=SMALL)
    for name in ("cells", "nuclei", "cells"):
        create_store(tmp_path / f"a.zarr/labels/{name}", labels, format=kind, layout=SMALL)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    attributes = [dict(group["labels"].attrs), dict(group["labels/nuclei"].attrs)]
    listed, nuclei = [a["ome"] if kind == "ome-zarr" else a for a in attributes]
    assert listed["labels"] == ["cells", "nuclei"]
    assert nuclei["image-label"]["source"] == {"image": "../../"}
    assert open_store(tmp_path / "a.zarr", dataset="labels/nuclei").spec.layer_type == "segmentation"


def test_image_label_means_segmentation_and_omero_names_the_channels(tmp_path):
    peer_image(tmp_path / "a.zarr", ome={"image-label": {"version": "0.4"}})
    assert open_store(tmp_path / "a.zarr").spec.layer_type == "segmentation"
    channels = {"omero": {"channels": [{"label": "EM"}, {"label": "GFP"}]}}
    peer_image(tmp_path / "b.zarr", version="0.5", axes="czyx", ome=channels)
    spec = open_store(tmp_path / "b.zarr").spec
    assert (spec.layer_type, spec.channel_names) == ("image", ("EM", "GFP"))


def test_a_layer_type_that_is_not_known_stays_so(tmp_path):
    spec = SPEC.replace(layer_type=None, channels=1, channel_names=("EM",))
    create_store(tmp_path / "a.zarr", spec, layout=SMALL)
    found = open_store(tmp_path / "a.zarr").spec
    assert (found.layer_type, found.channel_names) == (None, ("EM",))


def test_an_offset_that_the_caller_states_moves_all_levels(tmp_path):
    peer_image(tmp_path / "a.zarr", units="nanometer", scales=((40.0, 4.0, 4.0), (40.0, 8.0, 8.0)))
    mips = open_store(tmp_path / "a.zarr", voxel_offset=(1, -2, 4)).mips
    assert [spec.box.start for spec in mips] == [(1, -2, 4), (1, -1, 2)]


def test_writing_a_different_kind_of_level_is_refused(tmp_path):
    create_store(tmp_path / "a.zarr", SPEC, layout=SMALL)
    other = SPEC.replace(dtype=np.dtype("uint16"))
    with pytest.raises(MetadataMismatchError, match="uint16"):
        create_store(tmp_path / "a.zarr", other, mip=1, layout=SMALL)
    with pytest.raises(ParameterError, match="create mip 1 before mip 2"):
        create_store(tmp_path / "a.zarr", SPEC, mip=2, layout=SMALL)
    with pytest.raises(MetadataMismatchError, match="needs v2"):
        create_store(tmp_path / "a.zarr", SPEC, format="ome-zarr-0.4", layout=SMALL)


def test_an_image_is_not_written_over_a_bare_array(tmp_path):
    create_store(tmp_path / "a.zarr", SPEC, format="zarr3", layout=SMALL)
    with pytest.raises(MetadataMismatchError, match="bare zarr array"):
        create_store(tmp_path / "a.zarr", SPEC, layout=SMALL)


def test_consolidated_metadata_learn_of_a_new_level(tmp_path):
    create_store(tmp_path / "a.zarr", SPEC, layout=SMALL)
    with pytest.warns(UserWarning, match="not part in the Zarr format 3"):
        zarr.consolidate_metadata(tmp_path / "a.zarr")
    create_store(tmp_path / "a.zarr", SPEC.replace(voxel_size=(80, 8, 8)), mip=1, layout=SMALL)
    group = zarr.open_consolidated(tmp_path / "a.zarr")
    assert group["1"].shape == SPEC.shape


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda m: m.pop("axes"), CorruptChunkError, "axes"),
        (lambda m: m["datasets"].clear(), CorruptChunkError, "without any dataset"),
        (lambda m: m["datasets"][0].update(path="9"), StoreNotFoundError, "9"),
        (lambda m: m["datasets"][0].update(path="../other"), ParameterError, "not a safe name"),
        (
            lambda m: m["datasets"][0].update(coordinateTransformations=[{"type": "affine"}]),
            CorruptChunkError,
            "affine",
        ),
        (
            lambda m: m["datasets"][0].update(coordinateTransformations=[{"type": "scale", "scale": [0, 1, 1]}]),
            CorruptChunkError,
            "positive",
        ),
        (lambda m: m["axes"][0].update(name="angle"), GeometryError, "angle"),
    ],
)
def test_multiscales_against_the_specification_are_refused(tmp_path, change, error, message):
    group = peer_image(tmp_path / "a.zarr")
    content = dict(group.attrs)
    change(content["multiscales"][0])
    group.attrs.update(content)
    with pytest.raises(error, match=message):
        open_store(tmp_path / "a.zarr")


def test_the_array_of_a_level_opens_where_its_image_places_it(tmp_path):
    translations = ((400.0, 16.0, -8.0), (400.0, 18.0, -6.0))
    scales = ((40.0, 4.0, 4.0), (40.0, 8.0, 8.0))
    group = peer_image(tmp_path / "a.zarr", units="nanometer", scales=scales, translations=translations)
    level = open_store(tmp_path / "a.zarr/1")
    assert (level.mip, level.mips) == (0, open_store(tmp_path / "a.zarr").mips[1:])
    np.testing.assert_array_equal(level.read(level.spec.box), group["1"][:])
    with pytest.raises(StoreNotFoundError, match="only mip 0"):
        open_store(tmp_path / "a.zarr/1", mip=1)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_one_image_that_bioformats2raw_wraps_is_opened(tmp_path, version):
    layout = {"bioformats2raw.layout": 3}
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2 if version == "0.4" else 3)
    group.attrs.update(layout if version == "0.4" else {"ome": {"version": "0.5", **layout}})
    peer_image(tmp_path / "a.zarr/0", version=version)
    assert open_store(tmp_path / "a.zarr").spec == open_store(tmp_path / "a.zarr/0").spec
    peer_image(tmp_path / "a.zarr/1", version=version)
    with pytest.raises(ParameterError, match="several images"):
        open_store(tmp_path / "a.zarr")
    assert open_store(tmp_path / "a.zarr", dataset="1").spec.voxel_size == (40, 4, 4)


@pytest.mark.emulator
@pytest.mark.parametrize("bucket", ["s3", "gcs"])
@pytest.mark.parametrize("kind", ["ome-zarr", "ome-zarr-0.4"])
def test_images_in_buckets_are_written_and_read(request, bucket, kind):
    url = f"{request.getfixturevalue(bucket)}/images/{kind}.zarr"
    spec = SPEC.replace(channels=2)
    write_all(create_store(url, spec, format=kind, layout=SMALL), voxels(spec))
    store = open_store(url)
    np.testing.assert_array_equal(store.read(spec.box), voxels(spec))
    kvstore.delete(f"{url}/0/0/0/0/0" if kind == "ome-zarr-0.4" else f"{url}/0/c/0/0/0/0")
    with pytest.raises(MissingChunkError):
        store.read(spec.box)


@pytest.mark.parametrize("kind", ["ome-zarr", "ome-zarr-0.4"])
def test_images_on_a_web_server_are_read_and_never_written(http_files, kind):
    url, directory = http_files
    write_all(create_store(directory / "a.zarr", SPEC, format=kind, layout=SMALL), voxels(SPEC))
    store = open_store(f"{url}/a.zarr")
    assert store.spec == SPEC.replace(chunk=(4, 4, 4))
    np.testing.assert_array_equal(store.read(SPEC.box), voxels(SPEC))
    with pytest.raises(StoreAccessError, match="http is read-only"):
        store.write(SPEC.box, voxels(SPEC))
    with pytest.raises(StoreAccessError, match="http is read-only"):
        create_store(f"{url}/b.zarr", SPEC, format=kind, layout=SMALL)


def test_a_place_without_write_permission_is_refused_at_once(open_directory, run_unprivileged):
    create_store(open_directory / "a.zarr", SPEC, layout=SMALL)
    code = (
        "import sys\n"
        "from daskflow.errors import StoreAccessError\n"
        "try: o.open_store(sys.argv[1]).check_writable()\n"
        "except StoreAccessError as error: print('refused', error)"
    )
    assert run_unprivileged(code, str(open_directory / "a.zarr")).startswith("refused")


def test_stores_stay_small_with_many_mips(tmp_path):
    spec = SPEC
    for mip in range(8):
        create_store(tmp_path / "a.zarr", spec, mip=mip, layout=Layout(chunk=(4, 4, 4), shard=(8, 8, 8)))
        spec = spec.replace(box=spec.box.coarsen(2), voxel_size=[2 * v for v in spec.voxel_size], chunk_origin=None)
    assert len(pickle.dumps(open_store(tmp_path / "a.zarr", mip=7))) < 4000


def test_a_rewritten_image_is_read_anew(tmp_path):
    store = create_store(tmp_path / "a.zarr", SPEC, layout=SMALL)
    write_all(store, voxels(SPEC))
    store.read(SPEC.box)
    write_all(open_store(tmp_path / "a.zarr"), voxels(SPEC, seed=1))
    np.testing.assert_array_equal(store.read(SPEC.box), voxels(SPEC, seed=1))


def test_another_mip_follows_the_voxel_size_and_offset_that_were_stated(tmp_path):
    spec = VolumeSpec(BoundingBox((0, 0, 0), (8, 8, 8)), np.dtype("uint8"), voxel_size=(40, 4, 4))
    for mip in (0, 1):
        level = spec.replace(box=spec.box.coarsen(2**mip), voxel_size=(40 * 2**mip, 4 * 2**mip, 4 * 2**mip))
        create_store(tmp_path / "a.zarr", level, mip=mip)
    stated = open_store(tmp_path / "a.zarr", voxel_size=(30, 5, 5), voxel_offset=(2, 4, 6))
    other = stated.with_mip(1)
    assert other.mips == stated.mips
    assert (other.spec.voxel_size, other.spec.box.start) == ((60, 10, 10), (1, 2, 3))
    assert other.with_mip(0).spec == stated.spec
