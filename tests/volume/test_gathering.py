import numpy as np
import pytest

import daskflow
from daskflow.clusters import Threads
from daskflow.errors import MissingChunkError
from daskflow.volume import Volume


@pytest.fixture
def threads():
    with Threads(1) as pool:
        yield pool


def reversed_sections(volume):
    first, last = volume.box.start[0], volume.box.stop[0] - 1
    return daskflow.reorder_sections(volume, mapping={z: first + last - z for z in range(first, last + 1)})


IMAGE = np.random.default_rng(0).integers(0, 255, (7, 6, 8), np.uint8)


@pytest.mark.parametrize("source", ["numpy", "dask", "stored", "waiting"])
def test_gathered_voxels_are_the_same_wherever_they_come_from(tmp_path, threads, source):
    import dask.array as da

    volume = {
        "numpy": lambda: Volume.from_array(IMAGE),
        "dask": lambda: Volume.from_dask(da.from_array(IMAGE, chunks=(2, 3, 4))),
        "stored": lambda: stored(tmp_path, threads),
        "waiting": lambda: daskflow.connected_components(Volume.from_array(IMAGE)),
    }[source]()
    expected = volume.read()[::-1]
    result = reversed_sections(volume).with_block((3, 4, 5))
    np.testing.assert_array_equal(result.read(), expected)
    np.testing.assert_array_equal(result.compute(scheduler="synchronous"), expected)
    result.save(tmp_path / "out").run(threads, progress=False)
    np.testing.assert_array_equal(daskflow.open(tmp_path / "out").read(), expected)


def stored(tmp_path, threads):
    Volume.from_array(IMAGE).save(tmp_path / "layer", chunk=(4, 4, 4)).run(threads, progress=False)
    return daskflow.open(tmp_path / "layer")


def test_operators_below_and_above_see_the_right_neighbours():
    volume = Volume.from_array(IMAGE.astype(np.float32)).with_block((2, 3, 4))
    blurred = daskflow.gaussian_filter(reversed_sections(daskflow.gaussian_filter(volume, sigma=1)), sigma=(1, 0, 0))
    whole = daskflow.gaussian_filter(volume, sigma=1).read()[::-1]
    expected = daskflow.gaussian_filter(Volume.from_array(whole), sigma=(1, 0, 0)).read()
    np.testing.assert_allclose(blurred.with_block((3, 2, 5)).compute(scheduler="synchronous"), expected, rtol=1e-5)


def test_source_that_is_also_read_straight_is_evaluated_once_for_each(threads):
    volume = Volume.from_array(IMAGE).with_block((2, 3, 4))
    both = volume.map_blocks(np.subtract, reversed_sections(volume), dtype=np.uint8)
    np.testing.assert_array_equal(both.compute(scheduler="synchronous"), IMAGE - IMAGE[::-1])


def test_missing_chunks_are_counted_in_every_part(tmp_path, threads):
    volume = stored(tmp_path, threads)
    next(path for path in (tmp_path / "layer").rglob("0-4_0-4_0-4*")).unlink()
    with pytest.raises(MissingChunkError):
        reversed_sections(daskflow.open(tmp_path / "layer")).read()
    filled = reversed_sections(daskflow.open(tmp_path / "layer", fill_missing=True))
    report = filled.save(tmp_path / "out").run(threads, progress=False)
    assert report.counts["missing_chunks"] == 4  # one for each section of the chunk
    assert volume.box == filled.box
