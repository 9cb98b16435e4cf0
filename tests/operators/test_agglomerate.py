"""Agglomeration: the same as of the volume in one piece, for any blocks, and as waterz has it where nothing ties."""

import heapq
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskflow
from daskflow import Volume
from daskflow.clusters import Threads
from daskflow.errors import GeometryError, ParameterError
from daskflow.operators.segmentation.agglomerate import agglomerate, stages
from daskflow.operators.segmentation.agglomerate.boxes import Agglomeration


def contacts(edges, fragments, add=np.add):
    """Return sum and count of the affinities between every two fragments, the larger label first."""
    found = defaultdict(lambda: [0, 0])
    for axis in range(3):
        here, there = np.moveaxis(fragments, axis, 0)[1:], np.moveaxis(fragments, axis, 0)[:-1]
        values = np.moveaxis(edges[axis], axis, 0)[1:]
        for u, v, value in zip(here.flat, there.flat, values.flat, strict=True):
            if u and v and u != v:
                pair = found[max(u, v), min(u, v)]
                pair[:] = add(pair, (int(value), 1)).tolist()
    return found


def tree_of(edges, fragments, least, score=lambda total, count: total / count, add=np.add):
    """Return the merges of a volume in one piece, best first: child, parent, score."""
    graph = defaultdict(dict)
    for (u, v), (total, count) in contacts(edges, fragments, add).items():
        graph[u][v] = graph[v][u] = (total, count)
    heap = [(-score(*graph[u][v]), u, v) for u in graph for v in graph[u] if u > v]
    heapq.heapify(heap)
    merges = []
    while heap and -heap[0][0] >= least * 65535:
        best, u, v = heapq.heappop(heap)
        if v not in graph[u] or score(*graph[u][v]) != -best:
            continue
        merges.append((v, u, -best / 65535, *graph[u][v]))
        del graph[u][v], graph[v][u]
        for other, edge in graph.pop(v).items():
            del graph[other][v]
            both = tuple(add(edge, graph[u].get(other, (0, 0))).tolist())
            graph[u][other] = graph[other][u] = both
            heapq.heappush(heap, (-score(*both), max(u, other), min(u, other)))
    return merges


def named(fragments, merges, threshold):
    """Return the fragments by the names of their objects at a threshold."""
    parents = {child: parent for child, parent, score, *_ in merges if score >= threshold}
    names = {}
    for label in np.unique(fragments):
        end = label
        while end in parents:
            end = parents[end]
        names[label] = end
    return np.vectorize(names.get, otypes=[fragments.dtype])(fragments)


