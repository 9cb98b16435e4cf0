"""What an HDF5 file holds and where: datasets by all their names, other files that they draw on, filters they need."""

from __future__ import annotations

import functools
import importlib
import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.errors import (
    MissingChunkError,
    MissingDependencyError,
    StoreAccessError,
    StoreNotFoundError,
    UnknownFormatError,
)
from daskflow.geometry import BoundingBox
from daskflow.stores.base import NUMBERS
from daskflow.stores.local_files import file_state

_MAGIC = b"\x89HDF\r\n\x1a\n"
_PACKAGES = {
    **dict.fromkeys((307, 32001, 32004, 32008, 32013, 32015, 32017, 32018, 32024, 32026, 32028), "hdf5plugin"),
    32000: "h5py",
}


def is_hdf5(path: Path) -> bool:
    """Return whether a file is HDF5, which begins at byte 0 or, after a header such as MATLAB's, at 512, 1024, ..."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            starts = [0, *itertools.takewhile(lambda at: at < size, (512 << i for i in range(20)))]
            return any(os.pread(file.fileno(), len(_MAGIC), at) == _MAGIC for at in starts)
    except OSError:
        return False


def datasets_of(file: Any) -> tuple[dict[str, Any], list[str]]:
    """Return every dataset once, under one of its names, and the links that lead nowhere.

    Hard, soft and external links are followed; groups that contain themselves are entered once.
    """
    found: dict[str, Any] = {}
    dangling: list[str] = []
    seen: set[tuple[int, int]] = set()
    waiting = [("", file)]
    while waiting:
        path, group = waiting.pop(0)
        for name in group:
            at = f"{path}{name}"
            try:
                item = group[name]
            except (KeyError, OSError, RuntimeError):
                dangling.append(at)
                continue
            key = _identity(item)
            if key in seen:
                continue
            seen.add(key)
            if hasattr(item, "chunks"):
                found[at] = item
            elif hasattr(item, "keys"):
                waiting.append((f"{at}/", item))
    return dict(sorted(found.items())), dangling


def _identity(item: Any) -> tuple[int, int]:
    import h5py

    info = h5py.h5o.get_info(item.id)
    return info.fileno, info.addr if isinstance(info.addr, int) else hash(info.addr)


def dataset_at(file: Any, name: str, url: str) -> Any:
    """Return a dataset by any of its names, ready to be read."""
    import h5py

    try:
        item = file[name]
    except (KeyError, OSError, RuntimeError):
        item = None
    if not isinstance(item, h5py.Dataset):
        listed = ", ".join(datasets_of(file)[0]) or "none"
        raise StoreNotFoundError(f"{url} has no dataset {name!r}{_leads(file, name)}; it has {listed}")
    return item


def _leads(file: Any, name: str) -> str:
    """Return, in words, the link on the way to a name that leads nowhere, if it is one."""
    whole = name.strip("/")
    item = file
    for part in whole.split("/"):
        link: Any = None
        try:
            link = item.get(part, getlink=True)
            item = item[part]
            continue
        except (AttributeError, KeyError, OSError, RuntimeError, TypeError):
            pass
        if not hasattr(link, "path"):
            return ""
        at = f"{item.name.rstrip('/')}/{part}".strip("/")
        where = f" in {link.filename}" if hasattr(link, "filename") else ""
        folder = Path(item.file.filename).parent
        lacking = "which" if not where or (folder / link.filename).exists() else "a file that"
        return f": {'it' if at == whole else at} is a link to {link.path}{where}, {lacking} is not there"
    return ", which is a group"


def check_readable(dataset: Any, where: str) -> None:
    """Raise unless the voxels of a dataset are numbers whose filters are installed."""
    dtype = dataset.dtype
    if dtype.name not in NUMBERS:
        kind = "records (a compound type)" if dtype.names else "arrays" if dtype.subdtype else str(dtype)
        raise UnknownFormatError(
            f"{where} holds {kind}, which is not a voxel type; supported dtypes: {', '.join(NUMBERS)}"
        )
    import h5py

    pipeline = dataset.id.get_create_plist()
    for code, _, _, name in (pipeline.get_filter(i) for i in range(pipeline.get_nfilters())):
        if h5py.h5z.filter_avail(code) or _plugins_have(code):
            continue
        title = (name or b"").decode("latin-1").split(";")[0].strip() or "unnamed"
        package = _PACKAGES.get(code)
        advice = f"pip install {package}" if package else "install it and set HDF5_PLUGIN_PATH to its directory"
        raise MissingDependencyError(f"{where} is compressed by HDF5 filter {code} ({title}), not installed: {advice}")


def _plugins_have(code: int) -> bool:
    import h5py

    try:
        importlib.import_module("hdf5plugin")
    except ImportError:
        return False
    return bool(h5py.h5z.filter_avail(code))


def external_voxels(dataset: Any, url: str) -> Any:
    """Return the voxels of a dataset that keeps them in a file of its own, which must lie beside the HDF5 file.

    HDF5 would look for it in the working directory of whoever reads, and read zeros beyond its end.
    """
    where = f"{url}:{dataset.name}"
    if len(dataset.external) != 1:
        raise UnknownFormatError(f"{where} keeps its voxels in {len(dataset.external)} files, which is not read")
    folder = Path(dataset.file.filename).resolve().parent
    name, offset, _ = dataset.external[0]
    path = (folder / name).resolve()
    if path.parent != folder:
        raise StoreAccessError(
            f"{where} keeps its voxels in {name}, which is not beside the file; move it there, and rewrite the dataset"
        )
    if not path.is_file() or path.stat().st_size < offset + dataset.size * dataset.dtype.itemsize:
        raise MissingChunkError(f"{where} keeps its voxels in {path}, which is missing or too short")
    return np.memmap(path, dataset.dtype, "r", offset, dataset.shape)


@dataclass(frozen=True)
class Source:
    """A dataset, and where HDF5 looks for its file, that a virtual one takes its elements `start` to `stop` from."""

    start: tuple[int, ...]
    stop: tuple[int, ...]
    files: tuple[Path, ...]
    name: str

    @property
    def file(self) -> Path | None:
        """The file, None when it is gone."""
        return next((path for path in self.files if path.is_file()), None)


def gaps_of(dataset: Any, spatial: tuple[int, ...], box: BoundingBox) -> list[str]:
    """Return, in words, what a virtual dataset lacks in a box of its axes z, y and x, counted from its first voxel."""
    wanted = [(0, n) for n in dataset.shape]
    for axis, low, high in zip(spatial, box.start, box.stop, strict=True):
        if axis >= 0:
            wanted[axis] = (low, high)
    gaps: list[str] = []
    covered = 0
    for source in _sources(dataset):
        shared = [
            min(stop, high) - max(start, low)
            for start, stop, (low, high) in zip(source.start, source.stop, wanted, strict=True)
        ]
        if min(shared) > 0:
            covered += math.prod(shared)
            gaps += filter(None, [_lack(source)])
    if not gaps and covered < math.prod(high - low for low, high in wanted):
        return [f"parts of {dataset.name} are mapped to no file"]
    return gaps


def files_of(dataset: Any) -> list[Path]:
    """Return the other files that the voxels of a dataset come from."""
    folder = Path(dataset.file.filename).resolve().parent
    found = {folder / name for name, _, _ in dataset.external or ()}
    if dataset.is_virtual:
        found |= {source.file or source.files[0] for source in _sources(dataset)}
    return sorted(found)


def _sources(dataset: Any) -> Iterator[Source]:
    own = Path(dataset.file.filename)
    for entry in dataset.virtual_sources():
        start, stop = _bounds(entry.vspace, dataset.shape)
        blocks = _blocks(entry, dataset.shape) if "%b" in entry.file_name + entry.dset_name else [(start, stop, None)]
        for low, high, number in blocks:
            file, name = (_printed(text, number) for text in (entry.file_name, entry.dset_name))
            yield Source(low, high, _places(own, file), name)


def _bounds(space: Any, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the bounds of a selection, of which an unlimited one reaches to the end of the dataset."""
    import h5py

    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS:
        return (0,) * len(shape), shape
    if space.is_regular_hyperslab():
        start, stride, count, block = space.get_regular_hyperslab()
        ends = (
            n if h5py.h5s.UNLIMITED in (c, b) else s + (c - 1) * t + b
            for s, t, c, b, n in zip(start, stride, count, block, shape, strict=True)
        )
        return tuple(start), tuple(ends)
    low, high = space.get_select_bounds()
    return tuple(low), tuple(n + 1 for n in high)


