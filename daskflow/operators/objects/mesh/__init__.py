"""Meshes of all objects of a segmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from daskflow.config import parse_bytes
from daskflow.errors import ParameterError
from daskflow.geometry import as_zyx
from daskflow.jobs import Job
from daskflow.jobs.evaluate import EvaluateVolumes, assumed_voxel_size
from daskflow.operators import options
from daskflow.operators.objects._holes import check_level
from daskflow.operators.objects._label_objects import fits_float32, object_blocks, object_labels, object_place
from daskflow.operators.objects.mesh.multires import Detail
from daskflow.operators.objects.mesh.plan import Frame, Meshing, MeshSelection, Target
from daskflow.operators.objects.mesh.stages import (
    BLOCK_BYTES,
    CutLargeMeshes,
    ExtractSurfaces,
    FinishMeshes,
    WriteMeshes,
)
from daskflow.operators.segmentation.voxel_counts import LabelCounts
from daskflow.scratch.pieces import Pieces, bucket_count
from daskflow.stores.kvstore import plain_number
from daskflow.stores.objects.mesh_files import DRACO_LEVEL, SURFACE_FILES
from daskflow.volume import Stage, Volume, in_order, numbered, operator
from daskflow.volume.stage import Output, Scope

_MOST_DRACO = 10

_BLOCK = (320, 320, 320)


@operator(takes="labels")
def mesh(
    volume: Volume,
    *,
    output: options.Destination | None = None,
    format: Literal["sharded", "multires", "legacy", "ply", "obj", "stl"] = "sharded",  # noqa: A002
    labels: options.Labels | None = None,
    exclude_labels: options.ExcludeLabels | None = None,
    shape: Sequence[int] | None = None,
    max_error: options.MaxError | None = None,
    dust: options.Dust = 0,
    dust_within: Literal["volume", "block"] = "volume",
    fill_holes: options.FillHoles = 0,
    open_edge: bool = False,
    lods: options.Lods = 2,
    min_chunk: options.MinChunk = (256, 256, 256),
    vertex_bits: Literal[10, 16] = 16,
    draco_level: int = DRACO_LEVEL,
    max_labels_per_shard: options.MaxLabelsPerShard = 1000,
    min_shards: options.MinShards = 1,
    shard_index_bytes: options.ShardIndexBytes = 2**13,
    minishard_index_bytes: options.MinishardIndexBytes = 2**15,
    minishard_index_encoding: options.IndexEncoding = "gzip",
    memory: options.Memory = "2GB",
    spatial_index: bool = True,
    compression: options.FileCompression = "none",
) -> Job:
    """Mesh all objects of a segmentation, and write the meshes where Neuroglancer finds them.

    Marching cubes (zmesh; the extra "mesh") goes through blocks of `shape`, each with the one voxel that it shares with
    the next ones, and surfaces are simplified where no two blocks meet: meshes are watertight across blocks. Then, in
    the same job, the pieces of every label are joined, made into levels of detail and written, with a spatial index.
    Meshes of a precomputed layer go into it, and its info names them once all are there; those of
    chosen labels only where it names none.

    Args:
        volume: a segmentation, with one channel; a part of one gives meshes of what is in that part.
        output: path or URL of the directory for meshes, needed where the volume is not stored in a precomputed layer;
            in one it is mesh_mip_N_err_E unless given.
        format: sharded or multires for levels of detail in Draco, in shards or in two files for each label; legacy for
            a file for each label and block, not compressed; ply, obj or stl for a file LABEL.ply of each label, in nm,
            for other programs.
        shape: voxels per block (zyx), counted from the volume's start; 320 320 320 unless given, for which workers of
            4 GB have memory, or the volume where it must be one block.
        max_error: nm that simplification may move the surface, of which 99.9 % stays within; 0 does not simplify. By
            default as much as a voxel: the cube root of its volume.
        dust_within: whether `dust` voxels are counted in the whole volume, or in each block, which depends on `shape`.
        open_edge: leave surfaces open where the volume ends.
        vertex_bits: bits of a coordinate within a piece, to which it is rounded.
        draco_level: level of Draco's compression, 0 to 10: higher is smaller and slower.
        memory: that a task may take to write meshes. A label that would take more is divided in space, and its parts
            are made by many tasks; only its compressed mesh, of 2 to 3 bytes a triangle, is ever in one.
        spatial_index: write which labels are in every block.

    Returns:
        The job; ``run().results["meshes"]`` has the number of meshes, of triangles, and their bytes.

    Raises:
        ParameterError: the volume holds no labels, or there is nowhere to write; or several blocks where one is needed.
        MissingDependencyError: when it is run, if zmesh, numba or DracoPy is not installed.
        MetadataMismatchError: when it is run, if the directory holds the meshes of another job.
    """
    error = math.prod(volume.spec.spacing) ** (1 / 3) if max_error is None else max_error
    _check_numbers(max_error=error, dust=dust, lods=lods, max_labels_per_shard=max_labels_per_shard - 1)
    if format in SURFACE_FILES and output is None:
        raise ParameterError(f"{format} files are not for a layer; give output=, a directory for them")
    layer, mip, url = object_place(volume, output, kind="meshes", suffix=f"_err_{plain_number(float(f'{error:.6g}'))}")
    frame = Frame.of(volume.spec)
    if format == "legacy" and not fits_float32(volume.box, parts=4):
        raise ParameterError(
            f"{volume.box} reaches beyond 2^21 voxels, where the float32 numbers of format='legacy' move vertices by"
            " more than an eighth of a voxel; use format='sharded' or 'multires', which count from the volume's first"
            " voxel"
        )
    whole = ["fill_holes"] if check_level(fill_holes) else []
    grid, notes = object_blocks(volume.box, shape, _BLOCK, whole, BLOCK_BYTES)
    selection = MeshSelection(
        None if labels is None else object_labels(labels),
        object_labels(exclude_labels or ()),
        dust,
        dust_within,
        int(fill_holes),
    )
    chunk = as_zyx(min_chunk, name="min_chunk")
    if min(chunk) < 1:
        raise ParameterError(f"min_chunk {chunk} zyx must be at least 1 on every axis")
    counting = None
    if dust > 1 and dust_within == "volume":
        counting = LabelCounts.over(volume.expression, volume.grid)
    if format in SURFACE_FILES:
        layer, spatial_index = None, False
    if not 0 <= draco_level <= _MOST_DRACO:
        raise ParameterError(f"draco_level is {draco_level}; give 0 to {_MOST_DRACO}")
    shards = options.ShardOptions(
        max_labels_per_shard, min_shards, shard_index_bytes, minishard_index_bytes, minishard_index_encoding
    )
    sharding = shards._asdict() if format == "sharded" else None
    meshing = Meshing(
        grid=grid,
        frame=frame,
        closed=not open_edge,
        selection=selection,
        counting=counting,
        pieces=Pieces(
            "gather-meshes", "mesh-pieces", len(grid), bucket_count(len(grid)), Scope("meshes", url), sharding
        ),
        detail=Detail(lods, chunk, vertex_bits, error, volume.spec.spacing, draco_level),
        memory=parse_bytes(memory),
        target=Target(url, format, mip, compression, spatial_index),
    )
    expression, buckets = volume.expression, meshing.pieces.buckets
    cutting = Stage("cut-large-meshes", numbered(buckets, meshing.turns), CutLargeMeshes(meshing), numbered=True)
    making = (
        Stage("extract-surfaces", grid, EvaluateVolumes.into(expression, ExtractSurfaces(meshing))),
        *meshing.pieces.stages(),
        *((cutting,) if format in ("sharded", "multires") else ()),
        Stage("write-meshes", numbered(buckets), WriteMeshes(meshing), numbered=True),
    )
    stages = (*expression.stages, *(counting.stages(expression) if counting is not None else ()))
    stages = (*stages, *in_order(making, after=stages))
    return Job(
        stages,
        f"{url}.daskflow/",
        name="mesh",
        finish=(FinishMeshes(meshing, layer),),
        makes=(Output(url, "mesh", layer=layer),),
        warnings=assumed_voxel_size(volume),
        notes=notes,
    )


def _check_numbers(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 <= value < math.inf:
            raise ParameterError(f"{name} is {value:g}; give a larger number")
