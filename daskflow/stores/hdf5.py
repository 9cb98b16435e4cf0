"""HDF5 files: chunkflow's layout (``main``), CREMI's (``volumes/raw``), or any dataset by its path."""

from __future__ import annotations

import functools
import itertools
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.errors import (
    CorruptChunkError,
    GeometryError,
    MissingChunkError,
    MissingDependencyError,
    ParameterError,
    StoreAccessError,
    StoreError,
    StoreNotFoundError,
    UnknownFormatError,
)
from daskflow.geometry import LAYER_TYPES, BlockGrid, BoundingBox, LayerType, VolumeSpec, Zyx
from daskflow.stores import kvstore
from daskflow.stores.base import Array, Format, Layout, Opening, ReadBox, Store, check_mip, refuse_cast
from daskflow.stores.counting import count
from daskflow.stores.local_files import (
    NUMBERS,
    FileStore,
    begins_with,
    check_place,
    deflate,
    file_state,
    local_file,
    refuse_layout,
    replacing,
    slabs,
)
from daskflow.stores.placement import whole_voxels

_SUFFIXES = (".h5", ".hdf5", ".hdf")
_MAGIC = b"\x89HDF\r\n\x1a\n"
_MAIN = "main"
_BESIDE = ("voxel_offset", "voxel_size", "unique_nonzeros")
_DEFAULT_CHUNK: Zyx = (64, 64, 64)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingDependencyError.of("h5py", "hdf5") from None
    return h5py


@functools.lru_cache(maxsize=16)
def _handle(path: Path, size: int, mtime_ns: int) -> Any:  # noqa: ARG001 (another file under the same name is another handle)
    return _h5py().File(path, "r", locking="best-effort")


@contextmanager
def _file(url: str) -> Iterator[Any]:
    """Give the one handle that this process has of a file; h5py itself lets one thread at a time use it."""
    path = local_file(url)
    try:
        yield _handle(path, **file_state(path))
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

    def __init__(self, url: str, spec: VolumeSpec, dataset: str, *, fill_missing: bool = False) -> None:
        super().__init__(url, spec, fill_missing=fill_missing)
        self.dataset = dataset

    def _read(self, box: BoundingBox) -> Array:
        with _file(self.url) as file:
            dataset = file[self.dataset]
            self._check_written(dataset, box)
            voxels = np.asarray(dataset[(..., *box.slices(self.spec.box))])
        return np.ascontiguousarray(voxels, self.spec.dtype)

    def _check_written(self, dataset: Any, box: BoundingBox) -> None:
        """Raise, or count, when HDF5 would make up chunks that were never written."""
        path = self.path
        missing = 0 if _is_whole(path, **file_state(path), name=self.dataset) else _missing(dataset, box, self.spec)
        if missing and not self.fill_missing:
            raise MissingChunkError(
                f"{missing} chunks of {self.url}:{self.dataset} in box {box} were never written; "
                "fill_missing reads such chunks as the fill value"
            )
        if missing:
            count("missing_chunks", missing)

    def fingerprint(self) -> dict[str, Any]:
        """Return the location, dataset, and the size and time of the file."""
        return {**super().fingerprint(), "dataset": self.dataset}