def _blocks(entry: Any, shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], int | None]]:
    """Yield the bounds and number of every block of a mapping to files that are numbered by ``%b``."""
    import h5py

    start, stride, count, block = entry.vspace.get_regular_hyperslab()
    axis = next((i for i, n in enumerate(count) if n == h5py.h5s.UNLIMITED), 0)
    number = max(1, math.ceil((shape[axis] - start[axis]) / stride[axis]))
    for i in range(number):
        low = tuple(s + (i * stride[axis] if d == axis else 0) for d, s in enumerate(start))
        yield low, tuple(a + b for a, b in zip(low, block, strict=True)), i


def _printed(text: str, number: int | None) -> str:
    return (text if number is None else text.replace("%b", str(number))).replace("%%", "%")


def _places(own: Path, name: str) -> tuple[Path, ...]:
    """Return where HDF5 looks for the file of a virtual dataset's source."""
    if name == ".":
        return (own,)
    prefix = os.environ.get("HDF5_VDS_PREFIX", "")
    folders = [Path(prefix.replace("${ORIGIN}", str(own.parent)))] if prefix else []
    folders += [own.parent, Path(), own.resolve().parent]
    absolute = (Path(name),) if Path(name).is_absolute() else ()
    return (*absolute, *(folder / (Path(name).name if absolute else name) for folder in folders))


def _lack(source: Source) -> str:
    """Return, in words, what a source of a virtual dataset lacks, "" when it is whole."""
    path = source.file
    return f"{source.files[0]} is missing" if path is None else _lack_in(path, source.name, **file_state(path))


@functools.lru_cache(maxsize=4096)
def _lack_in(path: Path, name: str, size: int, mtime_ns: int) -> str:  # noqa: ARG001 (another file is another key)
    import h5py

    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            dataset = file.get(name)
            if not isinstance(dataset, h5py.Dataset):
                return f"{path} has no dataset {name!r}"
            if dataset.is_virtual:
                return next(filter(None, map(_lack, _sources(dataset))), "")
            return "" if is_whole(dataset) else f"chunks of {name} in {path} were never written"
    except OSError as error:
        return f"{path} cannot be read: {error}"


def is_whole(dataset: Any) -> bool:
    """Return whether every chunk of a dataset was written; counting them can take long in a large file."""
    if dataset.chunks is None:
        return bool(dataset.id.get_storage_size() or dataset.external or not dataset.size)
    chunks = (math.ceil(n / c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    return bool(dataset.id.get_num_chunks() == math.prod(chunks))
