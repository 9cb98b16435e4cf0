"""What Neuroglancer shows, as its JSON state; and how the browser gets at the voxels of each volume."""

from __future__ import annotations

import json
import logging
import os
import urllib.parse
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec, VoxelSize
from daskflow.stores import kvstore
from daskflow.stores.objects.layer_objects import load_object_info
from daskflow.stores.objects.mesh_files import LEGACY, MULTIRES
from daskflow.stores.objects.skeleton_files import SKELETONS
from daskflow.view.look import Look, Shown
from daskflow.view.server import ComputedLayer, Rule, computed_rule, folder_rule, levels_of
from daskflow.volume import Volume
from daskflow.volume.picture import contrast, fixed_range

_log = logging.getLogger(__name__)

CLIENT = "https://neuroglancer-demo.appspot.com"
_GREY = """#uicontrol invlerp normalized
void main() {
  emitGrayscale(normalized());
}
"""
_TINTED = """#uicontrol vec3 color color(default="{color}")
#uicontrol invlerp normalized
void main() {{
  emitRGB(color * normalized());
}}
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
_UNSAID = Look()
_SAMPLE = 128  # voxels along an axis by which contrast is chosen


@dataclass(frozen=True)
class Layer:
    """One layer of the viewer.

    Attributes:
        source: its URL, e.g. ``precomputed://http://...``.
        spec: geometry and meaning of its finest level.
        range: the values shown as black and white.
        coarsest: voxel size (nm, zyx) of its coarsest level.
        segments: labels whose meshes and skeletons are shown in 3D, if it is a segmentation.
        translucent: whether meshes let what is inside them show, e.g. skeletons.
        objects: URLs of directories of meshes and skeletons that are not in the layer itself.
        look: how it looks, where that is said.
    """

    name: str
    source: str
    spec: VolumeSpec
    range: tuple[float, float]
    coarsest: tuple[float, float, float]
    segments: tuple[int, ...] = ()
    translucent: bool = False
    objects: tuple[str, ...] = ()
    look: Look = _UNSAID


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


def viewer_state(layers: Sequence[Layer | Drawn], layout: str = "4panel") -> dict[str, Any]:
    """Return the state that shows the layers around the middle of the first one, as much of it as is cheap to load."""
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
        "layers": [layer.state if isinstance(layer, Drawn) else layer_state(layer) for layer in layers],
        "selectedLayer": {"layer": layers[-1].name},
        "layout": layout,
        **objects,
    }


def layer_state(layer: Layer) -> dict[str, Any]:
    """Return one layer's part of the state: labels in their colours, images grey, affinities red, green and blue."""
    look = layer.look
    kind: Shown = "segmentation" if layer.spec.kind == "segmentation" else "image"
    look.check(layer.name, kind)
    common = {"name": layer.name, "source": layer.source, "type": kind, "visible": look.visible}
    if kind == "segmentation":
        state: dict[str, Any] = {**common, "tab": "segments"}
        if layer.objects:
            state["source"] = [layer.source, *layer.objects]
        if layer.segments:
            state["segments"] = [str(label) for label in layer.segments]
        if layer.translucent:
            state["objectAlpha"] = _TRANSLUCENT
        said = {"segmentDefaultColor": look.color, "selectedAlpha": look.opacity}
        return state | {name: value for name, value in said.items() if value is not None}
    shader, controls = _shading(layer)
    opacity = {} if look.opacity is None else {"opacity": look.opacity}
    return {**common, **opacity, "shader": shader, "shaderControls": controls, "tab": "rendering"}


def _shading(layer: Layer) -> tuple[str, dict[str, Any]]:
    """Return the shader of an image and its controls, by which people set what is black and white."""
    channels = layer.spec.channels or 1
    shown = list(layer.look.range or layer.range)
    colored = channels == 3 if layer.spec.kind == "image" else channels > 1
    if layer.look.color is not None or not colored:
        shader = _GREY if layer.look.color is None else _TINTED.format(color=layer.look.color)
        return shader, {"normalized": {"range": shown}}
    names = _COLORS[:channels]
    controls = "\n".join(f"#uicontrol invlerp {name}(channel={i})" for i, name in enumerate(names))
    values = [f"{name}()" for name in names] + ["0.0"] * (3 - len(names))
    shader = _COLORED.format(controls=controls, values=", ".join(values))
    return shader, {name: {"range": shown, "channel": [i]} for i, name in enumerate(names)}


def link(state: dict[str, Any], client: str = CLIENT) -> str:
    """Return the URL that opens a state in a hosted Neuroglancer."""
    return f"{client}/#!{urllib.parse.quote(json.dumps(state, separators=(',', ':')), safe='')}"


