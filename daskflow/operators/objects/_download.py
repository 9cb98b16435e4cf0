"""A stage that writes the objects of a layer as files, and which labels it is for."""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox
from daskflow.jobs import Job
from daskflow.jobs.fingerprint import token
from daskflow.operators import options
from daskflow.operators.objects._label_objects import object_labels
from daskflow.stores import kvstore
from daskflow.stores.objects.layer_objects import Meshes, Skeletons, made_from
from daskflow.stores.objects.mesh_files import Mesh, encode_surface
from daskflow.stores.objects.skeleton_files import Skeleton, to_swc
from daskflow.stores.objects.spatial_index import SpatialIndex
from daskflow.volume import BlockResult, Stage, Task, numbered
from daskflow.volume.stage import Output

Kind = Literal["mesh", "skeleton"]


@dataclass(frozen=True, eq=False)
class WriteFiles(Task):
    """Write the object of one label as a file.

    Attributes:
        labels: one per block.
        required: whether every label must have an object; others are passed over.
        output: URL of the directory for the files.
        format: of the files, their suffix.
        lod: level of detail of meshes.
        run: identifies the run; another may have recreated the layer.
    """

    kind: Kind
    layer: str
    labels: tuple[int, ...]
    required: bool
    output: str
    format: str
    lod: int = 0
    run: str = ""

    def read(self, box: BoundingBox) -> Mesh | Skeleton | None:
        label, objects = self.labels[box.start[0]], _opened(self.kind, self.layer, self.run)
        found = objects.read(label, lod=self.lod) if isinstance(objects, Meshes) else objects.read(label)
        if found is None and self.required:
            raise StoreNotFoundError(f"label {label} has no {self.kind} in {kvstore.redact(self.layer)}")
        return found

    def compute(self, box: BoundingBox, inputs: Mesh | Skeleton | None) -> bytes | None:  # noqa: ARG002
        if inputs is None:
            return None
        return to_swc(inputs).encode() if isinstance(inputs, Skeleton) else encode_surface(inputs, self.format)

    def write(self, box: BoundingBox, outputs: bytes | None) -> BlockResult:
        if outputs is None:
            return BlockResult(empty=True)
        kvstore.write_bytes(kvstore.join(self.output, f"{self.labels[box.start[0]]}.{self.format}"), outputs)
        return BlockResult(counts={"files": 1, "bytes": len(outputs)})

    def check(self) -> None:
        _opened(self.kind, self.layer, self.run)
        kvstore.check_writable(self.output)

    def describe(self) -> dict[str, Any]:
        where = {"layer": self.layer, "output": self.output, "format": self.format, "lod": self.lod}
        return {"download": self.kind, **where, "labels": token(self.labels)}


@functools.lru_cache(maxsize=8)
def _opened(kind: Kind, layer: str, run: str) -> Meshes | Skeletons:  # noqa: ARG001 (a new run looks again)
    return Meshes(layer) if kind == "mesh" else Skeletons(layer)


def download_job(
    kind: Kind,
    layer: str,
    output: str | os.PathLike[str],
    *,
    form: str,
    lod: int = 0,
    labels: Sequence[int] | None,
    start: Sequence[int] | None,
    stop: Sequence[int] | None,
    size: Sequence[int] | None,
) -> Job:
    """Return the job that writes objects as files; arguments as of the operators.

    Raises:
        ParameterError: labels and a box, half a box, labels that are none, or nothing to write.
        StoreNotFoundError: the layer has no such objects, or no spatial index by which to find those in a box.
    """
    layer, output = kvstore.normalise(layer), kvstore.normalise(output)
    boxed = start is not None and (stop is not None or size is not None)
    if (not boxed and (start, stop, size) != (None, None, None)) or (labels is not None and boxed):
        raise ParameterError("give labels, or the start and the stop or size of a box, or neither for all objects")
    if labels is not None:
        chosen = object_labels(labels)
    elif start is not None:
        box = options.part_of(BoundingBox.from_size(start, (1, 1, 1)), start, stop, size)
        chosen = _labels_within(kind, layer, box)
    else:
        chosen = tuple(_opened(kind, layer, uuid.uuid4().hex).labels().tolist())
    if not chosen:
        raise ParameterError(f"there is no {kind} to write from {kvstore.redact(layer)}")
    task = WriteFiles(kind, layer, chosen, labels is not None, output, form, lod)
    stage = Stage(f"write-{form}", numbered(len(chosen)), task, numbered=True)
    makes = (Output(output, "directory of files"),)
    return Job((stage,), f"{output}.daskflow/", name=f"download {kind}", makes=makes, renewable=True)


def _labels_within(kind: Kind, layer: str, box: BoundingBox) -> tuple[int, ...]:
    objects = _opened(kind, layer, uuid.uuid4().hex)
    level = made_from(layer, objects.info)
    index = None if level is None else SpatialIndex.of(objects.info, level.box)
    if level is None or index is None:
        raise StoreNotFoundError(
            f"{kvstore.redact(objects.directory)} has no spatial index to find what is in {box}; name labels"
        )
    if box.clip(level.box).empty:
        mip = objects.info.get("mip", 0)
        raise ParameterError(f"box {box} is outside mip {mip} of {kvstore.redact(layer)}, {level.box}")
    return tuple(np.array(list(index.query(objects.directory, box)), np.uint64).tolist())
