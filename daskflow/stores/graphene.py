"""Graphene volumes: supervoxels in a precomputed layer, which a server joins into objects as of a time; only read.

CloudVolume (the extra "graphene") speaks to the server and knows the token, of its file ``cave-secret.json``.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any

from daskflow.errors import DaskflowError, MissingDependencyError, ParameterError, StoreAccessError
from daskflow.geometry import BoundingBox
from daskflow.stores import kvstore
from daskflow.stores.base import Array, Opening, Store
from daskflow.stores.precomputed import PrecomputedStore


class GrapheneStore(Store):
    """One mip of a graphene volume: its supervoxels, or what they belong to at a Unix time (s)."""

    def __init__(self, url: str, supervoxels: PrecomputedStore, moment: int | None) -> None:
        super().__init__(url, supervoxels.mips, mip=supervoxels.mip, fill_missing=supervoxels.fill_missing)
        self._supervoxels = supervoxels
        self._moment = moment
        self.sources = supervoxels.sources

    @classmethod
    def open(cls, url: str, opening: Opening) -> Store:
        stated = {name: getattr(opening, name) for name in ("dataset", "voxel_size", "voxel_offset", "axes")}
        for name, value in stated.items():
            if value is not None:
                raise ParameterError(f"{name} {value!r} for {kvstore.redact(url)}: the server states it; drop it")
        if opening.time is not None and opening.time > time.time():
            raise ParameterError(
                f"time {opening.time} lies ahead, and objects may change until then; now is {time.time():.0f}"
            )
        with _asking(url):
            info = _graph(url).info
        layer = kvstore.normalise(info["data_dir"].removeprefix("precomputed://"))
        store = PrecomputedStore.from_info(layer, info, mip=opening.mip, fill_missing=opening.fill_missing)
        return cls(url, store, opening.time)

    def _read(self, box: BoundingBox) -> Array:
        import fastremap

        voxels = self._supervoxels.read(box)
        if self._moment is None:
            return voxels
        labels = fastremap.unique(voxels)
        with _asking(self.url):
            roots = _graph(self.url).get_roots(labels, timestamp=self._moment)
        names = dict(zip(labels.tolist(), roots.tolist(), strict=True))
        joined: Array = fastremap.remap(voxels, names, in_place=True)
        return joined

    def _write(self, box: BoundingBox, array: Array) -> None:  # noqa: ARG002
        self.check_writable()

    def check_writable(self) -> None:
        raise StoreAccessError(f"{kvstore.redact(self.url)} is a graphene volume, which is only read; write elsewhere")

    def fingerprint(self) -> dict[str, Any]:
        """Return where it is, the time, and that of the supervoxels: neither changes what a time gives."""
        return {
            "format": "graphene",
            "url": kvstore.redact(self.url),
            "time": self._moment,
            "supervoxels": self._supervoxels.fingerprint(),
        }


@functools.lru_cache(maxsize=8)
def _graph(url: str) -> Any:
    try:
        from cloudvolume import CloudVolume
    except ImportError:
        raise MissingDependencyError.of("cloud-volume", "graphene") from None
    return CloudVolume(f"graphene://{url}", progress=False)


@contextlib.contextmanager
def _asking(url: str) -> Iterator[None]:
    """Say which server it is that does not answer as it should."""
    try:
        yield
    except DaskflowError:
        raise
    except Exception as error:
        raise StoreAccessError(
            f"the server of the graphene volume {kvstore.redact(url)} does not answer: {error!r}"
        ) from error
