"""Skeletons as files for other programs."""

from __future__ import annotations

from daskflow.jobs import Job
from daskflow.operators import options
from daskflow.operators.objects._download import download_job
from daskflow.volume import operator


@operator()
def download_skeleton(
    layer: str,
    output: options.Destination,
    *,
    labels: options.Labels | None = None,
    start: options.Start | None = None,
    stop: options.Stop | None = None,
    size: options.Size | None = None,
) -> Job:
    """Write skeletons of a precomputed layer as SWC files, in nm, xyz.

    Every component of a skeleton is a tree in its file; of edges that close a loop one is left out.

    Args:
        layer: path or URL of a precomputed layer whose info names a directory of skeletons, in shards or not.
        output: path or URL of a directory, in which each label gets a file LABEL.swc.
        labels: only these, each of which must have a skeleton; by default all that there are.
        start: first voxel (zyx) of a box; skeletons that reach into it are written. Needs their spatial index.

    Returns:
        The job; its report counts files and bytes.

    Raises:
        ParameterError: labels and a box, half a box, or no skeleton to write.
        StoreNotFoundError: the layer has no skeletons, or no spatial index.
    """
    return download_job("skeleton", layer, output, form="swc", labels=labels, start=start, stop=stop, size=size)
