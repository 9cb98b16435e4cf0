"""Fragments of a volume merged to objects, by the mean affinity between them."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError, optional_module
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.operators.segmentation import _affinities as affinity
from daskflow.operators.segmentation._contacts import Score
from daskflow.operators.segmentation.agglomerate.boxes import Agglomeration
from daskflow.operators.segmentation.agglomerate.files import WriteGraph, WriteTree
from daskflow.operators.segmentation.agglomerate.stages import agglomeration_stages
from daskflow.operators.segmentation.remap import replace_labels
from daskflow.operators.segmentation.watershed import watershed
from daskflow.stores import kvstore
from daskflow.stores.parquet import load_pyarrow
from daskflow.volume import Expression, Flag, Stage, Volume, in_order, numbered, operator
from daskflow.volume.kinds import check_same_box, taken
from daskflow.volume.stage import Scope


@operator()
def agglomerate(
    affinities: Annotated[Volume, Flag("-i")],
    fragments: Volume | None = None,
    *,
    threshold: Annotated[float | Sequence[float], Flag("-t")] = 0.5,
    score: Score = "mean",
    low: affinity.Low = 0.001,
    high: affinity.High = 0.9999,
    order: affinity.Order = "xyz",
    offsets: affinity.Offsets | None = None,
    tree: str | os.PathLike[str] | None = None,
    graph: str | os.PathLike[str] | None = None,
    one_minus: bool = False,
) -> Volume | tuple[Volume, ...]:
    """Merge fragments to objects by the mean affinity of where they touch, the same for any blocks.

    The two regions with the greatest mean affinity are merged, whose edges to others add up, and so on down to the
    threshold: average linkage of the region graph (as waterz has it with MeanAffinity, of one minus the affinity). Here
    blocks merge what they know all edges of, ever larger boxes what is left, and the result is that of the volume in
    one piece, to the bit. Affinities are rounded to 16 bits, so sums are exact; of equal means, that of the smaller
    labels comes first. An object is named by the largest label of its fragments.

    Args:
        affinities: three channels, czyx: floats from 0 to 1, or uint8 or uint16, of which the greatest is 1.
        fragments: labels over the same box, in pieces or not, 0 being background, which stays; by default the basins
            that `watershed` finds.
        threshold: least score that merges, from 0 to 1; several give a segmentation each from the same passes.
        score: the mean affinity between two regions, or the greatest (single linkage), which one bad voxel decides.
        low: of the watershed.
        high: of the watershed.
        tree: path or URL of a Parquet file for the merges: child, parent, score, sum and count (of the greatest
            affinity, itself and 1). From it other, higher
            thresholds follow by `remap`, and scores of all by `evaluate_segmentation`.
        graph: path or URL of a Parquet file for the region graph: u, v, mean affinity (score), sum and count of all
            that touch, and sum and count per axis.
        one_minus: thresholds are one minus the mean affinity, so that greater ones merge more, as waterz counts, and
            chunkflow's plugin with it, whose options imply it.

    Returns:
        A segmentation of the dtype of the fragments, zyx; a tuple of them where several thresholds are given.

    Raises:
        GeometryError: the fragments cover another box.
        ParameterError: not three channels, or a threshold that is not from 0 to 1.
        MissingDependencyError: numba is not installed.
    """
    optional_module("numba", package="numba", extra="agglomeration")
    thresholds = tuple(1 - float(one) if one_minus else float(one) for one in np.atleast_1d(threshold))
    for value in thresholds:
        if not 0 <= value <= 1:
            raise ParameterError(f"threshold {value:g} is not from 0 to 1, as mean affinities are")
    if not thresholds or len(set(thresholds)) < len(thresholds):
        raise ParameterError(f"thresholds {' '.join(map(str, thresholds))} are none, or not all different")
    if fragments is None:
        fragments = watershed(affinities, low=low, high=high, order=order, offsets=offsets)
    edges = affinity.edges(affinities, order=order, offsets=offsets)
    fragments = taken(fragments, "labels", "agglomerate", "fragments")
    check_same_box(fragments=fragments, affinities=affinities)
    expression = Expression([edges.node, fragments.node])
    grid = BlockGrid(affinities.box, affinities.block, affinities.spec.chunk_origin)
    files = {name: _parquet(url) for name, url in (("tree", tree), ("graph", graph)) if url is not None}
    scope = Scope("agglomeration", (expression, grid, thresholds, score, [files.get("tree"), files.get("graph")]))
    one = Agglomeration(grid, thresholds, score, scope, graph="graph" in files)
    stages = (*expression.stages, *agglomeration_stages(one, expression))
    writes = {"tree": WriteTree, "graph": WriteGraph}
    written = [
        Stage(f"write-{name}", numbered(1), writes[name](one, url), numbered=True) for name, url in files.items()
    ]
    stages += in_order(written, after=stages[-1:])
    spec = fragments.spec.of_labels()
    found = tuple(
        fragments.map_after(named, left=one, stages=stages, spec=spec, which=which) for which in range(len(thresholds))
    )
    return found[0] if np.ndim(threshold) == 0 else found


def _parquet(url: str | os.PathLike[str]) -> str:
    location = kvstore.normalise(os.fspath(url))
    if not location.endswith(".parquet"):
        raise ParameterError(f"{kvstore.redact(location)} is to be a Parquet file, so its name must end with .parquet")
    load_pyarrow()
    return location


def named(array: npt.NDArray[Any], *, box: BoundingBox, left: Agglomeration, which: int) -> npt.NDArray[Any]:
    """Return the fragments of a block (zyx) by the names of their objects at one of the thresholds."""
    find = functools.partial(left.names, box, which)
    return replace_labels(array, find, box, "uint8" if array.dtype == bool else array.dtype.name)
