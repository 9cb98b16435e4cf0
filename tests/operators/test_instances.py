"""Instances of a function, joined across blocks: against the whole volume, and by overlaps that are made up."""

import fastremap
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

import daskflow
from daskflow import map_instances
from daskflow.clusters import Threads
from daskflow.errors import ParameterError
from daskflow.jobs.job import keys_of
from daskflow.operators.segmentation.connected_components import scratch
from daskflow.operators.segmentation.instances import instances
from daskflow.volume import Volume

_DIAMETER = 9


def blobs(random, shape):
    """Return balls of a radius up to 4 voxels, apart from each other."""
    image, taken = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    places = np.indices(shape)
    for _ in range(60):
        centre, radius = random.uniform(0, shape), random.uniform(2, 4)
        distance = np.sqrt(((places - centre[:, None, None, None]) ** 2).sum(axis=0))
        if not (taken & (distance < radius + 3)).any():
            image[distance < radius] = 200
            taken |= distance < radius
    return image


def segment(image):
    mask = image > 0
    distance = ndimage.distance_transform_edt(mask)
    peaks = peak_local_max(distance, min_distance=5, labels=ndimage.label(mask)[0], exclude_border=False)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)[::-1]
    return watershed(-distance, markers, mask=mask)


@given(st.integers(0, 2**32), st.tuples(*[st.integers(10, 40)] * 3), st.booleans())
@example(0, (10, 10, 11), False)
@settings(max_examples=5, deadline=None)
def test_separated_blobs_are_those_of_the_whole_volume(seed, block, of_smaller):
    image = blobs(np.random.default_rng(seed), (22, 27, 31))
    threshold = {"containment" if of_smaller else "iou": 0.8}
    volume = Volume.from_array(image, voxel_offset=(5, -7, 100))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "_ALONG", 2)  # boxes of several levels
        found = map_instances(volume, segment, depth=_DIAMETER + 1, block=block, **threshold).read()

    expected, _ = fastremap.renumber(np.ascontiguousarray(segment(image)), preserve_zero=True)
    assert expected.max() > 5
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint32


def drawn(image, read_box, low, high):
    """Return rows of labels that begin and end at some x (x0, x1, label): of the block at 0, and the one after it."""
    labels = np.zeros(image.shape, np.int16)
    start = read_box.start[2]
    for first, last, label in low if start == 0 else high:
        labels[..., first - start : last - start] = label
    return labels


TWO = {"low": [(2, 10, 7)], "high": [(6, 14, 3)]}  # of voxels 4 to 11, both have 4, and either has 8; each has 6
APART = {"low": [(4, 8, 1)], "high": [(8, 12, 1)]}  # neither block sees its own beyond the face
FORKED = {"low": [(2, 12, 1)], "high": [(4, 9, 1), (9, 14, 2)]}


