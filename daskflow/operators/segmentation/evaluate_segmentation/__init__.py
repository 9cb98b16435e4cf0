"""A segmentation against the truth, from the voxels that every two segments share."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from daskflow.errors import GeometryError, ParameterError
from daskflow.geometry import BlockGrid
from daskflow.jobs import Job, Report
from daskflow.jobs.evaluate import Tabulate
from daskflow.jobs.report import Finish
from daskflow.operators import options
from daskflow.operators.segmentation.evaluate_segmentation.scores import (
    PAIRS,
    SIZES,
    by_segment,
    by_truth,
    overlaps_of,
    pair_sums,
    scores_of,
    size_sums,
)
from daskflow.operators.segmentation.evaluate_segmentation.sweep import COLUMNS, ScoreThresholds, best, plot_of
from daskflow.scratch.records import Arrays, Reduce
from daskflow.scratch.tables import Table
from daskflow.stores import kvstore
from daskflow.stores.parquet import load_pyarrow
from daskflow.volume import Expression, Flag, Stage, Volume, operator
from daskflow.volume.kinds import check_same_box
from daskflow.volume.stage import Output, Scope


@operator(takes="labels")
def evaluate_segmentation(
    segmentation: Annotated[Volume, Flag("-s")],
    groundtruth: Annotated[Volume, Flag("-g")],
    *,
    tree: str | os.PathLike[str] | None = None,
    thresholds: Sequence[float] | None = None,
    plot: str | os.PathLike[str] | None = None,
    output: options.Destination | None = None,
) -> Job:
    """Score a segmentation against the truth: Rand, variation of information, Fowlkes-Mallows, edits.

    The voxels that every two segments share are counted block by block, in exact integers, and added up in ranges of
    segments, so that no process holds all pairs, however many there are.
    Rand, adjusted Rand and Fowlkes-Mallows take background (0) for a segment; variation of information, in bits, and
    edits (overlaps above 1000 voxels) leave out voxels that are 0 in either. Of the two halves of the variation,
    `vi_split` = H(segmentation | truth) grows where a true segment falls apart, `vi_merge` = H(truth | segmentation)
    where a segment swallows several; `rand_split` and `rand_merge`, shares of pairs of voxels, fall from 1 there.

    With the merge tree of fragments (`agglomerate` writes it), the segmentation being these, what it makes of them at
    every threshold is scored from the same pass over the voxels.

    Args:
        segmentation: what is judged; integers.
        groundtruth: what is right, over the same box.
        tree: path or URL of the Parquet file of a merge tree of the segmentation's labels; one task holds it,
            and the pairs of labels.
        thresholds: mean affinities at which the tree is cut, from 0 to 1; by default 0.05, 0.1, ... 0.95, as far down
            as the tree goes.
        plot: path or URL of an SVG file of the scores over the thresholds.
        output: path or URL of a JSON file for the scores, which the report holds in any case. Workers on several
            machines need one that all of them can reach. Without it, counts are kept in this machine's temporary files
            while the job runs, and a job that was interrupted starts over.

    Returns:
        The job; ``run().results["scores"]`` has the scores by name: rand_index, adjusted_rand_index,
        variation_of_information, vi_split, vi_merge, rand_split, rand_merge, fowlkes_mallows_index, edit_merges,
        edit_splits, both of these as edit_distance, and adapted_rand_error, over voxels that are not 0 in the truth.
        With a tree, ``results["sweep"]`` has some of these for every threshold, the JSON file all, and
        ``results["scores"]`` those of the best, with the least variation of information.

    Raises:
        GeometryError: the volumes cover different boxes, or have voxels of different size.
        ParameterError: a volume is not of integers, or has several channels; thresholds not from 0 to 1; a plot
            without a tree.
    """
    _check(segmentation, groundtruth)
    expression = Expression([segmentation.node, groundtruth.node])
    grid = segmentation.grid
    scope = Scope("evaluation", (expression, expression.places, grid))
    stages, name = (*expression.stages, *evaluation(expression, grid, scope)), "evaluate segmentation"
    sweep = None if tree is None else _sweep(kvstore.normalise(os.fspath(tree)), thresholds, grid, scope)
    if sweep is not None:
        stages = (*stages, dataclasses.replace(sweep.stage(), after=stages[-1:]))
    elif plot is not None:
        raise ParameterError("a plot shows the scores of a merge tree over its thresholds; give the tree, too")
    if plot is not None and not os.fspath(plot).endswith(".svg"):
        raise ParameterError(f"the plot is an SVG, so its name must end with .svg, not be {os.fspath(plot)}")
    files = [None if one is None else kvstore.normalise(os.fspath(one)) for one in (output, plot)]
    finish = (Score(scope, files[0], files[1], sweep),)
    makes = tuple(Output(one, "table") for one in files if one is not None)
    directory = None if output is None else f"{files[0]}.daskflow/"
    return Job(stages, directory, name=name, finish=finish, makes=makes)


def _sweep(tree: str, thresholds: Sequence[float] | None, grid: BlockGrid, scope: Scope) -> ScoreThresholds:
    chosen = None if thresholds is None else tuple(sorted({float(one) for one in thresholds}, reverse=True))
    if chosen is not None and (not chosen or not all(0 <= one <= 1 for one in chosen)):
        raise ParameterError(f"thresholds {' '.join(f'{one:g}' for one in chosen)} must be numbers from 0 to 1")
    load_pyarrow()
    return ScoreThresholds(_pairs(grid, scope), tree, chosen)


@dataclass(frozen=True)
class Score(Finish):
    """Turn the table of the whole into scores, once a job has counted it.

    Attributes:
        scope: of the evaluation.
        output: URL of the JSON file the scores are written to, or None.
        plot: URL of the picture, or None.
        sweep: of a merge tree, or None.
    """

    scope: Scope
    output: str | None
    plot: str | None = None
    sweep: ScoreThresholds | None = None
    reads_scratch = True

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        """Add the scores to the report."""
        content: Any
        if self.sweep is None:
            content = found = scores_in(self.scope)
        else:
            swept = self.sweep.result()
            report.results["sweep"] = [{name: one[name] for name in COLUMNS} for one in swept]
            found = best(swept)
            content = {"best": found, "sweep": swept}
            if self.plot is not None:
                kvstore.write_bytes(self.plot, plot_of(swept).encode())
        report.results["scores"] = found
        if self.output is not None:
            kvstore.write_bytes(self.output, json.dumps(content, indent=1).encode())


def _check(segmentation: Volume, groundtruth: Volume) -> None:
    check_same_box(segmentation=segmentation, ground_truth=groundtruth)
    if segmentation.spec.ratio(groundtruth.spec) != (1, 1, 1):
        raise GeometryError(
            f"voxels of the segmentation measure {segmentation.spec.size_text} (zyx), of the ground truth"
            f" {groundtruth.spec.size_text}; open both at the same mip"
        )


def evaluation(expression: Expression, grid: BlockGrid, scope: Scope) -> tuple[Stage, ...]:
    """Return all passes over a segmentation and the truth, in order; their records lie in the scope."""
    return Tabulate(_pairs(grid, scope), grid, overlaps_of).stages("count-overlaps", expression)


def _pairs(grid: BlockGrid, scope: Scope) -> Table:
    """Return the table of pairs, which hands what it sums on."""
    pairs = Table("overlaps", len(grid), PAIRS, scope)
    for name, by in (("segments", by_segment), ("truths", by_truth)):
        sizes = Table(name, pairs.ranges, SIZES, scope)
        pairs = pairs.into(by, sizes.into(sums_of_sizes, _adding(name, scope, sizes.ranges)))
    return pairs.into(sums_of_pairs, _adding("overlaps", scope, pairs.ranges))


def scores_in(scope: Scope) -> dict[str, Any]:
    """Return the scores of the whole, after the stages ran."""
    records = (_adding(name, scope, 1).result() for name in ("overlaps", "segments", "truths"))
    return scores_of(*({name: int(str(value)) for name, value in record.items()} for record in records))


def _adding(name: str, scope: Scope, ranges: int) -> Reduce:
    """Return the passes that add the sums of the ranges of a table up."""
    return Reduce(f"sum-{name}", f"sums-{name}", ranges, add_sums, scope)


def sums_of_pairs(rows: Arrays) -> Arrays:
    """Return the sums over pairs as text, as they may pass 2^64."""
    return _texts(pair_sums(rows))


def sums_of_sizes(rows: Arrays) -> Arrays:
    """Return the sums over segments as text."""
    return _texts(size_sums(rows))


def add_sums(records: list[Arrays]) -> Arrays:
    """Return sums as text of several ranges together."""
    return _texts({name: sum(int(str(record[name])) for record in records) for name in records[0]})


def _texts(sums: Mapping[str, int]) -> Arrays:
    return {name: np.array(str(value)) for name, value in sums.items()}
