import dataclasses

import numpy as np
import pytest
from blockfiles import WriteFiles, grid, job

import daskflow
from daskflow.errors import ParameterError
from daskflow.jobs import Job, merge
from daskflow.volume import Stage


def test_merged_job_runs_alike_stages_once(tmp_path, threads):
    one, task = job(tmp_path)
    same, _ = job(tmp_path)
    other, task2 = job(tmp_path / "other", value=2)
    merged = merge([one, same, other], command=("daskflow",))
    assert [stage.name for stage in merged.stages] == ["files", "files-2"]
    assert merged.directory == one.directory
    assert merged.command == ("daskflow",)
    assert merged.run(threads, progress=False).ok
    assert task.calls() == task2.calls() == 8
    assert task2.outputs() == {box: f"2 {box}".encode() for box in task.outputs()}


class Elsewhere(WriteFiles):
    """Describes itself as `WriteFiles` does, and does something else."""


def test_tasks_of_two_kinds_are_two_stages_however_they_describe_themselves(tmp_path):
    one, task = job(tmp_path)
    other = Elsewhere(**{field.name: getattr(task, field.name) for field in dataclasses.fields(task)})
    merged = merge([Job((*one.stages, Stage("elsewhere", grid(8), other)), one.directory, name="two")])
    assert [stage.name for stage in merged.stages] == ["files", "elsewhere"]


def test_stages_of_one_job_all_run_however_alike_they_are(tmp_path):
    one, task = job(tmp_path)
    twice = Job((*one.stages, Stage("again", grid(8), task)), one.directory, name="twice")
    assert [stage.name for stage in merge([twice]).stages] == ["files", "again"]
    assert len(merge([twice, twice]).stages) == 2


def test_two_jobs_that_make_one_thing_in_different_ways_are_refused(tmp_path):
    one, _ = job(tmp_path)
    other, _ = job(tmp_path / "other", value=2)
    rival = Job(other.stages, one.directory, name="files")
    with pytest.raises(ParameterError, match="in different ways"):
        merge([one, rival])
    assert (
        len(merge([dataclasses.replace(one, renewable=True), dataclasses.replace(rival, renewable=True)]).stages) == 2
    )


def test_two_steps_do_not_write_one_table(tmp_path):
    labels = daskflow.open(np.ones((8, 8, 8), np.uint8), layer_type="segmentation")
    counts = daskflow.voxel_counts(labels, output=tmp_path / "table.csv")
    regions = daskflow.region_properties(labels, output=tmp_path / "table.csv")
    with pytest.raises(ParameterError, match=r"would both write \S+table\.csv;"):
        merge([counts, regions])
    assert merge([counts, counts]).stages == counts.stages


def test_nothing_to_merge_is_refused():
    with pytest.raises(ParameterError, match="no jobs"):
        merge([])


def test_a_job_that_leaves_nothing_warns_like_any_other(tmp_path, threads):
    stage = Stage("write", grid(4), WriteFiles(tmp_path / "files"))
    passing = Job((stage,), None, name="passing", warnings=("a size is taken for granted",))
    assert passing.run(threads, progress=False).warnings == passing.warnings
