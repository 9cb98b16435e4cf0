"""Supervoxels and the graph of their contacts, for proofreading with PyChunkedGraph."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import yaml

from daskflow.errors import ParameterError, optional_module
from daskflow.geometry import BlockGrid, BoundingBox, Zyx, as_zyx
from daskflow.jobs import Job
from daskflow.jobs.evaluate import EvaluateVolumes, assumed_voxel_size
from daskflow.jobs.sinks import LayerSink
from daskflow.layers.provenance import WriteProvenance
from daskflow.operators import options
from daskflow.operators.segmentation import _affinities as affinity
from daskflow.operators.segmentation.save_pychunkedgraph.stages import (
    LAYER_BITS,
    ChunkedGraph,
    CutSupervoxels,
    WriteChunks,
)
from daskflow.stores import Layout, kvstore
from daskflow.stores.opening import format_named
from daskflow.volume import BlockResult, Expression, Flag, Stage, Task, Volume, in_order, numbered, operator
from daskflow.volume.kinds import check_same_box, taken
from daskflow.volume.stage import Output, Scope

_STORED = 64  # voxels of a chunk of the layer along an axis, at most, ...
_LEAST = 16  # ... and at least, where chunks of the graph can be cut evenly so
_OF_CHUNK = re.compile(r"(?:edges|components)_(\d+)_(\d+)_(\d+)\.proto(?:\.zst)?")  # x, y and z of the chunk


@operator()
def save_pychunkedgraph(
    affinities: Annotated[Volume, Flag("-i")],
    fragments: Volume,
    segmentation: Volume | None = None,
    *,
    output: options.Destination,
    chunk: Annotated[Sequence[int], Flag("-c")] = (256, 256, 256),
    spatial_bits: int = 10,
    order: affinity.Order = "xyz",
    offsets: affinity.Offsets | None = None,
) -> Job:
    """Write supervoxels and the graph of their contacts, as PyChunkedGraph ingests them for proofreading.

    Below the output are `supervoxels`, a precomputed layer; `edges` and `components`, a file each for every chunk that
    has supervoxels; `ingest.yml`, the configuration of its ingest; and `pychunkedgraph_metadata.json`. A supervoxel is
    what a fragment has in one chunk, numbered in the order of the fragments. Every two that touch have an edge, in the
    files of both chunks where a face lies between them. Its area is the number of voxel faces and its affinity the sum
    of the affinities over these, each times the nm of a voxel across the face, as PyChunkedGraph weighs them. Pieces of
    one fragment that touch over a face have an edge with an infinite affinity, as has a supervoxel that touches nothing
    with itself. Components are the supervoxels of one object, in a chunk and next to it.

    Args:
        affinities: three channels, czyx: floats from 0 to 1, or uint8 or uint16, of which the greatest is 1.
        fragments: labels over the same box, 0 being background, e.g. of `watershed`.
        segmentation: objects made of whole fragments over the same box, e.g. of `agglomerate`; a fragment of object 0
            is alone. By default each fragment is an object.
        output: path or URL of the directory.
        chunk: voxels per chunk of the graph (zyx), its CHUNK_SIZE.
        spatial_bits: bits of an id for the position of its chunk along each axis, SPATIAL_BITS; of the 64, 8 are the
            layer's, and what is left numbers the supervoxels of a chunk.

    Returns:
        The job; its report counts supervoxels and contacts.

    Raises:
        GeometryError: the volumes cover different boxes.
        ParameterError: not three channels, or more chunks along an axis than the bits number. While it runs: more
            supervoxels in a chunk than the bits number, or a fragment that belongs to several objects.
        AlreadyStoredError: when it is checked or run, if there are supervoxels that it has not written.
        MissingDependencyError: numba is not installed.
    """
    optional_module("numba", package="numba", extra="agglomeration")
    volumes = [affinity.edges(affinities, order=order, offsets=offsets)]
    for volume, name in ((fragments, "fragments"), (segmentation, "segmentation")):
        if volume is not None:
            volumes.append(taken(volume, "labels", "save-pychunkedgraph", name))
            check_same_box(**{"affinities": affinities, name: volume})
    url = kvstore.normalise(output)
    kvstore.refuse_http(url)
    size = as_zyx(chunk, name="chunk")
    grid = BlockGrid(fragments.box, size)
    check_bits(grid, spatial_bits)
    expression = Expression([one.node for one in volumes])
    scope = Scope("chunked-graph", (expression, grid, spatial_bits, url))
    graph = ChunkedGraph(grid, spatial_bits, url, fragments.voxel_size or (1.0, 1.0, 1.0), scope)
    layer = _layer(fragments, graph)
    cut = CutSupervoxels(layer.url, layer.spec, layer, graph)
    chunks = (
        Stage("cut-supervoxels", grid, EvaluateVolumes.into(expression, cut)),
        Stage("write-chunks", grid, WriteChunks(graph)),
        Stage("write-metadata", numbered(1), WriteMetadata(graph), numbered=True),
    )
    return Job(
        (*expression.stages, *in_order(chunks, after=expression.stages)),
        f"{url}.daskflow/",
        name="save pychunkedgraph",
        finish=(WriteProvenance(format_named(layer.format).store.provenance_url(layer.url)),),
        warnings=assumed_voxel_size(fragments),
    )


def check_bits(grid: BlockGrid, spatial_bits: int) -> None:
    """Raise unless bits number the chunks along each axis, and leave some for the supervoxels of a chunk."""
    most = (64 - LAYER_BITS - 1) // 3
    if not 1 <= spatial_bits <= most:
        raise ParameterError(f"spatial bits {spatial_bits} must be from 1 to {most}")
    longest = max(grid.shape)
    if longest > 2**spatial_bits:
        needed = (longest - 1).bit_length()
        more = f"{needed} bits (--spatial-bits), or " if needed <= most else ""
        raise ParameterError(
            f"{grid.box} (z0-z1_y0-y1_x0-x1) has {grid.shape} chunks of {grid.block} voxels (zyx), and {spatial_bits}"
            f" bits number {2**spatial_bits} along an axis; take {more}larger chunks (--chunk)"
        )


def _layer(fragments: Volume, graph: ChunkedGraph) -> LayerSink:
    z, y, x = map(_stored_along, graph.grid.block)
    spec = fragments.spec.of_labels(np.uint64).replace(chunk_origin=None)
    return LayerSink(graph.layer, spec, 0, "precomputed", Layout(chunk=(z, y, x), encoding="compressed_segmentation"))


def _stored_along(size: int) -> int:
    """Return the voxels, along one axis, of the chunks of a layer of which some make one of the graph."""
    parts = next(parts for parts in range(-(-size // _STORED), size + 1) if size % parts == 0)
    return size // parts if size // parts >= _LEAST else size


@dataclass(frozen=True)
class WriteMetadata(Task):
    """Write what the ingest is told of the whole: its configuration, and the numbers of bits, chunks and voxels.

    Files of chunks that the graph does not have, e.g. of smaller ones that it has replaced, are deleted.
    """

    graph: ChunkedGraph

    @property
    def _files(self) -> tuple[str, str]:
        return f"{self.graph.url}/ingest.yml", f"{self.graph.url}/pychunkedgraph_metadata.json"

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        graph, chunk = self.graph, _xyz(self.graph.grid.block)
        edges, components, layer = map(kvstore.redact, (graph.edges, graph.components, graph.layer))
        bits = {"FANOUT": 2, "LAYER_ID_BITS": LAYER_BITS, "SPATIAL_BITS": graph.spatial_bits}
        ingest = {
            "data_source": {"EDGES": edges, "COMPONENTS": components, "WATERSHED": layer, "DATA_VERSION": 4},
            "graph_config": {"CHUNK_SIZE": chunk, **bits},
            "backend_client": {"TYPE": "bigtable", "CONFIG": {"ADMIN": True, "READ_ONLY": False}},
            "ingest_config": {},
        }
        known = {
            "spatial_id_bits": graph.spatial_bits,
            "fan_out": 2,
            "layer_id_bits": LAYER_BITS,
            "chunk_shape": chunk,
            "volume_shape": _xyz(graph.grid.box.shape),
            "chunk_grid_shape": _xyz(graph.grid.shape),
        }
        for url, text in zip(self._files, (yaml.safe_dump(ingest, sort_keys=False), json.dumps(known)), strict=True):
            kvstore.write_bytes(url, text.encode())
        shape = _xyz(graph.grid.shape)
        for directory in (graph.edges, graph.components):
            for name in kvstore.list_names(directory):
                place = _OF_CHUNK.fullmatch(name)
                if place and any(int(at) >= n for at, n in zip(place.groups(), shape, strict=True)):
                    kvstore.delete(kvstore.join(directory, name))
        return BlockResult()

    def makes(self) -> tuple[Output, ...]:
        return tuple(Output(url, "table", layer=self.graph.layer) for url in self._files)

    def intact(self) -> bool:
        return all(map(kvstore.exists, self._files))

    def describe(self) -> dict[str, Any]:
        graph = self.graph
        known = {"url": graph.url, "box": str(graph.grid.box), "chunk": list(graph.grid.block)}
        return {"writes": "metadata", **known, "spatial_bits": graph.spatial_bits}


def _xyz(values: Zyx) -> list[int]:
    return list(values[::-1])
