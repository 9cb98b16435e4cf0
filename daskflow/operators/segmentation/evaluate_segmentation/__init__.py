"""A segmentation against the truth."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Annotated

from daskflow.errors import GeometryError
from daskflow.jobs import Job, Report
from daskflow.jobs.report import Finish
from daskflow.operators import options
from daskflow.operators.segmentation.evaluate_segmentation.stages import evaluation, scores_in
from daskflow.stores import kvstore
from daskflow.volume import Expression, Flag, Volume, operator
from daskflow.volume.stage import Output, Scope


@operator(takes="labels")
def evaluate_segmentation(
    segmentation: Annotated[Volume, Flag("-s")],
    groundtruth: Annotated[Volume, Flag("-g")],
    *,
    output: options.Destination | None = None,
) -> Job:
    """Score a segmentation against the truth: Rand, variation of information, Fowlkes-Mallows, edits.

    The voxels that every two segments share are counted block by block, in exact integers, and added up in ranges of
    segments, so that no process holds all pairs, however many there are.
    Rand, adjusted Rand and Fowlkes-Mallows take background (0) for a segment; variation of information, in bits, and
    edits (overlaps above 1000 voxels) leave out voxels that are 0 in either. Of the two halves of the variation,
    `vi_split` = H(segmentation | truth) grows where a true segment falls apart, `vi_merge` = H(truth | segmentation)
    where a segment swallows several.

    Args:
        segmentation: what is judged; integers.
        groundtruth: what is right, over the same box.
        output: path or URL of a JSON file for the scores, which the report holds in any case. Workers on several
            machines need one that all of them can reach. Without it, counts are kept in this machine's temporary files
            while the job runs, and a job that was interrupted starts over.

    Returns:
        The job; ``run().results["scores"]`` has the scores by name: rand_index, adjusted_rand_index,
        variation_of_information, vi_split, vi_merge, fowlkes_mallows_index, edit_merges, edit_splits.

    Raises:
        GeometryError: the volumes cover different boxes, or have voxels of different size.
        ParameterError: a volume is not of integers, or has several channels.
    """
    _check(segmentation, groundtruth)
    expression = Expression([segmentation.node, groundtruth.node])
    grid = segmentation.grid
    scope = Scope("evaluation", (expression, grid))
    stages, name = (*expression.stages, *evaluation(expression, grid, scope)), "evaluate segmentation"
    if output is None:
        return Job(stages, None, name=name, finish=(Score(scope, None),))
    location = kvstore.normalise(os.fspath(output))
    finish, makes = (Score(scope, location),), (Output(location, "table"),)
    return Job(stages, f"{location}.daskflow/", name=name, finish=finish, makes=makes)


@dataclass(frozen=True)
class Score(Finish):
    """Turn the table of the whole into scores, once a job has counted it.

    Attributes:
        scope: of the evaluation.
        output: URL of the JSON file the scores are written to, or None.
    """

    scope: Scope
    output: str | None
    reads_scratch = True

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        """Add the scores to the report."""
        found = scores_in(self.scope)
        report.results["scores"] = found
        if self.output is not None:
            kvstore.write_bytes(self.output, json.dumps(found, indent=1).encode())


def _check(segmentation: Volume, groundtruth: Volume) -> None:
    if segmentation.box != groundtruth.box:
        raise GeometryError(
            f"the segmentation covers {segmentation.box}, the ground truth {groundtruth.box} (z0-z1_y0-y1_x0-x1);"
            " crop them to the same box"
        )
    if segmentation.spec.ratio(groundtruth.spec) != (1, 1, 1):
        raise GeometryError(
            f"voxels of the segmentation measure {segmentation.spec.size_text} (zyx), of the ground truth"
            f" {groundtruth.spec.size_text}; open both at the same mip"
        )
