import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.clusters import Threads
from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox
from daskflow.operators.image.roi import roi
from daskflow.operators.stores.open import open as open_volume
from daskflow.stores.precomputed_info import read_rois
from daskflow.volume import Volume


def run(job):
    report = job.run(Threads(2), progress=False)
    assert report.ok
    return report


def layer(directory, voxels, offset=(0, 0, 0), levels=0, chunk=(16, 64, 64), factor=(1, 2, 2)):
    url = str(directory / "layer")
    volume = Volume.from_array(voxels, voxel_offset=offset, voxel_size=(40, 4, 4), layer_type="image")
    run(volume.save(url, chunk=chunk, levels=levels, factor=factor))
    return url


def stated(url):
    return json.loads(Path(url, "info").read_text())["scales"][0]["rois"]


def test_the_box_is_stated_in_global_voxels_with_the_last_one_included(tmp_path):
    offset = (100, 2000, 1000)
    voxels = np.zeros((24, 160, 140), np.uint8)
    voxels[5:20, 60:120, 40:100] = 200
    url = layer(tmp_path, voxels, offset)

    report = run(roi(open_volume(url)))

    assert stated(url) == [[1040, 2060, 105, 1099, 2119, 119]]
    assert report.results["rois"] == ["105-120_2060-2120_1040-1100"]
    assert read_rois(url) == [BoundingBox((105, 2060, 1040), (120, 2120, 1100))]


def test_large_sections_are_averaged_first(tmp_path):
    voxels = np.zeros((4, 1024, 1024), np.uint8)
    voxels[1:3, 100:900, 100:900] = 90
    url = layer(tmp_path, voxels, chunk=(4, 256, 256))

    run(roi(open_volume(url)))

    assert stated(url) == [[100, 100, 1, 899, 899, 2]]


@pytest.mark.parametrize("offset", [(0, 0, 0), (3, -7, 5), (-1, 13, 1001)])
def test_boxes_found_on_a_coarse_level_are_those_of_the_finest_at_any_offset(tmp_path, offset):
    voxels = np.zeros((8, 64, 96), np.uint8)
    voxels[2:5, 16:40, 32:64] = 100
    voxels[6:8, 48:64, 0:8] = 100
    url = layer(tmp_path, voxels, offset, levels=2, chunk=(8, 16, 16))

    report = run(roi(open_volume(url)))

    boxes = [BoundingBox((2, 16, 32), (5, 40, 64)), BoundingBox((6, 48, 0), (8, 64, 8))]
    assert report.results["rois"] == [str(box.shift(offset)) for box in boxes]


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(*[st.integers(3, 20)] * 3),
    st.integers(0, 2**32 - 1),
    st.integers(0, 12),
    st.sampled_from([None, 3]),
    st.sampled_from([4, 512]),
    st.tuples(*[st.integers(-9, 9)] * 3),
)
def test_any_blocks_find_the_same_boxes(block, seed, dust, z_step, side, offset):
    import cc3d

    voxels = (np.random.default_rng(seed).random((9, 12, 14)) < 0.06).astype(np.uint8) * 9
    volume = Volume.from_array(voxels, voxel_offset=offset).with_block(block)

    found = run(roi(volume, dust=dust, z_step=z_step, max_axial_len=side)).results["rois"]

    whole = run(roi(volume.with_block(64), dust=dust, z_step=z_step, max_axial_len=side)).results["rois"]
    assert found == whole
    if side == 512 and z_step is None:
        labels = cc3d.connected_components(voxels, connectivity=26)
        known = cc3d.statistics(labels)
        kept = [n for n in range(1, labels.max() + 1) if known["voxel_counts"][n] >= dust]
        corners = [[(s.start, s.stop) for s in known["bounding_boxes"][n]] for n in kept]
        boxes = [BoundingBox(*zip(*corner, strict=True)).shift(offset) for corner in corners]
        assert sorted(found) == sorted(map(str, boxes))


def test_slabs_are_searched_by_themselves():
    voxels = np.zeros((10, 8, 8), np.uint8)
    voxels[2:9, 2:6, 2:6] = 5

    assert run(roi(Volume.from_array(voxels), z_step=4)).results["rois"] == [
        "2-4_2-6_2-6",
        "4-8_2-6_2-6",
        "8-9_2-6_2-6",
    ]


def test_faint_and_small_pieces_are_no_tissue():
    voxels = np.zeros((4, 20, 20), np.float32)
    voxels[0, :5, :5], voxels[2:, 10:, 10:], voxels[0, 19, 19] = 0.25, 0.8, 0.9

    found = run(roi(Volume.from_array(voxels), suppress_faint=0.25)).results["rois"]

    assert found == ["2-4_10-20_10-20"]


def test_other_keys_of_the_info_survive_and_boxes_are_replaced(tmp_path):
    voxels = np.full((4, 8, 8), 3, np.uint8)
    url = layer(tmp_path, voxels)
    info = json.loads((tmp_path / "layer" / "info").read_text())
    info["mine"] = {"a": 1}
    info["scales"][0]["rois"] = [[0, 0, 0, 1, 1, 1]]
    (tmp_path / "layer" / "info").write_text(json.dumps(info))

    run(roi(open_volume(url)))
    assert run(roi(open_volume(url))).already_done
    assert not run(roi(open_volume(url), dust=300)).already_done

    changed = json.loads((tmp_path / "layer" / "info").read_text())
    assert changed["mine"] == {"a": 1}
    assert changed["scales"][0]["rois"] == []


def test_a_volume_without_tissue_has_no_boxes():
    assert run(roi(Volume.from_array(np.zeros((3, 4, 5), np.uint8)))).results["rois"] == []


def test_what_makes_no_sense_is_refused(tmp_path):
    volume = Volume.from_array(np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(ParameterError, match="z_step"):
        roi(volume, z_step=0)
    with pytest.raises(ParameterError, match="max_axial_len"):
        roi(volume, max_axial_len=0)
    with pytest.raises(ParameterError, match="one channel"):
        roi(Volume.from_array(np.zeros((2, 3, 4, 5), np.uint8)))
    with pytest.raises(StoreNotFoundError, match="mip 2"):
        roi(volume, mip=2)
