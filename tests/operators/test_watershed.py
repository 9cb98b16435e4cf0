"""Basins: the same for any blocks, by a definition edge by edge, and as waterz has them where nothing ties."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.clusters import Threads
from daskflow.errors import GeometryError, ParameterError
from daskflow.operators.segmentation.connected_components import scratch
from daskflow.operators.segmentation.watershed import watershed
from daskflow.stores.opening import open_store
from daskflow.volume import Volume


def basins(edges, low, high, mask=None):
    """Return components over edges above `low` that are the best of one of their ends, or at least `high`."""
    shape = edges.shape[1:]
    number = np.arange(math.prod(shape)).reshape(shape)
    found, of = [], defaultdict(list)
    for axis in range(3):
        for here in np.ndindex(shape):
            there = tuple(n - (one == axis) for one, n in enumerate(here))
            if min(there) < 0 or (mask is not None and not (mask[here] and mask[there])):
                continue
            value = int(edges[(axis, *here)])
            if value > low * 65535:
                edge = (-value, 3 * int(number[here]) + axis, int(number[here]), int(number[there]))
                found.append(edge)
                of[edge[2]].append(edge)
                of[edge[3]].append(edge)
    parents = {voxel: voxel for voxel in of}

    def root(voxel):
        while parents[voxel] != voxel:
            voxel = parents[voxel]
        return voxel

    best = {voxel: min(mine) for voxel, mine in of.items()}
    for edge in found:
        if -edge[0] >= high * 65535 or edge in (best[edge[2]], best[edge[3]]):
            ends = sorted((root(edge[2]), root(edge[3])))
            parents[ends[1]] = ends[0]
    names, labels = {}, np.zeros(math.prod(shape), np.uint32)
    for voxel in sorted(of):
        labels[voxel] = names.setdefault(root(voxel), len(names) + 1)
    return labels.reshape(shape)


@st.composite
def cases(draw):
    shape = draw(st.tuples(*[st.integers(1, 8)] * 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = draw(st.sampled_from([2, 3, 15, 255, 65535]))
    edges = (random.integers(0, levels + 1, (3, *shape)) * (65535 // levels)).astype(np.uint16)
    bounds = draw(st.sampled_from([(0.001, 0.9999), (0.3, 0.9), (0, math.inf), (0.5, 0.6)]))
    mask = (random.random(shape) < 0.8).astype(np.uint8) if draw(st.booleans()) else None
    block = draw(st.tuples(*[st.integers(1, 6)] * 3))
    return edges, bounds, mask, block, draw(st.tuples(*[st.integers(-7, 7)] * 3))


@pytest.fixture
def pairs_of_boxes(monkeypatch):
    monkeypatch.setattr(scratch, "_ALONG", 2)


@pytest.mark.usefixtures("pairs_of_boxes")
@settings(max_examples=30)
@given(cases())
def test_any_blocks_give_what_the_whole_gives(case):
    edges, (low, high), mask, block, corner = case
    affinities = Volume.from_array(edges[::-1], voxel_offset=corner).with_block(block)
    kept = None if mask is None else Volume.from_array(mask, voxel_offset=corner)

    found = watershed(affinities, kept, low=low, high=high)

    np.testing.assert_array_equal(found.read(), basins(edges, low, high, mask))


def grown(labels, edges, size, low):
    """Return basins after a round in which each of fewer voxels joins the one it touches best."""
    contacts = defaultdict(int)
    for axis in range(3):
        for here in np.ndindex(labels.shape):
            there = tuple(n - (one == axis) for one, n in enumerate(here))
            u, v = int(labels[here]), int(labels[there])
            if min(there) >= 0 and u and v and u != v and edges[(axis, *here)] > low * 65535:
                for pair in ((u, v), (v, u)):
                    contacts[pair] = max(contacts[pair], int(edges[(axis, *here)]))
    sizes = np.bincount(labels.reshape(-1))
    name = np.arange(len(sizes))
    for label in range(1, len(sizes)):
        best = max(((value, v) for (u, v), value in contacts.items() if u == label), default=None)
        if sizes[label] < size and best is not None:
            name[name == name[label]] = name[best[1]]
    names = {0: 0}
    return np.array([names.setdefault(name[label], len(names)) for label in labels.flat]).reshape(labels.shape)


@pytest.mark.usefixtures("pairs_of_boxes")
@settings(max_examples=30)
@given(cases(), st.integers(2, 12), st.integers(1, 3))
def test_small_basins_join_alike_for_any_blocks(case, size, rounds):
    edges, (low, high), mask, block, corner = case
    affinities = Volume.from_array(edges[::-1], voxel_offset=corner).with_block(block)
    kept = None if mask is None else Volume.from_array(mask, voxel_offset=corner)

    found = watershed(affinities, kept, low=low, high=high, min_size=size, rounds=rounds)

    expected = basins(edges, low, high, mask)
    for _ in range(rounds):
        expected = grown(expected, edges, size, low)
    np.testing.assert_array_equal(found.read(), expected)


@pytest.mark.parametrize("high", [0.9999, 0.9, 0.7])
def test_without_ties_waterz_has_the_same_basins(high):
    waterz = pytest.importorskip("waterz")
    edges = np.random.default_rng(1).permutation(3 * 24**3).reshape(3, 24, 24, 24).astype(np.uint16)
    affinities = (edges / np.float32(65535)).astype(np.float32)

    ours = watershed(Volume.from_array(affinities).with_block((7, 9, 24)), low=0.1, high=high, order="zyx").read()

    (theirs,) = (
        one.copy() for one in waterz.agglomerate(affinities, [0], aff_threshold_low=0.1, aff_threshold_high=high)
    )
    pairs = np.unique(np.stack((ours.ravel().astype(np.uint64), theirs.ravel())), axis=1)
    assert pairs.shape[1] == ours.max() + (ours == 0).any() == len(np.unique(theirs))
    np.testing.assert_array_equal(ours == 0, theirs == 0)


def test_small_basins_of_the_whole_volume_are_dust():
    edges = np.random.default_rng(3).integers(0, 65536, (3, 8, 8, 8)).astype(np.uint16)
    affinities = Volume.from_array(edges).with_block(3)

    found = watershed(affinities, dust=12, order="zyx").read()

    every = watershed(affinities, order="zyx").read()
    large = np.bincount(every.ravel()) >= 12
    np.testing.assert_array_equal(found > 0, large[every] & (every > 0))
    assert set(np.unique(found)) == set(range(found.max() + 1))


def test_what_was_labelled_is_kept_when_a_job_goes_on(tmp_path, monkeypatch):
    edges = np.random.default_rng(4).integers(0, 65536, (3, 9, 9, 9)).astype(np.uint16)
    found = watershed(Volume.from_array(edges).with_block(4), order="zyx")
    whole = found.read()
    write = scratch.Labelling.write_components

    def dies(labelling, block, components):
        if block == 5:
            raise RuntimeError("the machine went away")
        write(labelling, block, components)

    with Threads(1) as threads:
        monkeypatch.setattr(scratch.Labelling, "write_components", dies)
        assert not found.save(tmp_path / "basins.zarr").run(threads, progress=False, retries=0).ok
        monkeypatch.setattr(scratch.Labelling, "write_components", write)
        job = found.save(tmp_path / "basins.zarr")
        report = job.run(threads, progress=False, retry_failed=True)

    assert report.ok
    assert report.stages[0].skipped == 26
    np.testing.assert_array_equal(open_store(tmp_path / "basins.zarr").read(found.box), whole)


def test_one_voxel_no_edge_and_one_basin_everywhere():
    full = np.full((3, 4, 5, 6), 1, np.float32)

    assert watershed(Volume.from_array(full[:, :1, :1, :1])).read().tolist() == [[[0]]]
    assert not watershed(Volume.from_array(full * 0).with_block(2)).read().any()
    assert (watershed(Volume.from_array(full).with_block(2)).read() == 1).all()


def test_what_makes_no_sense_is_refused(monkeypatch):
    affinities = Volume.from_array(np.zeros((3, 4, 4, 4), np.float32))

    for low, high in ((0.5, 0.5), (0.9, 0.1), (-1, 0.5), (float("nan"), 1), (1, math.inf)):
        with pytest.raises(ParameterError, match="0 <= low < high"):
            watershed(affinities, low=low, high=high)
    with pytest.raises(GeometryError, match=r"mask covers 0-2_0-4_0-4"):
        watershed(affinities, Volume.from_array(np.ones((2, 4, 4), np.uint8)))
    with pytest.raises(ParameterError, match="one channel, this one has 2"):
        watershed(affinities, Volume.from_array(np.ones((2, 4, 4, 4), np.uint8)))
    for wrong in ({"min_size": -1}, {"rounds": 0}):
        with pytest.raises(ParameterError, match="at least 0 voxels, and rounds"):
            watershed(affinities, **wrong)
    monkeypatch.setattr("daskflow.operators.segmentation.watershed.MOST_VOXELS", 64)
    with pytest.raises(ParameterError, match=r"below 2\^48 voxels"):
        watershed(affinities, min_size=5)
    mask = np.ones((4, 4, 4), np.float16)
    mask[3, 1, 2] = np.nan
    with pytest.raises(ParameterError, match=r"the mask is nan at \(3, 1, 2\)"):
        watershed(affinities, Volume.from_array(mask)).read()
