"""What zarr arrays and OME-Zarr images of the field say of themselves."""

from __future__ import annotations

import json
import warnings

import numcodecs
import numpy as np
import pytest
import zarr

from daskflow.errors import DaskflowError, GeometryError, ParameterError, UnknownFormatError
from daskflow.stores.opening import open_store
from daskflow.testing.stores import damaged

VOXELS = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)  # czyx


def array(path, order="zyx", attributes=None, version=2, names=None, **options):
    """Store the voxels, or those of the first channel, in an order of axes."""
    voxels = VOXELS if "c" in order else VOXELS[0]
    voxels = voxels if "t" not in order else voxels[None]
    stored = voxels.transpose(
        [("tczyx" if "t" in order else "czyx" if "c" in order else "zyx").index(a) for a in order]
    )
    options = {"attributes": attributes or {}, "dimension_names": names, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.create_array(path, shape=stored.shape, chunks=stored.shape, dtype="u1", zarr_format=version, **options)[
            :
        ] = stored
    return path


def check(path, channels=True, size=None, start=(0, 0, 0), **opening):
    store = open_store(path, **opening)
    np.testing.assert_array_equal(store.read(store.spec.box), VOXELS if channels else VOXELS[0])
    assert store.spec.voxel_size == (size and pytest.approx(size))
    assert store.spec.box.start == start
    return store


@pytest.mark.parametrize("key", ["_ARRAY_DIMENSIONS", "axis_names", "axes", "dims"])
@pytest.mark.parametrize("order", ["czyx", "zyxc", "xyzc", "cxyz", "tczyx", "yxzc"])
def test_names_of_axes_are_found_in_any_attribute(tmp_path, key, order):
    names = [{"c": "c^", "t": "t"}.get(axis, axis) for axis in order]
    check(array(tmp_path / "a.zarr", order, {key: names}))
    check(array(tmp_path / "b.zarr", order, version=3, names=list(order)))


NM, NAMES = ["nm"] * 3, {"axis_names": ["z", "y", "x", "c^"]}
COSEM = {"axes": ["z", "y", "x", "c"], "scale": [40, 4, 5, 1], "translate": [80, 0, 0, 0], "units": [*NM, ""]}


@pytest.mark.parametrize(
    ("attributes", "size", "start"),
    [
        ({**NAMES, "voxel_size": [40, 4, 4], "units": NM, "offset": [80, 8, 4]}, (40, 4, 4), (2, 2, 1)),
        ({**NAMES, "voxel_size": [0.04, 0.004, 0.004], "units": "um"}, (40, 4, 4), (0, 0, 0)),
        ({**NAMES, "pixelResolution": {"dimensions": [4, 5, 40], "unit": "nm"}}, (40, 5, 4), (0, 0, 0)),
        ({"transform": COSEM}, (40, 4, 5), (2, 0, 0)),
        ({**NAMES, "element_size_um": [0.04, 0.004, 0.004]}, (40, 4, 4), (0, 0, 0)),
        ({**NAMES, "resolution": [1, 2, 3], "units": ["furlong"] * 3}, None, (0, 0, 0)),
        ({**NAMES, "voxel_size_nm": [40, 4, 4]}, (40, 4, 4), (0, 0, 0)),
        ({**NAMES, "pixel_size": [0.04, 0.004, 0.004], "units": "um"}, (40, 4, 4), (0, 0, 0)),
        (NAMES, None, (0, 0, 0)),
    ],
)
def test_voxel_size_and_place_are_those_of_the_stored_axes(tmp_path, attributes, size, start):
    store = check(array(tmp_path / "a.zarr", "zyxc", attributes), size=size, start=start)
    if "furlong" in str(attributes):
        assert "furlong" in store.sources["voxel_size"]


@pytest.mark.parametrize(
    "attributes",
    [
        {"axis_names": ["affs^", "z", "y", "x"]},
        {"axis_names": ["d", "z", "y", "x"], "types": ["channel", "space", "space", "space"]},
        {"axes": [{"name": "dye", "type": "channel"}, *({"name": name, "type": "space"} for name in "zyx")]},
    ],
)
def test_an_axis_that_is_marked_as_channels_may_have_any_name(tmp_path, attributes):
    check(array(tmp_path / "a.zarr", "czyx", attributes))


def test_axes_that_nobody_names_are_asked_for(tmp_path):
    path = array(tmp_path / "a.zarr", "zyxc")
    with pytest.raises(GeometryError, match="--axes zyxc"):
        open_store(path)
    check(path, axes="zyxc")
    stack = np.stack([VOXELS, VOXELS + 1])
    zarr.create_array(tmp_path / "t.zarr", data=stack, attributes={"axis_names": list("tczyx")}, zarr_format=2)
    with pytest.raises(GeometryError, match="--time"):
        open_store(tmp_path / "t.zarr")
    store = open_store(tmp_path / "t.zarr", time=1)
    np.testing.assert_array_equal(store.read(store.spec.box), stack[1])


@pytest.mark.parametrize(
    "codec",
    [
        numcodecs.Blosc("zstd"),
        numcodecs.Blosc("lz4", shuffle=-1),
        *(numcodecs.Zlib(1), numcodecs.GZip(1), numcodecs.BZ2(1), numcodecs.Zstd(1)),
    ],
    ids=lambda codec: codec.codec_id,
)
def test_compressors_of_zarr_v2_are_read_with_options_that_change_nothing(tmp_path, codec):
    array(tmp_path / "a.zarr", compressors=codec)
    metadata = json.loads((tmp_path / "a.zarr/.zarray").read_text())
    if codec.codec_id == "blosc":
        metadata["compressor"]["typesize"] = 1
    (tmp_path / "a.zarr/.zarray").write_text(json.dumps(metadata))
    check(tmp_path / "a.zarr", channels=False)


@pytest.mark.parametrize("codec", [numcodecs.LZ4(), numcodecs.LZMA()], ids=lambda codec: codec.codec_id)
def test_compressors_that_are_not_read_are_named(tmp_path, codec):
    with pytest.raises(UnknownFormatError, match=f"'{codec.codec_id}'; known codecs: blosc"):
        open_store(array(tmp_path / "a.zarr", compressors=codec))


@pytest.mark.parametrize("order", ["F", "C", [2, 0, 1]])
def test_shorthand_of_zarr_v3_is_spelt_out(tmp_path, order):
    array(tmp_path / "a.zarr", version=3, filters=zarr.codecs.TransposeCodec(order=(2, 1, 0)), compressors=None)
    metadata = json.loads((tmp_path / "a.zarr/zarr.json").read_text())
    axes = {"F": [2, 1, 0], "C": [0, 1, 2]}.get(order, order) if isinstance(order, str) else order
    metadata["codecs"] = [{"name": "transpose", "configuration": {"order": order}}, "bytes"]
    metadata["chunk_key_encoding"] = "default"
    metadata["storage_transformers"] = []
    (tmp_path / "a.zarr/zarr.json").write_text(json.dumps(metadata))
    (tmp_path / "a.zarr/c/0/0/0").write_bytes(np.ascontiguousarray(VOXELS[0].transpose(axes)).tobytes())
    check(tmp_path / "a.zarr", channels=False)


@pytest.mark.parametrize("fill", [None, 0, 7])
def test_chunks_that_are_missing_are_errors_or_what_the_array_fills_with(tmp_path, fill):
    zarr.create_array(tmp_path / "a.zarr", shape=(4, 4, 4), chunks=(2, 4, 4), dtype="u1", zarr_format=2, fill_value=7)
    metadata = json.loads((tmp_path / "a.zarr/.zarray").read_text()) | {"fill_value": fill}
    (tmp_path / "a.zarr/.zarray").write_text(json.dumps(metadata))
    store = open_store(tmp_path / "a.zarr", fill_missing=True)
    assert (store.read(store.spec.box) == (fill or 0)).all()
    with pytest.raises(DaskflowError, match="fill_missing"):
        open_store(tmp_path / "a.zarr").read(store.spec.box)


def image(path, version, order, factors=((1, 1, 1), (1, 2, 2)), **more):
    """Store an OME-Zarr image as writers of a version did."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    for level, factor in enumerate(factors):
        lead = (1,) * (len(order) - 3)
        shape = (*lead, *(n // f for n, f in zip((4, 8, 8), factor, strict=True)))
        group.create_array(str(level), data=np.full(shape, level, np.uint8))
    datasets = [{"path": str(level)} for level in range(len(factors))]
    group.attrs["multiscales"] = [{"version": version, "datasets": datasets, **more}]
    return group


@pytest.mark.parametrize(("version", "key"), [(2, "ome"), (3, None)])
def test_an_image_that_is_described_in_the_place_of_another_version_is_found(tmp_path, version, key):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    group.create_array("0", data=VOXELS)
    axes = [{"name": "dye", "type": "channel"}, *({"name": name, "unit": "nanometer"} for name in "zyx")]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 40, 4, 4]}]}
    said = {"multiscales": [{"axes": axes, "datasets": [level]}], "omero": {"channels": [{"label": None}, {}]}}
    group.attrs.update({key: said} if key else said)
    assert check(tmp_path / "a.zarr", size=(40, 4, 4)).spec.channel_names == ("", "")


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3", None])
def test_images_before_scales_have_levels_and_no_voxel_size(tmp_path, version):
    image(tmp_path / "a.zarr", version, "tczyx", **({"axes": list("tczyx")} if version == "0.3" else {}))
    store = open_store(tmp_path / "a.zarr")
    assert [(spec.box.shape, spec.voxel_size, spec.spacing) for spec in store.mips] == [
        ((4, 8, 8), None, (1, 1, 1)),
        ((4, 4, 4), None, (1, 2, 2)),
    ]
    assert open_store(tmp_path / "a.zarr", voxel_size=(40, 4, 4)).mips[1].voxel_size == (40, 8, 8)
    assert (open_store(tmp_path / "a.zarr", mip=1).read(store.mips[1].box) == 1).all()


def test_a_unit_without_a_scale_is_no_voxel_size_and_axes_may_be_stated(tmp_path):
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    image(tmp_path / "a.zarr", "0.4", "zyx", axes=axes)
    assert [spec.voxel_size for spec in open_store(tmp_path / "a.zarr").mips] == [None, None]
    image(tmp_path / "b.zarr", "0.2", "zyx")
    assert open_store(tmp_path / "b.zarr").spec.box.shape == (4, 8, 8)
    image(tmp_path / "c.zarr", "0.2", "czyx")
    with pytest.raises(GeometryError, match="--axes"):
        open_store(tmp_path / "c.zarr")
    assert open_store(tmp_path / "c.zarr", axes="czyx").spec.box.shape == (4, 8, 8)


def test_levels_of_cosem_are_placed_by_their_transform(tmp_path):
    group = image(tmp_path / "a.zarr", "0.1", "zyx")
    transform = {"axes": ["z", "y", "x"], "units": ["nm"] * 3, "translate": [80.0, 0.0, 0.0]}
    second = {**transform, "scale": [40.0, 8.0, 8.0], "translate": [80.0, 2.0, 2.0]}
    levels = [{"path": "0", "transform": {**transform, "scale": [40.0, 4.0, 4.0]}}, {"path": "1", "transform": second}]
    group.attrs["multiscales"] = [{"datasets": levels}]
    found = [(spec.voxel_size, spec.box.start) for spec in open_store(tmp_path / "a.zarr").mips]
    assert found == [((40, 4, 4), (2, 0, 0)), ((40, 8, 8), (2, 0, 0))]


def test_the_only_array_of_a_group_that_can_be_a_volume_is_opened(tmp_path):
    array(tmp_path / "a.zarr/em")
    for axis in "zyx":  # coordinates, as xarray keeps them
        zarr.create_array(tmp_path / "a.zarr" / axis, data=np.arange(5.0), zarr_format=2)
    zarr.open_group(tmp_path / "a.zarr", mode="a", zarr_format=2)
    check(tmp_path / "a.zarr", channels=False)


def test_images_in_containers_and_plates_are_chosen_by_dataset_as_by_url(tmp_path):
    root = zarr.open_group(tmp_path / "c.zarr", mode="w", zarr_format=2)
    root.create_array("bare", data=VOXELS[0])
    image(tmp_path / "c.zarr/raw", "0.2", "tczyx")
    image(tmp_path / "c.zarr/labels/cells", "0.2", "tczyx")
    with pytest.raises(ParameterError, match="among: bare, labels/cells, raw"):
        open_store(tmp_path / "c.zarr")
    assert open_store(tmp_path / "c.zarr", dataset="labels/cells").spec.layer_type == "segmentation"
    for name in ("raw", "labels/cells", "raw/1"):
        chosen, direct = open_store(tmp_path / "c.zarr", dataset=name), open_store(tmp_path / "c.zarr" / name)
        assert (chosen.mips, chosen.url) == (direct.mips, direct.url)
    plate = zarr.open_group(tmp_path / "p.zarr", mode="w", zarr_format=2)
    plate.attrs["plate"] = {"wells": [{"path": "A/1"}]}
    image(tmp_path / "p.zarr/A/1/0", "0.2", "tczyx")
    zarr.open_group(tmp_path / "p.zarr/A/1", mode="a", zarr_format=2).attrs["well"] = {"images": [{"path": "0"}]}
    assert open_store(tmp_path / "p.zarr").mips == open_store(tmp_path / "p.zarr/A/1/0").mips


@pytest.mark.parametrize("omero", [None, {}, {"channels": None}, {"channels": [None]}, {"channels": [{"label": "em"}]}])
def test_channels_that_omero_does_not_describe_have_no_names(tmp_path, omero):
    image(tmp_path / "a.zarr", "0.2", "tczyx").attrs["omero"] = omero
    assert open_store(tmp_path / "a.zarr").spec.channel_names in ((), ("",), ("em",))


@pytest.mark.parametrize("name", ["a.zarr/zarr.json", "b.zarr/.zarray", "c.zarr/.zattrs", "d.zarr/.zattrs"])
def test_damaged_metadata_end_in_an_error_of_ours_or_are_read(tmp_path, name):
    array(tmp_path / "a.zarr", version=3, shards=(3, 4, 5), attributes={"resolution": [4, 4, 4]})
    array(tmp_path / "b.zarr")
    transform = {"axes": ["z", "y", "x"], "scale": [4, 4, 4], "units": ["nm"] * 3}
    array(tmp_path / "c.zarr", attributes={"axis_names": list("zyx"), "voxel_size": [4, 4, 4], "transform": transform})
    image(tmp_path / "d.zarr", "0.2", "tczyx").attrs["omero"] = {"channels": [{"label": "em"}]}
    whole = json.loads((tmp_path / name).read_text())
    tried = 0
    for content in damaged(whole):
        (tmp_path / name).write_text(json.dumps(content))
        try:
            store = open_store(tmp_path / name.split("/")[0], fill_missing=True)
            if store.spec.box.size < 10**6:
                store.read(store.spec.box)
        except DaskflowError:
            pass
        tried += 1
    assert tried > 30


@pytest.mark.parametrize("attributes", [{"resolution": 8}, {"voxel_size": [8.0]}])
def test_one_number_stands_for_all_axes(tmp_path, attributes):
    array(tmp_path / "cube.zarr", attributes={"axes": "czyx", **attributes}, order="czyx")
    assert open_store(tmp_path / "cube.zarr").spec.voxel_size == (8, 8, 8)
