"""Removing parts of a layer: levels, boxes of chunks, meshes, skeletons; first what that takes away, then doing it.

The directories of the jobs that wrote what is removed go as well: their ledgers would say that it is done.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from daskflow.config import format_bytes
from daskflow.errors import AlignmentError, ParameterError, StoreAccessError
from daskflow.geometry import BoundingBox
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.lock import Lease
from daskflow.jobs.outputs import forget, jobs_of, leased
from daskflow.stores import Store, kvstore
from daskflow.stores.objects.files import sized_names
from daskflow.stores.objects.layer_objects import object_directory
from daskflow.stores.opening import open_store, split_prefix
from daskflow.volume.stage import Output

_THREADS = 16
_AT_ONCE = 4096


@dataclass(frozen=True)
class Part:
    """Some objects that go together: how many, and their bytes, which are 0 in a bucket, where listings do not say.

    `list` gives their URLs; the `directory` goes as well when nothing else is in it.
    """

    name: str
    directory: str
    count: int
    size: int
    list: Callable[[], Iterator[str]]


@dataclass(frozen=True)
class Removal:
    """What would be removed from a layer; nothing is before `run`.

    Attributes:
        parts: what goes.
        keys: of the info that go: mesh, skeletons.
        mips: whose entries in the info go.
        jobs: URLs of the directories of the jobs that wrote the parts.
        outputs: the parts, as jobs state what they make.
    """

    url: str
    parts: tuple[Part, ...]
    keys: tuple[str, ...] = ()
    mips: tuple[int, ...] = ()
    jobs: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()

    @property
    def count(self) -> int:
        """Objects in all."""
        return sum(part.count for part in self.parts)

    def __str__(self) -> str:
        local = kvstore.local_path(self.url) is not None
        width = max(len(part.name) for part in self.parts)
        lines = [f"to be removed from {kvstore.redact(self.url)}:"]
        for part in self.parts:
            size = f", {format_bytes(part.size)}" if local else ""
            lines.append(f"  {part.name.ljust(width)}  {part.count:,} file{'s' * (part.count != 1)}{size}")
        gone = [*(f"its key {key}" for key in self.keys), *(f"its entry of mip {mip}" for mip in self.mips)]
        if not self._whole:
            lines.append(f"  of the info: {', '.join(gone) or 'nothing'}")
        for job in self.jobs:
            others = [one for one in JobDirectory(job).outputs if not any(map(one.clashes, self.outputs))]
            kept = f", which also wrote {', '.join(dict.fromkeys(map(str, others)))}" if others else ""
            lines.append(f"  record of the job that wrote it: {kvstore.redact(job)}{kept}")
        return "\n".join(lines)

    @property
    def _whole(self) -> bool:
        return any(one.kind == "layer" for one in self.outputs)

    def run(self) -> int:
        """Remove it, the info's entries first, so that no reader is sent where nothing is; return how many objects."""
        with ExitStack() as leases:
            leases.enter_context(leased(JobDirectory(f"{self.url}.removal.daskflow"), self.outputs))
            for job in self.jobs:
                leases.enter_context(Lease(JobDirectory(job).lock))
            for job in self.jobs:
                JobDirectory(job).clear()
            removed = self._remove()
            for job in self.jobs:
                forget(JobDirectory(job))
        return removed

    def _remove(self) -> int:
        if self.keys or self.mips:
            open_store(self.url).forget(self.mips, self.keys)
        removed = 0
        with ThreadPoolExecutor(_THREADS) as pool:
            for part in self.parts:
                listed = part.list()
                while urls := list(itertools.islice(listed, _AT_ONCE)):  # which go before the listing goes on
                    deque(pool.map(kvstore.delete, urls), maxlen=0)
                    removed += len(urls)
                _drop_empty(part.directory)
        return removed


