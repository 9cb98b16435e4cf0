import dataclasses
import json
from types import SimpleNamespace

import pytest
from blockfiles import grid, job

from daskflow.jobs.report import Failure, Interrupted, Report, StageReport, causes
from daskflow.jobs.shapes import from_json

STAGE = StageReport("copy", 10, 6, 1, 2, 3, {"missing_chunks": 4}, 2.5, 10**7, 100, 50, 2, 1, 10**8)
FAILURE = Failure("copy", 3, "0-1_0-1_0-1", "ValueError", "no luck\nsecond line", "Traceback", 3, "node:1")
REPORT = Report("job", "memory://job", "failed", (STAGE,), (FAILURE,), {"score": 0.5}, seconds=2.5)


def test_report_survives_json():
    assert from_json(Report, json.loads(json.dumps(dataclasses.asdict(REPORT)))) == REPORT


def test_report_fits_a_screen():
    lines = str(REPORT).splitlines()
    assert lines[0] == "job: failed, 7 of 10 blocks done, 2 failed, 2.5 s"
    assert max(map(len, lines[:3])) <= 120
    assert len(lines) <= 10
    assert "4 missing chunks" in lines
    assert "ValueError: no luck" in str(REPORT)
    assert "second line" not in str(REPORT)
    assert "no luck" in REPORT._repr_html_()


def test_results_are_said_once_and_named():
    scores = {"rand_index": 0.123456789, "missing_chunks": 4}
    results = {"scores": scores, "again": {"missing_chunks": 4}, "longest": {"label 7": 2}, "boxes": ["a", "b"]}
    lines = str(dataclasses.replace(REPORT, results=results)).splitlines()
    assert [line.split() for line in lines[-4:]] == [
        ["rand", "index", "0.123457"],
        ["longest:"],
        ["label", "7:", "2"],
        ["boxes:", "a,", "b"],
    ]
    assert "4 missing chunks" in lines
    assert "rand" not in str(dataclasses.replace(REPORT, results=results, verified="chunks"))


@pytest.mark.parametrize("state", ["finished", "failed"])
def test_progress_and_what_it_leaves_unsaid_say_every_line_of_a_report_once(tmp_path, threads, state):
    files, _ = job(tmp_path, raises={} if state == "finished" else {str(grid(8)[3]): -1})
    said = []
    report = files.run(
        threads, progress=SimpleNamespace(update=lambda _: None, say=said.append, close=lambda: None), retries=0
    )
    assert report.state == state
    assert sorted([*said, *report.details.splitlines()]) == sorted(str(report).splitlines())


@pytest.mark.parametrize("state", ["failed", "stopped", "interrupted"])
def test_only_a_finished_report_is_ok(state):
    assert not dataclasses.replace(REPORT, state=state).ok
    assert dataclasses.replace(REPORT, state="finished").ok


def test_causes_are_grouped_with_the_most_frequent_first():
    failures = [dataclasses.replace(FAILURE, index=i, exception="OSError" if i % 3 else "ValueError") for i in range(9)]
    lines = causes(failures)
    assert lines[0].startswith("6 blocks of copy failed: OSError")
    assert lines[1].startswith("3 blocks of copy failed: ValueError")


def test_many_causes_are_cut_to_a_screen():
    lines = causes([dataclasses.replace(FAILURE, exception=f"Error{i}") for i in range(30)])
    assert len(lines) == 9
    assert lines[-1] == "and 22 more causes, in failures.json"


def test_interrupted_says_how_to_go_on():
    error = Interrupted(dataclasses.replace(REPORT, state="interrupted"))
    assert isinstance(error, KeyboardInterrupt)
    assert "run the same again" in str(error)
