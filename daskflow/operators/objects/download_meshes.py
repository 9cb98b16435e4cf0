"""Meshes as files, chosen as chunkflow chooses them: by a list, a file of labels, or rank by size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox
from daskflow.jobs import Job
from daskflow.operators.objects._label_objects import object_labels
from daskflow.operators.segmentation.voxel_counts import LabelCounts
from daskflow.stores import kvstore
from daskflow.stores.objects.layer_objects import Meshes
from daskflow.stores.objects.mesh_files import encode_surface
from daskflow.volume import BlockResult, Flag, Stage, Task, Volume, numbered, operator
from daskflow.volume.kinds import taken
from daskflow.volume.stage import Bound, Output


@operator()
def download_meshes(
    segmentation: Volume | None = None,
    *,
    volume_path: Annotated[str, Flag("-v")],
    input: Annotated[str | None, Flag("-i")] = None,  # noqa: A002 (chunkflow's word)
    start_rank: Annotated[int, Flag("-s")] = 0,
    stop_rank: Annotated[int | None, Flag("-p")] = None,
    out_pre: Annotated[str, Flag("-o")] = "./",
    out_format: Annotated[Literal["ply", "obj"], Flag("-f")] = "ply",
) -> Job:
    """Write meshes of labels that are listed, or of the largest in a volume, as files.

    `download-mesh` with its own options also takes a box or all labels, and shares the work out.

    Args:
        segmentation: the volume whose labels are ranked by their voxels.
        volume_path: path or URL of the layer.
        input: labels, with commas, or a text file of them; with ranks, of the largest labels of the segmentation, what
            is said here is of no effect.
        start_rank: of the labels, the largest first, the first that is written, counted from 0.
        stop_rank: where ranks end, itself outside.
        out_pre: path or URL of a directory, ending in /, or how paths of files begin.
        out_format: ply is binary, obj is text.

    Returns:
        The job; its report counts files and bytes.

    Raises:
        ParameterError: no labels, or ranks without a segmentation.
        StoreNotFoundError: when it is run, if a label that is listed has no mesh.
    """
    layer, prefix = kvstore.normalise(volume_path), kvstore.normalise(out_pre)
    prefix += "/" if out_pre.endswith(("/", ".")) else ""
    if stop_rank is None:
        task = WriteChosen(layer, prefix, out_format, _listed(input), None, (0, 0))
        return _job((), task, prefix)
    if segmentation is None or not 0 <= start_rank < stop_rank:
        raise ParameterError(
            f"ranks {start_rank} to {stop_rank} of the largest labels need a segmentation in the line (chunk, or"
            " --segmentation-chunk-name), and must ascend"
        )
    volume = taken(segmentation, "labels", "download-mesh", "segmentation")
    counting = LabelCounts.over(volume.expression, volume.grid)
    task = WriteChosen(layer, prefix, out_format, (), counting, (start_rank, stop_rank))
    return _job((*volume.expression.stages, *counting.stages(volume.expression)), task, prefix)


def _listed(text: str | None) -> tuple[int, ...]:
    url = None if text is None else kvstore.normalise(text)
    found = kvstore.read_bytes(url) if url is not None and text is not None and not text[:1].isdecimal() else None
    words = (text or "") if found is None else found.decode()
    labels = words.replace(",", " ").split()
    if not labels or not all(label.isdecimal() for label in labels):
        raise ParameterError(f"input {text!r} is neither labels, e.g. 1,2, nor a file of labels")
    return object_labels([int(label) for label in labels])


def _job(before: tuple[Stage, ...], task: WriteChosen, prefix: str) -> Job:
    stage = Stage(f"write-{task.format}", numbered(1), task, numbered=True, after=before[-1:])
    place = prefix.rstrip("/")
    made = (Output(place, "directory of files"),)
    return Job((*before, stage), f"{place}.daskflow/", name="download meshes", makes=made, renewable=True)


@dataclass(frozen=True)
class WriteChosen(Task, Bound):
    """Write meshes, each as a file, one after another.

    Attributes:
        prefix: how URLs of files begin.
        labels: each must have a mesh.
        counting: of the volume whose labels of some ranks are taken instead, if they have a mesh.
    """

    layer: str
    prefix: str
    format: str
    labels: tuple[int, ...]
    counting: LabelCounts | None
    ranks: tuple[int, int]

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        meshes, written, size = Meshes(self.layer), 0, 0
        for label in self.labels or self._ranked():
            mesh = meshes.read(label)
            if mesh is None and self.labels:
                raise StoreNotFoundError(f"label {label} has no mesh in {kvstore.redact(self.layer)}")
            if mesh is not None:
                data = encode_surface(mesh, self.format)
                kvstore.write_bytes(f"{self.prefix}{label}.{self.format}", data)
                written, size = written + 1, size + len(data)
        return BlockResult(empty=not written, counts={"files": written, "bytes": size})

    def _ranked(self) -> list[int]:
        """Return the labels of the ranks, the largest first, of equal ones the lowest label."""
        assert self.counting is not None
        labels, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        for rows in self.counting.table.tables():
            there = rows["labels"] != 0
            labels = np.concatenate([labels, rows["labels"][there]])
            counts = np.concatenate([counts, rows["counts"][there]])
            order = np.lexsort((labels, -counts))[: self.ranks[1]]
            labels, counts = labels[order], counts[order]
        found: list[int] = labels[self.ranks[0] :].tolist()
        return found

    def check(self) -> None:
        Meshes(self.layer)
        kvstore.check_writable(self.prefix.rpartition("/")[0])

    def describe(self) -> dict[str, Any]:
        chosen = {"labels": self.labels, "ranks": self.ranks}
        return {"does": "WriteChosen", "layer": self.layer, "prefix": self.prefix, "format": self.format, **chosen}