@functools.lru_cache(maxsize=64)
def _is_whole(path: Path, size: int, mtime_ns: int, name: str) -> bool:
    """Return whether every chunk of a dataset was written; counting them can take long in a large file."""
    dataset = _handle(path, size, mtime_ns)[name]
    if dataset.chunks is None:
        return bool(dataset.id.get_storage_size() or dataset.external or dataset.is_virtual)
    chunks = (math.ceil(n / c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    return bool(dataset.id.get_num_chunks() == math.prod(chunks))


def _missing(dataset: Any, box: BoundingBox, spec: VolumeSpec) -> int:
    """Return how many chunks of a box were never written; 1 for the whole of a dataset without chunks."""
    if dataset.chunks is None:
        return 1
    lead = [math.ceil(n / c) for n, c in zip(dataset.shape[:-3], dataset.chunks[:-3], strict=True)]
    chunk = dataset.chunks[-3:]
    origin = spec.box.start
    corners = [piece.align(chunk, origin).shift([-o for o in origin]).start for piece in BlockGrid(box, chunk, origin)]
    channels = [(c * dataset.chunks[0],) for c in range(lead[0])] if lead else [()]
    addresses = (dataset.id.get_chunk_info_by_coord((*c, *at)).byte_offset for c in channels for at in corners)
    return sum(address is None for address in addresses)


def open_hdf5(url: str, opening: Opening) -> Store:
    """Open a dataset of an HDF5 file; without `dataset` that is ``main``, or the only one that can be a volume.

    What `opening` states wins over the file.

    Raises:
        StoreNotFoundError: there is no such file or dataset.
        ParameterError: several datasets could be meant; the message lists them.
        GeometryError: the dataset has neither three nor four axes.
        UnknownFormatError: it holds no numbers.
    """
    check_mip(opening.mip, 1, url)
    with _file(url) as file:
        name = _choose(file, opening.dataset, url)
        dataset = file[name]
        if dataset.ndim not in (3, 4):
            raise GeometryError(f"{url}:{name} has {dataset.ndim} axes {dataset.shape}; a volume has zyx or czyx")
        if dataset.dtype.kind not in "biuf":
            raise UnknownFormatError(f"{url}:{name} holds {dataset.dtype}, which is no voxel type")
        voxel_size = opening.voxel_size or _voxel_size(dataset)
        channels = None if dataset.ndim == 3 else dataset.shape[0]
        names = tuple(str(name) for name in dataset.attrs.get("channel_names", ()))
        spec = VolumeSpec(
            BoundingBox.from_size(opening.voxel_offset or _offset(dataset, f"{url}:{name}"), dataset.shape[-3:]),
            dataset.dtype.newbyteorder("="),
            channels=channels,
            voxel_size=voxel_size,
            chunk=dataset.chunks and dataset.chunks[-3:],
            layer_type=opening.layer_type or _layer_type(dataset),
            channel_names=names if len(names) == (channels or 1) else (),
        )
    return Hdf5Store(url, spec, name, fill_missing=opening.fill_missing)


def _choose(file: Any, stated: str | None, url: str) -> str:
    found: dict[str, Any] = {}
    file.visititems(lambda name, item: found.update({name: item}) if hasattr(item, "chunks") else None)
    if stated is not None:
        name = stated.strip("/")
        if name in found:
            return name
        raise StoreNotFoundError(f"{url} has no dataset {stated!r}; it has {', '.join(found) or 'none'}")
    volumes = [name for name, item in found.items() if item.ndim in (3, 4) and item.dtype.kind in "biuf"]
    if _MAIN in volumes:
        return _MAIN
    if len(volumes) != 1:
        listed = ", ".join(f"{name} {found[name].shape}" for name in volumes or found) or "none"
        raise ParameterError(f"{url} has no dataset 'main'; choose one with dataset= or {url}:<name> among: {listed}")
    return volumes[0]


def _three(values: Any) -> tuple[float, float, float] | None:
    numbers = np.asarray(values, float).ravel() if values is not None else np.empty(0)
    if len(numbers) != 3:
        return None
    z, y, x = map(float, numbers)
    return z, y, x


def _beside(dataset: Any, name: str) -> tuple[float, float, float] | None:
    """Return three numbers in the dataset `name` of the same group, as chunkflow places them."""
    group = dataset.parent
    return _three(group[name][()]) if name in group and hasattr(group[name], "chunks") else None


def _voxel_size(dataset: Any) -> tuple[float, float, float] | None:
    return _three(dataset.attrs.get("resolution")) or _beside(dataset, "voxel_size")


def _offset(dataset: Any, where: str) -> Zyx:
    """Return the voxel offset: chunkflow's is in voxels, CREMI's is physical."""
    voxels: tuple[float, ...] | None = _three(dataset.attrs.get("voxel_offset")) or _beside(dataset, "voxel_offset")
    physical, size = _three(dataset.attrs.get("offset")), _voxel_size(dataset)
    if voxels is None and physical is not None:
        voxels = tuple(p / s for p, s in zip(physical, size or (1.0, 1.0, 1.0), strict=True))
    return whole_voxels(voxels or (0.0, 0.0, 0.0), where)


def _layer_type(dataset: Any) -> LayerType | None:
    stated = dataset.attrs.get("layer_type")
    stated = stated.decode() if isinstance(stated, bytes) else stated
    in_labels = "/labels/" in dataset.name
    return next((known for known in LAYER_TYPES if known == stated), "segmentation" if in_labels else None)


def check_hdf5(url: str, spec: VolumeSpec, layout: Layout, dataset: str | None) -> None:
    """Raise what is known to make `write_hdf5` fail.

    Raises:
        ParameterError: a dtype, shard or compression that is not written, a dataset where a group is, or an empty
            volume.
        StoreAccessError: the place cannot be written.
        CorruptChunkError: the file exists and is damaged.
        MissingDependencyError: h5py is not installed.
    """
    _h5py()
    refuse_layout(layout, ("shard",), "HDF5")
    level = _gzip_level(layout)
    if level is not None:
        deflate(level)
    refuse_cast(spec.dtype, NUMBERS, "an HDF5 file")
    next(slabs(spec))
    check_place(url)
    _others(url, (dataset or _MAIN).strip("/"))


def _others(url: str, name: str) -> bool:
    """Return whether a file exists that holds other datasets than `name` and what is written beside it.

    Raises:
        ParameterError: `name` is a group there, or goes through a dataset.
    """
    if not begins_with(url, (_MAGIC,)):
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


def write_hdf5(url: str, spec: VolumeSpec, read: ReadBox, layout: Layout, dataset: str | None) -> None:
    """Write a volume to an HDF5 file, slab by slab; the file appears when it is whole and replaces an older one.

    The dataset is ``main``, with ``voxel_offset`` and ``voxel_size`` beside it, as chunkflow has them; another one has
    the attributes `resolution` and `offset`, as CREMI has them. A segmentation gets ``unique_nonzeros``. Chunks are
    compressed by gzip (ISA-L) unless the layout says none. Other datasets of the older file are kept.

    Raises:
        ParameterError: an unknown compression, or an empty volume.
        StoreAccessError: the place cannot be written.
    """
    check_hdf5(url, spec, layout, dataset)
    name = (dataset or _MAIN).strip("/")
    level = _gzip_level(layout)
    compress = None if level is None else deflate(level)
    z, y, x = (min(c, s) for c, s in zip(layout.chunk or spec.chunk or _DEFAULT_CHUNK, spec.box.shape, strict=True))
    ids = np.zeros(0, spec.dtype) if spec.layer_type == "segmentation" and name == _MAIN else None
    parts = slabs(spec, z or 1)
    first = next(parts)
    h5py = _h5py()
    with replacing(local_file(url)) as path, _new_file(h5py, url, path, name) as file:
        chunk = (*(() if spec.channels is None else (1,)), z, y, x)
        options = {} if level is None else {"compression": "gzip", "compression_opts": level}
        made = file.create_dataset(name, spec.shape, spec.dtype, chunks=chunk, **options)
        _describe(made, spec)
        for box in itertools.chain([first], parts):
            voxels = read(box)
            _write_slab(made, voxels, box.start[0] - spec.box.start[0], compress)
            ids = None if ids is None else _merged(ids, voxels)
        if ids is not None:
            file.create_dataset("unique_nonzeros", data=ids)


@contextmanager
def _new_file(h5py: Any, url: str, path: Path, name: str) -> Iterator[Any]:
    """Open a new file at `path`, with all that the one at `url` holds but the dataset `name`, if it holds more."""
    others = _others(url, name)
    if others:
        shutil.copyfile(local_file(url), path)
    with h5py.File(path, "r+" if others else "w") as file:
        for old in (name, *(_BESIDE if name == _MAIN else ())):
            if old in file:
                del file[old]
        yield file


def _gzip_level(layout: Layout) -> int | None:
    name = layout.compression or layout.encoding or "gzip"
    if name in ("none", "raw"):
        return None
    if name != "gzip":
        raise ParameterError(f"HDF5 files are compressed by gzip or none; got {name!r}")
    return 1 if layout.quality is None else layout.quality


def _describe(dataset: Any, spec: VolumeSpec) -> None:
    if spec.layer_type is not None:
        dataset.attrs["layer_type"] = spec.layer_type
    if spec.channel_names:
        dataset.attrs["channel_names"] = list(spec.channel_names)
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


FORMAT = Format(
    name="hdf5",
    open=open_hdf5,
    recognises=functools.partial(begins_with, magics=(_MAGIC,)),
    suffixes=_SUFFIXES,
    rank=60,
    prefixes=("h5",),
    write_file=write_hdf5,
    check_file=check_hdf5,
    datasets=True,
)
