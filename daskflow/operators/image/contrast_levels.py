"""Grey levels of sections, as files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from daskflow.jobs import Job
from daskflow.jobs.report import Finish, Report
from daskflow.operators import options
from daskflow.operators.image.contrast.counts import StoreLevels, counted_levels
from daskflow.operators.image.contrast.levels import Levels
from daskflow.operators.image.contrast.patches import Sampling
from daskflow.operators.image.contrast.place import grey_image, known_place
from daskflow.stores import kvstore
from daskflow.volume import Flag, Stage, Volume, operator
from daskflow.volume.stage import Output


@operator(takes="image")
def contrast_levels(
    volume: Volume,
    *,
    coverage: Annotated[float, Flag("-c")] = 1.0,
    seed: int = 0,
    output: options.Destination | None = None,
    plot: Annotated[str | os.PathLike[str] | None, Flag("-p")] = None,
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
    store = Stage("store-levels", levels.grid, StoreLevels(levels, sampling, target), after=counting[-1:])
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
class _Draw(Finish):
    """Draws the levels, once a job has stored them."""

    levels: str
    url: str

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        kvstore.write_bytes(self.url, Levels(self.levels).to_svg().encode())
