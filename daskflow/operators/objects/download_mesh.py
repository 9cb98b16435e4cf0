"""Meshes as files for other programs."""

from __future__ import annotations

from typing import Literal

from daskflow.jobs import Job
from daskflow.operators import options
from daskflow.operators.objects._download import download_job
from daskflow.volume import operator


@operator()
def download_mesh(
    layer: str,
    output: options.Destination,
    *,
    labels: options.Labels | None = None,
    start: options.Start | None = None,
    stop: options.Stop | None = None,
    size: options.Size | None = None,
    format: Literal["ply", "obj", "stl"] = "ply",  # noqa: A002 (the word people use)
    lod: int = 0,
) -> Job:
    """Write meshes of a precomputed layer as PLY, OBJ or STL files, in nm, xyz.

    The layer's meshes may be legacy or multi-resolution, in shards or not. Fragments of a mesh are joined, and vertices
    at one place made one.

    Args:
        layer: path or URL of a precomputed layer whose info names a directory of meshes.
        output: path or URL of a directory, in which each label gets a file LABEL.ply.
        labels: only these, each of which must have a mesh; by default all that there are.
        start: first voxel (zyx) of a box; meshes that reach into it are written. Needs the spatial index of the meshes.
        format: ply and stl are binary, obj is text.
        lod: level of detail of multi-resolution meshes, 0 the finest, -1 the coarsest of each.

    Returns:
        The job; its report counts files and bytes.

    Raises:
        ParameterError: labels and a box, half a box, or no mesh to write.
        StoreNotFoundError: the layer has no meshes, or no spatial index.
    """
    return download_job("mesh", layer, output, form=format, lod=lod, labels=labels, start=start, stop=stop, size=size)
