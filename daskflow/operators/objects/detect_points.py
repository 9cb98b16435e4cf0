"""Peaks of a probability map."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.jobs import Job, Report
from daskflow.jobs.evaluate import Tabulate
from daskflow.jobs.report import Finish
from daskflow.operators import options
from daskflow.scratch.records import Arrays
from daskflow.scratch.tables import How, Table
from daskflow.stores import kvstore
from daskflow.stores.hdf5 import load_h5py
from daskflow.stores.objects.files import writing
from daskflow.volume import Expression, Volume, operator
from daskflow.volume.stage import Output, Scope

Array = npt.NDArray[Any]

# places: of a voxel in the box of all peaks, z slowest and x fastest
PEAKS: dict[str, How] = {"places": "key", "heights": "max"}
# sums of values in units of 2^-30, as 2^32 high + low, so that they do not depend on the blocks
SUMS: dict[str, How] = {"all": "key", "high": "sum", "low": "sum", "most": "max"}
_UNIT = 2.0**30
_HALF = 32


@operator(takes="image")
def detect_points(
    volume: Volume, *, output: options.Destination, min_distance: int = 15, threshold_rel: float = 0.3
) -> Job:
    """Find the peaks of a probability map, e.g. of synapses, and write them to a file.

    A peak is larger than all voxels within `min_distance` along every axis; of equal ones the first counts. It lies at
    least so far from the edge of the volume, and rises above the mean of the whole volume by more than a share of what
    the largest value does. Peaks are found block by block, and are the same for any blocks.

    Args:
        volume: values between 0 and 1, or uint8, with one channel.
        output: path or URL of an HDF5 file, which gets `points` (n, 3), global voxels zyx, `voxel_size` in nm, and
            `confidences`, the heights above the mean as shares of the largest.
        min_distance: voxels (at least 1).
        threshold_rel: share, between 0 and 1.

    Returns:
        The job; ``run().results["points"]`` is their number.

    Raises:
        ParameterError: several channels, other integers than uint8, or numbers out of range.
        MissingDependencyError: h5py is not installed.
    """
    if volume.channels not in (None, 1) or not (volume.dtype.kind == "f" or volume.dtype == np.uint8):
        raise ParameterError(f"detect-points takes uint8 or floats in one channel, not {volume.dtype} {volume.shape}")
    if min_distance < 1 or not 0 < threshold_rel < 1:
        raise ParameterError(f"min_distance {min_distance} must be at least 1, threshold_rel {threshold_rel} in 0..1")
    if any(n <= 2 * min_distance for n in volume.box.shape):
        raise ParameterError(
            f"a volume of {volume.box.shape} voxels (zyx) has none farther than {min_distance} from its edge; choose a"
            " smaller min_distance"
        )
    load_h5py()
    url = kvstore.normalise(os.fspath(output))
    inner = volume.box.shrink(min_distance)
    flags = volume.map_overlap(
        peaks, depth=min_distance, dtype=np.uint8, channels=None, layer_type="image", memory=40, distance=min_distance
    ).crop(inner)
    found = Expression([flags.node, volume.crop(inner).node])
    scope = Scope("points", (volume.expression, flags.grid, min_distance))
    places = Table("peaks", len(flags.grid), PEAKS, scope)
    sums = Table("sums", len(volume.grid), SUMS, scope)
    finding = Tabulate(places, flags.grid, peaks_of, {"whole": str(inner)}, memory=16)
    adding = Tabulate(sums, volume.grid, sums_of, memory=16)
    stages = (
        *volume.expression.stages,
        *finding.stages("find-peaks", found),
        *adding.stages("add-values", volume.expression),
    )
    finish = WritePoints(places, sums, volume.spec, inner, threshold_rel, url)
    return Job(stages, f"{url}.daskflow/", name="detect points", finish=(finish,), makes=(Output(url, "points"),))


def peaks(array: Array, distance: int) -> Array:
    """Return 1 where a voxel is the first of the largest within a distance along every axis, else 0, zyx."""
    values = array.reshape(array.shape[-3:])
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), -np.inf, values)
    size = 2 * distance + 1
    rows = ndimage.maximum_filter1d(values, size, axis=2, mode="nearest")
    planes = ndimage.maximum_filter1d(rows, size, axis=1, mode="nearest")
    lowest = values.min()
    before = np.maximum.reduce(
        [_before(values, distance, 2, lowest), _before(rows, distance, 1, lowest), _before(planes, distance, 0, lowest)]
    )
    most = ndimage.maximum_filter1d(planes, size, axis=0, mode="nearest")
    found: Array = (values == most) & (values > before)
    return found.view(np.uint8)


def _before(values: Array, distance: int, axis: int, lowest: Any) -> Array:
    """Return the largest of the `distance` values before each along an axis."""
    padded = np.pad(values, [(distance if n == axis else 0, 0) for n in range(3)], constant_values=lowest)
    largest = ndimage.maximum_filter1d(padded, distance, axis=axis, origin=distance - 1 - distance // 2, mode="nearest")
    return np.take(largest, range(distance - 1, distance - 1 + values.shape[axis]), axis=axis)


def peaks_of(box: BoundingBox, flags: Array, values: Array, whole: str) -> Arrays:
    """Return the peaks of a block."""
    around = BoundingBox.from_string(whole)
    z, y, x = (at + a - b for at, a, b in zip(np.nonzero(flags), box.start, around.start, strict=True))
    _, height, width = around.shape
    places = ((z * height + y) * width + x).astype(np.uint64)
    return {"places": places, "heights": values[flags > 0].astype(np.float64)}


def sums_of(box: BoundingBox, values: Array) -> Arrays:  # noqa: ARG001
    """Return the sum and the largest of the values of a block."""
    known = values[values == values].astype(np.float64)
    units = np.rint(known * _UNIT).astype(np.int64)
    high, low = int((units >> _HALF).sum()), int((units & (2**_HALF - 1)).sum())
    most = known.max(initial=-np.inf)
    return {"all": np.zeros(1, np.uint64), "high": np.array([high]), "low": np.array([low]), "most": np.array([most])}


@dataclass(frozen=True)
class WritePoints(Finish):
    """Write the peaks that rise high enough, once all are found."""

    places: Table
    sums: Table
    spec: VolumeSpec
    inner: BoundingBox
    share: float
    url: str
    reads_scratch = True

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        """Write the file, and add the number of points to the report."""
        points, heights = self._found()
        report.results["points"] = len(points)
        with writing(self.url) as stream, load_h5py().File(stream, "w") as file:
            file["points"] = points
            file["confidences"] = heights
            file["voxel_size"] = np.array(self.spec.spacing)

    def _found(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        sums = self.sums.rows(0)
        mean = (int(sums["high"][0]) * 2**_HALF + int(sums["low"][0])) / _UNIT / self.spec.box.size
        rise = float(sums["most"][0]) - mean
        points, heights = [np.empty((0, 3), np.int64)], [np.empty(0, np.float32)]
        for rows in self.places.tables():
            shares = (rows["heights"] - mean) / (rise or 1)
            high = shares > self.share
            points.append(_points(rows["places"][high], self.inner))
            heights.append(shares[high].astype(np.float32))
        return np.concatenate(points), np.concatenate(heights)


def _points(places: npt.NDArray[np.uint64], inner: BoundingBox) -> npt.NDArray[np.int64]:
    local = np.unravel_index(places.astype(np.int64), inner.shape)
    points: npt.NDArray[np.int64] = np.stack([at + a for at, a in zip(local, inner.start, strict=True)], axis=1)
    return points
