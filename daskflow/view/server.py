"""What the browser reads of volumes: local folders as they lie, and layers and coarser levels computed on request."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tornado.web
from isal import igzip

from daskflow.errors import MissingChunkError, ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec, Zyx
from daskflow.volume import Volume

Array = npt.NDArray[Any]
Rule = tuple[str, type[tornado.web.RequestHandler], dict[str, Any]]

_log = logging.getLogger(__name__)

_ENCODINGS = {"": None, ".gz": "gzip", ".br": "br"}
_CHUNK_NAME = re.compile(r"(\d+)/(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)")
_IMAGE_DTYPES = {"bool": "uint8", "int64": "float32", "uint64": "float32", "float16": "float32", "float64": "float32"}
_LABEL_DTYPES = {"bool": "uint8", "int8": "uint8", "int16": "uint16", "int32": "uint32", "int64": "uint64"}
READ_LIMIT = 2**26  # bytes read for a chunk of a coarser level
_CHUNK: Zyx = (64, 64, 64)
_LONGEST = 128


def folder_rule(prefix: str, folder: Path) -> Rule:
    """Return the route that serves the files of a folder below the path `prefix`."""
    return rf"{prefix}/(.*)", FolderHandler, {"path": str(folder)}


def computed_rule(prefix: str, layer: ComputedLayer, executor: Executor) -> Rule:
    """Return the route that serves a volume below the path `prefix`; its chunks are computed by `executor`.

    Other objects below that path are left to the rules that follow.
    """
    return rf"{prefix}/(info|\d+/[^/]*)", ComputedHandler, {"layer": layer, "executor": executor}


class SharedHandler(tornado.web.RequestHandler):
    """What pages of any origin may read: the path holds a secret."""

    def set_default_headers(self) -> None:
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Access-Control-Allow-Headers", "range, content-type")
        self.set_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
        self.set_header("Access-Control-Expose-Headers", "content-range, content-length, content-encoding")
        self.set_header("Cache-Control", "no-store")

    def options(self, path: str) -> None:  # noqa: ARG002
        """Answer a preflight request."""
        self.set_status(204)

    def compute_etag(self) -> None:
        """Skip hashing what is sent: shards are large."""


class FolderHandler(SharedHandler, tornado.web.StaticFileHandler):
    """Files of one folder: GET, HEAD, byte ranges; nothing outside the folder.

    A chunk that CloudVolume compressed as ``name.gz`` or ``name.br`` is found under its plain name.
    """

    def validate_absolute_path(self, root: str, absolute_path: str) -> str:
        """Return the file to send; links that lead out of the folder are not followed."""
        base = Path(root).resolve()
        for ending, encoding in _ENCODINGS.items():
            path = Path(absolute_path + ending).resolve()
            if path.is_relative_to(base) and path.is_file():
                if encoding is not None:
                    self.set_header("Content-Encoding", encoding)
                    self.request.headers.pop("Range", None)
                return str(path)
        raise tornado.web.HTTPError(404)

    def should_return_304(self) -> bool:
        """Send the file each time: it may have been written again within the same second."""
        return False

    def get_content_type(self) -> str:
        return "application/octet-stream"


class ComputedHandler(SharedHandler):
    """The ``info`` and chunks of a computed layer; a request that the viewer cancels is not begun."""

    def initialize(self, layer: ComputedLayer, executor: Executor) -> None:
        """Take the arguments of the route."""
        self.layer = layer
        self.executor = executor
        self.pending: Future[bytes | None] | None = None

    async def get(self, path: str) -> None:
        """Send ``info`` or a chunk; 404 where there is none, 500 with the error where it cannot be computed."""
        zipped = "gzip" in self.request.headers.get("Accept-Encoding", "")
        self.pending = self.executor.submit(self._body, path, zipped)
        try:
            body = await asyncio.wrap_future(self.pending)
        except asyncio.CancelledError:
            return
        except MissingChunkError:
            body = None
        except Exception as error:  # noqa: BLE001 (block functions may raise anything; the page must say so)
            _log.warning("cannot show chunk %s: %s", path, error, exc_info=True)
            self.set_status(500)
            self.finish(f"{type(error).__name__}: {error}")
            return
        if body is None:
            raise tornado.web.HTTPError(404)
        self.set_header("Content-Type", "application/octet-stream")
        if zipped:
            self.set_header("Content-Encoding", "gzip")
        self.finish(body)

    head = get

    def on_connection_close(self) -> None:
        """Drop the chunk from the queue when the viewer has moved on."""
        if self.pending is not None:
            self.pending.cancel()

    def _body(self, path: str, zipped: bool) -> bytes | None:
        body = self.layer.info() if path == "info" else self.layer.chunk(path)
        return igzip.compress(body, 1) if zipped and body is not None else body


class ComputedLayer:
    """Answers for the objects of an unsharded, raw precomputed layer: ``info`` and chunks.

    Format: neuroglancer's ``src/datasource/precomputed/volume.md``. Its chunks are Fortran-ordered xyzc, which are the
    same bytes as C-ordered czyx; names and sizes in ``info`` are xyz. `objects` are further keys of the ``info``, which
    name the directories of meshes and skeletons.
    """

    def __init__(self, levels: Sequence[ShownLevel], objects: Mapping[str, str] | None = None) -> None:
        self.levels = tuple(levels)
        self.objects = dict(objects or {})
        self._dtype = served_dtype(self.levels[0].spec)

    def info(self) -> bytes:
        """Return the object ``info``."""
        spec = self.levels[0].spec
        info = {
            **self.objects,
            "@type": "neuroglancer_multiscale_volume",
            "type": "segmentation" if spec.kind == "segmentation" else "image",
            "data_type": self._dtype.name,
            "num_channels": spec.channels or 1,
            "scales": [_scale(str(mip), level.spec) for mip, level in enumerate(self.levels)],
        }
        return json.dumps(info).encode()

    def chunk(self, name: str) -> bytes | None:
        """Return the chunk ``<mip>/x0-x1_y0-y1_z0-z1``, or None when the layer has no such object."""
        match = _CHUNK_NAME.fullmatch(name)
        if match is None:
            return None
        mip, x0, x1, y0, y1, z0, z1 = map(int, match.groups())
        if mip >= len(self.levels) or not (x0 < x1 and y0 < y1 and z0 < z1):
            return None
        level = self.levels[mip]
        box = BoundingBox((z0, y0, x0), (z1, y1, x1))
        aligned = box.align(chunk_of(level.spec), level.spec.box.start).clip(level.spec.box)
        if box != aligned:
            return None
        return np.ascontiguousarray(level.read(box).astype(self._dtype, copy=False)).tobytes()


def served_dtype(spec: VolumeSpec) -> np.dtype[Any]:
    """Return the type that voxels are sent as: precomputed has no bool, no float64, and labels have no sign."""
    if spec.kind != "segmentation":
        return np.dtype(_IMAGE_DTYPES.get(spec.dtype.name, spec.dtype.name))
    if spec.dtype.kind not in "iub":
        raise ParameterError(f"cannot show {spec.dtype} as a segmentation; cast it with astype('uint32')")
    return np.dtype(_LABEL_DTYPES.get(spec.dtype.name, spec.dtype.name))


def _scale(key: str, spec: VolumeSpec) -> dict[str, Any]:
    return {
        "key": key,
        "size": spec.box.shape[::-1],
        "resolution": spec.spacing[::-1],
        "voxel_offset": spec.box.start[::-1],
        "chunk_sizes": [chunk_of(spec)[::-1]],
        "encoding": "raw",
    }


@dataclass(frozen=True)
class ShownLevel:
    """One mip as it is shown; `read` gives the voxels of a box, zyx or czyx."""

    spec: VolumeSpec
    read: Callable[[BoundingBox], Array]


def levels_of(volume: Volume) -> list[ShownLevel]:
    """Return the levels of a volume, finest first: those it is stored at, else its own and coarser ones made of it."""
    finest = volume.stored_whole
    if finest is not None and finest.mip + 1 < len(finest.mips):
        stores = (finest.with_mip(mip) for mip in range(finest.mip, len(finest.mips)))
        return [ShownLevel(store.spec, store.read) for store in stores]
    return coarsened(ShownLevel(volume.spec, volume.read))


def coarsened(finest: ShownLevel) -> list[ShownLevel]:
    """Return the level and coarser ones, until a chunk holds the volume or would need more than 64 MB of it.

    The axes with the smallest voxels double first, until voxels are about cubes.
    """
    levels = [finest]
    factor = (1, 1, 1)
    spec = finest.spec
    voxels = math.prod(chunk_of(spec)) * (spec.channels or 1) * spec.dtype.itemsize
    while any(n > c for n, c in zip(levels[-1].spec.box.shape, chunk_of(spec), strict=True)):
        smallest = min(levels[-1].spec.spacing)
        z, y, x = (f * 2 if v <= 1.5 * smallest else f for f, v in zip(factor, levels[-1].spec.spacing, strict=True))
        factor = (z, y, x)
        if math.prod(factor) * voxels > READ_LIMIT:
            break
        levels.append(_coarser(finest, factor))
    return levels


def chunk_of(spec: VolumeSpec) -> Zyx:
    """Return the voxels (zyx) sent at once: a storage chunk or 64^3, at most 128 along an axis."""
    z, y, x = (min(c, _LONGEST) for c in spec.chunk or _CHUNK)
    return z, y, x


def _coarser(finest: ShownLevel, factor: Zyx) -> ShownLevel:
    spec = finest.spec
    coarse = spec.coarsened(factor, box=spec.box.coarsen(factor), chunk=chunk_of(spec), shard=None, chunk_origin=None)
    return ShownLevel(coarse, functools.partial(_read_coarse, finest, factor))


def _read_coarse(finest: ShownLevel, factor: Zyx, box: BoundingBox) -> Array:
    """Return the means (images) or first voxels (labels) of windows counted from the origin, cut at the edge."""
    fine = box.refine(factor).clip(finest.spec.box)
    values = finest.read(fine)
    pick = finest.spec.kind == "segmentation"
    dtype = values.dtype
    if not pick:
        values = values.astype(np.float32)
    for axis in range(3):
        corners = np.arange(box.start[axis], box.stop[axis]) * factor[axis]
        first = np.maximum(corners, fine.start[axis]) - fine.start[axis]
        if pick:
            values = np.take(values, first, axis=axis - 3)
        else:
            counts = np.diff(first, append=fine.shape[axis])
            values = np.add.reduceat(values, first, axis=axis - 3) / counts.reshape(-1, *(1,) * (2 - axis))
    if dtype.kind in "iub" and not pick:
        values = np.rint(values)
    return values.astype(dtype)
