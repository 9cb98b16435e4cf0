"""The spatial index: names and answers are those of CloudVolume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.errors import CorruptChunkError, MissingChunkError
from daskflow.geometry import BoundingBox
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.mesh_files import legacy_info
from daskflow.stores.objects.spatial_index import SpatialIndex

INDEX = SpatialIndex(BoundingBox((0, -20, 10), (64, 44, 74)), (40, 32, 64), (40.0, 4.0, 4.0))


def fill(directory, index, boxes):
    """Write every cell, with the parts of the boxes (xyz nm) that reach into it."""
    size = np.array(index.voxel_size[::-1])
    for cell in index.cells():
        low, high = np.array(cell.start[::-1]) * size, np.array(cell.stop[::-1]) * size
        parts = {}
        for label, box in boxes.items():
            a, b = np.maximum(box[:3], low), np.minimum(box[3:], high)
            if (a < b).all():
                parts[label] = (*a.tolist(), *b.tolist())
        index.write(directory, cell, parts)


def test_cells_cover_the_volume_from_its_start():
    cells = list(INDEX.cells())
    assert len(cells) == 4
    assert sum(cell.size for cell in cells) == INDEX.box.size
    assert cells[0] == BoundingBox((0, -20, 10), (40, 12, 74))


@pytest.mark.parametrize(
    ("voxel_size", "name"),
    [
        ((40.0, 4.0, 4.0), "40-296_-80-48_0-1600.spatial"),
        ((40.0, 4.5, 4.0), "40.0-296.0_-90.0-54.0_0.0-1600.0.spatial"),
        ((33.25, 4.5, 4.0), "40.00-296.00_-90.00-54.00_0.00-1330.00.spatial"),
    ],
)
def test_names_have_the_decimals_of_the_voxel_size(voxel_size, name):
    index = SpatialIndex(INDEX.box, INDEX.cell, voxel_size)
    assert index.name(BoundingBox((0, -20, 10), (40, 12, 74))) == name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("z_size", [40, 33.5])
def test_cloudvolume_finds_every_file_and_the_same_labels(layer, with_objects, z_size):
    from cloudvolume import CloudVolume

    from daskflow.stores.precomputed_info import load_info, save_info

    info = load_info(layer)
    info["scales"][0]["resolution"][2] = z_size
    save_info(layer, info)
    index = SpatialIndex(INDEX.box, INDEX.cell, (float(z_size), 4.0, 4.0))
    directory = with_objects("mesh", legacy_info(mip=0, spatial_index=index.info))
    boxes = {5: (45, -70, 10, 60, -60, 50), 2**40: (100, -80, 0, 200, 170, 2000), 7: (41, 100, 1700, 80, 150, 1800)}
    fill(directory, index, boxes)
    theirs = CloudVolume(layer, progress=False).mesh.spatial_index
    assert theirs.query(theirs.physical_bounds) == set(boxes)
    assert sorted(index.query(directory)) == sorted(boxes)
    assert SpatialIndex.of({"spatial_index": index.info}, INDEX.box) == index


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_query_finds_what_reaches_into_the_box(tmp_path_factory, data):
    directory = str(tmp_path_factory.mktemp("index"))
    corner = st.tuples(st.integers(40, 290), st.integers(-80, 170), st.integers(0, 2500))
    boxes = {}
    for label in range(1, data.draw(st.integers(1, 6))):
        low = data.draw(corner)
        boxes[label] = (*low, *(v + data.draw(st.integers(1, 300)) for v in low))
    fill(directory, INDEX, boxes)
    start = tuple(data.draw(st.integers(a, b - 1)) for a, b in zip(INDEX.box.start, INDEX.box.stop, strict=True))
    within = BoundingBox.from_size(start, data.draw(st.tuples(*[st.integers(1, 30)] * 3))).clip(INDEX.box)
    size = np.array(INDEX.voxel_size[::-1])
    low, high = np.array(within.start[::-1]) * size, np.array(within.stop[::-1]) * size
    inside = [n for n, b in boxes.items() if (np.array(b[:3]) < high).all() and (np.array(b[3:]) > low).all()]
    found = INDEX.query(directory, within)
    assert set(inside) <= set(found)
    touching = [n for n, b in boxes.items() if (np.array(b[:3]) <= high).all() and (np.array(b[3:]) >= low).all()]
    assert set(found) <= set(touching)


def test_a_cell_that_was_not_written_is_missed(tmp_path):
    fill(str(tmp_path), INDEX, {})
    assert INDEX.query(str(tmp_path)) == {}
    (tmp_path / INDEX.name(next(INDEX.cells()))).unlink()
    with pytest.raises(MissingChunkError, match="spatial index"):
        INDEX.query(str(tmp_path))


def test_a_damaged_cell_is_named(tmp_path):
    cell = next(INDEX.cells())
    write_file(str(tmp_path), INDEX.name(cell), b'{"5": [1, 2]}')
    with pytest.raises(CorruptChunkError, match="damaged"):
        INDEX.read(str(tmp_path), cell)


def test_objects_without_an_index_have_none():
    assert SpatialIndex.of({}, INDEX.box) is None
