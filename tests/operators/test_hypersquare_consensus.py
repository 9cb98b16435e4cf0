import json

import numpy as np
import pytest

from daskflow.errors import ParameterError
from daskflow.operators.segmentation.hypersquare_consensus import hypersquare_consensus
from daskflow.volume import Volume

SEGMENTS = np.random.default_rng(0).integers(0, 4, (6, 8, 10), np.uint16)
VOLUMES = {"0-5_0-8_0-6": 7, "5-10_0-8_0-4": 9}
CONSENSUS = {"7": {"300": [1, 2]}, "9": {"300": [3], "301": [1]}, "12": {"5": [1]}}


@pytest.fixture
def ask(tmp_path):
    def asked(volumes=VOLUMES, consensus=CONSENSUS, array=SEGMENTS):
        places = tmp_path / "volumes.json", tmp_path / "consensus.json"
        for place, content in zip(places, (volumes, consensus), strict=True):
            place.write_text(json.dumps(content))
        volume = Volume.from_array(array, layer_type="segmentation").with_block((4, 3, 7))
        return hypersquare_consensus(volume, volume_map=places[0], consensus_map=places[1])

    return asked


def test_segments_become_cells_and_others_keep_volume_and_segment(ask):
    expected = np.zeros(SEGMENTS.shape, np.uint32)
    for (z, x), number, cells in (
        ((slice(0, 6), slice(0, 5)), 7, {1: 300, 2: 300}),
        ((slice(0, 4), slice(5, 10)), 9, {3: 300, 1: 301}),
    ):
        part = SEGMENTS[z, :, x]
        names = [0, *(cells.get(one, number << 16 | one) for one in (1, 2, 3))]
        expected[z, :, x] = np.array(names, np.uint32)[part]
    np.testing.assert_array_equal(ask().read(), expected)
    np.testing.assert_array_equal(ask(array=SEGMENTS[None]).read(), expected)


@pytest.mark.parametrize(
    ("volumes", "consensus", "message"),
    [
        ({**VOLUMES, "4-6_7-9_5-7": 3}, {}, "volumes 7 at 0-6_0-8_0-5 and 3 at 5-6_7-8_4-6 .* share voxels"),
        ({"0-5_0-8_0-6": 65536}, {}, "the volume at 0-5_0-8_0-6 is 65536, .* from 0 to 65535"),
        (VOLUMES, {"7": {"0": [1]}}, "a cell of volume 7 is '0'"),
        (VOLUMES, {"7": {"5": [0]}}, "a segment of cell 5 in volume 7 is 0"),
        (VOLUMES, {"7": {"5": [1], "6": [1]}}, "segment 1 of volume 7 belongs to both cells 5 and 6"),
    ],
)
def test_what_cannot_be_right_is_refused(ask, volumes, consensus, message):
    with pytest.raises(ParameterError, match=message):
        ask(volumes, consensus)


def test_a_segment_is_never_taken_for_a_cell(ask):
    with pytest.raises(ParameterError, match=r"segment 3 of volume 0 .* would be named 3, which is the name of a cell"):
        ask({"0-5_0-8_0-6": 0}, {"0": {"3": [1]}}).read()


def test_wide_segments_are_refused(ask):
    with pytest.raises(ParameterError, match="have 8 or 16 bits, not uint32; astype -d uint16"):
        ask(array=SEGMENTS.astype(np.uint32))
