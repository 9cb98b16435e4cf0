"""Pieces of blocks become one skeleton, in whatever order they come."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from daskflow.geometry import BoundingBox
from daskflow.operators.objects.skeletonize.pieces import (
    Piece,
    components,
    join_pieces,
    unique_edges,
    without_shared_sheets,
)


def piece(vertices, edges=(), radius=None, **attributes):
    vertices = np.array(vertices, np.int32).reshape(-1, 3)
    radius = np.ones(len(vertices)) if radius is None else radius
    values = {"radius": radius, **attributes}
    return Piece(
        vertices,
        np.array(edges, np.uint32).reshape(-1, 2),
        {name: np.array(one, np.float32) for name, one in values.items()},
    )


def shown(one):
    """The edges of a piece as pairs of places, and the radius by place."""
    places = [tuple(v) for v in one.vertices.tolist()]
    return {frozenset((places[a], places[b])) for a, b in one.edges.tolist()}, dict(
        zip(places, one.attributes["radius"].tolist(), strict=True)
    )


@st.composite
def pieces(draw):
    found = []
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.integers(1, 6))
        places = draw(
            st.lists(
                st.tuples(*[st.integers(-3, 3)] * 2, st.integers(0, 2**30)),
                min_size=count,
                max_size=count,
                unique=True,
            )
        )
        edges = [(draw(st.integers(0, n - 1)), n) for n in range(1, count)]
        found.append(piece(places, edges, draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))))
    return found


@given(pieces(), st.randoms())
def test_order_of_pieces_and_of_their_joining_changes_nothing(parts, random):
    whole = join_pieces(parts)
    random.shuffle(parts)
    half = len(parts) // 2
    halves = [join_pieces(some) for some in (parts[:half], parts[half:]) if some]
    for other in (join_pieces(parts), join_pieces(halves)):
        np.testing.assert_array_equal(other.vertices, whole.vertices)
        np.testing.assert_array_equal(other.edges, whole.edges)
        np.testing.assert_array_equal(other.attributes["radius"], whole.attributes["radius"])


@given(pieces())
def test_all_vertices_and_edges_are_there_once(parts):
    edges, radii = shown(join_pieces(parts))
    wanted = [shown(part) for part in parts]
    assert edges == set().union(*(part[0] for part in wanted))
    assert radii == {
        place: min(part[1][place] for part in wanted if place in part[1])
        for place in set().union(*(w[1] for w in wanted))
    }


def test_where_pieces_meet_radius_is_the_smaller_and_area_the_larger():
    one = piece([(0, 0, 0), (1, 0, 0)], [(0, 1)], [5, 8], cross_sectional_area=[1, 2])
    other = piece([(1, 0, 0), (2, 0, 0)], [(0, 1)], [6, 7], cross_sectional_area=[9, 3])
    joined = join_pieces([one, other])
    assert joined.attributes["radius"].tolist() == [5, 6, 7]
    assert joined.attributes["cross_sectional_area"].tolist() == [1, 9, 3]
    assert components(3, joined.edges).max() == 0


def test_nothing_joined_is_nothing():
    empty = join_pieces([])
    assert (empty.vertices.size, empty.edges.size, empty.attributes) == (0, 0, {})


def test_edges_are_kept_once_and_never_from_a_vertex_to_itself():
    assert unique_edges(np.array([(2, 1), (1, 2), (3, 3), (0, 2)])).tolist() == [[0, 2], [1, 2]]


class TestSharedSheets:
    """The block is x 0..3 of 0..9 (y and z whole); its sheet is x 4."""

    block = BoundingBox((0, 0, 0), (5, 5, 4))
    whole = BoundingBox((0, 0, 0), (5, 5, 10))

    def kept(self, *places, edges=(), block=block, whole=whole):
        return without_shared_sheets(piece(places, edges), block, whole).vertices.tolist()

    def test_what_the_next_block_has_anyway_is_left_out(self):
        assert self.kept((4, 0, 0), (4, 1, 0), edges=[(0, 1)]) == []

    def test_what_reaches_into_the_block_is_kept_with_its_end_in_the_sheet(self):
        assert len(self.kept((3, 0, 0), (4, 1, 0), edges=[(0, 1)])) == 2

    def test_parts_are_told_apart(self):
        assert self.kept((4, 0, 0), (4, 1, 0), (2, 2, 2), edges=[(0, 1)]) == [[2, 2, 2]]

    def test_at_the_end_of_the_volume_nothing_is_shared(self):
        last = BoundingBox((0, 0, 4), (5, 5, 10))
        assert len(self.kept((9, 0, 0), (9, 1, 0), edges=[(0, 1)], block=last)) == 2

    def test_where_more_than_two_blocks_meet_it_is_kept(self):
        whole = BoundingBox((0, 0, 0), (5, 9, 10))
        assert len(self.kept((4, 4, 0), (4, 5, 0), edges=[(0, 1)], whole=whole)) == 2
