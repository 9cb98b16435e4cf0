"""Skeletons as precomputed layers and SWC files hold them.

Formats: neuroglancer's ``skeletons.md``; SWC as neuromorpho.org describes it. Positions are xyz here, in nm.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import CorruptChunkError, ParameterError
from daskflow.stores.objects.mesh_files import bounds_of, transformed
from daskflow.stores.objects.picture import figure

Vertices = npt.NDArray[np.floating[Any]]
Edges = npt.NDArray[np.uint32]
Json = dict[str, Any]

SKELETONS = "neuroglancer_skeletons"
RADIUS: Json = {"id": "radius", "data_type": "float32", "num_components": 1}
CROSS_SECTION: Json = {"id": "cross_sectional_area", "data_type": "float32", "num_components": 1}
ATTRIBUTE_TYPES = ("float32", "int8", "uint8", "int16", "uint16", "int32", "uint32")


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Points along the middle of an object, and which of them are neighbours.

    Attributes:
        vertices: positions, float32 or float64, shape (n, 3): **xyz in nm**.
        edges: pairs of vertices, uint32, shape (m, 2).
        attributes: values of each vertex by name, shape (n,) or (n, components): radius in nm,
            cross_sectional_area in nm2.
    """

    vertices: Vertices
    edges: Edges
    attributes: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Skeleton {len(self.vertices):,} vertices, {len(self.edges):,} edges, {self.cable_length:,.0f} nm>"

    def _repr_html_(self) -> str:
        return figure(repr(self), self.vertices, np.zeros((0, 3), np.uint32), self.edges)

    @property
    def cable_length(self) -> float:
        """The lengths of all edges together, in nm."""
        a, b = self.vertices[self.edges[:, 0]], self.vertices[self.edges[:, 1]]
        return float(np.linalg.norm(a.astype(np.float64) - b, axis=1).sum())

    @property
    def bounds(self) -> tuple[float, float, float, float, float, float]:
        """The least and the greatest x, y and z, in nm; zeros without vertices."""
        return bounds_of(self.vertices)


def skeleton_info(
    *,
    vertex_attributes: Sequence[Json] = (RADIUS,),
    transform: Sequence[float] = (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0),
    mip: int | None = None,
    sharding: Json | None = None,
    spatial_index: Json | None = None,
) -> Json:
    """Return the ``info`` of a directory of skeletons, as igneous writes it.

    Attributes are in the order in which files hold them; `transform` takes positions in files to nm: 3x4, row by row.
    """
    info: Json = {
        "@type": SKELETONS,
        "transform": list(transform),
        "vertex_attributes": [dict(attribute) for attribute in vertex_attributes],
    }
    extra = {"mip": mip, "sharding": sharding, "spatial_index": spatial_index}
    return info | {name: value for name, value in extra.items() if value is not None}


def encode_skeleton(skeleton: Skeleton, vertex_attributes: Sequence[Json] = (RADIUS,)) -> bytes:
    """Return a skeleton as its file: numbers of vertices and edges, positions, edges, attributes.

    Raises:
        ParameterError: the skeleton lacks an attribute, or a type that the format has not.
    """
    parts = [
        struct.pack("<II", len(skeleton.vertices), len(skeleton.edges)),
        skeleton.vertices.astype("<f4").tobytes(),
        skeleton.edges.astype("<u4").tobytes(),
    ]
    for attribute in vertex_attributes:
        dtype, width = _layout(attribute)
        values = skeleton.attributes.get(attribute["id"])
        if values is None or np.size(values) != width * len(skeleton.vertices):
            raise ParameterError(
                f"attribute {attribute['id']} of a skeleton of {len(skeleton.vertices)} vertices needs {width} values"
                f" each, not {0 if values is None else np.size(values)} in all"
            )
        parts.append(np.asarray(values).astype(dtype).tobytes())
    return b"".join(parts)


