"""HDF5 files: chunkflow's layout (``main``), CREMI's (``volumes/raw``), or any dataset by its path."""

from __future__ import annotations

import functools
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.errors import (
    CorruptChunkError,
    MissingChunkError,
    ParameterError,
    StoreAccessError,
    StoreError,
    optional_module,
)
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.stores import hdf5_contents, kvstore, local_files
from daskflow.stores.axes import Axes, find_axes
from daskflow.stores.base import DEFAULT_CHUNK, NUMBERS, Array, Layout, Member, Opening, ReadBox, Store
from daskflow.stores.counting import count
from daskflow.stores.hdf5_attributes import as_written, image_shape, stated_by
from daskflow.stores.local_files import FileStore
from daskflow.stores.refusals import check_mip, refuse_cast
from daskflow.stores.stated import settle

_MAIN = "main"
_BESIDE = ("voxel_offset", "voxel_size", "unique_nonzeros")


def load_h5py() -> Any:
    """Return the package h5py.

    Raises:
        MissingDependencyError: it is not installed.
    """
    return optional_module("h5py", package="h5py", extra="hdf5")


@functools.lru_cache(maxsize=16)
def _handle(path: Path, size: int, mtime_ns: int) -> Any:  # noqa: ARG001 (another file under the same name is another handle)
    return load_h5py().File(path, "r", locking="best-effort")


@contextmanager
def _file(url: str) -> Iterator[Any]:
    """Give the one handle that this process has of a file; h5py itself lets one thread at a time use it."""
    path = local_files.local_file(url)
    try:
        yield _handle(path, **local_files.file_state(path))
    except StoreError:
        raise
    except FileNotFoundError:
        raise kvstore.missing(url) from None
    except PermissionError as error:
        raise StoreAccessError(f"cannot read {path}: {error}") from error
    except OSError as error:
        raise CorruptChunkError(f"cannot read {path}: {error}") from error


