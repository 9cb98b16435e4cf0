"""Layers of points, synapses and skeletons, written to a folder from which the browser reads them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import VolumeSpec
from daskflow.operators.objects.save_annotations import Sites, annotations_of
from daskflow.stores.objects.annotations import write_annotations
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.located import Located, Points, SkeletonSet
from daskflow.stores.objects.skeleton_files import encode_skeleton, skeleton_info
from daskflow.stores.objects.synapses import Synapses
from daskflow.view.look import Look
from daskflow.view.state import Drawn, Layer

_POINTS = "#ffff00"
_SYNAPSES = "#00ffff"
_IN_A_CELL = 1000
_SHADER = """void main() {{
  setColor(defaultColor());
  setPointMarkerSize({size:.1f});
}}
"""


def drawn(name: str, located: Located, look: Look, folder: Path, source: str) -> list[Layer | Drawn]:
    """Return the layers of points, skeletons, or synapses: lines from pre to post, and the presynaptic sites as points.

    They are written to a folder, which the browser finds at `source`. Whole numbers are voxels, and are drawn in their
    middle.

    Raises:
        ParameterError: there are none, or objects of another kind.
    """
    if located.box.empty:
        raise ParameterError(f"{name} is {located!r}: there is nothing to show")
    spec = VolumeSpec(
        located.box, np.dtype(np.uint64), voxel_size=located.voxel_size or (1, 1, 1), layer_type="segmentation"
    )
    if isinstance(located, SkeletonSet):
        _write_skeletons(located, folder)
        return [Layer(name, source, spec, (0, 1), spec.spacing, tuple(located), look=look)]
    look.check(name, "annotation")
    if not isinstance(located, Points | Synapses):
        raise ParameterError(f"{name} is {located!r}, which cannot be drawn; give points, synapses or skeletons")
    layers: dict[str, tuple[Sites, str, float]] = {name: ("synapses", _POINTS, 8)}
    if isinstance(located, Synapses):
        layers = {name: ("synapses", _SYNAPSES, 5), f"{name}_pre": ("pre", _SYNAPSES, 5)}
    sized = replace(located, voxel_size=spec.spacing)
    shown: list[Layer | Drawn] = []
    for layer, (sites, color, size) in layers.items():
        place = f"{len(shown)}"
        write_annotations(str(folder / place), annotations_of(sized, sites), limit=_IN_A_CELL)
        state = {
            "type": "annotation",
            "name": layer,
            "source": f"{source}/{place}",
            "annotationColor": look.color or color,
            "shader": _SHADER.format(size=look.size or size),
            "tab": "annotations",
            "visible": look.visible,
        }
        shown.append(Drawn(layer, spec, state))
    return shown


def _write_skeletons(skeletons: SkeletonSet, folder: Path) -> None:
    """Write skeletons as the directory of a layer, which Neuroglancer reads."""
    write_file(str(folder), "info", json.dumps(skeleton_info(vertex_attributes=())).encode())
    for label, skeleton in skeletons.items():
        write_file(str(folder), str(label), encode_skeleton(skeleton, ()))
