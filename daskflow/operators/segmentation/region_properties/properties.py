"""From sums over the voxels of labels to their properties, rounded once, and files of these."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import MissingDependencyError
from daskflow.geometry import Zyx
from daskflow.scratch.records import Arrays

_PAIRS = tuple(itertools.combinations_with_replacement(range(3), 2))
_ROWS = 2**15
_LIMB = 2**32


def properties(rows: Arrays, corner: Zyx, voxel_size: tuple[float, ...] | None) -> Iterator[Arrays]:
    """Yield the columns of a table of labels, some rows at a time, at least once.

    Args:
        rows: columns as of `sums_of`, of the whole volume.
        corner: of the volume.
        voxel_size: in nm (zyx), or None.
    """
    for at in range(0, max(1, len(rows["labels"])), _ROWS):
        yield _properties({name: column[at : at + _ROWS] for name, column in rows.items()}, corner, voxel_size)


def _properties(rows: Arrays, corner: Zyx, voxel_size: tuple[float, ...] | None) -> Arrays:
    count = rows["voxels"].astype(object)
    sums = (rows["low"].astype(object) + rows["high"].astype(object) * _LIMB).T  # whole numbers of any size
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


def write_parquet(file: IO[bytes], tables: Iterator[Arrays]) -> int:
    """Write tables of the same columns as Parquet, one after the other, and return the number of rows.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    arrow, rows = load_pyarrow(), 0
    first = arrow.table(next(tables))
    with arrow.parquet.ParquetWriter(file, first.schema) as writer:
        for table in itertools.chain([first], map(arrow.table, tables)):
            writer.write_table(table)
            rows += table.num_rows
    return rows


def load_pyarrow() -> ModuleType:
    """Return pyarrow, with its module for Parquet.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError.of("pyarrow", "parquet") from error
    module: ModuleType = pa
    return module
