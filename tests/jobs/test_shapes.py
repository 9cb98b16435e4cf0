"""What a job left behind, damaged in any way, is one of our errors and never a traceback."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import daskflow
from daskflow.clusters import Threads
from daskflow.errors import DaskflowError
from daskflow.jobs import Job, status
from daskflow.jobs.report import Failure, Report
from daskflow.jobs.shapes import fits, from_json
from daskflow.layers.correct import Correction, correct, undo
from daskflow.layers.remove import plan_removal
from daskflow.volume import Volume

WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just("../.."),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


def refusing(array: np.ndarray) -> np.ndarray:
    if array.max() > 10:
        raise ValueError("no")
    return array


def job_in(folder: Path) -> Job:
    array = np.ones((4, 8, 16), np.uint8)
    array[..., 9:] = 20
    volume = Volume.from_array(array).map_blocks(refusing)
    return daskflow.save(volume, folder / "layer", chunk=(8, 8, 8), block=(8, 8, 8))


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Threads]]:
    folder = tmp_path_factory.mktemp("left")
    with Threads(1) as threads:
        job_in(folder).run(threads, progress=False, retries=0)
        correct(str(folder / "layer"), Correction("segmentation"))
        yield folder, threads


def places(value: Any) -> list[list[Any]]:
    """Return the way to every value inside one."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [[], *([key, *way] for key, one in inside for way in places(one))]


@st.composite
def damages(draw: Any) -> tuple[str, Callable[[bytes], bytes]]:
    """A file, and what becomes of its bytes."""
    name = draw(
        st.sampled_from(
            ["job.json", "report.json", "failures.json", "totals.json", "ledger/save-layer/zarr.json", "provenance"]
        )
    )
    which, other, gone = draw(st.integers(0, 10**6)), draw(WILD), draw(st.booleans())
    cut = draw(st.none() | st.integers(0, 2000))

    def damage(data: bytes) -> bytes:
        if cut is not None:
            return data[:cut]
        whole = json.loads(data)
        ways = places(whole)
        way = ways[which % len(ways)]
        if not way:
            return json.dumps(other).encode()
        at = copy.deepcopy(whole)
        inner = at
        for key in way[:-1]:
            inner = inner[key]
        if gone:
            del inner[way[-1]]
        else:
            inner[way[-1]] = other
        return json.dumps(at).encode()

    return name, damage


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged=damages())
def test_damaged_records_of_a_job_are_errors_of_ours(
    left: tuple[Path, Threads], damaged: tuple[str, Callable[[bytes], bytes]]
) -> None:
    origin, threads = left
    name, damage = damaged
    folder = origin.parent / "again"
    acts = (
        lambda: str(status(str(folder / "layer"))),
        lambda: str(plan_removal(str(folder / "layer"), mips=[0])),
        lambda: undo(str(folder / "layer")),
        lambda: job_in(folder).run(threads, progress=False, retries=0, retry_failed=True),
    )
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(origin, folder)
    file = folder / "layer" / name if name == "provenance" else folder / "layer.daskflow" / name
    file.write_bytes(damage(file.read_bytes()))
    for act in acts:
        with contextlib.suppress(DaskflowError):
            act()


def test_shapes_follow_from_the_types_of_dataclasses() -> None:
    failure = {"stage": "a", "index": 1, "box": "", "exception": "E", "message": "m"}
    report = {"name": "a", "directory": "b", "state": "failed", "stages": [], "failures": [failure], "later": 1}
    assert fits(failure, Failure)
    assert fits(report, Report)
    assert from_json(Report, report).failures[0].message == "m"
    for wrong in (
        {**failure, "index": "1"},
        {**failure, "attempts": None},
        {key: failure[key] for key in failure if key != "box"},
        [failure],
        None,
    ):
        assert not fits(wrong, Failure)
        assert not fits({**report, "failures": [wrong]}, Report)
    assert not fits({**report, "state": "fine"}, Report)
    assert fits({"a": {"b": 1}}, dict[str, dict[str, float]])
    assert not fits({"a": {"b": None}}, dict[str, dict[str, float]])
