"""Grey levels of sections, as files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from daskflow.geometry import BoundingBox
from daskflow.jobs import Job
from daskflow.jobs.report import Finish, Report
from daskflow.operators import options
from daskflow.operators.image.contrast.counts import CountedLevels, Sampling, counted_levels
from daskflow.operators.image.contrast.levels import Counts, Levels, SectionLevels, known_place, levels_url
from daskflow.operators.image.contrast.tables import grey_image
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Stage, Task, Volume, operator
from daskflow.volume.stage import Output


@operator(takes="image")
def contrast_levels(
    volume: Volume,
    *,
    coverage: float = 1.0,
    seed: int = 0,
    output: options.Destination | None = None,
    plot: str | os.PathLike[str] | None = None,
) -> Job:
    """Count how often each grey value occurs in every section, and keep the counts as files.

    A file ``levels/MIP/Z`` in the source layer, as igneous has it, is a JSON object of the section at z: levels,
    patch_size (xyz), num_patches, coverage_ratio. `contrast` takes such files with ``levels="source"``; in one line
    with it, the image is read and counted once for both.

    Args:
        volume: a uint8 or uint16 image with one channel.
        coverage: share of each section, in patches of 2048 x 2048 voxels, that is sampled.
        seed: draws other patches; the same seed draws the same ones, whatever the blocks.
        output: path or URL of a directory for the files, instead of the source layer.
        plot: path or URL of an SVG picture of the levels.

    Returns:
        The job; nothing has been written.

    Raises:
        ParameterError: a segmentation, another dtype, several channels, a coverage out of range; or a computed volume
            without an output.
    """
    grey_image(volume, "contrast-levels")
    target = known_place(volume) if output is None else kvstore.normalise(output)
    sampling = Sampling(volume.box, coverage, seed)
    levels, counting = counted_levels(volume, sampling)
    store = Stage("store-levels", levels.grid, _StoreLevels(levels, sampling, target), after=counting[-1:])
    drawn = None if plot is None else kvstore.normalise(plot)
    finish = () if drawn is None else (_Draw(target, drawn),)
    layer = None if output is not None else _layer_of(target)
    made = Output(target, "contrast levels", layer=layer)
    makes = (made, *(() if drawn is None else (Output(drawn, "picture"),)))
    home = target.removesuffix("/") if layer is None else f"{layer}.levels{target.rpartition('/')[2]}"
    stages = (*volume.expression.stages, *counting, store)
    return Job(stages, f"{home}.daskflow/", name="contrast-levels", finish=finish, makes=makes)


def _layer_of(target: str) -> str:
    """Return the layer whose known place for levels is ``.../levels/MIP``."""
    return target.rpartition("/")[0].removesuffix("/levels").removesuffix(".levels")


@dataclass(frozen=True)
class _StoreLevels(Task):
    """Writes the levels of every section to a file of its own, in the directory `target`."""

    levels: CountedLevels
    sampling: Sampling
    target: str

    def read(self, box: BoundingBox) -> Counts:
        return self.levels.read(box)

    def write(self, box: BoundingBox, outputs: Counts) -> BlockResult:
        sampling = self.sampling
        _, y, x = sampling.box.shape
        for z, counts in zip(range(box.start[0], box.stop[0]), outputs, strict=True):
            share = sampling.voxels(z) / (y * x)
            levels = SectionLevels(counts, sampling.patch_shape[1:], sampling.count, share)
            kvstore.write_bytes(levels_url(self.target, z), levels.to_json())
        return BlockResult(counts={"sections": box.shape[0]})

    def estimate(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=4 * 8 * self.levels.bins * box.shape[0])

    def check(self) -> None:
        kvstore.check_writable(self.target)

    def intact(self) -> bool:
        """Return whether what earlier runs wrote is still there, by the first file and the last."""
        sections = (self.sampling.box.start[0], self.sampling.box.stop[0] - 1)
        return all(kvstore.exists(levels_url(self.target, z)) for z in sections)

    def describe(self) -> dict[str, Any]:
        return {"store": self.levels.histograms.table.name, "in": kvstore.redact(self.target)}


@dataclass(frozen=True)
class _Draw(Finish):
    """Draws the levels, once a job has stored them."""

    levels: str
    url: str

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        kvstore.write_bytes(self.url, Levels(self.levels).to_svg().encode())