class Hdf5Store(FileStore):
    """One dataset of an HDF5 file."""

    format_name = "hdf5"

    def __init__(self, url: str, spec: VolumeSpec, dataset: str, axes: Axes, *, fill_missing: bool = False) -> None:
        super().__init__(url, spec, fill_missing=fill_missing)
        self.dataset = dataset
        self.axes = axes

    @classmethod
    def recognises(cls, url: str) -> bool:
        path = kvstore.local_path(url)
        return path is not None and path.is_file() and hdf5_contents.is_hdf5(path)

    @classmethod
    def open(cls, url: str, opening: Opening) -> Store:
        check_mip(opening.mip, 1, url)
        with _file(url) as file:
            name = _choose(file, opening.dataset, url)
            where = f"{url}:{name}"
            dataset = hdf5_contents.dataset_at(file, name, url)
            stated = stated_by(dataset, local_files.local_file(url))
            axes = find_axes(dataset.shape, stated.axes, where, opening, keep_channel=stated.single_channel)
            hdf5_contents.check_readable(dataset, where)
            shape, chunk, dtype = image_shape(dataset), dataset.chunks, as_written(dataset)
            spec, sources = settle(stated, axes, opening, shape=shape, dtype=dtype, url=where, chunk=chunk)
            if dataset.external:
                hdf5_contents.external_voxels(dataset, url)
            if dataset.is_virtual and not opening.fill_missing:
                whole = spec.box.shift([-start for start in spec.box.start])
                if gaps := hdf5_contents.gaps_of(dataset, axes.spatial, whole):
                    raise _gone(where, gaps)
        store = cls(url, spec, name, axes, fill_missing=opening.fill_missing)
        store.sources = sources
        return store

    @classmethod
    def check_file(cls, url: str, spec: VolumeSpec, layout: Layout, dataset: str | None) -> None:
        load_h5py()
        local_files.refuse_layout(layout, ("shard",), "HDF5")
        _compression(layout)
        refuse_cast(spec.dtype, NUMBERS, "an HDF5 file")
        local_files.check_place(url, spec)
        _others(url, (dataset or _MAIN).strip("/"))

    @classmethod
    def write_file(cls, url: str, spec: VolumeSpec, read: ReadBox, layout: Layout, dataset: str | None) -> None:
        """Write a volume to an HDF5 file, slab by slab; the file appears when it is whole and replaces an older one.

        The dataset is ``main``, with ``voxel_offset`` and ``voxel_size`` beside it, as chunkflow has them; another one
        has the attributes `resolution` and `offset`, as CREMI has them. A segmentation gets ``unique_nonzeros``. Chunks
        are compressed by gzip (ISA-L) unless the layout says lzf or none. Other datasets of the older file are kept.
        """
        name = (dataset or _MAIN).strip("/")
        options, compress = _compression(layout)
        z, y, x = (min(c, s) for c, s in zip(layout.chunk or spec.chunk or DEFAULT_CHUNK, spec.box.shape, strict=True))
        ids = np.zeros(0, spec.dtype) if spec.layer_type == "segmentation" and name == _MAIN else None
        h5py = load_h5py()
        with local_files.replacing(local_files.local_file(url)) as path, _new_file(h5py, url, path, name) as file:
            chunk = (*(() if spec.channels is None else (1,)), z, y, x)
            made = file.create_dataset(name, spec.shape, spec.dtype, chunks=chunk, **options)
            _describe(made, spec)
            for box in local_files.slabs(spec, z or 1):
                voxels = read(box)
                _write_slab(made, voxels, box.start[0] - spec.box.start[0], compress)
                ids = None if ids is None else _merged(ids, voxels)
            if ids is not None:
                file.create_dataset("unique_nonzeros", data=ids)

    @classmethod
    def members(cls, url: str) -> Iterator[Member]:
        with _file(url) as file:
            found, _ = hdf5_contents.datasets_of(file)
            yield from (Member(name, item.shape or (), item.dtype) for name, item in found.items())

    @property
    def layout(self) -> Layout:
        with _file(self.url) as file:
            encoding = hdf5_contents.dataset_at(file, self.dataset, self.url).compression
        return Layout(chunk=self.spec.chunk, encoding=encoding or "raw")

    def _read(self, box: BoundingBox) -> Array:
        with _file(self.url) as file:
            dataset = hdf5_contents.dataset_at(file, self.dataset, self.url)
            self._check_written(dataset, box)
            stored = hdf5_contents.external_voxels(dataset, self.url) if dataset.external else dataset
            voxels = self.axes.view(stored, box.slices(self.spec.box))
        return np.ascontiguousarray(voxels.view(as_written(dataset)), self.spec.dtype)

    def _check_written(self, dataset: Any, box: BoundingBox) -> None:
        """Raise, or count, when HDF5 would make up chunks that were never written."""
        path = self.path
        inside = box.shift([-start for start in self.spec.box.start])
        if dataset.is_virtual:
            gaps = hdf5_contents.gaps_of(dataset, self.axes.spatial, inside)
            if gaps and not self.fill_missing:
                raise _gone(f"{self.url}:{self.dataset}", gaps)
            missing = len(gaps)
        elif _is_whole(path, **local_files.file_state(path), name=self.dataset):
            missing = 0
        else:
            missing = _missing(dataset, inside, self.axes)
        if missing and not self.fill_missing:
            raise MissingChunkError(
                f"{missing} chunks of {self.url}:{self.dataset} in box {box} were never written; "
                "fill_missing reads such chunks as the fill value"
            )
        count("missing_chunks", missing)

    def fingerprint(self) -> dict[str, Any]:
        """Return the location, dataset, and the size and time of the file and of others that it draws on."""
        with _file(self.url) as file:
            dataset = hdf5_contents.dataset_at(file, self.dataset, self.url)
            own = Path(dataset.file.filename)
            others = [*hdf5_contents.files_of(dataset), *([own] if own != self.path else [])]
        states = {str(path): local_files.file_state(path) if path.is_file() else None for path in others}
        more = {"files": states} if states else {}
        return {**super().fingerprint(), "dataset": self.dataset, "axes": repr(self.axes), **more}


def _compression(layout: Layout) -> tuple[dict[str, Any], Callable[[Any], bytes] | None]:
    """Return h5py's options of a dataset, and the function that compresses its chunks here, if one does."""
    if "lzf" in (layout.compression, layout.encoding):
        return {"compression": "lzf"}, None
    level = local_files.deflate_level(layout, ("gzip",), "HDF5", others=("lzf",))
    if level is None:
        return {}, None
    return {"compression": "gzip", "compression_opts": level}, local_files.deflate(level)


def _gone(where: str, gaps: Sequence[str]) -> MissingChunkError:
    return MissingChunkError(
        f"{where} is a virtual dataset, and {local_files.first_of(gaps, '; ')}; "
        "fill_missing reads what is missing as the fill value"
    )


@functools.lru_cache(maxsize=64)
def _is_whole(path: Path, size: int, mtime_ns: int, name: str) -> bool:
    return hdf5_contents.is_whole(hdf5_contents.dataset_at(_handle(path, size, mtime_ns), name, str(path)))


