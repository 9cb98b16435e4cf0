"""How many voxels every label has."""

from __future__ import annotations

import os
from dataclasses import dataclass

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs import Job, Report
from daskflow.jobs.report import Finish
from daskflow.operators import options
from daskflow.operators.segmentation.voxel_counts.files import WriteCounts, check_ending
from daskflow.operators.segmentation.voxel_counts.stages import LabelCounts
from daskflow.stores import kvstore
from daskflow.volume import Stage, Volume, operator
from daskflow.volume.stage import Output, smaller_block

_BLOCK_VOXELS = 2**20  # memory of this size is taken anew without a visit to the kernel


@operator(takes="labels")
def voxel_counts(
    volume: Volume,
    *,
    output: options.Destination | None = None,
    background: bool = True,
) -> Job:
    """Count the voxels of every label over the whole volume, as meshing and others look for them.

    Blocks are counted one by one; their tables are merged in ranges of labels, so that no process holds all labels,
    however many there are. A level of a precomputed layer, opened as it is, gets ``KEY/stats/voxel_counts.im`` (an
    IntMap, which igneous and mapbuffer read), KEY being that of the level. Counts of anything else, e.g. of a part of a
    layer, go to `output` alone.

    Args:
        volume: a segmentation, with one channel.
        output: path or URL of a table besides: .csv (label,voxels), .npy (two columns of uint64) or .im (IntMap).
        background: count label 0, too; the report says in any case how many voxels it has.

    Returns:
        The job; ``run().results["voxel_counts"]`` has the numbers of labels, voxels and background voxels,
        ``results["largest_labels"]`` the voxels of the ten largest labels.

    Raises:
        ParameterError: the volume holds no labels, or the output has another ending.
    """
    expression = volume.expression
    grid = BlockGrid(volume.box, smaller_block(volume, _BLOCK_VOXELS), volume.spec.chunk_origin)
    counting = LabelCounts.over(expression, grid)
    layer = _layer_file(volume)
    outputs: tuple[str, ...] = () if layer is None else (layer[1],)
    if output is not None:
        table = kvstore.normalise(os.fspath(output))
        check_ending(table)
        outputs += (table,)
    stages = (*expression.stages, *counting.stages(expression))
    finish = (ReportCounts(counting, outputs),)
    if not outputs:
        return Job(stages, None, name="voxel counts", finish=finish)
    once = BlockGrid(BoundingBox((0, 0, 0), (1, 1, 1)), (1, 1, 1))
    writing = Stage("write-counts", once, WriteCounts(counting, outputs, background), numbered=True, after=stages[-1:])
    directory = f"{layer[0]}.voxel-counts.daskflow/" if layer is not None else f"{outputs[0]}.daskflow/"
    makes = tuple(Output(url, "table") for url in outputs[layer is not None :])
    makes += () if layer is None else (Output(layer[1], "table", layer=layer[2]),)
    stages, kept = (*stages, writing), layer is not None
    return Job(stages, directory, name="voxel counts", finish=finish, makes=makes, renewable=kept)


@dataclass(frozen=True)
class ReportCounts(Finish):
    """Put what is known of the counts into the report.

    Attributes:
        counting: what was counted.
        outputs: URLs of the files that were written.
    """

    counting: LabelCounts
    outputs: tuple[str, ...]
    reads_scratch = True

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        """Add the sums to the report."""
        known = self.counting.summary()
        largest = known.pop("largest")
        report.results["voxel_counts"] = known
        if self.outputs:
            report.results["files"] = [kvstore.redact(url) for url in self.outputs]
        report.results["largest_labels"] = {f"label {label}": count for label, count in largest.items()}


def _layer_file(volume: Volume) -> tuple[str, str, str] | None:
    """Return where a job is kept and counts belong, and the layer, for a whole level of a precomputed one as stored."""
    store = volume.stored_whole
    if store is None or not store.extensible:
        return None
    job = store.url if store.mip == 0 else f"{store.url}.mip{store.mip}"
    return job, kvstore.join(store.directory, "stats", "voxel_counts.im"), store.url
