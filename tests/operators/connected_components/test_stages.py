import dask.array as da
import numpy as np
import pytest

from daskflow.clusters import Threads
from daskflow.clusters.workers import Workers
from daskflow.errors import ParameterError, PlanError
from daskflow.jobs.fingerprint import describe_stages
from daskflow.jobs.job import keys_of
from daskflow.jobs.plan import Plan
from daskflow.operators.segmentation.connected_components import connected_components
from daskflow.stores.counting import count
from daskflow.stores.memory import ArrayStore
from daskflow.volume import Volume
from daskflow.volume.description import Option
from daskflow.volume.stage import Scopes, run_here


@pytest.fixture
def volume():
    values = np.random.default_rng(0).integers(0, 3, (9, 10, 11)).astype(np.uint8)
    return Volume.from_array(values).with_block(2)


def contents(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_every_voxel_is_read_once(volume, monkeypatch, tmp_path):
    seen = []
    read = ArrayStore._read
    monkeypatch.setattr(ArrayStore, "_read", lambda store, box: seen.append(box) or read(store, box))

    run_here(connected_components(volume, connectivity=26).expression.stages, Scopes(str(tmp_path)))

    assert sum(box.size for box in seen) == volume.box.size
    assert len(set(seen)) == len(seen)


def test_stages_leave_the_same_bytes_each_time(volume, tmp_path):
    stages = connected_components(volume, connectivity=26).expression.stages
    for name in ("first", "second"):
        run_here(stages, Scopes(str(tmp_path / name)))
    run_here(stages, Scopes(str(tmp_path / "second")))

    first = contents(tmp_path / "first")
    assert first
    assert contents(tmp_path / "second") == first


def test_stages_of_two_labellings_are_told_apart(volume):
    labellings = [
        connected_components(volume),
        connected_components(volume, connectivity=26),
        connected_components(volume, threshold=1),
        connected_components(volume.with_block(3)),
    ]

    for position in range(3):
        keys = {key for labelled in labellings for key in keys_of(labelled.expression.stages[position : position + 1])}
        assert len(keys) == len(labellings)


def test_no_two_stages_of_a_labelling_pass_for_one(volume):
    stages = connected_components(volume).expression.stages

    described = [str(list(describe_stages([stage]).values())) for stage in stages]

    assert len(set(described)) == len(stages)


def test_the_same_labelling_is_described_alike_twice(volume):
    one, two = (describe_stages(connected_components(volume).expression.stages) for _ in range(2))

    assert one == two


def test_plans_know_what_is_read_and_written(volume):
    label, match, *_, number = connected_components(volume).expression.stages
    box = label.grid[0]

    estimate = label.task.estimate(box)
    assert (estimate.voxels_read, estimate.bytes_read, estimate.bytes_written) == (8, 8, 32)
    assert estimate.memory >= estimate.bytes_read + estimate.bytes_written
    assert match.task.estimate(match.grid[0]).bytes_read > 0
    assert number.grid == match.grid


def test_a_plan_counts_on_what_passes_through_faces_and_never_on_all_components():
    small, large, huge = (
        Volume.from_dask(da.zeros((n, n, n), dtype=np.uint8, chunks=n)).with_block(64) for n in (256, 2**15, 2**16)
    )
    workers = Workers(1, 1, 1, 4 * 10**9)

    for volume in (small, large):
        Plan.of("fits", "here", connected_components(volume).expression.stages, workers).check()
    with pytest.raises(PlanError, match=r"join-seams-\d needs .*; give workers more memory$"):
        Plan.of("huge", "here", connected_components(huge).expression.stages, workers).check()


@pytest.mark.parametrize(("side", "stages"), [(4, 3), (5, 8)])
def test_a_volume_of_one_group_of_blocks_has_few_stages(side, stages):
    volume = Volume.from_array(np.zeros((side, 2, 2), np.uint8)).with_block(1)

    assert len(connected_components(volume).expression.stages) == stages


def counted(block):
    count("odd_voxels", block.size)
    return block


class Unfit(Option):
    """An option that cannot be used."""

    def describe(self):
        return "unfit"

    def check(self):
        raise ParameterError("the model is unfit")


def unfit(block, option):
    pytest.fail(f"{option} was used on {block.shape}")


def test_what_is_counted_while_computing_reaches_the_report(volume, tmp_path):
    job = connected_components(volume.map_blocks(counted, dtype=np.uint8)).save(tmp_path / "out", chunk=(2, 2, 2))

    assert job.run(Threads(1), progress=False).counts["odd_voxels"] == volume.box.size


def test_options_that_refuse_are_met_before_any_block(volume, tmp_path):
    refusing = volume.map_blocks(unfit, dtype=np.uint8, option=Unfit())

    with pytest.raises(ParameterError, match="unfit"):
        connected_components(refusing).save(tmp_path / "out", chunk=(2, 2, 2)).run(Threads(1), progress=False)
