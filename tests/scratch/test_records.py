from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from daskflow.clusters import Threads
from daskflow.errors import CorruptChunkError, MissingChunkError, ParameterError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs import Job
from daskflow.scratch import Reduce, read_record, write_record
from daskflow.scratch.records import record_url
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Stage, Task
from daskflow.volume.stage import Scope, Scopes

arrays = st.dictionaries(
    st.text("abc_", min_size=1, max_size=4),
    hnp.arrays(
        hnp.integer_dtypes() | hnp.floating_dtypes() | hnp.boolean_dtypes(), hnp.array_shapes(min_dims=0, min_side=0)
    ),
    max_size=3,
)


@given(arrays, st.integers(0, 10**7))
def test_record_comes_back_as_it_was_written(record, index):
    url = "memory://records/any"
    write_record(url, "stage", index, record)
    back = read_record(url, "stage", index)
    assert back.keys() == record.keys()
    for name, array in record.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype


@given(arrays)
def test_same_arrays_give_the_same_bytes(record):
    for index in (0, 1):
        write_record("memory://records/same", "stage", index, record)
    one, other = (kvstore.read_bytes(record_url("memory://records/same", "stage", index)) for index in (0, 1))
    assert one == other


def test_record_that_was_never_written_is_none(tmp_path):
    assert read_record(str(tmp_path), "stage", 3) is None


def test_objects_are_never_pickled(tmp_path):
    with pytest.raises(ValueError, match="pickle"):
        write_record(str(tmp_path), "stage", 0, {"a": np.array([object()])})


@pytest.mark.parametrize("keep", [0, 10, -30])
def test_damaged_record_is_refused(keep, tmp_path):
    write_record(str(tmp_path), "stage", 0, {"a": np.arange(5)})
    url = record_url(str(tmp_path), "stage", 0)
    kvstore.write_bytes(url, kvstore.read_bytes(url)[:keep])
    with pytest.raises(CorruptChunkError, match="is damaged"):
        read_record(str(tmp_path), "stage", 0)


def add_up(records):
    return {
        "sum": np.sum([r["sum"] for r in records], axis=0),
        "blocks": np.concatenate([r["blocks"] for r in records]),
    }


@given(st.integers(1, 40), st.integers(2, 6))
def test_tree_merges_every_record_once_in_order(count, fan_in):
    url = "memory://records/tree"
    kvstore.delete_tree(url)
    for index in range(count):
        write_record(url, "source", index, {"sum": np.array([index]), "blocks": np.array([index])})
    reduce = Reduce("total", "source", count, add_up, Scope("sums", url=url), fan_in=fan_in)
    with pytest.raises(ParameterError, match="has left no record"):
        reduce.result()
    for stage in reduce.stages():
        task = stage.task.bind(Scopes(url))
        assert max(stage.grid.block) == fan_in
        for box in [*stage.grid, stage.grid[0]]:  # the first one twice: blocks are idempotent
            task.write(box, task.compute(box, task.read(box)))
    total = reduce.result()
    assert total["sum"].tolist() == [sum(range(count))]
    assert total["blocks"].tolist() == list(range(count))


def test_a_lost_record_is_not_passed_over():
    url = "memory://records/lost"
    for index in (0, 2):
        write_record(url, "source", index, {"sum": np.array([index]), "blocks": np.array([index])})
    (stage,) = Reduce("total", "source", 3, add_up, Scope("sums", url=url)).stages()
    with pytest.raises(MissingChunkError, match="source/0/1 are gone"):
        stage.task.bind(Scopes(url)).read(stage.grid[0])


@dataclass(frozen=True)
class WriteNumbers(Task):
    """Leave the number of each block as its record."""

    scope: Scope

    def compute(self, box, inputs):
        return {"sum": np.array(box.start[0]), "blocks": np.array([box.start[0]])}

    def write(self, box, outputs):
        write_record(self.scope.url, "source", box.start[0], outputs)
        return BlockResult()

    def describe(self):
        return {}


def test_tree_runs_as_a_job(tmp_path):
    totals = []
    scope = Scope("sums")
    reduce = Reduce("total", "source", 70, add_up, scope)
    numbers = Stage("numbers", BlockGrid(BoundingBox((0, 0, 0), (70, 1, 1)), (1, 1, 1)), WriteNumbers(scope))
    job = Job(
        (numbers, *reduce.stages()),
        str(tmp_path / "job.daskflow"),
        name="total",
        finish=(lambda report, directory: totals.append(reduce.bind(Scopes(f"{directory}/scratch")).result()["sum"]),),
    )
    assert [stage.name for stage in job.stages] == ["numbers", "total-1", "total"]
    assert job.run(Threads(1), progress=False).ok
    assert totals == [sum(range(70))]


@pytest.mark.parametrize(("count", "fan_in"), [(0, 64), (3, 1)])
def test_nothing_to_merge_is_refused(count, fan_in):
    with pytest.raises(ParameterError, match="cannot merge"):
        Reduce("total", "source", count, add_up, Scope("sums"), fan_in=fan_in)


def test_description_names_the_function_and_its_parameters():
    (stage,) = Reduce("total", "source", 3, add_up, Scope("sums"), {"at": 2}).stages()
    described = stage.task.describe()
    assert described["by"].endswith("add_up")
    assert described["parameters"] == {"at": 2}
