"""What is cut from joined skeletons, against a slow and plain way of doing it."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.operators.objects.skeletonize.pieces import Piece, components
from daskflow.operators.objects.skeletonize.prune import cable_length, edge_lengths, prune, without_ticks

SIZE = (10.0, 10.0, 40.0)


def piece(vertices, edges):
    vertices = np.array(vertices, np.int32).reshape(-1, 3)
    return Piece(
        vertices,
        np.array(edges, np.uint32).reshape(-1, 2),
        {"radius": np.arange(len(vertices), dtype=np.float32)},
    )


@st.composite
def graphs(draw, loops=True):
    count = draw(st.integers(1, 25))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    places = random.permutation(1000)[:count]
    vertices = np.stack([places // 100, places // 10 % 10, places % 10], axis=1)
    edges = [(int(random.integers(0, n)), n) for n in range(1, count) if random.random() < 0.9]
    if loops:
        more = {tuple(sorted(random.choice(count, 2, replace=False).tolist())) for _ in range(3 if count > 1 else 0)}
        edges = sorted({*edges, *more})
    return piece(vertices, edges)


def as_graph(one):
    graph = nx.Graph()
    graph.add_nodes_from(map(tuple, one.vertices.tolist()))
    for (a, b), length in zip(one.edges.tolist(), edge_lengths(one, SIZE).tolist(), strict=True):
        graph.add_edge(tuple(one.vertices[a].tolist()), tuple(one.vertices[b].tolist()), length=length)
    return graph


@settings(max_examples=200)
@given(graphs())
def test_without_limits_only_loops_and_lone_vertices_go(one):
    graph, found = as_graph(one), as_graph(prune(one, SIZE, shortest=0, tick=0))
    if graph.number_of_edges():
        graph.remove_nodes_from([node for node in list(graph) if graph.degree(node) == 0])
    assert set(found) == set(graph)
    assert nx.is_forest(found)
    assert nx.number_connected_components(found) == nx.number_connected_components(graph)
    assert found.size("length") == pytest.approx(nx.minimum_spanning_tree(graph, "length").size("length"))


@settings(max_examples=200)
@given(graphs(), st.floats(0.1, 800))
def test_short_components_go_whole(one, shortest):
    found = as_graph(prune(one, SIZE, shortest=shortest, tick=0))
    trees = nx.minimum_spanning_tree(as_graph(one), "length")
    kept = [part for part in nx.connected_components(trees) if trees.subgraph(part).size("length") >= shortest]
    assert set(found) == set().union(*kept)


def cut_slowly(graph, tick):
    """Cut the shortest terminal branch that is below `tick`, again and again."""
    graph = graph.copy()
    while True:
        branches = []
        for end in [node for node in graph if graph.degree(node) == 1]:
            path, length, ahead = [end], 0.0, list(graph[end])
            while ahead:
                length += graph.edges[path[-1], ahead[0]]["length"]
                path.append(ahead[0])
                ahead = [] if graph.degree(path[-1]) > 2 else [node for node in graph[path[-1]] if node != path[-2]]
            if graph.degree(path[-1]) > 2 and length < tick:
                branches.append((length, path[:-1]))
        if not branches:
            return graph
        graph.remove_nodes_from(min(branches, key=lambda one: one[0])[1])


@settings(max_examples=300)
@given(graphs(loops=False), st.floats(1, 600))
def test_ticks_are_cut_as_one_by_one(one, tick):
    lengths = np.round(edge_lengths(one, SIZE), 6)
    if len(one.edges) == 0 or len(set(lengths.tolist())) < len(lengths):
        return  # among branches of equal length either may be cut
    found, expected = as_graph(without_ticks(one, SIZE, tick)), cut_slowly(as_graph(one), tick)
    assert set(found) == set(expected)
    assert set(map(frozenset, found.edges)) == set(map(frozenset, expected.edges))


def test_a_tick_goes_and_the_two_branches_beside_it_become_one():
    # a line of 5 with a tick of 1 at its middle, of which one half is shorter than the limit but not alone
    line = piece(
        [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0), (2, 1, 0)], [(0, 1), (1, 2), (2, 3), (3, 4), (2, 5)]
    )
    found = prune(line, SIZE, shortest=0, tick=25)
    assert found.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]]
    assert found.attributes["radius"].tolist() == [0, 1, 2, 3, 4]
    assert cable_length(found, SIZE) == 40


def test_a_line_is_no_tick():
    line = piece([(0, 0, 0), (1, 0, 0)], [(0, 1)])
    assert len(prune(line, SIZE, shortest=0, tick=1e6).vertices) == 2


def test_lengths_count_the_size_of_voxels():
    assert cable_length(piece([(0, 0, 0), (3, 4, 0), (3, 4, 2)], [(0, 1), (1, 2)]), SIZE) == 50 + 80


def test_a_vertex_alone_stays_where_nothing_else_is():
    lone = prune(piece([(0, 0, 0), (5, 0, 0)], []), SIZE, shortest=0, tick=10)
    assert len(lone.vertices) == 2
    assert components(2, lone.edges).tolist() == [0, 1]
    assert len(prune(lone, SIZE, shortest=1, tick=0).vertices) == 0


def test_many_branches_are_cut_fast_enough():
    count = 20_000  # a comb: every vertex of a line has a tick
    line = np.stack([np.arange(count), np.zeros(count), np.zeros(count)], axis=1)
    teeth = line + np.array([0, 1, 0])
    edges = [*((n, n + 1) for n in range(count - 1)), *((n, count + n) for n in range(count))]
    found = prune(piece(np.concatenate([line, teeth]), edges), SIZE, shortest=0, tick=11)
    assert len(found.vertices) <= count + 2
