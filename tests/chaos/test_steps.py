"""Drivers that die at each object they write or delete, one after another, and what the next one makes of it."""

import json
import shutil
import threading

import numpy as np
import pytest

import daskflow
from daskflow.clusters import Threads
from daskflow.jobs import status
from daskflow.jobs.ledger import Journal
from daskflow.stores import kvstore

BOX = (8, 8, 12)
CHANGES = ("write_bytes", "write_if_absent", "delete", "delete_tree")


class DiedError(BaseException):
    """Ends a driver: nothing in the package catches it."""


class Mortal:
    """Lets the driver change so many objects, and no more.

    The lock is left out: that of a dead process is taken over, but here the next driver is the same process.
    """

    def __init__(self, monkeypatch):
        self.left = None
        for name in CHANGES:
            monkeypatch.setattr(kvstore, name, self._guarded(name, getattr(kvstore, name)))
        monkeypatch.setattr(Journal, "save_soon", Journal.save)

    def _guarded(self, name, change):
        def guarded(url, *args):
            if url.endswith("/lock") or threading.current_thread() is not threading.main_thread():
                return change(url, *args)
            if self.left == 0:
                raise DiedError(f"before {name} {url}")
            if self.left is not None:
                self.left -= 1
            return change(url, *args)

        return guarded

    def dies(self, step, act):
        """Return whether the driver that acts dies before its `step`-th change."""
        self.left = step
        try:
            act()
        except DiedError:
            return True
        finally:
            self.left = None
        return False


def volume():
    return daskflow.open((np.arange(np.prod(BOX)).reshape(BOX) % 251).astype(np.uint8))


def save_layer(folder):
    return daskflow.save(
        daskflow.threshold(volume(), threshold=100), folder / "layer", chunk=(8, 8, 4), block=(8, 8, 4)
    )


def save_labels(folder):
    labels = daskflow.connected_components(volume(), threshold=100)
    return daskflow.save(labels, folder / "labels", chunk=(8, 8, 4), block=(8, 8, 4))


def save_file(folder):
    return daskflow.save(volume(), folder / "file.h5", block=(8, 8, 4))


def evaluate(folder):
    segments = daskflow.connected_components(volume(), threshold=100)
    return daskflow.evaluate_segmentation(
        segments, volume().map_blocks(ones, dtype=np.uint8), output=str(folder / "scores.json")
    )


def ones(array):
    return (array > 90).astype(np.uint8)


def save_and_evaluate(folder):
    return daskflow.merge([save_layer(folder), save_file(folder), evaluate(folder)])


JOBS = [save_layer, save_labels, save_file, evaluate, pytest.param(save_and_evaluate, marks=pytest.mark.slow)]

STRIDES = {evaluate: 3, save_and_evaluate: 7}  # of jobs that make many changes


def run(job):
    with Threads(1) as threads:
        return job.run(threads, progress=False)


def outputs(folder):
    """Return what jobs left in a folder by file: of HDF5 the voxels; provenance has the time, and is left out."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".daskflow/" not in str(path)]
    paths = [path for path in paths if "provenance" not in path.name and "daskflow-probe" not in path.name]
    found = {str(path.relative_to(folder)): path for path in paths}
    return {
        name: daskflow.open(path).read().tobytes() if path.suffix == ".h5" else path.read_bytes()
        for name, path in found.items()
    }


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def entries(folder):
    """Return how many entries each provenance in a folder has."""
    paths = [path for path in folder.rglob("*provenance*") if path.is_file()]
    return {str(path.relative_to(folder)): len(json.loads(path.read_text())["processing"]) for path in paths}


def is_whole(job, folder, expected, runs=1):
    assert status(job.directory).state == "finished"
    assert outputs(folder) == expected
    assert set(entries(folder).values()) <= set(range(1, runs + 1))
    assert not (folder / job.directory.rpartition("/")[2] / "scratch").exists()
    again = run(job)
    assert again.already_done
    assert again.results == status(job.directory).results
    assert ("scores" in again.results) == ("scores.json" in expected)
    assert outputs(folder) == expected


@pytest.fixture
def mortal(monkeypatch):
    return Mortal(monkeypatch)


@pytest.mark.parametrize("make", JOBS)
def test_driver_that_dies_before_any_change_is_followed_by_one_that_completes_the_job(tmp_path, mortal, make):
    clean = tmp_path / "clean"
    clean.mkdir()
    run(make(clean))
    expected = outputs(clean)
    assert expected
    step = 0
    while True:
        folder = tmp_path / f"step{step}"
        folder.mkdir()
        died = mortal.dies(step, lambda folder=folder: run(make(folder)))
        if died:
            run(make(folder))
        is_whole(make(folder), folder, expected)
        if not died:
            break
        step += STRIDES.get(make, 1)
    assert step > 5


@pytest.mark.parametrize("make", [save_layer, save_labels, save_file, JOBS[-1]])
def test_output_that_vanished_comes_back_wherever_the_driver_dies_that_makes_it_anew(tmp_path, mortal, make):
    clean = tmp_path / "clean"
    clean.mkdir()
    run(make(clean))
    expected = outputs(clean)
    for name in {name.partition("/")[0] for name in expected} - {"scores.json"}:
        step = 0
        while True:
            folder = tmp_path / f"{name}{step}"
            folder.mkdir()
            run(make(folder))
            remove(folder / name)
            died = mortal.dies(step, lambda folder=folder: run(make(folder)))
            if died:
                run(make(folder))
            is_whole(make(folder), folder, expected, runs=2)
            if not died:
                break
            step += 2 * STRIDES.get(make, 1)
        assert step > 5