def decode_skeleton(data: bytes, info: Json) -> Skeleton:
    """Return the skeleton in a file, in nm, as the info of its directory describes it.

    Raises:
        CorruptChunkError: sizes do not fit.
    """
    try:
        count, edge_count = struct.unpack_from("<II", data)
        vertices = np.frombuffer(data, "<f4", 3 * count, 8).reshape(-1, 3)
        at = 8 + 12 * count
        edges = np.frombuffer(data, "<u4", 2 * edge_count, at).reshape(-1, 2).astype(np.uint32)
        at += 8 * edge_count
        attributes = {}
        for attribute in info.get("vertex_attributes", ()):
            dtype, width = _layout(attribute)
            values = np.frombuffer(data, dtype, width * count, at)
            attributes[str(attribute["id"])] = values.reshape(-1, width) if width > 1 else values
            at += values.nbytes
    except (struct.error, ValueError) as error:
        raise CorruptChunkError(f"{len(data)} bytes are not a skeleton: {error}") from error
    if at != len(data) or (edges.size and int(edges.max()) >= count):
        raise CorruptChunkError(f"{len(data)} bytes are not a skeleton of {count} vertices and {edge_count} edges")
    return Skeleton(transformed(vertices, info.get("transform")), edges, attributes)


def _layout(attribute: Json) -> tuple[np.dtype[Any], int]:
    if attribute["data_type"] not in ATTRIBUTE_TYPES:
        raise ParameterError(f"attribute of type {attribute['data_type']}; use one of {', '.join(ATTRIBUTE_TYPES)}")
    return np.dtype(attribute["data_type"]).newbyteorder("<"), int(attribute["num_components"])


def to_swc(skeleton: Skeleton) -> str:
    """Return a skeleton as SWC: a tree per component, positions and radii in nm; edges that close loops are left out.

    Every component begins at its vertex of the lowest number that has at most one neighbour; type is 0, undefined, and
    the radius 0 where the skeleton has none.
    """
    parents = _parents(len(skeleton.vertices), skeleton.edges)
    radii = np.asarray(skeleton.attributes.get("radius", np.zeros(len(parents))), np.float32).reshape(-1)
    lines = ["# id type x y z radius parent; nm"]
    numbers = {vertex: number for number, vertex in enumerate(parents, 1)}
    for vertex, parent in parents.items():
        x, y, z = (f"{float(v):.6g}" if abs(v) < 1e5 else f"{float(v):.3f}" for v in skeleton.vertices[vertex])
        above = -1 if parent is None else numbers[parent]
        lines.append(f"{numbers[vertex]} 0 {x} {y} {z} {float(radii[vertex]):.6g} {above}")
    return "\n".join(lines) + "\n"


def from_swc(text: str) -> Skeleton:
    """Return the skeleton in an SWC file, whose positions and radii are taken for nm, in order of its lines.

    Raises:
        CorruptChunkError: lines that are not SWC, or a parent that is not there.
    """
    try:
        lines = (line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
        rows = np.array([[float(value) for value in line[:7]] for line in lines]).reshape(-1, 7)
        place = {int(number): row for row, number in enumerate(rows[:, 0])}
        edges = [(row, place[int(parent)]) for row, parent in enumerate(rows[:, 6]) if parent >= 0]
    except (ValueError, KeyError) as error:
        raise CorruptChunkError(f"{len(text)} characters are not SWC: {error!r}") from error
    radii = {"radius": rows[:, 5].astype(np.float32)}
    return Skeleton(rows[:, 2:5], np.array(edges, np.uint32).reshape(-1, 2), radii)


def _parents(count: int, edges: Edges) -> dict[int, int | None]:
    """Return the parent of every vertex, parents before children, None for roots."""
    neighbours: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    parents: dict[int, int | None] = {}
    ends = [v for v in range(count) if len(neighbours[v]) <= 1]
    for root in [*ends, *range(count)]:
        if root in parents:
            continue
        parents[root] = None
        left = [root]
        while left:
            vertex = left.pop()
            for other in sorted(neighbours[vertex], reverse=True):
                if other not in parents:
                    parents[other] = vertex
                    left.append(other)
    return parents