def plan_removal(
    url: str,
    *,
    mips: Sequence[int] = (),
    box: BoundingBox | None = None,
    mesh: bool = False,
    skeletons: bool = False,
    forget: bool = False,
) -> Removal:
    """Return what a removal would take away: all of a layer, with the jobs that made it, unless a part is named.

    Args:
        url: of a precomputed, zarr or OME-Zarr layer; whole, of anything that was saved. Links are followed to
            it, never from inside it.
        mips: levels whose chunks go. The info keeps their entries, so that they can be written again.
        box: only chunks inside this box (zyx), in voxels of the finest of `mips`.
        mesh: the directory of meshes, and the info's key.
        skeletons: the directory of skeletons, and the info's key.
        forget: take the levels out of the info too; they must be the coarsest, and not all.

    Raises:
        ParameterError: a level is not there, or what `forget` or `box` cannot do.
        AlignmentError: the box cuts chunks; the message names the nearest that does not.
        StoreNotFoundError: there is no layer, or none of the objects.
    """
    place = kvstore.resolved(split_prefix(url)[1])
    if not (mips or mesh or skeletons or forget or box is not None):
        return _plan_whole(place)
    store = open_store(place)
    levels = _chosen(store.levels(), sorted(set(mips)), store.url)
    if (box is not None or forget) and not levels:
        raise ParameterError("a box, and what to forget, need the mips they are about")
    if forget:
        _check_forgettable(store, [level.mip for level in levels], whole=box is None)
    parts = [_level_part(level, None if box is None else _box_of(level, levels[0], box)) for level in levels]
    if box is not None:
        _check_box(levels[0], box)
    keys = [key for key, chosen in (("mesh", mesh), ("skeletons", skeletons)) if chosen]
    if keys and not store.encloses:
        raise ParameterError(f"{kvstore.redact(store.url)} is not a precomputed layer, and has no meshes or skeletons")
    parts += [_directory_part(store, key) for key in keys]
    forgotten = tuple(level.mip for level in levels) if forget else ()
    gone = [Output(store.url, "level", mip=level.mip).placed() for level in levels]
    gone += [Output(object_directory(store.url, key), key, layer=store.url).placed() for key in keys]
    return Removal(store.url, tuple(parts), tuple(keys), forgotten, *_jobs(store.url, gone))


def _plan_whole(layer: str) -> Removal:
    """Return the removal of all that is in a layer, or of a file, with the jobs that made it or parts of it."""
    path = kvstore.local_path(layer)
    gone = [Output(layer, "layer").placed()]
    jobs = _jobs(layer, gone)
    if not jobs[0]:
        open_store(layer)  # raises where there is no volume: nothing else is removed whole
    if path is not None and not path.exists() and not jobs[0]:
        raise ParameterError(f"{kvstore.redact(layer)} is a part of a file; name the file to remove it")
    if path is not None and path.is_file():
        parts = [_part(path.name, layer, lambda: iter([(layer, path.stat().st_size)]))]
    else:
        parts = [_part("all that is in it", layer, lambda: _all_in(layer))]
    beside = f"{layer}.provenance.json"
    if kvstore.exists(beside):
        parts.append(_part("provenance", beside, lambda: iter([(beside, len(kvstore.read_bytes(beside) or b""))])))
    return Removal(layer, tuple(parts), (), (), *jobs)


def _all_in(url: str) -> Iterator[tuple[str, int]]:
    """Yield the URLs and bytes of all below a URL; links on a local disk are not followed, but go."""
    path = kvstore.local_path(url)
    if path is None:
        yield from ((f"{url}/{name}", 0) for name in kvstore.list_names(url))
        return
    for folder, below, names in os.walk(path):
        for name in [*names, *(one for one in below if Path(folder, one).is_symlink())]:
            file = Path(folder, name)
            yield f"file://{file}", file.lstat().st_size


def _jobs(layer: str, gone: Sequence[Output]) -> tuple[tuple[str, ...], tuple[Output, ...]]:
    """Return the directories of the jobs that made some of a layer, and what they made that is to go."""
    homes = [home for home in jobs_of(layer) if any(one.clashes(other) for one in home.outputs for other in gone)]
    return tuple(home.url for home in homes), tuple(gone)


