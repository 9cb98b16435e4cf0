"""Peaks of a probability map, against a search of the whole volume."""

import numpy as np
import pytest

import daskflow
from daskflow.errors import ParameterError

h5py = pytest.importorskip("h5py")


def expected(array, rise, distance, share):
    """Return the first of the largest voxels of each window, by brute force."""
    found = []
    for place in np.ndindex(*(n - 2 * distance for n in array.shape)):
        window = array[tuple(slice(p, p + 2 * distance + 1) for p in place)]
        middle = window.size // 2
        if window.ravel().argmax() == middle and rise[tuple(p + distance for p in place)] > share:
            found.append([p + distance for p in place])
    return found


@pytest.mark.parametrize("block", [(20, 24, 22), (7, 9, 22), (5, 24, 6)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_peaks_are_those_of_the_whole_volume(tmp_path, block, dtype):
    random = np.random.default_rng(0)
    array = random.integers(0, 60, (20, 24, 22)) if dtype == "uint8" else random.random((20, 24, 22))
    volume = daskflow.open(array.astype(dtype), voxel_offset=(-5, 100, 7), voxel_size=(40, 4, 4)).with_block(block)
    job = daskflow.detect_points(volume, output=tmp_path / "points.h5", min_distance=2, threshold_rel=0.9)
    report = job.run(progress=False)
    values = array.astype(dtype).astype(np.float64)
    rise = (values - values.mean()) / (values.max() - values.mean())
    wanted = expected(values, rise, 2, 0.9)
    assert 0 < len(wanted) == report.results["points"]
    with h5py.File(tmp_path / "points.h5") as file:
        assert (file["points"][:] - [-5, 100, 7]).tolist() == wanted
        assert file["voxel_size"][:].tolist() == [40, 4, 4]
        np.testing.assert_allclose(file["confidences"][:], rise[tuple(np.transpose(wanted))], rtol=1e-6)


def test_what_has_no_peaks_or_no_room_for_them(tmp_path):
    flat = daskflow.open(np.full((5, 6, 7), 0.5, np.float32))
    report = daskflow.detect_points(flat, output=tmp_path / "none.h5", min_distance=1).run(progress=False)
    assert report.results["points"] == 0
    with pytest.raises(ParameterError, match="farther than 3"):
        daskflow.detect_points(flat, output=tmp_path / "none.h5", min_distance=3)