@dataclass(frozen=True)
class Route:
    """Where the browser finds something: at a URL, or at a path on the server when `rules` serve it.

    The first rule that fits serves it; there are none when the browser goes elsewhere.
    """

    address: str
    rules: tuple[Rule, ...]

    def source(self, server: str) -> str:
        """Return what the viewer takes for a source, given the server's URL."""
        return f"precomputed://{server if self.rules else ''}{self.address}"


@dataclass(frozen=True)
class VolumeRoute(Route):
    """Where a precomputed layer that shows a volume is, and its levels, finest first."""

    mips: Sequence[VolumeSpec]


@dataclass(frozen=True)
class ObjectsRoute(Route):
    """Where a directory of meshes or skeletons is that is in no layer."""

    skeletons: bool


def route_to(volume: Volume, path: str, executor: Executor, *, direct: bool) -> VolumeRoute:
    """Return the shortest way to a volume: its own URL, the folder it is stored in, or its voxels computed on request.

    Voxels in an encoding that Neuroglancer does not decode are computed too, and the meshes and skeletons of their
    folder served beside them. The server may put it below `path`; with `direct` the browser may go to s3, gs and http
    by itself.
    """
    store = volume.stored_whole
    beside: tuple[Rule, ...] = ()
    objects: dict[str, str] = {}
    if store is not None and store.encloses:
        folder = kvstore.local_path(store.url)
        if folder is not None:
            if store.shown:
                return VolumeRoute(path, (folder_rule(path, folder),), store.mips)
            beside = (folder_rule(path, folder),)
            objects = store.objects()
        elif direct and store.shown and _reachable(store.url):
            return VolumeRoute(store.url, (), store.mips)
    levels = levels_of(volume)
    computed = computed_rule(path, ComputedLayer(levels, objects), executor)
    return VolumeRoute(path, (computed, *beside), [level.spec for level in levels])


def objects_at(directory: str, path: str, *, direct: bool) -> ObjectsRoute:
    """Return the way to a directory of meshes or skeletons, which the server may put below `path`.

    With `direct` the browser may go to s3, gs and http by itself.
    """
    url = kvstore.normalise(directory)
    kind = load_object_info(url).get("@type", "nothing")
    if kind not in (LEGACY, MULTIRES, SKELETONS):
        raise ParameterError(
            f"{kvstore.redact(url)} holds {kind}; name a directory whose info is of meshes or skeletons"
        )
    folder = kvstore.local_path(url)
    if folder is not None:
        return ObjectsRoute(path, (folder_rule(path, folder),), kind == SKELETONS)
    if not (direct and _reachable(url)):
        raise ParameterError(f"the browser cannot reach {kvstore.redact(url)}; copy it to this machine")
    return ObjectsRoute(url, (), kind == SKELETONS)


def layer_of(
    name: str,
    volume: Volume,
    route: VolumeRoute,
    server: str,
    segments: tuple[int, ...] = (),
    objects: Sequence[ObjectsRoute] = (),
    look: Look = _UNSAID,
) -> Layer:
    """Return the viewer's layer for a volume, given the URL of the server that serves the routes with rules."""
    finest, coarsest = route.mips[0], route.mips[-1].spacing
    translucent = _has_skeletons(volume) or any(one.skeletons for one in objects)
    beside = tuple(one.source(server) for one in objects)
    return Layer(name, route.source(server), finest, value_range(volume), coarsest, segments, translucent, beside, look)


def _has_skeletons(volume: Volume) -> bool:
    store = volume.stored_whole
    return store is not None and kvstore.local_path(store.url) is not None and "skeletons" in store.objects()


def value_range(volume: Volume) -> tuple[float, float]:
    """Return the values to show as black and white: an image of a wide type by the contrast of its very middle."""
    spec = volume.spec
    if spec.kind == "image" and spec.dtype not in ("uint8", "bool"):
        z, y, x = ((a + b) // 2 for a, b in zip(spec.box.start, spec.box.stop, strict=True))
        half = _SAMPLE // 2
        middle = BoundingBox((z, y - half, x - half), (z + 1, y + half, x + half)).clip(spec.box)
        try:
            return contrast(volume.read(middle))
        except Exception as error:  # noqa: BLE001 (a user's function may raise anything; each block will say it again)
            _log.warning("no contrast for %r, since its middle %s cannot be read: %s", spec, middle, error)
    return fixed_range(spec.dtype)


def _reachable(url: str) -> bool:
    scheme = url.partition("://")[0]
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return scheme in ("gs", "http", "https") or (scheme == "s3" and not endpoint)
