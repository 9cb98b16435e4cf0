"""Each patch is run by one block, and the result is that of the whole volume, to the bit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import daskflow
from daskflow.clusters import Threads
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.inference.blend import infer
from daskflow.inference.network import Network
from daskflow.inference.once import OncePerPatch, PatchStore
from daskflow.inference.patches import PatchGrid
from daskflow.jobs import merge
from daskflow.operators.inference.inference import inference
from daskflow.volume import Volume
from daskflow.volume.stage import Scopes, run_here


class Turned:
    """Answers with the mirrored patch and another function of it; counts those of an image above 2."""

    calls = 0

    def __call__(self, patches):
        type(self).calls += int((patches.max(axis=(1, 2, 3, 4)) > 1).sum())  # not those of noise
        return np.concatenate([patches[..., ::-1] / 3, np.sqrt(patches) + 1], axis=1)

    def __getstate__(self):
        return None


class Classes(Turned):
    def __call__(self, patches):
        return (super().__call__(patches)[:, :, ::-1] * 50).astype(np.uint8)


def image(shape, seed=0):
    array = np.random.default_rng(seed).random(shape, np.float32) + 2
    array[:, : shape[1] // 3] = 0  # patches that are not run
    return array


@st.composite
def cases(draw):
    patch = draw(st.tuples(*[st.integers(2, 6)] * 3))
    overlap = tuple(draw(st.integers(0, n - 1)) for n in patch)
    shape = draw(st.tuples(*[st.integers(1, 14)] * 3))
    grid = PatchGrid(BoundingBox.from_size((3, -2, 1), shape), patch, patch, overlap)
    return grid, draw(st.tuples(*[st.integers(0, 1)] * 3)), draw(st.integers(1, 900)), draw(st.booleans())


@settings(max_examples=25, deadline=None)
@given(case=cases(), seed=st.integers(0, 3))
def test_any_blocks_give_the_whole_volume_to_the_bit(tmp_path_factory, case, seed):
    grid, crop, voxels, blended = case
    network = Network(
        "prebuilt",
        grid.input_patch,
        grid.output_patch,
        channels=2,
        blend="bump" if blended else "none",
        prebuilt=Turned() if blended else Classes(),
    )
    array = image(grid.box.shape, seed)
    hull = grid.covered.shrink(crop) if all(n > 2 for n in grid.covered.shape) else grid.covered
    dtype = "float32" if blended else "uint8"
    expected = infer(array, box=hull, read_box=grid.box, grid=grid, network=network, dtype=dtype)
    run = Turned if blended else Classes
    volume = Volume.from_array(array, voxel_offset=grid.box.start)
    node = volume.map_boxes(
        infer,
        reads=grid.reads,
        spec=volume.spec.replace(box=grid.covered, channels=2, dtype=np.dtype(dtype)),
        dear=True,
    ).node
    once = OncePerPatch(grid, network, "error")
    waiting = once.kept(node, hull, voxels * 2 * np.dtype(dtype).itemsize, 2.0)
    run.calls = 0
    scopes = Scopes(str(tmp_path_factory.mktemp("scratch")))
    run_here(waiting.stages, scopes)
    most = np.prod(once.counts(hull))
    assert run.calls <= most
    store = waiting.bound(scopes).store
    assert isinstance(store, PatchStore)
    for box in (hull, *BlockGrid(hull, (3, 4, 5))):
        np.testing.assert_array_equal(store.read(box), expected[(slice(None), *box.slices(hull))])


def test_a_job_runs_every_patch_once_whatever_its_blocks(tmp_path):
    array = np.random.default_rng(0).random((12, 40, 40), np.float32) + 2
    options = {"input_patch_size": (6, 16, 16), "output_patch_overlap": (2, 4, 4), "num_output_channels": 2}
    volume = inference(Volume.from_array(array), framework="prebuilt", convnet_model=Turned(), **options)
    patches = 3 * 3 * 3
    expected = volume.read()
    job = merge(
        [
            volume.save(tmp_path / "answer", chunk=(4, 8, 8), block=(4, 16, 16)),
            volume.map_blocks(np.negative).save(tmp_path / "negative", chunk=(4, 8, 8), block=(4, 16, 16)),
        ]
    )
    assert next(stage.name for stage in job.stages) == "keep-in-scratch"
    assert f"{patches} patches, passes per patch 1.00 instead of" in str(job.plan())
    Turned.calls = 0
    with Threads(2) as threads:
        report = job.run(threads, progress=False, retries=0)
    assert report.ok, report.failures
    assert Turned.calls == patches
    assert report.counts["patches"] == patches
    np.testing.assert_array_equal(daskflow.open(tmp_path / "answer").read(), expected)
    np.testing.assert_array_equal(daskflow.open(tmp_path / "negative").read(), -expected)
    assert not (tmp_path / "answer" / ".daskflow" / "scratch").exists()


def test_a_run_that_ended_early_leaves_only_its_own_blocks_to_the_next(tmp_path):
    class Failing(Turned):
        calls, most = 0, 20

        def __call__(self, patches):
            if Failing.calls >= Failing.most:
                raise RuntimeError("gone")
            return super().__call__(patches)

    array = np.random.default_rng(0).random((12, 40, 40), np.float32) + 2
    options = {"input_patch_size": (6, 16, 16), "output_patch_overlap": (2, 4, 4), "num_output_channels": 2}
    volume = inference(Volume.from_array(array), framework="prebuilt", convnet_model=Failing(), **options)
    job = volume.save(tmp_path / "answer", chunk=(4, 8, 8), block=(4, 16, 16))
    with Threads(1) as threads:
        first = job.run(threads, progress=False, retries=0, fail_fast=True)
        assert not first.ok
        Failing.calls, Failing.most = 0, 1000
        last = job.run(threads, progress=False, retry_failed=True)
    assert last.ok
    assert 0 < first.counts["patches"] < last.counts["patches"] == 27
    assert Failing.calls == 27 - first.counts["patches"]
    np.testing.assert_array_equal(daskflow.open(tmp_path / "answer").read(), volume.read())
