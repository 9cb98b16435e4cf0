"""Find the format of a location, open it, or create it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import pkgutil
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from daskflow.config import meant
from daskflow.errors import DaskflowError, ParameterError, StoreNotFoundError, UnknownFormatError
from daskflow.geometry import BoundingBox, LayerType, VolumeSpec, as_voxel_size, as_zyx
from daskflow.plugins import entry_points
from daskflow.stores import kvstore
from daskflow.stores.base import MOST_MEMBERS, Layout, Member, Opened, Opening, ReadBox, Store

_PREFIX = re.compile(r"([a-z0-9_-]+)://(.*)", re.DOTALL)


class Format(NamedTuple):
    """One format: how a location of it is named, and what reads it, which is imported when it is needed.

    A package adds one by an entry point in ``daskflow.stores`` that is a `Format`.

    Attributes:
        name: as in ``format="precomputed"`` and in the prefix ``precomputed://``.
        store_class: ``module:class`` of its stores, which says all else, as `Store` describes it.
        suffixes: endings of names that mean this format, with the dot; the longest wins;
            "" takes what nobody claims when writing.
        rank: among formats that recognise the same location, the lowest is asked first.
        prefixes: further names accepted before ``://``.
        datasets: whether ``file.suffix:dataset`` names an array inside the file.
    """

    name: str
    store_class: str
    suffixes: tuple[str, ...] = ()
    rank: int = 50
    prefixes: tuple[str, ...] = ()
    datasets: bool = False

    @property
    def store(self) -> type[Store]:
        """Class of its stores."""
        found: type[Store] = pkgutil.resolve_name(self.store_class)
        return found


_FORMATS = (
    Format("precomputed", "daskflow.stores.precomputed:PrecomputedStore", ("",), rank=10),
    Format("ome-zarr", "daskflow.stores.ome_zarr:OmeZarr", (".zarr",), rank=30, prefixes=("zarr",)),
    Format("ome-zarr-0.4", "daskflow.stores.ome_zarr:OmeZarr04", rank=31),
    Format("zarr3", "daskflow.stores.zarr_arrays:Zarr3", rank=40),
    Format("zarr2", "daskflow.stores.zarr_arrays:Zarr2", rank=41),
    Format("n5", "daskflow.stores.n5:N5Store", (".n5",), rank=45),
    Format("graphene", "daskflow.stores.graphene:GrapheneStore", rank=90),
    Format(
        "hdf5", "daskflow.stores.hdf5:Hdf5Store", (".h5", ".hdf5", ".hdf"), rank=60, prefixes=("h5",), datasets=True
    ),
    Format("npy", "daskflow.stores.npy:NpyStore", (".npy",), rank=60),
    Format("nifti", "daskflow.stores.nifti:NiftiStore", (".nii", ".nii.gz"), rank=61),
    Format("nrrd", "daskflow.stores.nrrd:NrrdStore", (".nrrd",), rank=61),
    Format("crackle", "daskflow.stores.crackle_file:CrackleFile", (".ckl",), rank=61),
    Format("png", "daskflow.stores.png:PngStore", (".png",), rank=62),
    Format("tiff", "daskflow.stores.tiff:TiffStore", (".tif", ".tiff"), rank=70, prefixes=("tif",)),
)


@functools.cache
def formats() -> tuple[Format, ...]:
    """Return every format by rank: those of this package and of entry points."""
    added = (point.load() for point in entry_points("daskflow.stores"))
    return tuple(sorted((*_FORMATS, *added), key=lambda f: (f.rank, f.name)))


def format_named(name: str) -> Format:
    """Return the format of that name.

    Raises:
        ParameterError: there is none; the message lists those there are.
    """
    for candidate in formats():
        if name in (candidate.name, *candidate.prefixes):
            return candidate
    names = [candidate.name for candidate in formats()]
    raise ParameterError(f"unknown format {name!r}{meant(name, names)}; known formats: {', '.join(names)}")


def open_store(
    url: str | os.PathLike[str],
    *,
    mip: int = 0,
    fill_missing: bool = False,
    format: str | None = None,  # noqa: A002 (the word people use)
    dataset: str | None = None,
    voxel_size: Sequence[float] | None = None,
    voxel_offset: Sequence[int] | None = None,
    layer_type: LayerType | None = None,
    axes: str | None = None,
    time: int | None = None,
) -> Store:
    """Open what is stored at a URL or path, in whatever format it is.

    Args:
        url: location; a prefix such as ``precomputed://`` or ``zarr://`` or `format` states the format.
        mip: level, 0 is the finest; -1 is the coarsest that is there, -2 the one before.
        fill_missing: read chunks that were never written as zeros, and count them.
        format: name of the format, to skip looking.
        dataset: array inside a file that holds several; also ``file.h5:dataset``.
        voxel_size: nm (zyx), for files that do not say.
        voxel_offset: global coordinates of the first voxel (zyx), for files that do not say.
        layer_type: meaning of the voxels, for files that do not say.
        axes: names of the stored axes, e.g. ``zyxc``, for files that do not say.
        time: point of a time axis, from 0.

    Raises:
        StoreNotFoundError: nothing is there, or not that mip.
        UnknownFormatError: what is there is in no known format.
    """
    stated, rest = split_prefix(os.fspath(url), format)
    rest, inside = split_dataset(rest)
    location = kvstore.normalise(rest)
    if stated is None:
        stated = recognise(location)
    opening = Opening(
        mip=max(mip, 0),
        fill_missing=fill_missing,
        dataset=dataset or inside,
        voxel_size=None if voxel_size is None else as_voxel_size(voxel_size),
        voxel_offset=None if voxel_offset is None else as_zyx(voxel_offset, name="voxel_offset"),
        layer_type=layer_type,
        axes=axes,
        time=time,
    )
    store = reopen(Opened(stated.name, location, opening))
    return store if mip >= 0 else _counted_back(store, mip)


def find_store(url: str | os.PathLike[str], **how: Any) -> Store | None:
    """Return what `open_store` opens, None where nothing is stored; `how` as there."""
    try:
        return open_store(url, **how)
    except StoreNotFoundError:
        return None


def _counted_back(store: Store, mip: int) -> Store:
    """Return the level that a negative mip means, which is counted back from the end of those that are there."""
    assert store.opened is not None
    level = len(store.mips) + mip
    if level < 0:
        raise StoreNotFoundError(f"{kvstore.redact(store.url)} has no mip {mip}; it has {len(store.mips)} mips")
    return reopen(dataclasses.replace(store.opened, opening=dataclasses.replace(store.opened.opening, mip=level)))


def reopen(opened: Opened) -> Store:
    """Open a store again as it once was."""
    store = format_named(opened.format).store.open(opened.url, opened.opening)
    store.opened = opened
    return store


@functools.lru_cache(maxsize=64)
def open_level(url: str, *, format: str, mip: int, token: str) -> Store:  # noqa: A002, ARG001 (a key of the cache)
    """Open a level that was created before, once per process while it is in use; nothing is created.

    Args:
        url: the layer.
        format: name of its format.
        mip: the level.
        token: what changes when the layer is recreated, e.g. of a run of a job; the same token gives the same store.

    Raises:
        StoreNotFoundError: there is no such level.
    """
    return open_store(url, mip=mip, format=format)


def create_store(
    url: str | os.PathLike[str],
    spec: VolumeSpec,
    *,
    mip: int = 0,
    format: str | None = None,  # noqa: A002
    layout: Layout | None = None,
) -> Store:
    """Create one mip of a layer that many writers may fill chunk by chunk, or open it when it is there and agrees.

    The store's spec has the chunk and shard that were chosen. Other mips and unknown metadata survive.

    Raises:
        MetadataMismatchError: the mip exists and differs; the message shows how.
        ParameterError: the format cannot hold the dtype or layout, or is not a format of chunks.
    """
    target, rest = target_format(url, format)
    if not target.store.of_chunks:
        raise ParameterError(
            f"{target.name} files are written whole by one writer, not chunk by chunk: {kvstore.redact(rest)}"
        )
    location = kvstore.normalise(rest)
    store = target.store.create(location, spec, mip, layout or Layout())
    store.opened = Opened(target.name, location, Opening(mip=mip))
    return store


def write_file(
    url: str | os.PathLike[str],
    spec: VolumeSpec,
    read: ReadBox,
    *,
    format: str | None = None,  # noqa: A002
    layout: Layout | None = None,
    dataset: str | None = None,
) -> None:
    """Write a file of a format that one writer makes whole, slab by slab from `read`.

    Args:
        url: the file; also ``file.h5:dataset``.
        spec: what it will hold.
        read: gives the voxels of a box.
        format: name of the format, to override the ending.
        layout: compression, and chunk where the format has chunks.
        dataset: name inside a file that holds several; the others stay as they are.

    Raises:
        ParameterError: the format is one of chunks, or cannot hold what is asked.
        StoreAccessError: the place cannot be written.
    """
    target, location, inside = _target_file(url, format, dataset)
    target.store.check_file(location, spec, layout or Layout(), inside)
    target.store.write_file(location, spec, read, layout or Layout(), inside)


def check_file(
    url: str | os.PathLike[str],
    spec: VolumeSpec,
    *,
    format: str | None = None,  # noqa: A002
    layout: Layout | None = None,
    dataset: str | None = None,
) -> None:
    """Raise what is known to make `write_file` fail with the same arguments; nothing is written.

    Raises:
        ParameterError: the format is one of chunks, or cannot hold the dtype, layout or dataset.
        StoreAccessError: the place is not on a local disk, or cannot be written.
        MissingDependencyError: a package that writes the format is not installed.
    """
    target, location, inside = _target_file(url, format, dataset)
    target.store.check_file(location, spec, layout or Layout(), inside)


def _target_file(
    url: str | os.PathLike[str],
    format: str | None,  # noqa: A002
    dataset: str | None,
) -> tuple[Format, str, str | None]:
    """Return the format of a new file, its normalised URL and the dataset in it."""
    target, rest = target_format(url, format)
    if target.store.of_chunks:
        raise ParameterError(f"{target.name} is written chunk by chunk, not as one file: {kvstore.redact(rest)}")
    rest, inside = split_dataset(rest)
    inside = dataset or inside
    if inside is not None and not target.datasets:
        raise ParameterError(f"{target.name} files hold one array; drop dataset={inside!r}")
    return target, kvstore.normalise(rest), inside


def target_format(url: str | os.PathLike[str], format: str | None = None) -> tuple[Format, str]:  # noqa: A002
    """Return the format that a new layer gets, by prefix, `format` or suffix, and the URL without the prefix.

    Raises:
        ParameterError: the format that is stated is only read.
        UnknownFormatError: no format that is written claims the suffix.
    """
    stated, rest = split_prefix(os.fspath(url), format)
    asked = by_suffix(split_dataset(rest)[0], default=True) if stated is None else [stated]
    claims = [f for f in asked if f.store.written]
    if claims:
        return claims[0], rest
    named = ", ".join(f.name for f in formats() if f.store.written)
    if stated is not None:
        raise ParameterError(f"{stated.name} is only read; write {kvstore.redact(rest)} in one of {named}")
    raise UnknownFormatError(f"no format writes {kvstore.redact(rest)}; name one of {named}")


def split_prefix(url: str, stated: str | None = None) -> tuple[Format | None, str]:
    """Return the format that a prefix such as ``zarr://`` (or `stated`) names, if any, and the rest of the URL.

    Raises:
        ParameterError: the prefix and `stated` name two formats.
    """
    named = None if stated is None else format_named(stated)
    match = _PREFIX.fullmatch(url)
    if match is None or match[1] in kvstore.SCHEMES:
        return named, url
    prefixed = format_named(match[1])
    if named is not None and named is not prefixed:
        raise ParameterError(f"{kvstore.redact(url)} says {prefixed.name}, format= says {named.name}; drop one of them")
    return prefixed, match[2]


def split_dataset(url: str) -> tuple[str, str | None]:
    """Split ``file.h5:volumes/raw`` into the file's URL and the dataset; other URLs come back whole, with None."""
    endings = "|".join(re.escape(s) for f in formats() if f.datasets for s in f.suffixes)
    match = re.fullmatch(rf"(.*(?:{endings})):([^:]+)", url, re.DOTALL) if endings else None
    return (match[1], match[2]) if match else (url, None)


