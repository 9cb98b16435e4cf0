"""Skeletons come back from precomputed and SWC files; CloudVolume reads what is written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import CorruptChunkError, ParameterError
from daskflow.stores.objects.skeleton_files import (
    CROSS_SECTION,
    RADIUS,
    Skeleton,
    decode_skeleton,
    encode_skeleton,
    skeleton_info,
    to_swc,
)


@st.composite
def skeletons(draw, *, trees=False):
    count = draw(st.integers(1, 15))
    numbers = st.integers(-(2**16), 2**16).map(float)
    vertices = draw(st.lists(st.tuples(numbers, numbers, numbers), min_size=count, max_size=count))
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] != pair[1])
    edges = draw(st.lists(pairs, max_size=15, unique_by=frozenset)) if count > 1 else []
    if trees:
        edges = [(draw(st.integers(0, i - 1)), i) for i in range(1, count) if draw(st.booleans())]
    radii = draw(st.lists(st.integers(0, 10**4).map(float), min_size=count, max_size=count))
    return Skeleton(
        np.array(vertices, np.float32), np.array(edges, np.uint32).reshape(-1, 2),
        {"radius": np.array(radii, np.float32), "cross_sectional_area": np.arange(count, dtype=np.float32)},
    )  # fmt: skip


def edge_set(skeleton):
    """Return the edges as pairs of positions and radii, whatever the numbers of the vertices."""
    rows = [(*v, float(r)) for v, r in zip(skeleton.vertices.tolist(), skeleton.attributes["radius"], strict=True)]
    return sorted(sorted((rows[a], rows[b])) for a, b in skeleton.edges.tolist())


@given(skeletons())
def test_a_skeleton_comes_back_with_its_attributes(skeleton):
    info = skeleton_info(vertex_attributes=(RADIUS, CROSS_SECTION))
    found = decode_skeleton(encode_skeleton(skeleton, (RADIUS, CROSS_SECTION)), info)
    assert np.array_equal(found.vertices, skeleton.vertices)
    assert np.array_equal(found.edges, skeleton.edges)
    assert found.attributes.keys() == skeleton.attributes.keys()
    assert all(np.array_equal(found.attributes[name], skeleton.attributes[name]) for name in found.attributes)
    assert found.cable_length == skeleton.cable_length


def from_swc(text):
    table = np.loadtxt(text.splitlines(), ndmin=2).reshape(-1, 7)
    edges = [(row, int(above) - 1) for row, above in enumerate(table[:, 6]) if above >= 0]
    radii = {"radius": table[:, 5].astype(np.float32)}
    return Skeleton(table[:, 2:5].astype(np.float32), np.array(edges, np.uint32).reshape(-1, 2), radii)


@given(skeletons(trees=True))
def test_trees_survive_swc(skeleton):
    found = from_swc(to_swc(skeleton))
    assert len(found.vertices) == len(skeleton.vertices)
    assert edge_set(found) == edge_set(skeleton)


@given(skeletons())
def test_swc_has_every_vertex_once_with_its_parent_before_it(skeleton):
    rows = [line.split() for line in to_swc(skeleton).splitlines() if not line.startswith("#")]
    assert [int(row[0]) for row in rows] == list(range(1, len(skeleton.vertices) + 1))
    assert all(int(row[6]) == -1 or int(row[6]) < int(row[0]) for row in rows)


def test_a_loop_loses_one_edge_in_swc():
    loop = Skeleton(np.eye(3, dtype=np.float32), np.array([(0, 1), (1, 2), (2, 0)], np.uint32))
    found = from_swc(to_swc(loop))
    assert len(found.edges) == 2
    assert found.attributes["radius"].tolist() == [0, 0, 0]


@pytest.mark.filterwarnings("ignore")
@given(skeletons(trees=True))
def test_cloudvolume_reads_the_skeleton(skeleton):
    from osteoid import Skeleton as Theirs

    theirs = Theirs.from_precomputed(
        encode_skeleton(skeleton, (RADIUS, CROSS_SECTION)), vertex_attributes=[dict(RADIUS), dict(CROSS_SECTION)]
    )
    assert np.array_equal(theirs.vertices, skeleton.vertices)
    assert np.array_equal(theirs.radius, skeleton.attributes["radius"])
    assert np.array_equal(theirs.cross_sectional_area, skeleton.attributes["cross_sectional_area"])
    assert np.array_equal(theirs.edges, skeleton.edges)


def test_a_transform_takes_positions_to_nm():
    line = Skeleton(np.array([[1, 2, 3]], np.float32), np.zeros((0, 2), np.uint32), {"radius": np.ones(1, np.float32)})
    info = skeleton_info(transform=[4, 0, 0, 100, 0, 4, 0, 0, 0, 0, 40, 0])
    assert decode_skeleton(encode_skeleton(line), info).vertices.tolist() == [[104, 8, 120]]


@pytest.mark.parametrize("cut", [0, 3, -1])
def test_damaged_skeletons_are_refused(cut):
    line = Skeleton(np.zeros((2, 3), np.float32), np.array([(0, 1)], np.uint32), {"radius": np.ones(2, np.float32)})
    with pytest.raises(CorruptChunkError):
        decode_skeleton(encode_skeleton(line)[:cut], skeleton_info())
    outside = Skeleton(line.vertices, np.array([(0, 2)], np.uint32), line.attributes)
    with pytest.raises(CorruptChunkError):
        decode_skeleton(encode_skeleton(outside), skeleton_info())


def test_an_attribute_that_is_missing_or_of_no_known_type_is_refused():
    line = Skeleton(np.zeros((2, 3), np.float32), np.array([(0, 1)], np.uint32))
    with pytest.raises(ParameterError, match="radius"):
        encode_skeleton(line)
    with pytest.raises(ParameterError, match="float64"):
        encode_skeleton(line, [{**RADIUS, "data_type": "float64"}])


def test_bounds_are_those_of_the_vertices():
    line = Skeleton(np.array([[1, 5, 3], [4, 2, 3]], np.float32), np.array([(0, 1)], np.uint32))
    assert line.bounds == (1, 2, 3, 4, 5, 3)
    assert Skeleton(np.zeros((0, 3), np.float32), np.zeros((0, 2), np.uint32)).bounds == (0,) * 6