def _missing(dataset: Any, box: BoundingBox, axes: Axes) -> int:
    """Return how many chunks of a box were never written; 1 for the whole of a dataset without chunks."""
    if dataset.chunks is None:
        return 1
    chunk = axes.zyx(dataset.chunks)
    pieces = BlockGrid(box, chunk, (0, 0, 0))
    along = [range(0, n, c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
    for axis, at in axes.fixed:
        along[axis] = range(at - at % dataset.chunks[axis], at + 1, dataset.chunks[axis])
    missing = 0
    for piece in pieces:
        start = piece.align(chunk, (0, 0, 0)).start
        for axis, at in zip(axes.spatial, start, strict=True):
            if axis >= 0:
                along[axis] = range(at, at + 1)
        missing += sum(
            dataset.id.get_chunk_info_by_coord(corner).byte_offset is None for corner in itertools.product(*along)
        )
    return missing


def _choose(file: Any, stated: str | None, url: str) -> str:
    if stated is not None:
        return stated.strip("/")
    found, dangling = hdf5_contents.datasets_of(file)
    volumes = [name for name, item in found.items() if len(item.shape or ()) >= 3 and item.dtype.name in NUMBERS]
    main = file.get(_MAIN) if _MAIN in file else None
    if main is not None and len(getattr(main, "shape", None) or ()) >= 3:
        return _MAIN
    if not volumes:  # what no volume is made of is refused by its type
        volumes = [name for name, item in found.items() if len(item.shape or ()) >= 3]
    if len(volumes) != 1:
        listed = ", ".join(f"{name} {found[name].shape}" for name in volumes or found) or "none"
        broken = f"; links that lead nowhere: {', '.join(dangling)}" if dangling else ""
        raise ParameterError(
            f"{url} has no dataset 'main'; choose one with dataset= or {url}:<name> among: {listed}{broken}"
        )
    return volumes[0]


def _others(url: str, name: str) -> bool:
    """Return whether a file exists that holds other datasets than `name` and what is written beside it."""
    if not Hdf5Store.recognises(url):
        return False
    with _file(url) as file:
        found: dict[str, bool] = {}
        file.visititems(lambda path, item: found.update({path: hasattr(item, "chunks")}))
    above = [name.rsplit("/", depth)[0] for depth in range(1, name.count("/") + 1)]
    if found.get(name) is False or any(found.get(group) for group in above):
        what = "a group" if found.get(name) is False else "below a dataset"
        raise ParameterError(f"{name!r} is {what} in {url}; choose another name for the dataset")
    own = {name, *(_BESIDE if name == _MAIN else ())}
    return any(path not in own for path, is_dataset in found.items() if is_dataset)


@contextmanager
def _new_file(h5py: Any, url: str, path: Path, name: str) -> Iterator[Any]:
    """Open a new file at `path`, with all that the one at `url` holds but the dataset `name`, if it holds more."""
    others = _others(url, name)
    if others:
        shutil.copyfile(local_files.local_file(url), path)
    with h5py.File(path, "r+" if others else "w") as file:
        for old in (name, *(_BESIDE if name == _MAIN else ())):
            if old in file:
                del file[old]
        yield file


def _describe(dataset: Any, spec: VolumeSpec) -> None:
    if spec.layer_type is not None:
        dataset.attrs["layer_type"] = spec.layer_type
    if spec.channel_names:
        dataset.attrs["channel_names"] = list(spec.channel_names)
    if spec.channels is not None:
        dataset.attrs["axes"] = "czyx"
    start, size = np.array(spec.box.start, np.int64), spec.voxel_size
    if dataset.name == f"/{_MAIN}":
        dataset.parent["voxel_offset"] = start
        if size is not None:
            whole = all(length.is_integer() for length in size)
            dataset.parent["voxel_size"] = np.array(size, np.int64 if whole else np.float64)
    elif size is None:
        dataset.attrs["voxel_offset"] = start
    else:
        dataset.attrs["resolution"] = np.array(size)
        dataset.attrs["offset"] = start * np.array(size)


def _write_slab(dataset: Any, voxels: Array, z: int, compress: Callable[[Any], bytes] | None) -> None:
    """Store sections from `z` on; with gzip chunk by chunk, compressed here because ISA-L is much faster than HDF5."""
    if compress is None:
        dataset[..., z : z + voxels.shape[-3], :, :] = voxels
        return
    corners = (range(0, n, c) for n, c in zip(voxels.shape, dataset.chunks, strict=True))
    for at in itertools.product(*corners):
        part = voxels[tuple(slice(a, a + c) for a, c in zip(at, dataset.chunks, strict=True))]
        data = compress(_padded(part, dataset.chunks))
        stored = (*at[:-3], at[-3] + z, *at[-2:])
        dataset.id.write_direct_chunk(stored, data)


def _padded(part: Array, chunk: Sequence[int]) -> Array:
    if part.shape == tuple(chunk):
        return np.ascontiguousarray(part)
    return np.pad(part, [(0, c - n) for n, c in zip(part.shape, chunk, strict=True)])


def _merged(ids: Array, voxels: Array) -> Array:
    """Return the sorted non-zero ids with those of some more voxels."""
    import fastremap

    found = fastremap.unique(voxels)
    merged: Array = np.union1d(ids, found[found != 0])
    return merged
