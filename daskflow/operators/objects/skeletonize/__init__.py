"""Skeletons of all objects of a segmentation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Literal

from daskflow.errors import ParameterError
from daskflow.geometry import VolumeSpec
from daskflow.jobs import Job
from daskflow.jobs.evaluate import assumed_voxel_size
from daskflow.operators import options
from daskflow.operators.geometry.declare import declare
from daskflow.operators.objects._holes import check_level
from daskflow.operators.objects._label_objects import Selection, object_blocks, object_labels, object_place
from daskflow.operators.objects.skeletonize.plan import Pruning, Skeletonizing, Target, share_count
from daskflow.operators.objects.skeletonize.stages import (
    BLOCK_BYTES,
    FinishSkeletons,
    IndexSkeletons,
    TraceLabels,
    WriteSkeletons,
)
from daskflow.operators.objects.skeletonize.teasar import Tracing
from daskflow.operators.segmentation.voxel_counts import LabelCounts
from daskflow.scratch.pieces import Pieces, bucket_count
from daskflow.stores import kvstore
from daskflow.volume import Flag, Stage, Volume, in_order, numbered, operator
from daskflow.volume.stage import Output, Scope

_BLOCK = (384, 384, 384)


@operator(takes="labels")
def skeletonize(
    volume: Volume,
    *,
    output: options.Destination | None = None,
    format: Literal["sharded", "files"] = "files",  # noqa: A002
    voxel_size: Annotated[Sequence[float] | None, Flag("-v")] = None,
    labels: options.Labels | None = None,
    exclude_labels: options.ExcludeLabels | None = None,
    shape: Sequence[int] | None = None,
    dust: options.Dust = 1000,
    scale: float = 4.0,
    const: float = 10.0,
    soma_detection: float = 1100.0,
    soma_acceptance: float = 3500.0,
    soma_scale: float = 1.0,
    soma_const: float = 300.0,
    max_paths: int | None = None,
    fix_branching: bool = True,
    fix_borders: bool = True,
    fix_avocados: bool = False,
    fill_holes: options.FillHoles = 0,
    cross_section: int = 0,
    min_cable_length: float = 1000.0,
    max_cable_length: float | None = None,
    tick_length: float = 0.0,
    max_labels_per_shard: options.MaxLabelsPerShard = 2000,
    min_shards: options.MinShards = 1,
    shard_index_bytes: options.ShardIndexBytes = 2**13,
    minishard_index_bytes: options.MinishardIndexBytes = 2**15,
    minishard_index_encoding: options.IndexEncoding = "gzip",
    data_encoding: Annotated[Literal["gzip", "raw"], "how skeletons in shards are compressed."] = "gzip",
    compression: options.FileCompression = "none",
    table: str | None = None,
) -> Job:
    """Trace the skeletons of all objects of a segmentation, and write them where Neuroglancer finds them.

    Blocks of `shape` are traced by TEASAR (kimimaro; the extra "skeleton"), each with the one voxel that it shares with
    the next ones. Then, in the same job, the pieces of every label are joined where they meet, pruned, and written with
    a spatial index. Length limits hold for joined skeletons and `dust` for the whole volume, so that neither depends on
    how blocks cut an object. Skeletons of a precomputed layer go into it, and its info names them once all are
    there; those of chosen labels only where it names none.

    Args:
        volume: a segmentation, with one channel; a part of one gives skeletons of what is in that part.
        output: path or URL of the directory for skeletons, needed where the volume is not stored in a precomputed
            layer; in one it is by default skeletons_mip_N.
        shape: voxels per block (zyx), counted from the volume's start; paths depend on it. By default 384 384 384,
            for which workers of 4 GB have memory, or the volume where it must be one block.
        format: sharded for shards, files for a file for each label.
        voxel_size: nm (zyx), in place of what the volume says.
        scale: a path covers what lies within `scale` times the distance to the surface, plus `const`.
        const: nm that are added to that radius; what is farther gets a path of its own.
        soma_detection: objects with a point farther from the surface than this (nm) are checked for a soma.
        soma_acceptance: an object that is checked has a soma if, its holes filled, a point is farther (nm).
        soma_scale: `scale` around the middle of a soma.
        soma_const: `const` around the middle of a soma (nm).
        max_paths: of one object in one block; pieces may then not meet.
        fix_branching: fork where branches part, which takes one search per path.
        fix_borders: end in the middle of what a block cuts, so that the pieces of neighbouring blocks meet.
        fix_avocados: join a nucleus that has a label of its own to the soma around it.
        cross_section: measure the area of the section through every vertex, its direction averaged over so many
            vertices; 0 does not. Takes the volume as one block.
        min_cable_length: components of a joined skeleton with less cable (nm) are left out.
        max_cable_length: skeletons with more cable (nm) are left out.
        tick_length: terminal branches shorter than this (nm) are cut, the shortest first.
        table: path or URL of a CSV file for label, cable length (nm) and vertices of every skeleton.

    Returns:
        The job; ``run().results["skeletons"]`` has the number of skeletons, of vertices, and the cable in nm.

    Raises:
        ParameterError: the volume holds no labels, or there is nowhere to write; or several blocks where one is needed.
        MissingDependencyError: when it is run, if kimimaro is not installed.
        MetadataMismatchError: when it is run, if the directory holds the skeletons of another job.
    """
    layer, mip, url = object_place(volume, output, kind="skeletons")
    volume = volume if voxel_size is None else declare(volume, voxel_size=voxel_size)
    tracing = Tracing(
        voxel_size=volume.spec.spacing,
        scale=scale,
        const=const,
        soma_detection=soma_detection,
        soma_acceptance=soma_acceptance,
        soma_scale=soma_scale,
        soma_const=soma_const,
        max_paths=max_paths,
        fix_branching=fix_branching,
        fix_borders=fix_borders,
        fix_avocados=fix_avocados,
        fill_holes=check_level(fill_holes),
        cross_section=cross_section,
    )
    selection = Selection(None if labels is None else object_labels(labels), object_labels(exclude_labels or ()), dust)
    pruning = Pruning(min_cable_length, max_cable_length, tick_length)
    _check_numbers(tracing, selection, pruning)
    shards = options.ShardOptions(
        max_labels_per_shard,
        min_shards,
        shard_index_bytes,
        minishard_index_bytes,
        minishard_index_encoding,
        data_encoding,
    )
    sharding = shards._asdict() if format == "sharded" else None
    whole = [option for option in ("fill_holes", "cross_section") if getattr(tracing, option)]
    grid, notes = object_blocks(volume.box, shape, _BLOCK, whole, BLOCK_BYTES)
    expression = volume.expression
    counting = None
    if dust > 1:
        counting = LabelCounts.over(expression, volume.grid)
    shares = 1 if fix_avocados else share_count(len(grid))
    tasks = len(grid) * shares
    plan = Skeletonizing(
        grid=grid,
        shares=shares,
        origin=_origin(volume.spec),
        tracing=tracing,
        selection=selection,
        counting=counting,
        pieces=Pieces("gather-pieces", "pieces", tasks, bucket_count(tasks), Scope("skeletons", url), sharding),
        pruning=pruning,
        target=Target(url, mip, compression),
    )
    making = (
        Stage("trace-labels", numbered(len(grid), shares), TraceLabels(expression, plan), numbered=True),
        *plan.pieces.stages(),
        Stage("write-skeletons", numbered(plan.pieces.buckets), WriteSkeletons(plan), numbered=True),
        Stage("index-skeletons", grid, IndexSkeletons(plan), numbered=True),
    )
    stages = (*expression.stages, *(counting.stages(expression) if counting is not None else ()))
    stages = (*stages, *in_order(making, after=stages))
    rows = None if table is None else kvstore.normalise(os.fspath(table))
    return Job(
        stages,
        f"{url}.daskflow/",
        name="skeletonize",
        finish=(FinishSkeletons(plan, layer, rows),),
        makes=(Output(url, "skeletons", layer=layer), *(() if rows is None else (Output(rows, "table"),))),
        warnings=assumed_voxel_size(volume),
        notes=notes,
    )


def _origin(spec: VolumeSpec) -> tuple[float, float, float]:
    """Return where the middle of the volume's first voxel is; nm, xyz."""
    z, y, x = (c + v / 2 for c, v in zip(spec.corner, spec.spacing, strict=True))
    return x, y, z


def _check_numbers(tracing: Tracing, selection: Selection, pruning: Pruning) -> None:
    below = {
        "scale": tracing.scale,
        "const": tracing.const,
        "cross_section": tracing.cross_section,
        "dust": selection.dust,
        "min_cable_length": pruning.shortest,
        "max_cable_length": pruning.longest or 0,
        "tick_length": pruning.tick,
    }
    for name, value in below.items():
        if not value >= 0:
            raise ParameterError(f"{name} is {value}; give 0 or more")
    if tracing.max_paths is not None and tracing.max_paths < 1:
        raise ParameterError(f"max_paths is {tracing.max_paths}; give 1 or more, or leave it out")
