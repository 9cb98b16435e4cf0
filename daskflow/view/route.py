"""How the browser gets at the voxels of a volume."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.objects.mesh_files import LEGACY, MULTIRES
from daskflow.stores.objects.object_info import load_object_info
from daskflow.stores.objects.skeleton_files import SKELETONS
from daskflow.view.computed import ComputedLayer
from daskflow.view.levels import levels_of
from daskflow.view.server import Rule, computed_rule, folder_rule
from daskflow.view.state import Layer
from daskflow.volume import Volume
from daskflow.volume.picture import contrast, fixed_range

logger = logging.getLogger(__name__)

_SAMPLE = 128


@dataclass(frozen=True)
class Route:
    """Where a precomputed layer that shows a volume is.

    Attributes:
        address: its URL, or its path on the server when `rules` serve it.
        mips: the specs of its levels, finest first.
        rules: what the server needs to serve it, the first that fits; none when the browser goes elsewhere.
    """

    address: str
    mips: Sequence[VolumeSpec]
    rules: tuple[Rule, ...]


def route_to(volume: Volume, path: str, executor: Executor, *, direct: bool) -> Route:
    """Return the shortest way to a volume: its own URL, the folder it is stored in, or its voxels computed on request.

    Voxels in an encoding that Neuroglancer does not decode are computed too, and the meshes and skeletons of their
    folder served beside them.

    Args:
        volume: what is shown.
        path: where the server may put it.
        executor: computes voxels.
        direct: whether the browser may go to s3, gs and http by itself.

    Raises:
        ParameterError: labels that are no integers.
    """
    store = volume.stored_whole
    beside: tuple[Rule, ...] = ()
    objects: dict[str, str] = {}
    if store is not None and store.encloses:
        folder = kvstore.local_path(store.url)
        if folder is not None:
            if store.shown:
                return Route(path, store.mips, (folder_rule(path, folder),))
            beside = (folder_rule(path, folder),)
            objects = store.objects()
        elif direct and store.shown and _reachable(store.url):
            return Route(store.url, store.mips, ())
    levels = levels_of(volume)
    computed = computed_rule(path, ComputedLayer(levels, objects), executor)
    return Route(path, [level.spec for level in levels], (computed, *beside))


@dataclass(frozen=True)
class Objects:
    """A directory of meshes or skeletons that is in no layer.

    Attributes:
        address: its URL, or its path on the server when `rules` serve it.
        rules: what the server needs to serve it; none when the browser goes elsewhere.
        skeletons: whether it is of skeletons.
    """

    address: str
    rules: tuple[Rule, ...]
    skeletons: bool

    def source(self, server: str) -> str:
        """Return what the viewer takes for a source, given the server's URL."""
        return f"precomputed://{server if self.rules else ''}{self.address}"


def objects_at(directory: str, path: str, *, direct: bool) -> Objects:
    """Return the way to a directory of meshes or skeletons.

    Args:
        directory: path or URL.
        path: where the server may put it.
        direct: whether the browser may go to s3, gs and http by itself.

    Raises:
        ParameterError: it is no such directory, or the browser cannot reach it.
    """
    url = kvstore.normalise(directory)
    kind = load_object_info(url).get("@type", "nothing")
    if kind not in (LEGACY, MULTIRES, SKELETONS):
        raise ParameterError(
            f"{kvstore.redact(url)} holds {kind}; name a directory whose info is of meshes or skeletons"
        )
    folder = kvstore.local_path(url)
    if folder is not None:
        return Objects(path, (folder_rule(path, folder),), kind == SKELETONS)
    if not (direct and _reachable(url)):
        raise ParameterError(f"the browser cannot reach {kvstore.redact(url)}; copy it to this machine")
    return Objects(url, (), kind == SKELETONS)


def layer_of(
    name: str,
    volume: Volume,
    route: Route,
    server: str,
    segments: tuple[int, ...] = (),
    objects: Sequence[Objects] = (),
) -> Layer:
    """Return the viewer's layer for a volume.

    Args:
        name: of the layer.
        volume: what is shown.
        route: the way to it.
        server: URL of the server that serves the routes with rules.
        segments: shown in 3D, if the volume is a segmentation.
        objects: meshes and skeletons beside the layer.
    """
    url = f"{server}{route.address}" if route.rules else route.address
    source, finest, coarsest = f"precomputed://{url}", route.mips[0], route.mips[-1].spacing
    translucent = _has_skeletons(volume) or any(one.skeletons for one in objects)
    beside = tuple(one.source(server) for one in objects)
    return Layer(name, source, finest, value_range(volume), coarsest, segments, translucent, beside)


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
            logger.warning("no contrast for %r, since its middle %s cannot be read: %s", spec, middle, error)
    return fixed_range(spec.dtype)


def _reachable(url: str) -> bool:
    scheme = url.partition("://")[0]
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return scheme in ("gs", "http", "https") or (scheme == "s3" and not endpoint)
