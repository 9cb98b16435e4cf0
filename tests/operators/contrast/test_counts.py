import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.errors import JobError
from daskflow.geometry import BlockGrid
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.operators.image.contrast import contrast
from daskflow.operators.image.contrast.counts import CountLevels, Sampling, counted_levels
from daskflow.operators.image.contrast_levels import contrast_levels
from daskflow.stores.memory import ArrayStore
from daskflow.volume import Volume
from daskflow.volume.stage import Scopes, run_here

OFFSET = (-2, 3, 5)


class Watched(ArrayStore):
    """Remembers how often each voxel was read."""

    def __init__(self, array, spec):
        super().__init__(array, spec)
        self.reads = np.zeros(array.shape, int)

    def with_scratch(self, directory):
        return self

    def _read(self, box):
        self.reads[box.slices(self.spec.box)] += 1
        return super()._read(box)


def counted(volume, block, coverage, directory):
    sampling = Sampling(volume.box, coverage, 3, patch=(5, 6))
    levels, stages = counted_levels(volume.with_block(block), sampling)
    scopes = Scopes(str(directory))
    run_here(stages, scopes)
    return levels.bind(scopes).read(volume.box), sampling


@settings(max_examples=40)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 40)),
    st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    st.floats(0.05, 1),
    st.sampled_from([("uint8", 256), ("uint16", 65536)]),
)
def test_sampled_voxels_are_counted_once_in_any_blocks(tmp_path_factory, shape, block, coverage, kind):
    dtype, bins = kind
    array = np.random.default_rng(0).integers(0, 250, shape).astype(dtype)
    volume = Volume.from_array(array, voxel_offset=OFFSET)
    levels, sampling = counted(volume, block, coverage, tmp_path_factory.mktemp("scratch"))
    for z, found in enumerate(levels):
        parts = sampling.within(volume.box)[z + OFFSET[0]]
        sampled = np.concatenate([array[part.slices(volume.box)].ravel() for part in parts])
        np.testing.assert_array_equal(found, np.bincount(sampled, minlength=bins))


def test_every_voxel_is_read_once_and_what_is_not_sampled_as_little_as_may_be(tmp_path):
    array = np.ones((4, 20, 24), np.uint8)
    whole = Volume.from_array(array, voxel_offset=OFFSET)
    for coverage in (1, 0.2):
        store = Watched(array, whole.spec)
        counted(Volume.from_store(store), (2, 5, 6), coverage, tmp_path / str(coverage))
        assert store.reads.max() == 1
    assert 0 < store.reads.mean() < 0.8


def test_block_without_a_sample_reads_nothing(tmp_path):
    volume = Volume.from_array(np.ones((1, 10, 12), np.uint8))
    grid, sampling = BlockGrid(volume.box, (1, 5, 6)), Sampling(volume.box, 0.25, 0, patch=(5, 6))
    levels, _ = counted_levels(volume, sampling)
    task = EvaluateVolumes.into(volume.expression, CountLevels(levels.histograms, grid, sampling)).bind(
        Scopes(str(tmp_path))
    )
    read = [bool(task.read(box)[0]) for box in grid]
    assert read.count(True) == 1
    assert [task.estimate(box).bytes_read for box in grid] == [30 * found for found in read]


def test_lost_records_are_named(tmp_path):
    volume = Volume.from_array(np.ones((1, 10, 12), np.uint8))
    levels, _ = counted_levels(volume, Sampling(volume.box, 1, 0))
    with pytest.raises(JobError, match="missing; delete the job's directory"):
        levels.bind(Scopes(str(tmp_path))).read(volume.box)


def test_deep_blocks_of_sixteen_bits_are_counted_in_shallower_ones(tmp_path):
    volume = Volume.from_array(np.full((600, 4, 4), 65535, np.uint16)).with_block((512, 4, 4))
    job = contrast_levels(volume, output=tmp_path / "levels")
    assert job.plan().stages[0].grid.block[0] * 65536 * 8 <= 2**25
    assert contrast(volume)[:1].read().max() == 65535
