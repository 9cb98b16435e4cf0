from __future__ import annotations

import contextlib
import logging
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.errors import (
    CorruptChunkError,
    DaskflowError,
    GeometryError,
    MissingChunkError,
    ParameterError,
    StoreNotFoundError,
)
from daskflow.geometry import LAYER_TYPES, BoundingBox, VolumeSpec
from daskflow.stores.base import Layout
from daskflow.stores.counting import counting
from daskflow.stores.opening import open_store, write_file
from daskflow.testing.stores import boxes_in, triples, voxels

SPEC = VolumeSpec(
    BoundingBox((-3, 5, 7), (9, 20, 30)), np.dtype("uint8"), voxel_size=(40.0, 4.0, 4.0), layer_type="image"
)


def save(path, spec, **layout):
    array = voxels(spec)
    write_file(path, spec, lambda box: array[(..., *box.slices(spec.box))], layout=Layout(**layout))
    return array


@given(
    data=st.data(),
    size=triples(1, 9),
    start=triples(-9, 9),
    channels=st.sampled_from((None, 1, 2, 3, 4)),
    dtype=st.sampled_from(
        ("uint8", "int8", "uint16", "int32", "uint32", "uint64", "int64", *("float16", "float32", "float64"))
    ),
    voxel_size=st.tuples(*[st.sampled_from((1.0, 4.0, 33.3, 0.123456789))] * 3),
    layer_type=st.sampled_from((None, *LAYER_TYPES)),
    compression=st.sampled_from(("zlib", "none")),
)
def test_what_is_written_is_read_with_its_place_meaning_and_dtype(
    tmp_path_factory, data, size, start, channels, dtype, voxel_size, layer_type, compression
):
    names = tuple("abcd"[: channels or 0])
    box = BoundingBox.from_size(start, size)
    spec = VolumeSpec(box, dtype, channels, voxel_size, layer_type=layer_type, channel_names=names)
    path = tmp_path_factory.mktemp("tiff") / "a.tif"
    array = save(path, spec, compression=compression)
    store = open_store(path)
    assert store.spec == spec
    part = data.draw(boxes_in(box))
    found = store.read(part)
    np.testing.assert_array_equal(found, array[(..., *part.slices(box))])
    assert found.dtype == spec.dtype
    assert found.flags.c_contiguous
    assert found.flags.writeable
    peer = tifffile.imread(path).reshape(size[0], channels or 1, *size[1:])
    np.testing.assert_array_equal(peer, array.reshape(channels or 1, *size).swapaxes(0, 1))


@pytest.mark.parametrize("level", [None, 9])
def test_tifffile_reads_axes_sizes_and_channels_from_the_ome_tags(tmp_path, level):
    save(tmp_path / "a.tif", SPEC.replace(channels=2, channel_names=("EM", "<&>")), quality=level)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.series[0].axes == "ZCYX"
        pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
    assert [pixels[f"PhysicalSize{axis}"] for axis in "ZYX"] == [40, 4, 4]
    assert [pixels[f"PhysicalSize{axis}Unit"] for axis in "ZYX"] == ["nm"] * 3
    assert [channel["Name"] for channel in pixels["Channel"]] == ["EM", "<&>"]


def test_the_same_volume_makes_the_same_bytes(tmp_path):
    for name in ("a.tif", "b.tif"):
        save(tmp_path / name, SPEC)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_wide_sections_are_cut_into_strips(tmp_path):
    spec = VolumeSpec(BoundingBox((0, 0, 0), (2, 1500, 1100)), np.dtype("uint16"))
    array = save(tmp_path / "a.tif", spec)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert len(tif.pages[0].dataoffsets) > 2
    box = BoundingBox((1, 470, 17), (2, 1000, 19))
    np.testing.assert_array_equal(open_store(tmp_path / "a.tif").read(box), array[box.slices(spec.box)])


