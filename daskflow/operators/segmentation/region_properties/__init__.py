"""Where every label lies, its shape, and how bright an image is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from daskflow.errors import GeometryError, ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.jobs import Job
from daskflow.jobs.evaluate import Tabulate
from daskflow.operators import options
from daskflow.operators.segmentation.region_properties.properties import load_pyarrow, properties, write_parquet
from daskflow.operators.segmentation.region_properties.sums import COLUMNS, IMAGE_COLUMNS, check_size, sums_of
from daskflow.operators.segmentation.voxel_counts.files import write_csv
from daskflow.scratch.records import Arrays
from daskflow.scratch.tables import Table
from daskflow.stores import kvstore
from daskflow.stores.objects.files import writing
from daskflow.volume import BlockResult, Expression, Stage, Task, Volume, operator
from daskflow.volume.kinds import taken
from daskflow.volume.stage import Output, Scope


@operator()
def region_properties(volume: Volume, image: Volume | None = None, *, output: options.Destination) -> Job:
    """Measure every label: size, box, centroid, axes, orientation, and how bright an image is there.

    Labels are measured over the whole volume. A row for each but 0, sorted: `label`, `voxels`, `start_z` to `stop_x`
    (its box), `centroid_z` to `centroid_x` in voxels and, if their size is known, in nm (`_nm`); `axis_major_length`,
    `axis_middle_length` and `axis_minor_length` of the ellipsoid with the same second moments, in nm or else in voxels;
    `orientation_z` to `orientation_x`, a unit vector along the major axis. With an image: `intensity_mean`, `_min`,
    `_max` and `_std`. Sums are exact, so that results are the same for any blocks, and are merged in ranges of labels,
    so that no process holds all labels, however many there are.

    Args:
        volume: a segmentation, with one channel.
        image: an image over the same box, integers of at most 16 bits in one channel; optional.
        output: path or URL of the table, .csv or .parquet.

    Returns:
        The job; ``run().counts["regions"]`` has the number of labels.

    Raises:
        GeometryError: the volumes cover different boxes.
        ParameterError: a volume is of another kind, or the output has another ending.
        MissingDependencyError: Parquet is asked for and pyarrow is not installed.
    """
    volumes = [taken(volume, "labels", "region-properties", "volume")]
    if image is not None:
        volumes.append(_checked(taken(image, "image", "region-properties", "image"), volume.box))
    url = kvstore.normalise(os.fspath(output))
    if not url.endswith((".csv", ".parquet")):
        raise ParameterError(f"properties are written to .csv and .parquet files, not {kvstore.redact(url)}")
    check_size(volume.box, volume.block)
    expression, grid = Expression([one.node for one in volumes]), volume.grid
    scope = Scope("regions", (expression, grid))
    table = Table("regions", len(grid), COLUMNS if image is None else IMAGE_COLUMNS, scope)
    measuring = Tabulate(table, grid, sums_of, {"corner": volume.box.start}, memory=64)
    stages = (*expression.stages, *measuring.stages("measure-regions", expression))
    once = BlockGrid(BoundingBox((0, 0, 0), (1, 1, 1)), (1, 1, 1))
    task = WriteProperties(table, volume.spec, url)
    finish = Stage("write-properties", once, task, numbered=True, after=stages[-1:])
    makes = (Output(url, "table"),)
    return Job((*stages, finish), f"{url}.daskflow/", name="region properties", makes=makes)


@dataclass(frozen=True)
class WriteProperties(Task):
    """Write the properties of all labels to a file; the one block is the volume.

    Attributes:
        table: the sums.
        spec: of the volume.
        url: of the file, .csv or .parquet.
    """

    table: Table
    spec: VolumeSpec
    url: str

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        with writing(self.url) as file:
            rows = (write_csv if self.url.endswith(".csv") else write_parquet)(file, self._tables())
        return BlockResult(counts={"regions": rows})

    def _tables(self) -> Iterator[Arrays]:
        for rows in self.table.tables():
            yield from properties(rows, self.spec.box.start, self.spec.voxel_size)

    def intact(self) -> bool:
        return kvstore.exists(self.url)

    def check(self) -> None:
        kvstore.check_writable(self.url.rpartition("/")[0])
        if self.url.endswith(".parquet"):
            load_pyarrow()

    def describe(self) -> dict[str, Any]:
        size = self.spec.voxel_size
        return {"properties": self.table.name, "output": self.url, "voxel_size": size and list(size)}


def _checked(image: Volume, box: BoundingBox) -> Volume:
    if image.dtype.kind not in "bui" or image.dtype.itemsize > 2 or image.channels not in (None, 1):
        raise ParameterError(
            f"the image holds {image.dtype} in {image.channels or 1} channels, and its values are added up exactly: it"
            " must hold integers of at most 16 bits in one; see pick-channels, quantize and astype"
        )
    if image.box != box:
        raise GeometryError(f"the segmentation covers {box}, the image {image.box} (z0-z1_y0-y1_x0-x1); crop one")
    return image
