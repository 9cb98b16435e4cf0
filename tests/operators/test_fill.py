import contextlib

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.cli.app import app
from daskflow.clusters import Threads
from daskflow.errors import BoundsError, JobError, ParameterError
from daskflow.geometry import BoundingBox
from daskflow.operators.stores.fill import FillBox, fill
from daskflow.operators.stores.open import open as open_volume
from daskflow.volume import Volume

OFFSET = (-3, 5, 100)
LAYOUTS = [
    {"chunk": (4, 4, 4)},
    {"chunk": (4, 4, 4), "shard": (8, 8, 8)},
    {"chunk": (4, 4, 4), "format": "zarr3"},
    {"chunk": (2, 4, 4), "shard": (4, 8, 8), "format": "zarr3"},
]


def layer(directory, layout=LAYOUTS[0], shape=(9, 10, 11), dtype=np.uint32, channels=None):
    whole = shape if channels is None else (channels, *shape)
    voxels = np.random.default_rng(0).integers(1, 99, whole).astype(dtype)
    url = str(directory / "layer")
    saved = Volume.from_array(voxels, voxel_offset=OFFSET, voxel_size=(40, 4, 4)).save(url, encoding="raw", **layout)
    assert saved.run(Threads(1), progress=False).ok
    return url, voxels


def run(job):
    return job.run(Threads(2), progress=False)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(LAYOUTS),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9)), min_size=3, max_size=3),
    st.booleans(),
)
def test_the_box_changes_and_nothing_else_in_any_blocks_and_after_any_interruption(
    tmp_path_factory, layout, block, sides, interrupted
):
    url, voxels = layer(tmp_path_factory.mktemp("fill"), layout)
    start = [min(a, n - 1) for (a, _), n in zip(sides, voxels.shape, strict=True)]
    box = BoundingBox.from_size(start, [s for _, s in sides]).clip(BoundingBox((0, 0, 0), voxels.shape)).shift(OFFSET)
    job = fill(open_volume(url).with_block(block), start=box.start, stop=box.stop, value=7)

    if interrupted:
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(JobError):
            patch.setattr(FillBox, "compute", lambda *_: (_ for _ in ()).throw(RuntimeError("lost")))
            job.run(Threads(1), progress=False, retries=0, fail_fast=True)
    assert job.run(Threads(2), progress=False, retry_failed=True).ok

    volume = open_volume(url)
    voxels[box.slices(volume.box)] = 7
    assert np.array_equal(volume.read(), voxels)


def test_all_channels_are_filled(tmp_path):
    url, voxels = layer(tmp_path, dtype=np.float32, channels=2)
    run(fill(open_volume(url), start=OFFSET, size=(1, 2, 3), value=0.5))
    voxels[:, :1, :2, :3] = 0.5
    assert np.array_equal(open_volume(url).read(), voxels)


def test_a_second_run_does_nothing_unless_the_layer_has_changed(tmp_path):
    url, _ = layer(tmp_path)

    def job():
        return fill(open_volume(url), start=OFFSET, size=(5, 5, 5))

    assert not run(job()).already_done
    assert run(job()).already_done
    run(fill(open_volume(url), start=OFFSET, size=(2, 2, 2), value=9))
    assert not run(job()).already_done
    assert not open_volume(url).read()[:5, :5, :5].any()


def test_a_missing_chunk_that_is_filled_in_part_is_an_error_and_one_that_is_filled_whole_is_not(tmp_path):
    url, _ = layer(tmp_path, {"chunk": (4, 4, 4)}, shape=(8, 8, 8))
    chunks = sorted((tmp_path / "layer" / "4_4_40").iterdir())
    for chunk in chunks:
        chunk.unlink()

    whole = fill(open_volume(url).with_block(4), start=OFFSET, size=(4, 4, 4), value=1)
    assert run(whole).ok
    part = fill(open_volume(url).with_block(4), start=OFFSET, size=(5, 4, 4), value=1)
    report = part.run(Threads(1), progress=False, retries=0)
    assert [failure.exception for failure in report.failures] == ["MissingChunkError"]
    assert run(fill(open_volume(url, fill_missing=True), start=OFFSET, size=(5, 4, 3), value=1)).ok


@pytest.mark.parametrize("value", [-1, 0.5, 2**32])
def test_values_that_the_layer_cannot_hold_are_refused(tmp_path, value):
    url, _ = layer(tmp_path)
    with pytest.raises(ParameterError, match="uint32"):
        fill(open_volume(url), start=OFFSET, size=(1, 1, 1), value=value)


def test_what_cannot_be_filled_is_refused(tmp_path):
    url, _ = layer(tmp_path)
    with pytest.raises(BoundsError):
        fill(open_volume(url), start=(0, 0, 0), size=(1, 1, 1))
    with pytest.raises(ParameterError, match="stop"):
        fill(open_volume(url), start=OFFSET)
    with pytest.raises(ParameterError, match="cropped"):
        fill(open_volume(url)[0:3], start=(0, 6, 101), size=(1, 1, 1))
    with pytest.raises(ParameterError, match="chunks"):
        fill(Volume.from_array(np.ones((2, 2, 2))), start=(0, 0, 0), size=(1, 1, 1))


def test_the_command_line_asks_first(tmp_path):
    url, voxels = layer(tmp_path)
    words = ["--cluster", "threads", "open", url, "fill", "-s", "-3", "5", "100", "--size", "1", "1", "1"]

    refused = CliRunner().invoke(app, words, input="n\n")
    assert refused.exit_code == 1
    assert "overwrite 1 voxels -3--2_5-6_100-101" in refused.output
    assert open_volume(url).read()[0, 0, 0] == voxels[0, 0, 0]

    planned = CliRunner().invoke(app, ["--plan", *words])
    assert planned.exit_code == 0
    assert "Go on" not in planned.output

    assert CliRunner().invoke(app, words, input="y\n").exit_code == 0
    assert open_volume(url).read()[0, 0, 0] == 0
    assert CliRunner().invoke(app, ["--yes", *words, "--value", "3"]).exit_code == 0
    assert open_volume(url).read()[0, 0, 0] == 3