def noise(shape, dtype="uint16"):
    return np.random.default_rng(0).integers(1, 200, shape).astype(dtype)


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m"])
def test_imagej_stacks_give_the_voxel_size_and_the_log_says_so(tmp_path, unit, caplog):
    metadata = {"axes": "ZYX", "spacing": 0.04, "unit": unit}
    volume = noise((5, 6, 7))
    tifffile.imwrite(tmp_path / "a.tif", volume, imagej=True, metadata=metadata, resolution=(1 / 0.005, 250))
    with caplog.at_level(logging.INFO):
        store = open_store(tmp_path / "a.tif")
    assert store.spec.voxel_size == pytest.approx((40, 4, 5))
    assert "ImageJ tags" in caplog.text
    np.testing.assert_array_equal(store.read(store.spec.box), volume)


def test_imagej_hyperstacks_of_channels_are_read_as_czyx(tmp_path):
    volume = noise((5, 3, 6, 7), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", volume, imagej=True, metadata={"axes": "ZCYX", "mode": "composite"})
    store = open_store(tmp_path / "a.tif")
    np.testing.assert_array_equal(store.read(store.spec.box), volume.swapaxes(0, 1))


@pytest.mark.parametrize("unit", [{}, {"unit": "pixel", "spacing": 2.0}, {"unit": "furlong", "spacing": 2.0}])
def test_imagej_stacks_without_all_three_sizes_have_none(tmp_path, unit, caplog):
    tifffile.imwrite(tmp_path / "a.tif", noise((5, 6, 7)), imagej=True, metadata={"axes": "ZYX", **unit})
    with caplog.at_level(logging.INFO):
        assert open_store(tmp_path / "a.tif").spec.voxel_size is None
    assert "no voxel size" in caplog.text
    assert open_store(tmp_path / "a.tif", voxel_size=(40, 4, 4)).spec.voxel_size == (40, 4, 4)


def imagej(path, lines, **options):
    """Write a stack as ImageJ does: with a text of its own."""
    text = "\n".join(["ImageJ=1.53t", "images=5", "slices=5", *lines, ""])
    options = {"resolution": (0.25, 0.2), "resolutionunit": "NONE", **options}
    tifffile.imwrite(path, noise((5, 6, 7)), description=text, metadata=None, **options)


@pytest.mark.parametrize(
    ("lines", "options", "size"),
    [
        (["unit=nm", "spacing=40"], {}, (40, 5, 4)),
        (["unit=nm", "spacing=-40"], {}, (40, 5, 4)),
        (["unit=nm", "zunit=micron", "spacing=0.04"], {}, (40, 5, 4)),
        (["unit=nm", "yunit=\\u00B5m", "spacing=40"], {"resolution": (0.25, 200)}, (40, 5, 4)),
        (["unit=nm", "yunit=nm", "zunit=nm"], {}, (1, 5, 4)),
        (["unit=inch", "spacing=0.1"], {"resolution": (100, 10)}, (2.54e6, 2.54e6, 2.54e5)),
        (["unit=cm", "spacing=0.1"], {"resolution": (100, 10)}, (1e6, 1e6, 1e5)),
        (["spacing=0.1"], {"resolution": (100, 10), "resolutionunit": "CENTIMETER"}, (1e6, 1e6, 1e5)),
        (["spacing=0.1"], {"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        (["unit=pixel", "spacing=2"], {}, None),
        (["spacing=2"], {}, None),
        (["unit=nm", "zunit=furlong", "spacing=2"], {}, None),
    ],
)
def test_units_of_imagej(tmp_path, lines, options, size):
    imagej(tmp_path / "a.tif", lines, **options)
    store = open_store(tmp_path / "a.tif")
    assert store.spec.voxel_size == (None if size is None else pytest.approx(size))
    assert "ImageJ tags" in store.sources["voxel_size"]


def test_an_unknown_unit_is_named_with_the_axes_beside_it(tmp_path):
    physical = {"PhysicalSizeX": 4, "PhysicalSizeY": 5, "PhysicalSizeZ": 2}
    units = {"PhysicalSizeXUnit": "nm", "PhysicalSizeYUnit": "Å", "PhysicalSizeZUnit": "reference frame"}
    tifffile.imwrite(tmp_path / "a.ome.tif", noise((5, 6, 7)), metadata={"axes": "ZYX", **physical, **units})
    store = open_store(tmp_path / "a.ome.tif")
    assert store.spec.voxel_size is None
    assert "z 2 'reference frame', y 0.5 nm, x 4 nm" in store.sources["voxel_size"]


@pytest.mark.parametrize("order", ["TZCYX", "TCZYX", "ZTCYX", "CTZYX", "CZTYX", "ZCTYX"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_one_time_point_of_a_series_is_read_in_any_order_of_dimensions(tmp_path, order, compression):
    sizes = {"T": 2, "C": 3, "Z": 4, "Y": 6, "X": 7}
    volume = noise([sizes[axis] for axis in order])
    tifffile.imwrite(tmp_path / "a.ome.tif", volume, metadata={"axes": order}, compression=compression)
    with pytest.raises(GeometryError, match=r"2 time points.*--time"):
        open_store(tmp_path / "a.ome.tif")
    store = open_store(tmp_path / "a.ome.tif", time=1)
    expected = volume.transpose([order.index(axis) for axis in "TCZYX"])[1]
    np.testing.assert_array_equal(store.read(store.spec.box), expected)
    assert store.fingerprint() != open_store(tmp_path / "a.ome.tif", time=0).fingerprint()


def test_an_imagej_hyperstack_is_read_at_a_time_point(tmp_path):
    volume = noise((2, 4, 3, 6, 7))
    tifffile.imwrite(tmp_path / "a.tif", volume, imagej=True, metadata={"axes": "TZCYX"})
    store = open_store(tmp_path / "a.tif", time=1)
    np.testing.assert_array_equal(store.read(store.spec.box), volume[1].swapaxes(0, 1))


def test_frames_that_are_sections_are_read_when_that_is_said(tmp_path):
    volume = noise((5, 6, 7))
    tifffile.imwrite(tmp_path / "a.tif", volume, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(GeometryError, match="--axes zyx"):
        open_store(tmp_path / "a.tif")
    store = open_store(tmp_path / "a.tif", axes="zyx")
    np.testing.assert_array_equal(store.read(store.spec.box), volume)


def test_four_axes_that_nobody_names_are_refused_with_the_option_that_does(tmp_path):
    volume = noise((3, 4, 6, 7))
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack")
    with pytest.raises(GeometryError, match="--axes zyxc"):
        open_store(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", volume, metadata={"axes": "CZYX"}, photometric="minisblack")
    store = open_store(tmp_path / "b.tif")
    np.testing.assert_array_equal(store.read(store.spec.box), volume)


def test_levels_of_a_pyramid_are_no_sections(tmp_path):
    volume = noise((4, 64, 64))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        options = {"tile": (16, 16), "compression": "zlib"}
        writer.write(volume, subifds=1, metadata={"axes": "ZYX"}, **options)
        writer.write(volume[:, ::2, ::2], subfiletype=1, **options)
    store = open_store(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(store.read(store.spec.box), volume)


@pytest.mark.parametrize("axes", ["ZYX", "CZYX", "ZCYX", "TCYX"])
@pytest.mark.parametrize("tiled", [False, True])
def test_ome_tiffs_of_other_writers_are_read(tmp_path, axes, tiled):
    sizes = {"Z": 4, "T": 4, "C": 3, "Y": 40, "X": 50}
    volume = noise([sizes[axis] for axis in axes])
    physical = {"PhysicalSizeX": 0.004, "PhysicalSizeY": 50, "PhysicalSizeYUnit": "Å", "PhysicalSizeZ": 0.04}
    tile = {"tile": (16, 32)} if tiled else {}
    tifffile.imwrite(
        tmp_path / "a.ome.tif", volume, ome=True, metadata={"axes": axes, **physical}, compression="zlib", **tile
    )
    store = open_store(tmp_path / "a.ome.tif", axes="zcyx" if "T" in axes else None)
    assert store.spec.voxel_size == pytest.approx((40, 5, 4))
    expected = volume if axes in ("ZYX", "CZYX") else volume.swapaxes(0, 1)
    np.testing.assert_array_equal(store.read(store.spec.box), expected)
    box = BoundingBox((1, 13, 5), (3, 37, 44))
    np.testing.assert_array_equal(store.read(box), expected[(..., *box.slices(store.spec.box))])


@pytest.mark.parametrize("shape", [(4, 30, 20), (3, 4, 30, 20)])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_an_array_saved_as_it_is_comes_back(tmp_path, shape, byteorder, compression):
    volume = noise(shape)
    tifffile.imwrite(tmp_path / "a.tif", volume, byteorder=byteorder, compression=compression, photometric="minisblack")
    store = open_store(tmp_path / "a.tif", axes="czyx" if len(shape) == 4 else None)
    assert store.spec.channels == (3 if len(shape) == 4 else None)
    np.testing.assert_array_equal(store.read(store.spec.box), volume)
    box = BoundingBox((1, 3, 4), (3, 29, 5))
    np.testing.assert_array_equal(store.read(box), volume[(..., *box.slices(store.spec.box))])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colours_are_channels(tmp_path, compression):
    volume = noise((4, 30, 20, 3), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="rgb", compression=compression)
    store = open_store(tmp_path / "a.tif")
    np.testing.assert_array_equal(store.read(store.spec.box), np.moveaxis(volume, -1, 0))


def test_the_resolution_of_a_printer_is_no_voxel_size(tmp_path, caplog):
    tifffile.imwrite(tmp_path / "a.tif", noise((2, 6, 7)), resolution=(72, 72), resolutionunit="INCH")
    with caplog.at_level(logging.INFO):
        assert open_store(tmp_path / "a.tif").spec.voxel_size is None
    assert "352778 x 352778 nm (yx), and nothing of the thickness" in caplog.text


def sections(directory, count=12, **options):
    directory.mkdir()
    volume = noise((count, 20, 30), "uint8")
    for z in range(count):
        tifffile.imwrite(directory / f"section{z}.tif", volume[z], **options)
    return volume


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_a_directory_of_sections_is_stacked_in_natural_order(tmp_path, options):
    volume = sections(tmp_path / "s", **options)
    (tmp_path / "s/notes.txt").write_text("no section")
    store = open_store(tmp_path / "s", voxel_offset=(100, 0, 0))
    assert store.spec.box == BoundingBox((100, 0, 0), (112, 20, 30))
    box = BoundingBox((108, 3, 4), (112, 9, 30))
    np.testing.assert_array_equal(store.read(box), volume[box.slices(store.spec.box)])
    assert len(pickle.dumps(store)) < 1500


def test_files_of_several_sections_are_stacked_too(tmp_path):
    volume = noise((6, 20, 30))
    (tmp_path / "s").mkdir()
    for z in range(0, 6, 2):
        tifffile.imwrite(tmp_path / f"s/{z}.tiff", volume[z : z + 2], photometric="minisblack")
    store = open_store(tmp_path / "s")
    box = BoundingBox((1, 0, 0), (4, 20, 30))
    np.testing.assert_array_equal(store.read(box), volume[1:4])


def test_a_missing_section_is_an_error_that_names_it_unless_told(tmp_path):
    for z in (0, 1, 2, 4, 5):
        tifffile.imwrite(tmp_path / f"z{z:03}.tif", np.full((4, 5), z + 1, np.uint8))
    with pytest.raises(MissingChunkError, match=r"lacks z003\.tif; fill_missing"):
        open_store(tmp_path)
    with counting() as counts:
        store = open_store(tmp_path, fill_missing=True)
        found = store.read(store.spec.box)
    assert found[:, 0, 0].tolist() == [1, 2, 3, 0, 5, 6]
    assert counts == {"missing_chunks": 1}


def test_a_section_deleted_after_opening_is_noticed(tmp_path):
    for z in range(6):
        tifffile.imwrite(tmp_path / f"z{z:03}.tif", np.full((4, 5), z + 1, np.uint8))
    store = open_store(tmp_path)
    (tmp_path / "z003.tif").unlink()
    assert store.read(BoundingBox((4, 0, 0), (6, 4, 5)))[:, 0, 0].tolist() == [5, 6]
    with pytest.raises(MissingChunkError, match=r"z003\.tif"):
        store.read(store.spec.box)


@pytest.mark.parametrize(
    "odd", [np.ones((20, 31), "uint8"), np.ones((20, 30), "uint16"), np.ones((2, 20, 30), "uint8")]
)
def test_a_section_unlike_the_others_is_refused_by_name(tmp_path, odd):
    sections(tmp_path / "s")
    tifffile.imwrite(tmp_path / "s/section7.tif", odd, photometric="minisblack")
    with pytest.raises(GeometryError, match=r"section7\.tif"):
        open_store(tmp_path / "s")


def test_sections_that_change_are_noticed(tmp_path):
    sections(tmp_path / "s")
    store = open_store(tmp_path / "s")
    before = store.fingerprint()
    tifffile.imwrite(tmp_path / "s/section7.tif", np.ones((20, 31), "uint8"))
    assert store.fingerprint() != before
    with pytest.raises(GeometryError, match=r"section7\.tif"):
        store.read(store.spec.box)
    (tmp_path / "s/section7.tif").unlink()
    with pytest.raises(MissingChunkError, match=r"section7\.tif is missing"):
        store.read(store.spec.box)


def test_an_empty_directory_is_not_found(tmp_path):
    with pytest.raises(StoreNotFoundError, match="without TIFF files"):
        open_store(tmp_path, format="tiff")
    with pytest.raises(StoreNotFoundError):
        open_store(tmp_path / "none.tif")


def of_array(array):
    return VolumeSpec(BoundingBox((0, 0, 0), array.shape), array.dtype)


WRITERS = {
    "ours": lambda path, a: write_file(path, of_array(a), lambda box: a[box.slices(of_array(a).box)]),
    "compressed": lambda path, a: tifffile.imwrite(path, a, compression="zlib"),
    "raw": tifffile.imwrite,
    "bare": lambda path, a: tifffile.imwrite(path, a, metadata=None, photometric="minisblack"),
    "imagej": lambda path, a: tifffile.imwrite(path, a, imagej=True, metadata={"axes": "ZYX"}),
    "bigtiff": lambda path, a: tifffile.imwrite(path, a, bigtiff=True, compression="zlib"),
    "tiled": lambda path, a: tifffile.imwrite(path, a, tile=(16, 16), metadata=None, photometric="minisblack"),
}


def test_an_ome_file_that_is_not_what_it_describes_is_not_read_as_something_else(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", noise((6, 8, 9)), metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        text = re.sub(r"<TiffData.*(/|</TiffData)>", "<TiffData/>", tif.ome_metadata)
    planes = {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(tmp_path / "b.ome.tif", noise((3, 8, 9)), description=text, metadata=None, **planes)
    with pytest.raises(CorruptChunkError, match=r"b\.ome\.tif is truncated, or .* 6 x 1 x 1 planes .* 1 pages"):
        open_store(tmp_path / "b.ome.tif")


def test_sections_of_imagej_have_no_thickness_that_no_tag_says(tmp_path):
    for z in range(3):
        metadata = {"axes": "YX", "unit": "nm"}
        tifffile.imwrite(tmp_path / f"{z}.tif", noise((6, 7)), imagej=True, metadata=metadata, resolution=(0.25, 0.25))
    store = open_store(tmp_path, format="tiff")
    assert store.spec.voxel_size is None
    assert "z ? 'nm', y 4 nm" in store.sources["voxel_size"]


def test_a_file_without_its_description_is_truncated(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", noise((3, 20, 30)), compression="zlib", metadata={"axes": "ZYX"})
    (tmp_path / "a.ome.tif").write_bytes((tmp_path / "a.ome.tif").read_bytes()[:-10])  # it comes last
    with pytest.raises(CorruptChunkError, match=r"a\.ome\.tif is truncated: its description ends"):
        open_store(tmp_path / "a.ome.tif")


SIZES = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", (0.04, 0.004, 0.004), strict=True)}


@pytest.mark.parametrize(
    ("said", "size"),
    [(SIZES, (40, 4, 4)), ({"unit": "nm", "spacing": 40}, (40, 4, 4)), ({"unit": "nm"}, None), ({"spacing": 40}, None)],
)
def test_what_tifffile_writes_outside_ome_and_imagej_files_is_read(tmp_path, said, size):
    tifffile.imwrite(tmp_path / "a.tif", noise((5, 8, 9)), resolution=(0.25, 0.25), metadata={"axes": "ZYX", **said})
    store = open_store(tmp_path / "a.tif")
    assert (store.spec.voxel_size, store.sources["axes"]) == (size, "TIFF tags")


@pytest.mark.parametrize("writer", WRITERS)
@given(kept=st.floats(0.0, 0.999))
def test_a_truncated_file_is_never_read_as_a_smaller_one(tmp_path_factory, writer, kept):
    path = tmp_path_factory.mktemp("cut") / "cut.tif"
    volume = noise((12, 20, 30))
    WRITERS[writer](path, volume)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    try:
        store = open_store(path, format="tiff")
        found = store.read(store.spec.box)
    except CorruptChunkError as error:
        found, said = None, str(error)
    if found is None:
        assert "cut.tif" in said
    else:
        assert kept > 0.9
        np.testing.assert_array_equal(found, volume)


def test_a_strip_that_cannot_be_decoded_names_the_page_and_file(tmp_path):
    save(tmp_path / "a.tif", SPEC)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        at, size = tif.pages[4].dataoffsets[0], tif.pages[4].databytecounts[0]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[at : at + size] = bytes(size)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(CorruptChunkError, match=r"page 4 of .*a\.tif"):
        open_store(tmp_path / "a.tif").read(SPEC.box)


def test_tiles_that_were_never_written_are_an_error_unless_told(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        tiles = [np.full((16, 16), 3, "uint8"), None] * 4
        writer.write(iter(tiles), shape=(2, 32, 32), dtype="uint8", tile=(16, 16), compression="zlib")
    store = open_store(tmp_path / "a.tif")
    with pytest.raises(MissingChunkError, match="4 strips or tiles"):
        store.read(store.spec.box)
    with counting() as counts:
        found = open_store(tmp_path / "a.tif", fill_missing=True).read(store.spec.box)
    assert counts["missing_chunks"] == 4
    assert found.max(axis=(0, 1)).tolist() == [3] * 16 + [0] * 16


@pytest.mark.parametrize(
    ("shape", "axes"), [((2, 3, 4, 20, 30), "TCZYX"), ((2, 4, 20, 30), "TZYX"), ((2, 3, 20, 30, 3), "CZYXS")]
)
def test_axes_that_are_no_volume_are_refused(tmp_path, shape, axes):
    kind = "rgb" if axes.endswith("S") else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", noise(shape, "uint8"), metadata={"axes": axes}, photometric=kind)
    with pytest.raises(GeometryError, match="a volume has zyx or czyx"):
        open_store(tmp_path / "a.tif")


def test_pages_of_several_shapes_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(np.ones((20, 30), "uint8"))
        writer.write(np.ones((10, 15), "uint8"))
    with pytest.raises(GeometryError, match=r"\(10, 15\) uint8"):
        open_store(tmp_path / "a.tif")


def test_a_declared_size_beyond_the_file_is_refused_before_anything_is_allocated(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((20, 30), "uint8"), metadata=None, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        for name in ("ImageLength", "ImageWidth", "RowsPerStrip"):
            tif.pages[0].tags[name].overwrite(2**31 - 1, dtype="I")
    with pytest.raises((CorruptChunkError, GeometryError, OSError), match=r"a\.tif"):
        open_store(tmp_path / "a.tif")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    array = save(tmp_path / "a.tif", SPEC)

    def read(box):
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        write_file(tmp_path / "a.tif", SPEC, read)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
    np.testing.assert_array_equal(open_store(tmp_path / "a.tif").read(SPEC.box), array)


def test_what_tiff_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ParameterError, match=r"astype\('uint8'\)"):
        save(tmp_path / "a.tif", SPEC.replace(dtype="bool"))
    with pytest.raises(ParameterError, match="jpeg"):
        save(tmp_path / "a.tif", SPEC, compression="jpeg")
    with pytest.raises(ParameterError, match="nothing to write"):
        save(tmp_path / "a.tif", SPEC.replace(box=BoundingBox((0, 0, 0), (0, 2, 2)), chunk_origin=None))
    assert not list(tmp_path.iterdir())


def test_threads_read_at_once(tmp_path):
    array = save(tmp_path / "a.tif", SPEC)
    store = open_store(tmp_path / "a.tif")
    boxes = [BoundingBox((z, 5, 7), (z + 1, 20, 30)) for z in range(-3, 9)] * 5
    with ThreadPoolExecutor(4) as pool:
        for box, found in zip(boxes, pool.map(store.read, boxes), strict=True):
            np.testing.assert_array_equal(found, array[box.slices(SPEC.box)])


def test_a_real_stack_is_read_page_by_page(real_data):
    store = open_store(real_data / "fib25_image.tif", voxel_size=(10, 10, 10))
    assert (store.spec.shape, store.spec.dtype) == ((250, 250, 250), np.uint8)
    box = BoundingBox((100, 60, 60), (110, 70, 130))
    whole = tifffile.imread(real_data / "fib25_image.tif")
    np.testing.assert_array_equal(store.read(box), whole[box.slices(store.spec.box)])


@pytest.fixture(scope="module")
def small_files(tmp_path_factory):
    array = np.arange(5 * 12 * 10, dtype=np.uint16).reshape(5, 12, 10)
    folder = tmp_path_factory.mktemp("small")
    sizes = {"PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.1, "PhysicalSizeZ": 1}
    tifffile.imwrite(folder / "ome.ome.tif", array, ome=True, metadata={"axes": "ZYX", **sizes})
    tifffile.imwrite(folder / "tiles.tif", array, tile=(16, 16), compression="zlib", bigtiff=True)
    tifffile.imwrite(folder / "j.tif", array, imagej=True, metadata={"axes": "ZYX", "spacing": 3, "unit": "um"})
    return folder, [path.read_bytes() for path in sorted(folder.iterdir())]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_tags_and_texts_are_errors_of_ours(small_files, data):
    folder, whole = small_files
    damaged = bytearray(data.draw(st.sampled_from(whole)))
    texts = damaged.find(b"<?xml"), damaged.find(b"ImageJ=")
    begins = [0, *(place for place in texts if place >= 0)]
    for begin, place, byte in data.draw(
        st.lists(st.tuples(st.sampled_from(begins), st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=3)
    ):
        damaged[min(begin + place, len(damaged) - 1)] = byte
    path = folder / "damaged.tif"
    path.write_bytes(damaged)
    with contextlib.suppress(DaskflowError):
        store = open_store(path)
        if store.spec.nbytes < 10**6:
            store.read(store.spec.box)


def test_pages_that_were_written_one_by_one_are_a_stack(tmp_path):
    array = noise((5, 8, 9))
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        for page in array:
            writer.write(page, contiguous=False)
    store = open_store(tmp_path / "pages.tif")
    np.testing.assert_array_equal(store.read(store.spec.box), array)
    with tifffile.TiffWriter(tmp_path / "stacks.tif") as writer:
        for stack in (array, array):
            writer.write(stack, contiguous=False)
    with pytest.raises(GeometryError, match="2 images"):
        open_store(tmp_path / "stacks.tif")


def test_sections_do_not_move_when_the_first_file_goes(tmp_path):
    for z in (3, 4, 5):
        tifffile.imwrite(tmp_path / f"{z}.tif", np.full((4, 5), z, np.uint8))
    opened = open_store(tmp_path)
    (tmp_path / "3.tif").unlink()
    with pytest.raises(MissingChunkError, match="2 TIFF files now; it had 3"):
        opened.read(opened.spec.box)