@pytest.mark.parametrize(
    ("rows", "threshold", "joins", "uncertain", "cut", "count"),
    [
        (TWO, {}, 1, 1, 0, 1),
        (TWO, {"iou": 0.3}, 1, 0, 0, 1),
        (TWO, {"iou": 0.55}, 0, 1, 2, 2),
        (TWO, {"iou": 0.65}, 0, 0, 2, 2),
        (TWO, {"containment": 0.5}, 1, 0, 0, 1),
        (TWO, {"containment": 0.6}, 1, 1, 0, 1),
        (APART, {}, 0, 0, 0, 2),
        (FORKED, {"containment": 0.8}, 2, 2, 0, 1),
    ],
)
def test_uncertain_joins_are_counted(rows, threshold, joins, uncertain, cut, count, tmp_path):
    volume = Volume.from_array(np.ones((2, 3, 16), np.uint8))
    labelled = map_instances(volume, drawn, depth=(0, 0, 4), block=(2, 3, 8), **threshold, **rows)

    report = labelled.save(tmp_path / "labels").run(progress=False)

    found = [report.counts.get(name, 0) for name in ("joins", "uncertain_joins", "instances_cut_at_faces")]
    assert [*found, report.counts["components"]] == [joins, uncertain, cut, count]
    row = labelled.read()[1, 2]
    owned = [(max(a, 0), min(b, 8)) for a, b, _ in rows["low"]] + [(max(a, 8), b) for a, b, _ in rows["high"]]
    expected = np.zeros(16, int)
    for number, (a, b) in enumerate(owned, 1):
        expected[a:b] = 1 if count == 1 else number
    np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda image: image.astype(np.float32), "returned float32 .* labels are integers"),
        (lambda image: image > 0, "returned bool .* label masks first"),
        (lambda image: np.full(image.shape, -2, np.int32), "down to -2"),
        (lambda image: image[1:], r"of shape \(1, 3, 10\) .* shape \(2, 3, 10\)"),
        (lambda image: None, r"object of shape \(\)"),
    ],
)
def test_what_is_no_labels_is_refused_with_its_box(function, said):
    volume = Volume.from_array(np.ones((2, 3, 16), np.uint8), voxel_offset=(5, -7, 100))

    with pytest.raises(ParameterError, match=said) as refused:
        map_instances(volume, function, depth=2, block=8).read()
    assert "for the block 5-7_-7--4_100-108, seen with 5-7_-7--4_100-110" in str(refused.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"depth": (0, 0, 4), "iou": 1.5}, "iou 1.5"),
        ({"depth": (0, 0, 4), "containment": 0}, "containment 0"),
        ({"depth": (0, 0, 4), "iou": 0.5, "containment": 0.5}, "give one"),
        ({"depth": (-1, 0, 4)}, r"depth \(-1, 0, 4\) .* at least 0"),
        ({"depth": 0}, r"depth \(0, 0, 0\) with block \(2, 3, 8\) .* 2 blocks along x .* 1 to 8"),
        ({"depth": 9}, r"depth \(9, 9, 9\) with block \(2, 3, 8\) .* 2 blocks along x .* 1 to 8"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(options, said):
    volume = Volume.from_array(np.ones((2, 3, 16), np.uint8)).with_block((2, 3, 8))

    with pytest.raises(ParameterError, match=said):
        map_instances(volume, drawn, **options, **TWO)


def test_a_stopped_job_calls_the_function_for_the_blocks_that_are_left_alone(tmp_path, monkeypatch):
    image = blobs(np.random.default_rng(1), (20, 20, 40))
    calls, broken, write = [], tmp_path / "broken", scratch.Labelling.write
    broken.touch()

    def stopping(image, box):
        calls.append(str(box))
        if broken.exists() and box.start[2] == 30:
            raise RuntimeError("stopped")
        return segment(image)

    def stopping_later(labelling, kind, index, arrays):
        if kind == "matched-20" and index == 2:
            raise OSError("stopped later")
        write(labelling, kind, index, arrays)

    def run():
        calls.clear()
        job = map_instances(Volume.from_array(image), stopping, depth=10, block=(20, 20, 10)).save(tmp_path / "labels")
        report = job.run(Threads(1), progress=False, retries=0, retry_failed=True)
        return report, set(calls)

    report, called = run()
    assert "RuntimeError: stopped" in str(report)
    assert len(called) == 4
    broken.unlink()
    calls.clear()  # on which the function depends, too
    monkeypatch.setattr(scratch.Labelling, "write", stopping_later)
    report, called = run()
    assert "stopped later" in str(report)
    assert called == {"0-20_0-20_30-40"}
    monkeypatch.setattr(scratch.Labelling, "write", write)
    report, called = run()

    assert report.ok
    assert not called
    expected, _ = fastremap.renumber(np.ascontiguousarray(segment(image)), preserve_zero=True)
    np.testing.assert_array_equal(daskflow.open(tmp_path / "labels").read(), expected)


@pytest.mark.parametrize("kind", [">u8", "<i8", ">i4", "u2"])
def test_labels_of_any_integer_type_and_byte_order_are_taken(kind):
    def named(image, read_box, add):
        places = np.indices(image.shape)[2] + read_box.start[2]
        image[:] = 0  # a copy
        return np.asfortranarray((places // 4).astype(kind) + np.dtype(kind).type(add))

    volume = Volume.from_array(np.ones((2, 3, 16), np.uint8))
    add = 2**63 + 1 if kind == ">u8" else 1
    found = map_instances(volume, named, depth=4, block=8, add=add).read()

    np.testing.assert_array_equal(found, np.broadcast_to(np.arange(16) // 4 + 1, (2, 3, 16)))


PLUGIN = """
from scipy import ndimage

def execute(chunk, level=0):
    assert chunk.voxel_size == (8, 8, 8)
    return ndimage.label(chunk.array > level)[0]
"""


def test_a_line_labels_instances_by_a_file(tmp_path, monkeypatch, capsys):
    from daskflow.cli.app import app

    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells.py").write_text(PLUGIN)
    (tmp_path / "both.py").write_text("def execute(chunk):\n    return [chunk, chunk]\n")
    image = blobs(np.random.default_rng(2), (20, 20, 40))
    Volume.from_array(image, voxel_size=(8, 8, 8)).save("em").run(progress=False)

    line = "open em instances -f cells.py -a level=100 --depth 10 10 10 --block 10 16 16 --containment 0.8 save labels"
    app(line.split(), standalone_mode=False)

    assert "joins" in "".join(capsys.readouterr())
    np.testing.assert_array_equal(daskflow.open("labels").read(), ndimage.label(image)[0])
    with pytest.raises(ParameterError, match=r"no plugin 'nowhere'.*nowhere\.py"):
        instances(daskflow.open("em"), file="nowhere", depth=(1, 1, 1))
    with pytest.raises(ParameterError, match=r"both\.py returned 2 results for the voxels 0-20_0-20_0-40"):
        instances(daskflow.open("em"), file="both", depth=(1, 1, 1)).read()


def test_jobs_of_other_blocks_depths_thresholds_and_functions_are_told_apart(tmp_path):
    volume = Volume.from_array(np.ones((2, 3, 16), np.uint8))
    usual = {"depth": 4, "block": 8}
    ways = [usual, usual | {"depth": 5}, usual | {"block": 7}, usual | {"iou": 0.6}, usual | {"containment": 0.5}]
    made = [map_instances(volume, segment, **way) for way in ways]
    for number in (1, 2):
        (tmp_path / "one.py").write_text(f"def execute(chunk):\n    return chunk.astype('uint8') * {number}\n")
        made.append(instances(volume, file=str(tmp_path / "one.py"), **usual))

    assert len({str(keys_of(one.expression.stages)) for one in made}) == len(made)
