"""The range of the values of a volume, and how many labels there are."""

from __future__ import annotations

from dataclasses import dataclass

from daskflow.jobs import Job, Report
from daskflow.jobs.report import Finish
from daskflow.operators.image._extremes import Extremes, extremes_of
from daskflow.operators.segmentation.voxel_counts import LabelCounts
from daskflow.volume import Volume, operator
from daskflow.volume.kinds import taken


@operator()
def statistics(volume: Volume) -> Job:
    """Report the smallest and the largest value of a volume, and of a segmentation how many labels it has.

    Args:
        volume: an image or a segmentation; NaN counts for nothing.

    Returns:
        The job; ``run().results["statistics"]`` has minimum and maximum (None where there is no number) and, of a
        segmentation, objects, the number of labels but 0.
    """
    counts = None
    if volume.spec.kind == "segmentation":
        volume = taken(volume, "labels", "statistics", "volume")
        counts = LabelCounts.over(volume.expression, volume.grid)
    found, stages = extremes_of(volume, by_section=False)
    if counts is not None:
        stages = (*stages, *counts.stages(volume.expression))
    return Job(stages, None, name="statistics", finish=(ReportStatistics(found, counts),))


@dataclass(frozen=True)
class ReportStatistics(Finish):
    """Put what was found into the report."""

    extremes: Extremes
    counts: LabelCounts | None
    reads_scratch = True

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        """Add the range of the values, and the number of labels."""
        values = self.extremes.all().tolist()
        found = {"minimum": values[0], "maximum": values[-1]} if values else {"minimum": None, "maximum": None}
        if self.counts is not None:
            found["objects"] = self.counts.summary()["labels"]
        report.results["statistics"] = found