def file_of(url: str | os.PathLike[str], format: str, box: BoundingBox) -> str:  # noqa: A002
    """Return the file that a task of `box` reads or writes: `url`, if it ends as files of the format do.

    What does not is a prefix: ``out/seg_`` becomes ``out/seg_0-64_0-512_0-512.h5``, as chunkflow names files.
    """
    suffixes = format_named(format).suffixes
    path = os.fspath(url)
    return path if split_dataset(path)[0].lower().endswith(suffixes) else f"{path}{box}{suffixes[0]}"


def begins_with_box(path: str, box: BoundingBox) -> str:
    """Return how the file of a task of `box` is called, but for its ending, in a directory or after a prefix."""
    local = kvstore.local_path(kvstore.normalise(path))
    within = local is not None and local.is_dir() and not path.endswith("/")
    return f"{path}/{box}" if within else f"{path}{box}"


def by_suffix(url: str, *, default: bool = False) -> list[Format]:
    """Return the formats that claim the ending of a URL, those with the longest suffix, by rank."""
    name = url.rstrip("/").lower()
    lengths = {
        f: max((len(s) for s in f.suffixes if name.endswith(s) and (s or default)), default=-1) for f in formats()
    }
    longest = max(lengths.values(), default=-1)
    return [f for f, length in lengths.items() if length == longest >= 0]


def recognise(location: str) -> Format:
    """Return the format of what is stored at a normalised URL: by suffix where content agrees, then by content.

    Raises:
        StoreNotFoundError: nothing is there.
        UnknownFormatError: no format recognises it.
    """
    likely = by_suffix(location)
    for candidate in (*likely, *(f for f in formats() if f not in likely)):
        if candidate.store.recognises(location):
            return candidate
    path = kvstore.local_path(location)
    if not (path.exists() if path is not None else kvstore.exists(location)):
        raise kvstore.missing(location)
    names = ", ".join(f.name for f in formats())
    raise UnknownFormatError(f"{kvstore.redact(location)} is in no known format ({names}); name one with format=")


def members_of(location: str) -> tuple[Member, ...]:
    """Return what a file or group at a normalised URL holds, at most 1000; nothing of one array or of damage."""
    with contextlib.suppress(DaskflowError, AttributeError, KeyError, TypeError, ValueError):
        return tuple(itertools.islice(recognise(location).store.members(location), MOST_MEMBERS))
    return ()
