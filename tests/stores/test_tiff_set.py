from __future__ import annotations

import numpy as np
import pytest
import tifffile

from daskflow.errors import GeometryError, MissingChunkError
from daskflow.geometry import BoundingBox
from daskflow.stores.counting import counting
from daskflow.stores.opening import open_store

VOXELS = np.random.default_rng(0).integers(1, 250, (2, 3, 8, 10)).astype("u1")  # czyx
PHYSICAL = 'PhysicalSizeX="4" PhysicalSizeXUnit="nm" PhysicalSizeY="4" PhysicalSizeYUnit="nm" PhysicalSizeZ="0.04"'


def description(name, planes, *, order="XYZCT", channels=1, times=1):
    """Return OME's text of the file `name`; `planes` are (file, z, c, t, page)."""
    data = "".join(
        f'<TiffData FirstZ="{z}" FirstC="{c}" FirstT="{t}" IFD="{page}" PlaneCount="1">'
        f'<UUID FileName="{file}">urn:uuid:{file}</UUID></TiffData>'
        for file, z, c, t, page in planes
    )
    sizes = f'SizeX="10" SizeY="8" SizeZ="3" SizeC="{channels}" SizeT="{times}"'
    channel = "".join(f'<Channel ID="Channel:0:{c}" Name="c{c}" SamplesPerPixel="1"/>' for c in range(channels))
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="urn:uuid:{name}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="{order}" Type="uint8" '
        f"{sizes} {PHYSICAL}>{channel}{data}</Pixels></Image></OME>"
    )


def write(directory, planes, **options):
    """Write the files that hold `planes`, each with a description of all."""
    directory.mkdir()
    for name in dict.fromkeys(plane[0] for plane in planes):
        pages = [VOXELS[max(c, t), z] for file, z, c, t, _ in planes if file == name]
        text = description(name, planes, **options)
        tifffile.imwrite(directory / name, np.stack(pages), description=text, metadata=None, photometric="minisblack")
    return directory


def by_section(names):
    return [(name, z, 0, 0, 0) for z, name in enumerate(names)]


SECTIONS = by_section(["b.ome.tif", "c.ome.tif", "a.ome.tif"])
CHANNELS = [(f"c{c}.ome.tif", z, c, 0, z) for c in range(2) for z in range(3)]


@pytest.mark.parametrize("opened", [".", "a.ome.tif", "b.ome.tif"])
def test_sections_come_in_the_order_that_the_description_says(tmp_path, opened):
    store = open_store(write(tmp_path / "s", SECTIONS) / opened)
    assert (store.spec.shape, store.spec.voxel_size) == ((3, 8, 10), (40, 4, 4))
    box = BoundingBox((1, 2, 3), (3, 8, 9))
    np.testing.assert_array_equal(store.read(box), VOXELS[0][1:, 2:, 3:9])


def test_channels_in_files_of_their_own_are_channels(tmp_path):
    store = open_store(write(tmp_path / "s", CHANNELS, channels=2))
    assert store.spec.channel_names == ("c0", "c1")
    np.testing.assert_array_equal(store.read(store.spec.box), VOXELS)


@pytest.mark.parametrize("order", ["XYZCT", "XYCZT", "XYTZC", "XYCTZ"])
def test_a_time_point_is_chosen(tmp_path, order):
    planes = [(f"t{t}.ome.tif", z, 0, t, z) for t in range(2) for z in range(3)]
    directory = write(tmp_path / "s", planes, times=2, order=order)
    with pytest.raises(GeometryError, match="--time"):
        open_store(directory)
    store = open_store(directory, time=1)
    np.testing.assert_array_equal(store.read(store.spec.box), VOXELS[1])


def test_files_that_are_missing_are_named_and_read_as_zeros_when_that_is_said(tmp_path):
    directory = write(tmp_path / "s", SECTIONS)
    store = open_store(directory)
    before = store.fingerprint()
    (directory / "c.ome.tif").unlink()
    assert store.fingerprint() != before
    with pytest.raises(MissingChunkError, match=r"lacks c\.ome\.tif; fill_missing"):
        open_store(directory)
    with pytest.raises(MissingChunkError, match=r"lacks c\.ome\.tif"):
        store.read(store.spec.box)
    with counting() as counts:
        filled = open_store(directory, fill_missing=True)
        found = filled.read(filled.spec.box)
    assert counts == {"missing_chunks": 1}
    np.testing.assert_array_equal(found, VOXELS[0] * np.array([1, 0, 1], "u1")[:, None, None])


def test_renamed_files_are_known_by_their_uuid(tmp_path):
    directory = write(tmp_path / "s", SECTIONS)
    (directory / "a.ome.tif").rename(directory / "z.ome.tif")
    store = open_store(directory)
    np.testing.assert_array_equal(store.read(store.spec.box), VOXELS[0])


def test_a_file_of_its_own_that_was_renamed_is_just_that(tmp_path):
    planes = [("old.ome.tif", z, 0, 0, z) for z in range(3)]
    directory = write(tmp_path / "s", planes)
    (directory / "old.ome.tif").rename(directory / "new.ome.tif")
    store = open_store(directory / "new.ome.tif")
    np.testing.assert_array_equal(store.read(store.spec.box), VOXELS[0])


def test_a_file_that_does_not_belong_to_the_image_is_named(tmp_path):
    directory = write(tmp_path / "s", SECTIONS)
    tifffile.imwrite(directory / "stray.tif", VOXELS[0, 0])
    with pytest.raises(GeometryError, match=r"stray\.tif"):
        open_store(directory)


@pytest.mark.parametrize("there", [True, False])
def test_a_companion_file_that_describes_the_image_is_read_or_named(tmp_path, there):
    directory = write(tmp_path / "s", SECTIONS)
    text = '<OME><BinaryOnly MetadataFile="x.companion.ome"/></OME>'
    for name, z, *_ in SECTIONS:
        tifffile.imwrite(directory / name, VOXELS[0, z], description=text, metadata=None)
    if there:
        (directory / "x.companion.ome").write_text(description("x", SECTIONS), encoding="utf-8")
        store = open_store(directory)
        np.testing.assert_array_equal(store.read(store.spec.box), VOXELS[0])
    else:
        with pytest.raises(MissingChunkError, match=r"x\.companion\.ome"):
            open_store(directory)


def test_a_cut_file_that_says_more_planes_than_it_has_is_truncated(tmp_path):
    planes = [("a.ome.tif", z, 0, 0, z) for z in range(3)]
    text = description("a.ome.tif", planes)
    tifffile.imwrite(tmp_path / "a.ome.tif", VOXELS[0, :2], description=text, metadata=None)
    with pytest.raises(OSError, match=r"a\.ome\.tif.*truncated"):
        open_store(tmp_path / "a.ome.tif")
