"""Volumes in Neuroglancer, served from this machine, and pictures of them."""

from __future__ import annotations

import html
import ipaddress
import logging
import operator
import re
import secrets
import socket
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

from daskflow.errors import MissingDependencyError, ParameterError
from daskflow.jobs.evaluate import assumed_voxel_size, warn
from daskflow.stores.objects.located import Located
from daskflow.view.drawn import drawn
from daskflow.view.look import Look
from daskflow.view.server import folder_rule
from daskflow.view.state import CLIENT, Drawn, Layer, layer_of, link, objects_at, route_to, viewer_state
from daskflow.volume import Expression, Volume
from daskflow.volume.picture import side_by_side

__all__ = ["Look", "Viewer", "neuroglancer", "side_by_side"]

Layout = Literal["4panel", "xy", "yz", "xz", "3d"]
LOOPBACK = "127.0.0.1"
_THREADS = 4
_log = logging.getLogger(__name__)


def neuroglancer(
    layers: Mapping[str, Volume | Located] | Volume,
    *,
    looks: Mapping[str, Look] = MappingProxyType({}),
    segments: Sequence[int] = (),
    objects: Sequence[str] = (),
    layout: Layout = "4panel",
    port: int = 0,
    bind: str = LOOPBACK,
    direct: bool = True,
) -> Viewer:
    """Show volumes, points, synapses and skeletons in Neuroglancer, each as a layer of its type.

    Precomputed layers on this machine are served as they lie, with all their mips, meshes and skeletons. Every other
    volume is computed chunk by chunk, where one looks. Operators over a whole volume, e.g. connected components, run
    first.

    Images are grey, those of three channels, affinities and probabilities red, green and blue, each with a slider for
    the values that are black and white. Points are yellow; synapses are lines from pre to post, and a second layer of
    their presynaptic sites.

    Args:
        layers: by their names; a single volume is named "volume".
        looks: how layers look, by their names, where another look is wanted.
        segments: labels that are chosen in every segmentation, so that their meshes and skeletons show in 3D.
        objects: paths or URLs of directories of meshes and skeletons that are not in a layer, for every segmentation.
        layout: sections along the axes and a view in 3D, or one of these alone.
        port: for the viewer; 0 takes a free one.
        bind: address to listen on; other than the default lets other machines connect.
        direct: let the browser fetch precomputed layers on s3, gs and http by itself, which needs public data and
            CORS; otherwise they come through this process, with its credentials and without meshes.

    Returns:
        The running viewer; open its `url`, and `stop` it.

    Raises:
        MissingDependencyError: the package neuroglancer is not installed.
        ParameterError: no layers, labels or segments that are not integers, objects that are none, or a port or address
            that cannot be had.
    """
    named = {"volume": layers} if isinstance(layers, Volume) else layers
    return Viewer(
        named, looks=looks, segments=segments, objects=objects, layout=layout, port=port, bind=bind, direct=direct
    )


