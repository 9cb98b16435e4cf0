import numpy as np
import pytest

from daskflow.jobs.fingerprint import describe_stages
from daskflow.operators.connected_components import connected_components
from daskflow.stores.memory import ArrayStore
from daskflow.volume import Volume
from daskflow.volume.stage import run_here


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

    run_here(connected_components(volume, connectivity=26).expression.stages, str(tmp_path))

    assert sum(box.size for box in seen) == volume.box.size
    assert len(set(seen)) == len(seen)


def test_stages_leave_the_same_bytes_each_time(volume, tmp_path):
    stages = connected_components(volume, connectivity=26).expression.stages
    for name in ("first", "second"):
        run_here(stages, str(tmp_path / name))
    run_here(stages, str(tmp_path / "second"))

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
        described = [str(describe_stages([labelled.expression.stages[position]])) for labelled in labellings]
        assert len(set(described)) == len(described)


def test_the_same_labelling_is_described_alike_twice(volume):
    one, two = (describe_stages(connected_components(volume).expression.stages) for _ in range(2))

    assert one == two


def test_plans_know_what_is_read_and_written(volume):
    label, match, number = connected_components(volume).expression.stages
    box = label.grid[0]

    estimate = label.task.estimate(box)
    assert (estimate.voxels_read, estimate.bytes_read, estimate.bytes_written) == (8, 8, 32)
    assert estimate.memory >= estimate.bytes_read + estimate.bytes_written
    assert match.task.estimate(match.grid[0]).bytes_read > 0
    assert len(number.grid) == 1
