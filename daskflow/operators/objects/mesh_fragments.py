"""The parts of meshes in a box, which chunkflow's `mesh` writes task by task."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, as_voxel_size, as_zyx
from daskflow.jobs import Job
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.jobs.report import Finish, Report
from daskflow.operators.objects._label_objects import object_labels, object_place
from daskflow.operators.objects.mesh.plan import Frame
from daskflow.operators.objects.mesh.simplify import finest_error, simplify
from daskflow.operators.objects.mesh.stages import BLOCK_BYTES, fragment_name
from daskflow.operators.objects.mesh.surface import Seen, select, surfaces
from daskflow.operators.segmentation.voxel_counts import count_labels
from daskflow.stores import kvstore
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.layer_objects import name_objects
from daskflow.stores.objects.mesh_files import Mesh, encode_fragment, legacy_info
from daskflow.stores.precomputed_info import named_objects
from daskflow.volume import BlockResult, Estimate, Flag, Stage, Volume, operator
from daskflow.volume.node import Array


@operator(takes="labels")
def mesh_fragments(
    volume: Volume,
    *,
    output_path: Annotated[str | os.PathLike[str] | None, Flag("-o")] = None,
    voxel_size: Annotated[Sequence[float] | None, Flag("-v")] = None,
    max_simplification_error: Annotated[float, Flag("-e")] = 40,
    ids: Sequence[int] | None = None,
    skip_ids: Annotated[Sequence[int], Flag("-s")] = (),
    dust_threshold: int = 0,
    bounding_box: str | None = None,
    shape: Sequence[int] = (448, 448, 448),
) -> Job:
    """Write the parts of meshes in a box, a file for each label and block, as chunkflow's mesh does.

    They fit together, as blocks share a voxel; `mesh-manifest` then makes meshes of them. `mesh` makes whole meshes in
    one job, without these steps. On the command line, `mesh` with an option that only this command has is this one.

    Args:
        volume: a segmentation, with one channel; all of it is known, and one voxel beyond the box is read.
        output_path: the precomputed layer whose meshes these are; that of the volume unless given.
        voxel_size: nm per voxel (zyx), which must be that of the volume.
        max_simplification_error: nm that simplification may move the surface; 0 does not simplify.
        ids: only these labels; all unless given.
        skip_ids: not these labels.
        dust_threshold: labels of fewer voxels in a block are left out of it.
        bounding_box: the box that is meshed, z0-z1_y0-y1_x0-x1; that of the task in a line of tasks, else all.
        shape: voxels per block (zyx), counted from the start of the box.

    Returns:
        The job; nothing has been written.

    Raises:
        ParameterError: another voxel size, or no precomputed layer.
    """
    if voxel_size is not None and as_voxel_size(voxel_size) != volume.spec.spacing:
        raise ParameterError(f"voxel_size {tuple(voxel_size)} is not that of the volume, {volume.spec.size_text} (zyx)")
    box = volume.box if bounding_box is None else BoundingBox.from_string(bounding_box).clip(volume.box)
    layer = kvstore.normalise(os.fspath(output_path)) if output_path else object_place(volume, None, kind="meshes")[0]
    assert layer is not None
    name = named_objects(layer).get("mesh", f"mesh_err_{max_simplification_error:g}")
    block = as_zyx([min(a, b) for a, b in zip(as_zyx(shape, name="shape"), box.shape, strict=True)])
    fragments = WriteFragments(
        kvstore.join(layer, name),
        volume.box,
        Frame.of(volume.spec),
        max_simplification_error,
        None if ids is None else object_labels(ids),
        object_labels(skip_ids),
        dust_threshold,
    )
    stage = Stage("mesh-fragments", BlockGrid(box, block), EvaluateVolumes.into(volume.expression, fragments))
    mip = 0 if volume.stored is None else volume.stored.mip
    return Job(
        (*volume.expression.stages, stage),
        f"{layer}.mesh.{box}.daskflow/",
        name="mesh-fragments",
        finish=(NameMeshes(layer, name, mip),),
    )


@dataclass(frozen=True)
class WriteFragments(Consumer):
    """Write the surface of each label of a block; see `mesh_fragments`."""

    url: str
    whole: BoundingBox
    frame: Frame
    max_error: float
    labels: tuple[int, ...] | None
    exclude: tuple[int, ...]
    dust: int

    def needs(self, box: BoundingBox) -> BoundingBox:
        return Seen.of(box, self.whole, closed=True).read

    def compute(self, box: BoundingBox, arrays: list[Array]) -> dict[str, bytes]:
        seen, voxel_size = Seen.of(box, self.whole, closed=True), self.frame.voxel_size
        labels = arrays[0].reshape(seen.read.shape)
        labels = select(labels.view(f"u{labels.dtype.itemsize}"), self.labels, self.exclude)
        if self.dust > 1:
            names, sizes = count_labels(labels)
            labels = select(labels, None, names[(sizes < self.dust) & (names != 0)].tolist())
        found = {}
        error = finest_error(self.max_error, voxel_size)
        for label, one in surfaces(labels, seen.corner(self.whole.start), seen.around) if labels.any() else ():
            vertices, faces = simplify(one.vertices, one.faces, error, voxel_size, unit=0.5)
            if len(faces):
                found[fragment_name(label, box)] = encode_fragment(
                    Mesh(self.frame.nm(vertices).astype("float32"), faces)
                )
        return found

    def write(self, box: BoundingBox, outputs: dict[str, bytes]) -> BlockResult:  # noqa: ARG002
        for name, data in outputs.items():
            write_file(self.url, name, data, compression="gzip")
        return BlockResult(empty=not outputs, counts={"fragments": len(outputs)})

    def further(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=BLOCK_BYTES * self.needs(box).size, option="mesh-fragments --shape")

    def describe(self) -> dict[str, Any]:
        chosen = {"labels": self.labels, "exclude": self.exclude, "dust": self.dust}
        return {"url": self.url, "whole": str(self.whole), "max_error": self.max_error, **chosen}


@dataclass(frozen=True)
class NameMeshes(Finish):
    """Says in a layer where its meshes are, unless it says so already."""

    layer: str
    name: str
    mip: int

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        info = kvstore.join(self.layer, self.name, "info")
        if not kvstore.exists(info):
            kvstore.write_bytes(info, json.dumps(legacy_info(mip=self.mip)).encode())
        name_objects(self.layer, True, mesh=self.name)