class Viewer:
    """A Neuroglancer that shows volumes until it is stopped; `neuroglancer` starts one.

    The client, the layers and the state come from one port of this process. Every path holds a secret, so that others
    who can reach the port cannot look. As a context manager it stops at the end of the block.

    Attributes:
        url: what to open in a browser.
    """

    def __init__(
        self,
        layers: Mapping[str, Volume | Located],
        *,
        looks: Mapping[str, Look],
        segments: Sequence[int],
        objects: Sequence[str],
        layout: Layout,
        port: int,
        bind: str,
        direct: bool,
    ) -> None:
        chosen = _chosen(segments)
        unknown = set(looks) - set(layers)
        if unknown:
            raise ParameterError(
                f"a look of {', '.join(sorted(unknown))}, which is not shown; there are {list(layers)}"
            )
        lazy = {name: layer for name, layer in layers.items() if isinstance(layer, Volume)}
        warn(tuple(dict.fromkeys(line for volume in lazy.values() for line in assumed_voxel_size(volume))))
        self._stopped = threading.Event()
        secret = secrets.token_urlsafe(24)
        with ExitStack() as resources:
            volumes = _resolved(lazy, resources)
            server = _listen(port, bind)
            resources.callback(server.stop)
            executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="daskflow-view")
            resources.callback(executor.shutdown, wait=False, cancel_futures=True)
            beside = []
            for number, directory in enumerate(objects):
                beside.append(objects_at(directory, f"/layers/{secret}/objects-{number}", direct=direct))
                server.app.add_handlers(".*", list(beside[-1].rules))
            shown: list[Layer | Drawn] = []
            for place, (name, layer) in enumerate(layers.items()):
                path = f"/layers/{secret}/{place}-{re.sub('[^A-Za-z0-9._-]', '_', name)}"
                look = looks.get(name, Look())
                if isinstance(layer, Located):
                    folder = Path(resources.enter_context(_temporary()))
                    server.app.add_handlers(".*", [folder_rule(path, folder)])
                    shown += drawn(name, layer, look, folder, f"precomputed://{server.server_url}{path}")
                else:
                    route = route_to(volumes[name], path, executor, direct=direct)
                    server.app.add_handlers(".*", list(route.rules))
                    shown.append(layer_of(name, volumes[name], route, server.server_url, chosen, beside, look))
            self._client = _client(server, viewer_state(shown, layout))
            self._resources = resources.pop_all()
        self.url = f"{server.server_url}/v/{self._client.token}/"

    @property
    def state(self) -> dict[str, Any]:
        """What is shown now, as Neuroglancer's JSON; it follows what people do in the browser."""
        return dict(self._client.state.to_json())

    def link(self, client: str = CLIENT) -> str:
        """Return a URL that shows the same in a hosted Neuroglancer; layers of this machine only while this runs."""
        return link(self.state, client)

    def stop(self) -> None:
        """Stop serving; nothing happens the second time."""
        self._resources.close()
        self._stopped.set()

    def wait(self) -> None:
        """Return once Ctrl-C was pressed or another thread called `stop`; the viewer is stopped then."""
        with suppress(KeyboardInterrupt):
            self._stopped.wait()
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Viewer {self.url}>"

    def _repr_html_(self) -> str:
        url = html.escape(self.url)
        return (
            f'<a href="{url}" target="_blank">Open in a window of its own</a>'
            f'<iframe src="{url}" width="100%" height="600" style="border: 0"></iframe>'
        )


def _chosen(segments: Sequence[int]) -> tuple[int, ...]:
    labels = tuple(dict.fromkeys(map(operator.index, segments)))
    wrong = next((label for label in labels if not 0 < label < 2**64), None)
    if wrong is not None:
        raise ParameterError(f"segment {wrong} is not a label: they are 1 to 2^64 - 1")
    return labels


def _listen(port: int, bind: str) -> Any:
    """Return a running server of the Neuroglancer client, its own and not the package's global one."""
    try:
        from neuroglancer.server import Server
    except ImportError as error:
        raise MissingDependencyError.of("neuroglancer", "view") from error
    if not _loopback(bind):
        _log.warning("listening on %s: other machines can connect, and look if they have the URL", bind)
    if not 0 <= port < 2**16:
        raise ParameterError(f"cannot listen on port {port}; give 1 to 65535, or 0 for a free one")
    try:
        socket.create_server((bind, port), family=socket.AF_INET6 if ":" in bind else socket.AF_INET).close()
        return Server(bind_address=bind, bind_port=port)
    except OSError as error:
        raise ParameterError(f"cannot listen on {bind}, port {port}: {error}; port 0 takes a free one") from error


def _loopback(bind: str) -> bool:
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return bind == "localhost"


def _client(server: Any, state: dict[str, Any]) -> Any:
    """Return what keeps the state that the pages of a server share."""
    from neuroglancer.viewer_base import ViewerBase

    client = ViewerBase(allow_credentials=False)
    client.set_state(state)
    server.viewers[client.token] = client
    return client


def _resolved(layers: Mapping[str, Volume], resources: ExitStack) -> dict[str, Volume]:
    """Return the volumes after running the stages they wait for, whose scratch data last as long as `resources`."""
    expression = Expression([volume.node for volume in layers.values()])
    if not expression.stages:
        return dict(layers)
    directory = resources.enter_context(_temporary())
    nodes = expression.resolved(directory).outputs
    return {name: Volume(node, mips=volume.mips) for (name, volume), node in zip(layers.items(), nodes, strict=True)}


def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="daskflow-view-")
