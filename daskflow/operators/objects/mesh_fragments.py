"""Meshes as chunkflow makes them: a fragment of every label and task."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs import Job, Report
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import EvaluateVolumes, assumed_voxel_size
from daskflow.jobs.report import Finish
from daskflow.operators.geometry.declare import declare
from daskflow.operators.objects._label_objects import object_labels
from daskflow.operators.objects.mesh import mesh
from daskflow.operators.objects.mesh.plan import Frame
from daskflow.operators.objects.mesh.stages import BLOCK_BYTES, check_packages, fragment_name, simplified
from daskflow.operators.objects.mesh.surface import Seen, Surface, select
from daskflow.operators.segmentation.voxel_counts import count_labels
from daskflow.stores import kvstore
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.layer_objects import layer_above, load_object_info, name_objects
from daskflow.stores.objects.mesh_files import Mesh, encode_fragment, encode_manifest, legacy_info, manifest_name
from daskflow.stores.precomputed_info import named_objects
from daskflow.volume import BlockResult, Estimate, Flag, Stage, Volume, operator
from daskflow.volume.stage import Output

Array = npt.NDArray[Any]


@operator(takes="labels")
def mesh_fragments(
    volume: Volume,
    *,
    output_path: Annotated[str, Flag("-o")] = "file:///tmp/mesh/",
    output_format: Annotated[Literal["precomputed", "ply", "obj"], Flag("-t")] = "precomputed",
    voxel_size: Annotated[Sequence[float] | None, Flag("-v")] = None,
    max_simplification_error: Annotated[float, Flag("-e")] = 40.0,
    ids: Sequence[int] | None = None,
    skip_ids: Annotated[Sequence[int], Flag("-s")] = (),
    dust_threshold: int = 0,
    manifest: bool = False,
    shard: bool = False,
    bounding_box: str | None = None,
) -> Job:
    """Mesh all objects as chunkflow does: in a line of tasks, a fragment for each label and task.

    The fragments of neighbouring tasks meet, as each is made from one voxel more than its box. `mesh-manifest` then
    joins what the tasks of all lines have written. Without tasks, the whole volume is meshed in one job, as by `mesh`.

    Args:
        volume: a segmentation, with one channel.
        output_path: path or URL of a directory; of a precomputed layer, a directory in it.
        output_format: precomputed for legacy fragments; ply or obj for a file LABEL.ply, in nm, not in a line of tasks.
        voxel_size: nm (zyx), in place of what the volume says.
        max_simplification_error: nm that simplification may move the surface.
        ids: only these labels.
        skip_ids: labels to leave out.
        dust_threshold: labels of fewer voxels are left out: in the whole volume, or in the box of a task.
        manifest: write manifests, too, which are right only if no other task has a part of the object.
        shard: write levels of detail in shards, not in a line of tasks.
        bounding_box: the box that is meshed, z0-z1_y0-y1_x0-x1; that of the task in a line of tasks, else all.

    Returns:
        The job.

    Raises:
        ParameterError: files or shards in a line of tasks, whose boxes cut objects.
    """
    volume = volume if voxel_size is None else declare(volume, voxel_size=voxel_size)
    labels = None if ids is None else object_labels(ids)
    directory, layer = _directory(output_path, max_simplification_error)
    box = volume.box if bounding_box is None else BoundingBox.from_string(bounding_box).clip(volume.box)
    if box == volume.box:
        layer_format: Literal["sharded", "legacy"] = "sharded" if shard else "legacy"
        return mesh(
            volume,
            output=directory,
            format=layer_format if output_format == "precomputed" else output_format,
            max_error=max_simplification_error,
            labels=labels,
            exclude_labels=skip_ids,
            dust=dust_threshold,
        )
    if shard or output_format != "precomputed":
        raise ParameterError(
            f"tasks cut objects, which {'shards' if shard else f'{output_format} files'} hold whole; write precomputed"
            " fragments, or mesh the whole volume in a line without tasks"
        )
    chosen = (labels, object_labels(skip_ids), dust_threshold)
    mip = 0 if volume.stored is None else volume.stored.mip
    making = WriteFragments(
        box, volume.box, Frame.of(volume.spec), chosen, max_simplification_error, directory, manifest
    )
    stage = Stage("write-mesh-fragments", making.grid, EvaluateVolumes.into(volume.expression, making))
    stage = dataclasses.replace(stage, after=volume.expression.stages)
    return Job(
        (*volume.expression.stages, stage),
        f"{directory}-{box}.daskflow/",
        name="mesh fragments",
        finish=(NameFragments(directory, mip, layer),),
        makes=(Output(f"{directory}-{box}", "mesh fragments"),),
        warnings=assumed_voxel_size(volume),
    )


def _directory(output: str, error: float) -> tuple[str, str | None]:
    """Return where meshes go, and the layer that this is in if its info should name it."""
    url = kvstore.normalise(output)
    kvstore.refuse_http(url)
    if layer_above(f"{url}/mesh") is None:
        return url, layer_above(url)
    return kvstore.join(url, named_objects(url).get("mesh") or f"mesh_err_{kvstore.plain_number(error)}"), url


@dataclass(frozen=True)
class WriteFragments(Consumer):
    """Write the fragment of every label in a box, and name it if `manifests`.

    Attributes:
        chosen: the labels, or None for all; those left out; and the fewest voxels in the box.
    """

    box: BoundingBox
    whole: BoundingBox
    frame: Frame
    chosen: tuple[tuple[int, ...] | None, tuple[int, ...], int]
    max_error: float
    directory: str
    manifests: bool

    @property
    def grid(self) -> BlockGrid:
        return BlockGrid(self.box, self.box.shape)

    @property
    def _seen(self) -> Seen:
        return Seen.of(self.box, self.whole, closed=True)

    def needs(self, box: BoundingBox) -> BoundingBox:  # noqa: ARG002
        return self._seen.read

    def compute(self, box: BoundingBox, arrays: list[Array]) -> dict[int, Surface]:  # noqa: ARG002
        seen, (keep, drop, dust) = self._seen, self.chosen
        labels = arrays[0].reshape(seen.read.shape)
        unsigned = labels if labels.dtype.kind == "u" else labels.view(f"u{labels.dtype.itemsize}")
        labels = select(unsigned, keep, drop)
        if dust > 1:
            names, sizes = count_labels(labels)
            labels = select(labels, None, names[(sizes < dust) & (names != 0)].tolist())
        made = simplified(labels, seen, self.whole, self.frame, self.max_error)
        return {label: surface for label, surface in made if len(surface.faces)}

    def write(self, box: BoundingBox, outputs: dict[int, Surface]) -> BlockResult:
        for label, surface in outputs.items():
            fragment = encode_fragment(Mesh(self.frame.nm(surface.vertices).astype(np.float32), surface.faces))
            name = fragment_name(label, box)
            write_file(self.directory, name, fragment, compression="gzip")
            if self.manifests:
                write_file(self.directory, manifest_name(label), encode_manifest([name]))
        return BlockResult(empty=not outputs, counts={"fragments": len(outputs)})

    def further(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=BLOCK_BYTES * self.needs(box).size)

    def check(self) -> None:
        check_packages("zmesh", "numba")
        kvstore.check_writable(self.directory)

    def describe(self) -> dict[str, Any]:
        described = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return described | {"box": str(self.box), "whole": str(self.whole), "frame": dataclasses.asdict(self.frame)}


@dataclass(frozen=True)
class NameFragments(Finish):
    """Write the info of a directory of fragments, and name it in the layer that it is in, unless that is done."""

    directory: str
    mip: int
    layer: str | None

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        """Do so."""
        if not load_object_info(self.directory):
            write_file(self.directory, "info", json.dumps(legacy_info(mip=self.mip)).encode())
        if self.layer is not None:
            name_objects(self.layer, True, mesh=self.directory.rpartition("/")[2])