def _chosen(levels: list[Store], mips: list[int], url: str) -> list[Store]:
    wrong = [mip for mip in mips if not 0 <= mip < len(levels)]
    if wrong:
        raise ParameterError(f"{kvstore.redact(url)} has mips 0 to {len(levels) - 1}, no mip {wrong[0]}")
    return [levels[mip] for mip in mips]


def _check_forgettable(store: Store, mips: list[int], *, whole: bool) -> None:
    if not store.forgets:
        raise ParameterError("only levels of precomputed layers can be taken out of the metadata")
    count = len(store.mips)
    if not whole or mips[0] == 0 or mips != list(range(mips[0], count)):
        raise ParameterError(f"of mips 0 to {count - 1} only the coarsest can be forgotten, whole, and not mip 0")


def _check_box(level: Store, box: BoundingBox) -> None:
    spec = level.spec
    assert spec.chunk is not None
    aligned = box.align(spec.chunk, spec.box.start).clip(spec.box)
    if box.clip(spec.box) != aligned:
        raise AlignmentError(f"box {box} cuts chunks of {spec.chunk} voxels zyx; nearest is {aligned}")


def _box_of(level: Store, finest: Store, box: BoundingBox) -> BoundingBox:
    """Return a box of the finest level in voxels of another, those that are all inside."""
    if not level.names_tell:
        raise ParameterError(
            f"mip {level.mip} is not in chunk files whose names say where they are: remove whole mips, or fill the box"
        )
    if box.clip(finest.spec.box).empty:
        raise ParameterError(f"box {box} is outside mip {finest.mip}, {finest.spec.box}")
    steps = level.spec.factor(finest.spec)
    start, stop = [], []
    for axis, step in enumerate(steps):
        low, high = finest.spec.box.start[axis], level.spec.box.start[axis]
        start.append(high + -(-(box.start[axis] - low) // step))
        ends = box.stop[axis] >= finest.spec.box.stop[axis]
        stop.append(level.spec.box.stop[axis] if ends else high + (box.stop[axis] - low) // step)
    return BoundingBox((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _level_part(level: Store, box: BoundingBox | None) -> Part:
    def inside() -> Iterator[tuple[str, int]]:
        for found in level.contents():
            if box is None or (found.box is not None and found.box.clip(box) == found.box):
                yield found.url, found.size

    return _part(f"mip {level.mip}" + ("" if box is None else f", {box}"), level.directory, inside)


def _directory_part(store: Store, key: str) -> Part:
    layer, directory = store.url, object_directory(store.url, key)
    path = kvstore.local_path(directory)
    if path is not None and path.is_symlink():
        raise StoreAccessError(f"{path} is a link to another place; remove that by itself")
    name = directory.removeprefix(f"{kvstore.normalise(layer)}/")
    inside = {level.directory.removeprefix(f"{kvstore.normalise(layer)}/").split("/")[0] for level in store.levels()}
    if name.split("/")[0] in inside:
        raise ParameterError(
            f"the {key} of {kvstore.redact(layer)} are said to be in {name}, among chunks; not removed"
        )

    def files() -> Iterator[tuple[str, int]]:
        for file, size in sized_names(directory):
            yield f"{directory}/{file}", size

    return _part(f"{key} ({name})", directory, files)


def _part(name: str, directory: str, objects: Callable[[], Iterator[tuple[str, int]]]) -> Part:
    count = size = 0
    for _, nbytes in objects():
        count, size = count + 1, size + nbytes
    return Part(name, directory, count, size, lambda: (url for url, _ in objects()))


def _drop_empty(directory: str) -> None:
    """Remove a local directory in which nothing is left, and empty ones in it."""
    path = kvstore.local_path(directory)
    if path is None or not path.is_dir():
        return
    for below in sorted((p for p in path.rglob("*") if p.is_dir() and not p.is_symlink()), reverse=True):
        with suppress(OSError):
            below.rmdir()
    kvstore.drop_empty(directory)
