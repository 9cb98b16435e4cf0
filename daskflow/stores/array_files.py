"""Files that hold one array, of which a reader gives parts: opened, read and fingerprinted alike."""

# ruff: noqa: ARG003 (every format is asked with the same arguments)

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from daskflow.errors import CorruptChunkError, DaskflowError, ParameterError, UnknownFormatError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.axes import Axes, find_axes
from daskflow.stores.base import NUMBERS, Array, Opening, ReadBox, Store
from daskflow.stores.local_files import FileStore, file_state, local_file, slabs
from daskflow.stores.refusals import check_mip
from daskflow.stores.stated import Stated, settle


class ArrayFile(FileStore):
    """The one array of a file, of the shape `stored`; subclasses give it, and say what the file states of it."""

    def __init__(self, url: str, spec: VolumeSpec, axes: Axes, stored: tuple[int, ...]) -> None:
        super().__init__(url, spec)
        self.axes = axes
        self.stored = stored

    @classmethod
    @abstractmethod
    def load(cls, path: Path) -> Any:
        """Return the array of a file, with its `shape` and `dtype`, of which slices are read."""

    @classmethod
    def array(cls, url: str) -> Any:
        """Return the array, the same one while the file is."""
        path = local_file(url)
        return _loaded(cls, path, **file_state(path))

    @classmethod
    def stated(cls, url: str) -> Stated:
        """Return what the file says of the array."""
        return Stated()

    @classmethod
    def open(cls, url: str, opening: Opening) -> Self | Store:
        check_mip(opening.mip, 1, url)
        if opening.dataset is not None:
            raise ParameterError(f"{url} holds one array; drop dataset={opening.dataset!r}")
        with reading(url, cls.format_name):
            array, stated = cls.array(url), cls.stated(url)
        if np.dtype(array.dtype).name not in NUMBERS:
            raise UnknownFormatError(
                f"{url} holds {array.dtype}, which is not a voxel type; supported dtypes: {', '.join(NUMBERS)}"
            )
        axes = find_axes(array.shape, stated.axes, url, opening, keep_channel=True)
        spec, sources = settle(stated, axes, opening, shape=array.shape, dtype=np.dtype(array.dtype), url=url)
        store = cls(url, spec, axes, tuple(array.shape))
        store.sources = sources
        return store

    def _read(self, box: BoundingBox) -> Array:
        with reading(self.url, self.format_name):
            array = self.array(self.url)
            if tuple(array.shape) != self.stored:
                raise CorruptChunkError(
                    f"{self.url} now has shape {array.shape}; it had {self.stored} when it was opened"
                )
            return np.array(self.axes.view(array, box.slices(self.spec.box)), self.spec.dtype, order="C")

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "axes": repr(self.axes)}


@functools.lru_cache(maxsize=2)
def _loaded(store: type[ArrayFile], path: Path, size: int, mtime_ns: int) -> Any:  # noqa: ARG001 (a changed file is another array)
    return store.load(path)


@contextmanager
def reading(url: str, kind: str) -> Iterator[None]:
    """Say of which file it is what a reader of some kind of files complains of; libraries raise anything."""
    try:
        yield
    except DaskflowError:
        raise
    except FileNotFoundError:
        raise kvstore.missing(url) from None
    except Exception as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error) or repr(error)
        raise CorruptChunkError(f"cannot read {local_file(url)} as {kind}: {reason}") from error


def in_order(read: ReadBox, spec: VolumeSpec) -> Iterator[Array]:
    """Yield all voxels in C order, channel by channel and slab by slab, as little-endian numbers."""
    for channel in range(spec.channels or 1):
        for box in slabs(spec):
            voxels = read(box).reshape(spec.channels or 1, *box.shape)
            yield np.ascontiguousarray(voxels[channel], spec.dtype.newbyteorder("<"))
