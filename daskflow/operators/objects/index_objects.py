"""The spatial index of meshes or skeletons that are there."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, as_zyx
from daskflow.jobs import Job, Report
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.jobs.report import Finish
from daskflow.stores import kvstore
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.layer_objects import Meshes, Skeletons
from daskflow.stores.objects.spatial_index import SpatialIndex
from daskflow.volume import BlockResult, Estimate, Stage, Volume, operator
from daskflow.volume.stage import Output

Array = npt.NDArray[Any]
Kind = Literal["mesh", "skeletons"]

_BYTES = 16  # per voxel


@operator(takes="labels")
def index_objects(volume: Volume, *, objects: Kind = "mesh", shape: Sequence[int] = (448, 448, 448)) -> Job:
    """Write the spatial index of meshes or skeletons that a layer has without one.

    What lies where is taken from the segmentation, of labels that have such an object. `mesh` and `skeletonize` write
    the index of what they make by themselves.

    Args:
        volume: the whole precomputed segmentation, at the level that the objects were made of.
        objects: mesh or skeletons.
        shape: voxels (zyx) of a cell of the index, counted from the volume's start.

    Returns:
        The job; its report counts the cells that hold objects.

    Raises:
        ParameterError: not a whole precomputed layer, or another level than that of the objects.
        StoreNotFoundError: the layer has no such objects.
    """
    store = volume.stored_whole
    if store is None or not store.extensible:
        raise ParameterError("the volume is not a whole precomputed layer that can be written; open that")
    found = Meshes(store.url) if objects == "mesh" else Skeletons(store.url)
    mip = int(found.info.get("mip", 0))
    if mip != store.mip:
        raise ParameterError(f"the {objects} were made of mip {mip}, this is mip {store.mip}; open it with --mip {mip}")
    index = SpatialIndex(volume.box, as_zyx(shape, name="shape"), volume.spec.spacing)
    writing = IndexLabels(store.url, objects, found.directory, index)
    stage = Stage("index-labels", writing.grid, EvaluateVolumes.into(volume.expression, writing))
    return Job(
        (stage,),
        f"{found.directory}-index.daskflow/",
        name="index objects",
        finish=(NameIndex(found.directory, index),),
        makes=(Output(found.directory, "spatial index"),),
    )


@functools.lru_cache(maxsize=1)
def _labels(layer: str, kind: Kind, run: str) -> npt.NDArray[np.uint64]:  # noqa: ARG001 (a new run looks again)
    return (Meshes(layer) if kind == "mesh" else Skeletons(layer)).labels()


@dataclass(frozen=True)
class IndexLabels(Consumer):
    """Write which labels are in every cell, and where in it."""

    layer: str
    kind: Kind
    directory: str
    index: SpatialIndex
    run: str = ""

    @property
    def grid(self) -> BlockGrid:
        return BlockGrid(self.index.box, self.index.cell)

    def compute(self, box: BoundingBox, arrays: list[Array]) -> dict[int, list[float]]:
        return boxes_of(arrays[0].reshape(box.shape), box, self.index.voxel_size)

    def write(self, box: BoundingBox, outputs: dict[int, list[float]]) -> BlockResult:
        known = np.isin(np.array(list(outputs), np.uint64), _labels(self.layer, self.kind, self.run)).tolist()
        there = {label: bounds for (label, bounds), has in zip(outputs.items(), known, strict=True) if has}
        self.index.write(self.directory, box, there)
        return BlockResult(empty=not there, counts={"indexed_cells": int(bool(there))})

    def further(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=_BYTES * box.size)

    def check(self) -> None:
        kvstore.check_writable(self.directory)

    def describe(self) -> dict[str, Any]:
        return {"directory": self.directory, "index": self.index.info, "box": str(self.index.box)}


def boxes_of(labels: Array, box: BoundingBox, voxel_size: Sequence[float]) -> dict[int, list[float]]:
    """Return where each label but 0 is in a block (zyx): x0, y0, z0, x1, y1, z1 in nm."""
    names, numbers = np.unique(labels, return_inverse=True)
    if names[0] != 0:
        names, numbers = np.concatenate([names[:1] * 0, names]), numbers + 1
    found = {}
    for name, slices in zip(names[1:].tolist(), ndimage.find_objects(numbers.reshape(labels.shape)), strict=True):
        low = [(a + s.start) * v for a, s, v in zip(box.start, slices, voxel_size, strict=True)]
        high = [(a + s.stop) * v for a, s, v in zip(box.start, slices, voxel_size, strict=True)]
        found[int(name)] = [*low[::-1], *high[::-1]]
    return found


@dataclass(frozen=True)
class NameIndex(Finish):
    """Say in the info of the objects that there is the index."""

    directory: str
    index: SpatialIndex

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        """Do so; other keys stay."""
        data = kvstore.read_bytes(f"{self.directory}/info")
        info = {"@type": "neuroglancer_legacy_mesh", "mip": 0} if data is None else json.loads(data)
        write_file(self.directory, "info", json.dumps(info | {"spatial_index": self.index.info}, indent=1).encode())
