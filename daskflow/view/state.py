"""What Neuroglancer is told to show, as its JSON state; the one place here where axes turn to xyz."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from daskflow.errors import ParameterError
from daskflow.geometry import VolumeSpec

CLIENT = "https://neuroglancer-demo.appspot.com"

_GREY = """#uicontrol invlerp normalized
void main() {
  emitGrayscale(normalized());
}
"""
_COLORED = """{controls}
void main() {{
  emitRGB(vec3({values}));
}}
"""
_COLORS = ("red", "green", "blue")
_PANEL = 320
_VOXELS_PER_PIXEL = 4
_TRANSLUCENT = 0.6


@dataclass(frozen=True)
class Layer:
    """One layer of the viewer.

    Attributes:
        name: shown on its tab.
        source: its URL, e.g. ``precomputed://http://...``.
        spec: geometry and meaning of its finest level.
        range: the values shown as black and white.
        coarsest: voxel size (nm, zyx) of its coarsest level.
        segments: labels whose meshes and skeletons are shown in 3D, if it is a segmentation.
        translucent: whether meshes let what is inside them show, e.g. skeletons.
        objects: URLs of directories of meshes and skeletons that are not in the layer itself.
    """

    name: str
    source: str
    spec: VolumeSpec
    range: tuple[float, float]
    coarsest: tuple[float, float, float]
    segments: tuple[int, ...] = ()
    translucent: bool = False
    objects: tuple[str, ...] = ()


def viewer_state(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return the state that shows the layers around the middle of the first one, as much of it as is cheap to load.

    Raises:
        ParameterError: no layers.
    """
    if not layers:
        raise ParameterError("nothing to show; give at least one volume")
    first = layers[0]
    finest = min(first.spec.spacing)
    extent = [n * v / finest for n, v in zip(first.spec.box.shape, first.spec.spacing, strict=True)]
    widest = _VOXELS_PER_PIXEL * min(first.coarsest) / finest
    middle = [(a + b) / 2 for a, b in zip(first.spec.box.start, first.spec.box.stop, strict=True)]
    objects = {"showSlices": False} if any(layer.segments for layer in layers) else {}
    return {
        "dimensions": {axis: [size / 1e9, "m"] for axis, size in zip("xyz", first.spec.spacing[::-1], strict=True)},
        "position": middle[::-1],
        "crossSectionScale": min(max(extent) / _PANEL, widest),
        "projectionScale": 1.6 * min(max(extent), _PANEL * widest),
        "layers": [layer_state(layer) for layer in layers],
        "selectedLayer": {"layer": layers[-1].name},
        "layout": "4panel",
        **objects,
    }


def layer_state(layer: Layer) -> dict[str, Any]:
    """Return one layer's part of the state: labels in their colours, images grey, affinities red, green and blue."""
    common = {"name": layer.name, "source": layer.source}
    kind = layer.spec.kind
    if kind == "segmentation":
        state: dict[str, Any] = {**common, "type": "segmentation", "tab": "segments"}
        if layer.objects:
            state["source"] = [layer.source, *layer.objects]
        if layer.segments:
            state["segments"] = [str(label) for label in layer.segments]
        return {**state, "objectAlpha": _TRANSLUCENT} if layer.translucent else state
    channels = layer.spec.channels or 1
    colored = channels == 3 if kind == "image" else channels > 1
    if not colored:
        return {
            **common,
            "type": "image",
            "shader": _GREY,
            "shaderControls": {"normalized": {"range": list(layer.range)}},
        }
    names = _COLORS[:channels]
    controls = "\n".join(f"#uicontrol invlerp {name}(channel={i})" for i, name in enumerate(names))
    values = [f"{name}()" for name in names] + ["0.0"] * (3 - len(names))
    return {
        **common,
        "type": "image",
        "shader": _COLORED.format(controls=controls, values=", ".join(values)),
        "shaderControls": {name: {"range": list(layer.range), "channel": [i]} for i, name in enumerate(names)},
    }


def link(state: dict[str, Any], client: str = CLIENT) -> str:
    """Return the URL that opens a state in a hosted Neuroglancer."""
    return f"{client}/#!{urllib.parse.quote(json.dumps(state, separators=(',', ':')), safe='')}"
