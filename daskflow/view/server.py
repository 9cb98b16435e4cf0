"""Layers over http: local folders as they lie, and volumes computed chunk by chunk."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import tornado.web
from isal import igzip

from daskflow.errors import MissingChunkError
from daskflow.view.computed import ComputedLayer

Rule = tuple[str, type[tornado.web.RequestHandler], dict[str, Any]]

_ENCODINGS = {"": None, ".gz": "gzip", ".br": "br"}
_log = logging.getLogger(__name__)


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
        """Let those pages read, and keep nothing."""
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
        """Return the type of every file."""
        return "application/octet-stream"


class ComputedHandler(SharedHandler):
    """The ``info`` and chunks of a computed layer; a request that the viewer gives up is not begun."""

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
        except Exception as error:  # noqa: BLE001 (block functions may raise anything; the page must be told)
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
