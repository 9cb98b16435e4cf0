"""Layers of what is not a volume: points and synapses, which are part of the viewer's state, and skeletons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import VolumeSpec, VoxelSize
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.located import Array, Located, Points, SkeletonSet
from daskflow.stores.objects.skeleton_files import encode_skeleton, skeleton_info
from daskflow.stores.objects.synapses import Synapses
from daskflow.view.look import Look

_POINTS = "#ffff00"
_SYNAPSES = "#00ffff"
_MOST = 100_000  # annotations that a page takes in its state within seconds
_SHADER = """void main() {{
  setColor(defaultColor());
  setPointMarkerSize({size:.1f});
}}
"""


@dataclass(frozen=True)
class Drawn:
    """A layer of annotations.

    Attributes:
        spec: the box and the voxels in which places are counted.
        state: the layer's part of the viewer's state.
    """

    name: str
    spec: VolumeSpec
    state: dict[str, Any]
    segments: tuple[int, ...] = ()

    @property
    def coarsest(self) -> VoxelSize:
        """The size of its voxels (nm, zyx)."""
        return self.spec.spacing


def drawn(name: str, located: Located, look: Look) -> list[Drawn]:
    """Return the layers of points, or of synapses: lines from pre to post, and the presynaptic sites as points.

    Whole numbers are voxels, and are drawn in their middle.

    Raises:
        ParameterError: too many for a page, none, or skeletons, which are layers of another kind.
    """
    look.check(name, "annotation")
    if isinstance(located, Points):
        return [_annotations(name, located, look, [located.points], _POINTS, size=8)]
    if not isinstance(located, Synapses):
        raise ParameterError(f"{name} is {located!r}, which cannot be drawn; give points, synapses or skeletons")
    parents = located.pre[located.post[:, 0].astype(np.int64)]
    lines = _annotations(name, located, look, [parents, located.post[:, 1:]], _SYNAPSES, size=5)
    return [lines, _annotations(f"{name}_pre", located, look, [located.pre], _SYNAPSES, size=5)]


def _annotations(name: str, located: Located, look: Look, ends: Sequence[Array], color: str, *, size: float) -> Drawn:
    count = len(ends[0])
    if count > _MOST:
        raise ParameterError(f"{name} has {count:,} annotations, and a page takes {_MOST:,}; show a part of them")
    spec = spec_of(name, located)
    places = [(end[:, ::-1] + (0.5 if end.dtype.kind in "iu" else 0)).tolist() for end in ends]
    if len(ends) == 1:
        annotations = [{"type": "point", "id": str(row), "point": place} for row, place in enumerate(places[0])]
    else:
        pairs = enumerate(zip(*places, strict=True))
        annotations = [{"type": "line", "id": str(row), "pointA": a, "pointB": b} for row, (a, b) in pairs]
    dimensions = {axis: [nm / 1e9, "m"] for axis, nm in zip("xyz", spec.spacing[::-1], strict=True)}
    state = {
        "type": "annotation",
        "name": name,
        "source": {"url": "local://annotations", "transform": {"outputDimensions": dimensions}},
        "annotations": annotations,
        "annotationColor": look.color or color,
        "shader": _SHADER.format(size=look.size or size),
        "tab": "annotations",
        "visible": look.visible,
    }
    return Drawn(name, spec, state)


def spec_of(name: str, located: Located) -> VolumeSpec:
    """Return the box of objects and the voxels in which it is counted.

    Raises:
        ParameterError: there are none.
    """
    if located.box.empty:
        raise ParameterError(f"{name} is {located!r}: there is nothing to show")
    return VolumeSpec(located.box, np.dtype(np.uint64), voxel_size=located.voxel_size, layer_type="segmentation")


def write_skeletons(skeletons: SkeletonSet, folder: Path) -> None:
    """Write skeletons as the directory of a layer, which Neuroglancer reads."""
    write_file(str(folder), "info", json.dumps(skeleton_info(vertex_attributes=())).encode())
    for label, skeleton in skeletons.items():
        write_file(str(folder), str(label), encode_skeleton(skeleton, ()))