@st.composite
def cases(draw):
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = draw(st.sampled_from([2, 3, 15, 255, 65535]))
    edges = (random.integers(0, levels + 1, (3, *shape)) * (65535 // levels)).astype(np.uint16)
    most = draw(st.sampled_from([3, 20, 700]))
    coarse = draw(st.integers(1, 3))
    cells = random.integers(0, most, shape, np.uint64)  # fragments in pieces, and background among them
    places = np.ix_(*(np.arange(n) // coarse for n in shape))
    fragments = cells[places] * np.uint64(draw(st.sampled_from([1, 2**50])))
    block = draw(st.tuples(*[st.integers(1, 6)] * 3))
    corner = draw(st.tuples(*[st.integers(-7, 7)] * 3))
    return edges, fragments, block, corner


@settings(max_examples=30)
@given(cases(), st.sampled_from(["mean", "max"]), st.sampled_from([1, 1, 2, 3]))
def test_any_blocks_and_parts_give_what_the_whole_gives(case, score, parts):
    edges, fragments, block, corner = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Agglomeration, "parts", lambda _, level: parts if level else 1)
        compare(edges, fragments, block, corner, score)


def compare(edges, fragments, block, corner, score):
    thresholds = (0.2, 0.5, 0.8)
    merges = tree_of(edges, fragments, min(thresholds), add={"mean": np.add, "max": np.maximum}[score])
    volumes = [Volume.from_array(array, voxel_offset=corner).with_block(block) for array in (edges, fragments)]
    found = agglomerate(*volumes, threshold=thresholds, score=score, order="zyx")
    for threshold, volume in zip(thresholds, found, strict=True):
        np.testing.assert_array_equal(volume.read(), named(fragments, merges, threshold))


@pytest.mark.parametrize("shape", [(20, 20, 20), (9, 31, 17)])
def test_without_ties_waterz_has_the_same_objects(shape):
    waterz = pytest.importorskip("waterz")
    random = np.random.default_rng(1)
    edges = random.permutation(3 * np.prod(shape)).reshape(3, *shape).astype(np.uint16)
    affinities = (edges / np.float32(65535)).astype(np.float32)
    fragments = random.integers(1, 200, shape).astype(np.uint64)
    thresholds = [0.2, 0.25, 0.35]

    found = agglomerate(
        *(Volume.from_array(array).with_block((8, 7, 9)) for array in (edges, fragments)),
        threshold=thresholds,
        order="zyx",
    )

    least = [1 - threshold for threshold in reversed(thresholds)]
    theirs = [one.copy() for one in waterz.agglomerate(affinities, least, fragments=fragments.copy())]
    for volume, other in zip(reversed(found), theirs, strict=True):
        ours = volume.read()
        pairs = np.unique(np.stack((ours.ravel(), other.ravel())), axis=1)
        assert pairs.shape[1] == len(np.unique(ours)) == len(np.unique(other))


def test_basins_are_the_fragments_where_none_are_given():
    affinities = Volume.from_array(np.random.default_rng(2).random((3, 8, 9, 10)).astype(np.float32)).with_block(5)

    alone = agglomerate(affinities, threshold=0.6, low=0.2, high=0.9)

    basins = daskflow.watershed(affinities, low=0.2, high=0.9)
    np.testing.assert_array_equal(alone.read(), agglomerate(affinities, basins, threshold=0.6).read())
    assert alone.dtype == basins.dtype


def test_background_one_voxel_and_one_fragment_everywhere():
    edges = np.full((3, 4, 5, 6), 65535, np.uint16)
    for fragments in (np.zeros((4, 5, 6), np.uint8), np.full((4, 5, 6), 2**63 - 1, np.uint64)):
        volumes = [Volume.from_array(array).with_block(2) for array in (edges, fragments)]
        np.testing.assert_array_equal(agglomerate(*volumes, threshold=0).read(), fragments)
    one = [Volume.from_array(array) for array in (edges[:, :1, :1, :1], np.ones((1, 1, 1), np.uint8))]
    assert agglomerate(*one).read().tolist() == [[[1]]]


def test_a_job_leaves_its_tree_and_graph(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    random = np.random.default_rng(3)
    edges = random.integers(0, 65536, (3, 6, 7, 8)).astype(np.uint16)
    fragments = random.integers(0, 50, (6, 7, 8)).astype(np.uint64)
    volumes = [Volume.from_array(array).with_block((3, 4, 8)) for array in (edges, fragments)]

    found = agglomerate(
        *volumes, threshold=0.4, order="zyx", tree=tmp_path / "tree.parquet", graph=tmp_path / "graph.parquet"
    )
    with Threads(1) as threads:
        found.save(tmp_path / "objects.zarr").run(threads, progress=False)

    merges = tree_of(edges, fragments, 0.4)
    tree = parquet.read_table(tmp_path / "tree.parquet").to_pydict()
    rows = zip(tree["child"], tree["parent"], tree["score"], tree["sum"], tree["count"], strict=True)
    assert sorted(rows) == sorted((c, p, pytest.approx(score), total, n) for c, p, score, total, n in merges)
    graph = parquet.read_table(tmp_path / "graph.parquet").to_pydict()
    pairs = {(v, u): found for u, v, *found in zip(*(graph[name] for name in ("u", "v", "sum", "count")), strict=True)}
    assert pairs == contacts(edges, fragments)
    for name in ("sum", "count"):
        assert graph[name] == [sum(axes) for axes in zip(*(graph[f"{name}_{axis}"] for axis in "zyx"), strict=True)]


def test_what_makes_no_sense_is_refused(monkeypatch):
    affinities = Volume.from_array(np.zeros((3, 4, 4, 4), np.float32))
    fragments = Volume.from_array(np.ones((4, 4, 4), np.uint8))

    with pytest.raises(GeometryError, match=r"fragments cover 0-4_0-4_1-5.*0-4_0-4_0-4"):
        agglomerate(affinities, Volume.from_array(np.ones((4, 4, 4), np.uint8), voxel_offset=(0, 0, 1)))
    for threshold in (1.5, -0.1, float("nan"), [0.5, 0.5], []):
        with pytest.raises(ParameterError, match="threshold"):
            agglomerate(affinities, fragments, threshold=threshold)
    with pytest.raises(ParameterError, match="three channels, one for each axis, not 2"):
        agglomerate(Volume.from_array(np.zeros((2, 4, 4, 4), np.float32)), fragments)
    with pytest.raises(ParameterError, match="fragments holds float32"):
        agglomerate(affinities, Volume.from_array(np.zeros((4, 4, 4), np.float32)))
    with pytest.raises(ParameterError, match=r"must end with \.parquet"):
        agglomerate(affinities, fragments, tree="tree.csv")
    negative = Volume.from_array(np.full((4, 4, 4), -1, np.int64))
    with pytest.raises(ParameterError, match="negative"):
        agglomerate(affinities, negative).read()
    monkeypatch.setattr(stages, "_MOST_EDGES", 3)
    with pytest.raises(ParameterError, match=r"has 3 edges that hang together.*--min-size"):
        agglomerate(affinities, Volume.from_array(np.arange(64).reshape(4, 4, 4) // 16 + 1)).read()
