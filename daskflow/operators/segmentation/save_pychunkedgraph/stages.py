"""The passes of an export: cut fragments at chunks and find what touches, then write the graph of each chunk.

    chunks   supervoxels of the chunk ─► layer
             contacts inside, and over the faces to the chunks before ─┐
    chunks   edges and components, with the ids of the six neighbours ◄┘

The id of a supervoxel has, from the highest bit, 8 bits for the layer of the graph, which is 1, equally many for x, y
and z of the chunk, and the rank of its fragment among those of the chunk, from 1 on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, Zyx
from daskflow.jobs.sinks import LayerSink, Sink
from daskflow.operators.segmentation._affinities import ONE
from daskflow.operators.segmentation._contacts import crossings_of
from daskflow.operators.segmentation.agglomerate.boxes import EDGES
from daskflow.operators.segmentation.save_pychunkedgraph.messages import Edges, encode_components, encode_edges, joined
from daskflow.scratch.records import Arrays, required_records, write_record
from daskflow.scratch.tables import found_in, merged
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Task
from daskflow.volume.stage import Bound, Output, Scope, Storing

Array = npt.NDArray[Any]
Names = npt.NDArray[np.uint64]

LAYER_BITS = 8
_VOXEL_BYTES = 60  # fragments and objects, their ids, and what numbers them
_ZSTD_LEVEL = 9
_GRAPH_BYTES = 4  # per voxel of a chunk: its records, those of its neighbours, and the files made of them


@dataclass(frozen=True)
class ChunkedGraph(Bound):
    """One export.

    Attributes:
        grid: the chunks of the graph.
        spatial_bits: of the position of a chunk, on each axis.
        url: the directory of all that is written.
        voxel_size: nm (zyx), by which areas and affinities are weighed.
        scope: where the scratch data lie.
    """

    grid: BlockGrid
    spatial_bits: int
    url: str
    voxel_size: tuple[float, float, float]
    scope: Scope

    @property
    def layer(self) -> str:
        """The URL of the layer of supervoxels."""
        return kvstore.join(self.url, "supervoxels")

    @property
    def edges(self) -> str:
        """The URL of the directory of edges."""
        return kvstore.join(self.url, "edges")

    @property
    def components(self) -> str:
        """The URL of the directory of components."""
        return kvstore.join(self.url, "components")

    @property
    def local_bits(self) -> int:
        """Bits that number the supervoxels of a chunk."""
        return 64 - LAYER_BITS - 3 * self.spatial_bits

    def number(self, box: BoundingBox) -> int:
        """Return the number of the chunk that a box is."""
        (chunk,) = self.grid.touching(box)
        return chunk

    def ids(self, chunk: int, ranks: npt.ArrayLike) -> Names:
        """Return the ids of supervoxels of a chunk, given their ranks from 1 on."""
        z, y, x = self.grid.position(chunk)
        first = 1
        for place in (x, y, z):
            first = first << self.spatial_bits | place
        return np.asarray(ranks, np.uint64) | np.uint64(first << self.local_bits)

    def neighbours(self, chunk: int) -> Iterator[tuple[int, int, int]]:
        """Yield the chunks over each face: axis, -1 for the one before or 1 for the one after, and its number."""
        position = self.grid.position(chunk)
        for axis in range(3):
            for step in (-1, 1):
                z, y, x = (place + step * (one == axis) for one, place in enumerate(position))
                if 0 <= (z, y, x)[axis] < self.grid.shape[axis]:
                    yield axis, step, self.grid.index((z, y, x))

    def write(self, kind: str, chunk: int, arrays: Arrays) -> None:
        """Store what was found of a kind in a chunk."""
        write_record(self.scope.url, kind, chunk, arrays)

    def read(self, kind: str, chunk: int) -> Arrays:
        """Return what `write` stored."""
        return required_records(self.scope.url, kind, [chunk])[0]


@dataclass(frozen=True)
class CutSupervoxels(Sink):
    """Cut the fragments of every chunk to supervoxels, write these, and find where fragments touch."""

    verifiable = True
    layer: LayerSink
    graph: ChunkedGraph

    @property
    def grid(self) -> BlockGrid:
        return self.graph.grid

    @property
    def unit(self) -> Zyx | None:
        return self.layer.unit

    @property
    def origin(self) -> Zyx:
        return self.layer.origin

    def needs(self, box: BoundingBox) -> BoundingBox:
        return box.grow(1, 0).clip(self.grid.box)

    def compute(self, box: BoundingBox, arrays: list[Array]) -> tuple[Array, dict[str, Arrays]]:
        """Return the supervoxels and, by kind, the records of the chunk."""
        around = self.needs(box)
        inside = box.slices(around)
        edges = arrays[0]
        fragments, *objects = (one.reshape(around.shape).astype(np.uint64, copy=False) for one in arrays[1:])
        contacts = crossings_of(edges[(slice(None), *inside)], fragments[inside])
        names = contacts.regions
        self._refuse_too_many(box, len(names))
        ids = self.graph.ids(self.graph.number(box), np.arange(1, len(names) + 1))
        supervoxels = np.concatenate((np.zeros(1, np.uint64), ids))[contacts.numbers]
        called = objects_of(contacts.numbers, names, objects[0][inside], box) if objects else names
        records = {"supervoxels": {"fragments": names, "objects": called}, "inside": contacts.by_axis()}
        for axis in range(3):
            if inside[axis].start:
                records[f"face-{axis}"] = face_contacts(axis, edges[axis], fragments, inside)
        return supervoxels, records

    def _refuse_too_many(self, box: BoundingBox, count: int) -> None:
        bits = self.graph.local_bits
        if count >= 2**bits:
            raise ParameterError(
                f"chunk {box} (z0-z1_y0-y1_x0-x1) has {count} supervoxels, and {bits} bits number at most"
                f" {2**bits - 1}; take smaller chunks (--chunk) or fewer bits for their positions (--spatial-bits)"
            )

    def write(self, box: BoundingBox, outputs: tuple[Array, dict[str, Arrays]]) -> BlockResult:
        supervoxels, records = outputs
        for kind, arrays in records.items():
            self.graph.write(kind, self.graph.number(box), arrays)
        result = self.layer.write(box, supervoxels)
        return BlockResult(empty=result.empty, counts={"supervoxels": len(records["supervoxels"]["fragments"])})

    def further(self, box: BoundingBox) -> Estimate:
        return Estimate(bytes_written=self.spec.nbytes_of(box), memory=box.size * _VOXEL_BYTES)

    @property
    def through(self) -> tuple[Storing, ...]:
        return (self.layer,)

    def check(self) -> None:
        kvstore.check_writable(self.graph.scope.url)
        super().check()

    def describe(self) -> dict[str, Any]:
        return {**self.layer.describe(), "graph": list(self.grid.block), "spatial_bits": self.graph.spatial_bits}


def objects_of(ranks: Array, names: Names, objects: Array, box: BoundingBox) -> Names:
    """Return the object of each of the fragments `names` in a box, whose ranks there are from 1 on, 0 being none."""
    found = np.zeros(len(names) + 1, np.uint64)
    found[ranks] = objects
    apart = (found[ranks] != objects) & (ranks != 0)
    if apart.any():
        rank = ranks[apart][0]
        first, second = np.unique(objects[ranks == rank])[:2]
        raise _several(names[rank - 1], first, second, f"in {box} (z0-z1_y0-y1_x0-x1)")
    return found[1:]


def _several(fragment: int, first: int, second: int, where: str) -> ParameterError:
    return ParameterError(
        f"fragment {fragment} belongs to the objects {first} and {second} {where}; the segmentation must be made of"
        " whole fragments, as agglomerate does"
    )


def face_contacts(axis: int, edges: Array, fragments: Array, inside: tuple[slice, slice, slice]) -> Arrays:
    """Return the contacts over the low face of a chunk: `u` in it, `v` before it, equal ones too, sums and counts.

    Args:
        axis: that the face lies across.
        edges: affinities of voxels to those before on this axis, uint16, zyx.
        fragments: of the same voxels.
        inside: which of them are the chunk's.
    """
    here, before = list(inside), list(inside)
    here[axis], before[axis] = slice(1, 2), slice(0, 1)
    u, v, sums = (one.reshape(-1) for one in (fragments[tuple(here)], fragments[tuple(before)], edges[tuple(here)]))
    both = (u != 0) & (v != 0)
    counts = np.ones(np.count_nonzero(both), np.int64)
    return merged(EDGES, [{"u": u[both], "v": v[both], "sums": sums[both].astype(np.int64), "counts": counts}])


@dataclass(frozen=True)
class Side:
    """What lies over a face of a chunk: the axis, the chunk, its supervoxels, and contacts as `mine` and `theirs`."""

    axis: int
    chunk: int
    supervoxels: Arrays
    mine: Names
    theirs: Names
    contacts: Arrays


@dataclass(frozen=True)
class WriteChunks(Task):
    """Write the edges and the components of each chunk; of one without supervoxels there are no files."""

    graph: ChunkedGraph

    def read(self, box: BoundingBox) -> tuple[Arrays, Arrays, list[Side]]:
        graph, chunk = self.graph, self.graph.number(box)
        sides = []
        for axis, step, other in graph.neighbours(chunk):
            contacts = graph.read(f"face-{axis}", chunk if step < 0 else other)
            ends = ("u", "v") if step < 0 else ("v", "u")
            mine, theirs = (contacts[end] for end in ends)
            sides.append(Side(axis, other, graph.read("supervoxels", other), mine, theirs, contacts))
        return graph.read("supervoxels", chunk), graph.read("inside", chunk), sides

    def compute(
        self, box: BoundingBox, inputs: tuple[Arrays, Arrays, list[Side]]
    ) -> tuple[bytes, bytes, dict[str, int]] | None:
        from numcodecs import Zstd

        own, contacts, sides = inputs
        if not len(own["fragments"]):
            return None
        chunk = self.graph.number(box)
        inside = self._inside(chunk, own, contacts)
        outside = [self._outside(chunk, own, side) for side in sides]
        cross, between = (joined([_NONE, *(one[which] for one in outside)]) for which in range(2))
        known = inside.ones, inside.others, cross.ones, between.ones
        alone = np.setdiff1d(self._ids(chunk, own, own["fragments"]), np.concatenate(known))
        itself = _certain(alone, alone, area=0)  # else nothing would say that they are there
        edges = encode_edges(joined([inside, itself]), cross, between)
        components = encode_components(self._components(chunk, own, sides))
        before = [one for one, side in zip(outside, sides, strict=True) if side.chunk < chunk]  # counts each face once
        cuts, contacts_before = (sum(len(one[which]) for one in before) for which in range(2))
        counts = {"contacts": len(inside) + contacts_before, "cuts": cuts}
        return Zstd(level=_ZSTD_LEVEL).encode(edges), components, counts

    def _ids(self, chunk: int, supervoxels: Arrays, fragments: Names) -> Names:
        """Return the supervoxels that some fragments have in a chunk."""
        return self.graph.ids(chunk, 1 + np.searchsorted(supervoxels["fragments"], fragments))

    def _inside(self, chunk: int, own: Arrays, contacts: Arrays) -> Edges:
        ones, others = (self._ids(chunk, own, contacts[end]) for end in ("u", "v"))
        sums, counts = ((contacts[name] * np.array(self.graph.voxel_size)).sum(axis=1) for name in ("sums", "counts"))
        return Edges(ones, others, sums / ONE, np.rint(counts))

    def _outside(self, chunk: int, own: Arrays, side: Side) -> tuple[Edges, Edges]:
        """Return the pieces of one fragment that touch over a face, and the others that do."""
        ones, others = self._ids(chunk, own, side.mine), self._ids(side.chunk, side.supervoxels, side.theirs)
        same = side.mine == side.theirs
        size = self.graph.voxel_size[side.axis]
        sums, counts = (side.contacts[name][~same] * size for name in ("sums", "counts"))
        between = Edges(ones[~same], others[~same], sums / ONE, np.rint(counts))
        return _certain(ones[same], others[same], area=1), between

    def _components(self, chunk: int, own: Arrays, sides: list[Side]) -> list[Names]:
        """Return the supervoxels of each object among those of a chunk and those that these touch over its faces."""
        ids, objects = [self._ids(chunk, own, own["fragments"])], [own["objects"]]
        for side in sides:
            theirs = np.unique(side.theirs)
            at = np.searchsorted(side.supervoxels["fragments"], theirs)
            called = side.supervoxels["objects"][at]
            _refuse_several(own, theirs, called)
            ids.append(self._ids(side.chunk, side.supervoxels, theirs))
            objects.append(called)
        every, names = np.concatenate(ids), np.concatenate(objects)
        order = np.lexsort((every, names))
        order = order[names[order] != 0]
        return np.split(every[order], np.flatnonzero(np.diff(names[order])) + 1) if len(order) else []

    def write(self, box: BoundingBox, outputs: tuple[bytes, bytes, dict[str, int]] | None) -> BlockResult:
        graph = self.graph
        place = "_".join(map(str, reversed(graph.grid.position(graph.number(box)))))
        urls = (f"{graph.edges}/edges_{place}.proto.zst", f"{graph.components}/components_{place}.proto")
        if outputs is None:
            for url in urls:
                kvstore.delete(url)
            return BlockResult(empty=True)
        for url, data in zip(urls, outputs[:2], strict=True):
            kvstore.write_bytes(url, data)
        return BlockResult(counts=outputs[2])

    def estimate(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=box.size * _GRAPH_BYTES)

    def makes(self) -> tuple[Output, ...]:
        places = {"edges": self.graph.edges, "components": self.graph.components}
        return tuple(Output(url, kind, layer=self.graph.layer) for kind, url in places.items())

    def intact(self) -> bool:
        """Return whether both directories are there, and on a local disk any file in them."""
        paths = map(kvstore.local_path, (self.graph.edges, self.graph.components))
        return all(path is None or (path.is_dir() and any(path.iterdir())) for path in paths)

    def check(self) -> None:
        for url in (self.graph.edges, self.graph.components):
            kvstore.check_writable(url)

    def describe(self) -> dict[str, Any]:
        graph = self.graph
        known = {"url": graph.url, "spatial_bits": graph.spatial_bits, "voxel_size": list(graph.voxel_size)}
        return {"writes": "edges and components", **known}


_NOBODY = np.zeros(0, np.uint64)
_NONE = Edges(_NOBODY, _NOBODY, np.zeros(0), np.zeros(0))


def _certain(ones: Names, others: Names, *, area: int) -> Edges:
    """Return edges that nothing cuts."""
    return Edges(ones, others, np.full(len(ones), np.inf), np.full(len(ones), area))


def _refuse_several(own: Arrays, fragments: Names, objects: Names) -> None:
    """Raise if a fragment of a chunk belongs to another object beyond its face, where `fragments` lie (rising)."""
    at, there = found_in(own["fragments"], fragments)
    apart = np.flatnonzero(there)[own["objects"][at[there]] != objects[there]]
    if len(apart):
        first = apart[0]
        mine = own["objects"][at[first]]
        raise _several(fragments[first], mine, objects[first], "on the two sides of a face of a chunk")
