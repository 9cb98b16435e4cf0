"""Where every label lies, its shape, and how bright an image is there."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec, Zyx
from daskflow.jobs import Job
from daskflow.jobs.evaluate import Tabulate
from daskflow.operators import options
from daskflow.operators.segmentation.voxel_counts import write_csv
from daskflow.scratch.records import Arrays
from daskflow.scratch.tables import How, Table, merged
from daskflow.stores import kvstore
from daskflow.stores.objects.files import writing
from daskflow.stores.parquet import load_pyarrow, write_parquet
from daskflow.volume import BlockResult, Expression, Stage, Task, Volume, numbered, operator
from daskflow.volume.kinds import check_same_box, taken
from daskflow.volume.stage import Output, Scope

Array = npt.NDArray[Any]

# sums: of z y x, zz zy zx yy yx xx and, with an image, of its values and their squares, as 2^32 high + low
_BOXES: dict[str, How] = {"labels": "key", "voxels": "sum", "starts": "min", "stops": "max"}
_RANGE: dict[str, How] = {"least": "min", "most": "max"}
COLUMNS: dict[str, How] = {**_BOXES, "low": "sum", "high": "sum"}
IMAGE_COLUMNS = COLUMNS | _RANGE
_TILE = 2**18  # voxels whose sums are 64 bits wide
_HALF = 32
_OF_TILE: dict[str, How] = {**_BOXES, "sums": "sum"}
_PAIRS = tuple(itertools.combinations_with_replacement(range(3), 2))
_ROWS = 2**15


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
        volumes.append(_checked(taken(image, "image", "region-properties", "image"), volume))
    url = kvstore.normalise(os.fspath(output))
    if not url.endswith((".csv", ".parquet")):
        raise ParameterError(f"properties are written to .csv and .parquet files, not {kvstore.redact(url)}")
    check_size(volume.box, volume.block)
    expression, grid = Expression([one.node for one in volumes]), volume.grid
    scope = Scope("regions", (expression, expression.places, grid))
    table = Table("regions", len(grid), COLUMNS if image is None else IMAGE_COLUMNS, scope)
    measuring = Tabulate(table, grid, sums_of, {"corner": volume.box.start}, memory=64)
    stages = (*expression.stages, *measuring.stages("measure-regions", expression))
    task = WriteProperties(table, volume.spec, url)
    finish = Stage("write-properties", numbered(1), task, numbered=True, after=stages[-1:])
    makes = (Output(url, "table"),)
    return Job((*stages, finish), f"{url}.daskflow/", name="region properties", makes=makes)


@dataclass(frozen=True)
class WriteProperties(Task):
    """Write the properties of all labels, whose sums are in the table, to a file; the one block is the volume."""

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


def _checked(image: Volume, segmentation: Volume) -> Volume:
    if image.dtype.kind not in "bui" or image.dtype.itemsize > 2 or image.channels not in (None, 1):
        raise ParameterError(
            f"the image holds {image.dtype} in {image.channels or 1} channels, and its values are added up exactly: it"
            " must hold integers of at most 16 bits in one; see pick-channels, quantize and astype"
        )
    check_same_box(segmentation=segmentation, image=image)
    return image


def check_size(box: BoundingBox, block: Zyx) -> None:
    """Raise unless the sums of a tile fit, which they do not in a very long volume or row of its blocks."""
    if max(_TILE, block[2]) * max(box.shape) ** 2 >= 2**63:
        raise ParameterError(f"{box} is too long for sums over blocks {block} (zyx); crop it, or take smaller blocks")


def sums_of(box: BoundingBox, labels: Array, image: Array | None = None, *, corner: Zyx) -> Arrays:
    """Return the rows of a block: columns as in `COLUMNS`, or with an image of at most 16 bits in `IMAGE_COLUMNS`.

    Label 0 is left out. Coordinates are counted from `corner`, the volume's.
    """
    columns, of_tile = (COLUMNS, _OF_TILE) if image is None else (IMAGE_COLUMNS, _OF_TILE | _RANGE)
    length, parts = box.shape[2], []
    values = None if image is None else image.reshape(-1, length)
    rows, step = labels.reshape(-1, length), max(1, _TILE // length)
    origin = [a - b for a, b in zip(box.start, corner, strict=True)]
    for at in range(0, len(rows), step):
        runs = _runs(rows[at : at + step], None if values is None else values[at : at + step])
        z, y = np.divmod(at + runs.pop("rows"), box.shape[1])
        part = merged(of_tile, [_moments(z + origin[0], y + origin[1], runs, origin[2])])
        sums = part.pop("sums")
        parts.append(part | {"low": sums & (2**_HALF - 1), "high": sums >> _HALF})
    return merged(columns, parts)


def _runs(labels: Array, image: Array | None) -> Arrays:
    """Return the runs of voxels of one label along x: row, x, length, and what the image has there."""
    flat, length = labels.reshape(-1), labels.shape[1]
    fresh = np.ones(flat.size, bool)
    fresh[1:] = flat[1:] != flat[:-1]
    fresh[::length] = True
    starts = np.flatnonzero(fresh)
    lengths = np.diff(starts, append=flat.size)
    found: Arrays = {"labels": flat[starts].astype(np.uint64), "lengths": lengths}
    found["rows"], found["x"] = np.divmod(starts, length)
    if image is not None:
        values = image.reshape(-1).astype(np.int64)
        found["values"], found["squares"] = (np.add.reduceat(one, starts) for one in (values, values * values))
        found["least"], found["most"] = (ufunc.reduceat(values, starts) for ufunc in (np.minimum, np.maximum))
    named = found["labels"] != 0
    return {name: column[named] for name, column in found.items()}


def _moments(z: Array, y: Array, runs: Arrays, first: int) -> Arrays:
    """Return rows whose sums over the voxels of a run follow from where it begins and its length."""
    x, n = runs.pop("x") + first, runs.pop("lengths")
    along = n * x + n * (n - 1) // 2
    squares = n * x * x + x * n * (n - 1) + (n - 1) * n * (2 * n - 1) // 6
    sums = [n * z, n * y, along, n * z * z, n * z * y, z * along, n * y * y, y * along, squares]
    sums += [runs.pop(name) for name in ("values", "squares") if name in runs]
    boxes = {"starts": np.stack((z, y, x), axis=1), "stops": np.stack((z + 1, y + 1, x + n), axis=1)}
    return runs | boxes | {"voxels": n, "sums": np.stack(sums, axis=1)}


def properties(rows: Arrays, corner: Zyx, voxel_size: tuple[float, ...] | None) -> Iterator[Arrays]:
    """Yield the columns of a table of labels, some rows at a time, at least once; the rows are of `sums_of`."""
    for at in range(0, max(1, len(rows["labels"])), _ROWS):
        yield _properties({name: column[at : at + _ROWS] for name, column in rows.items()}, corner, voxel_size)


def _properties(rows: Arrays, corner: Zyx, voxel_size: tuple[float, ...] | None) -> Arrays:
    count = rows["voxels"].astype(object)
    sums = (rows["low"].astype(object) + rows["high"].astype(object) * 2**_HALF).T  # whole numbers of any size
    found = {"label": rows["labels"], "voxels": rows["voxels"]}
    for side in ("starts", "stops"):
        found |= {f"{side[:-1]}_{axis}": rows[side][:, n] + corner[n] for n, axis in enumerate("zyx")}
    centroid = [((sums[n] + corner[n] * count) / count).astype(np.float64) for n in range(3)]
    found |= {f"centroid_{axis}": centroid[n] for n, axis in enumerate("zyx")}
    if voxel_size is not None:
        found |= {f"centroid_{axis}_nm": centroid[n] * voxel_size[n] for n, axis in enumerate("zyx")}
    matrices = np.zeros((len(count), 3, 3))
    size = voxel_size or (1.0, 1.0, 1.0)
    for k, (i, j) in enumerate(_PAIRS):
        variance = ((count * sums[3 + k] - sums[i] * sums[j]) / (count * count)).astype(np.float64)
        matrices[:, i, j] = matrices[:, j, i] = variance * (size[i] * size[j])
    spread, axes = np.linalg.eigh(matrices)
    lengths = np.sqrt(20 * np.maximum(spread, 0))  # of the ellipsoid with these second moments
    found |= {f"axis_{name}_length": lengths[:, 2 - n] for n, name in enumerate(("major", "middle", "minor"))}
    major = axes[:, :, 2]
    largest = np.take_along_axis(major, np.abs(major).argmax(axis=1)[:, None], axis=1)
    found |= {f"orientation_{axis}": (major * np.sign(largest))[:, n] for n, axis in enumerate("zyx")}
    return found | (_intensities(rows, count, sums[9], sums[10]) if len(sums) > 9 else {})


def _intensities(rows: Arrays, count: npt.NDArray[Any], values: npt.NDArray[Any], squares: npt.NDArray[Any]) -> Arrays:
    variance = ((count * squares - values * values) / (count * count)).astype(np.float64)
    return {
        "intensity_mean": (values / count).astype(np.float64),
        "intensity_min": rows["least"],
        "intensity_max": rows["most"],
        "intensity_std": np.sqrt(variance),
    }
