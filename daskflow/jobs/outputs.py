"""Which jobs make what: what a job states, the jobs of an output, one writer at a time, and whose chunks lie there."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from daskflow.errors import AlreadyStoredError, DaskflowError, LockedJobError, StoreAccessError
from daskflow.geometry import BoundingBox
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.fingerprint import described_grid, token
from daskflow.jobs.lock import Lease, holder_of, living
from daskflow.stores import kvstore
from daskflow.stores.base import Store
from daskflow.stores.states import notes_at
from daskflow.volume.stage import Output, Stage, place_of

_COUNTED = 20
_FILES = ("table", "picture")
_POINTERS = ".jobs.daskflow"  # ends the name of the directory in which an output names jobs kept elsewhere


def stated(stages: Sequence[Stage], further: Iterable[Output] = ()) -> tuple[Output, ...]:
    """Return what stages make, each with its blocks, and what else is made."""
    made = [
        dataclasses.replace(one.placed(), stage=stage.name, grid=described_grid(stage.grid))
        for stage in stages
        for one in stage.task.makes()
    ]
    return (*made, *(one.placed() for one in further))


def jobs_of(url: str) -> list[JobDirectory]:
    """Return the directories of the jobs that made an output or parts of it, e.g. levels or meshes of a layer."""
    place = place_of(url)
    found = []
    for home in _homes(url):
        outputs = home.outputs if kvstore.exists(kvstore.join(home.url, "job.json")) else None
        if outputs is not None and (not outputs or any(one.within(place) for one in outputs)):
            found.append(home)
    return found


def _homes(url: str) -> list[JobDirectory]:
    """Return what may be the directories of jobs of an output: named after it, beside or in it, or pointed to.

    Where nothing can be listed, there are none that anybody could know of.
    """
    found: list[str] = []
    for place in dict.fromkeys((url, kvstore.resolved(url))):
        with suppress(StoreAccessError):
            parent, _, name = place.rpartition("/")
            found += [f"{parent}/{one}" for one in _directories(parent, f"{name}.")]
            found += [f"{place}/{one}" for kind in ("mesh", "skeleton") for one in _directories(place, kind)]
            pointers = f"{place}{_POINTERS}"
            data = (kvstore.read_bytes(f"{pointers}/{one}") for one in kvstore.list_names(pointers))
            found += [one.decode(errors="replace") for one in data if one is not None]
    safe = (one for one in reversed(found) if one.endswith(".daskflow") and kvstore.is_url(one))
    return [JobDirectory(one) for one in sorted({kvstore.resolved(one): one for one in safe}.values())]


def _directories(url: str, prefix: str) -> list[str]:
    """Return the names below a URL that begin with a prefix and are of directories in which a job was or is run."""
    marks = ("job.json", "lock")
    path = kvstore.local_path(url)
    if path is not None:
        found = {one.parent.name for mark in marks for one in path.glob(f"*.daskflow/{mark}")}
        return [one for one in found if one.startswith(prefix)]
    ends = tuple(f".daskflow/{mark}" for mark in marks)
    names = kvstore.list_names(url, prefix)
    return [one.partition("/")[0] for one in names if one.endswith(ends) and one.count("/") == 1]


def _pointers(home: JobDirectory, outputs: Iterable[Output]) -> list[str]:
    """Return the URLs at which outputs name a job whose directory is not known by its name."""
    objects = ("mesh", "skeletons")  # which have a place in a layer that people name; nothing else is added inside one
    places = {one.url for one in outputs if one.layer is None or one.kind in objects}
    places |= {one.layer for one in outputs if one.layer is not None}
    named = token(home.url)
    return [f"{place}{_POINTERS}/{named}" for place in sorted(places) if not _seen(home.url, place)]


def _seen(home: str, place: str) -> bool:
    inside = home.startswith((f"{place}/mesh", f"{place}/skeleton"))
    return home.endswith(".daskflow") and (inside or (home.startswith(f"{place}.") and "/" not in home[len(place) :]))


@contextmanager
def leased(home: JobDirectory, outputs: Sequence[Output], *, sharing: bool = False) -> Iterator[Lease]:
    """Hold the lease of a job's directory, and with it all that the job writes or removes; with others if `sharing`."""
    with Lease(home.lock, writes=outputs, sharing=sharing) as lease:
        pointers, earlier = _pointers(home, outputs), _pointers(home, home.outputs)
        try:
            for pointer in pointers:
                kvstore.write_bytes(pointer, home.url.encode())
            _refuse_writers(home, outputs)
            yield lease
        finally:
            with suppress(DaskflowError):  # a store that does not answer; what ended the block says more
                _forget({*pointers, *earlier}.difference(_pointers(home, home.outputs)))


def _refuse_writers(home: JobDirectory, outputs: Sequence[Output]) -> None:
    here = kvstore.resolved(home.url)
    for place in dict.fromkeys(place for one in outputs for place in (one.url, one.layer) if place):
        for other in _homes(place):
            if kvstore.resolved(other.url) == here or (holder := holder_of(other.lock)) is None:
                continue
            clash = next((one for one in outputs if any(map(one.clashes, holder.writes))), None)
            if clash is not None and (writer := living(other.lock)) is not None:
                raise LockedJobError(
                    f"{clash} is being written by {writer}, in {other.url}; wait for it, or stop it and run again"
                )


def forget(home: JobDirectory) -> None:
    """Delete the directory of a job, and what points to it."""
    pointers = _pointers(home, home.outputs)
    kvstore.delete_tree(home.url)
    _forget(pointers)


def _forget(pointers: Iterable[str]) -> None:
    for pointer in pointers:
        kvstore.delete(pointer)
        kvstore.drop_empty(pointer.rpartition("/")[0])


def refuse_taken(store: Store, url: str, box: BoundingBox, found: Iterator[BoundingBox]) -> None:
    """Raise if writing the box of a level replaces chunks, and say how many, whose they are, and what allows it."""
    chunks = list(itertools.islice(found, _COUNTED + 1))
    if chunks:
        kind = "shard" if store.spec.shard else "chunk"
        number = f"more than {_COUNTED}" if len(chunks) > _COUNTED else str(len(chunks))
        raise AlreadyStoredError(
            f"mip {store.mip} of {url} has {number} {kind}{'s' * (len(chunks) > 1)} already in what would be written,"
            f" {box} (z0-z1_y0-y1_x0-x1), e.g. {min(chunks)}, written by {_writer(store, url)}; write to another"
            " output, or replace them: --overwrite (overwrite=True in Python)"
        )


def refuse_files(outputs: Sequence[Output], made: Sequence[Output]) -> None:
    """Raise if files lie where a job makes tables or pictures, other than those that earlier runs of it have made."""
    own = {one.url for one in made}
    for one in outputs:
        if one.kind in _FILES and one.url not in own and kvstore.exists(one.url):
            writer = next((job.url for job in jobs_of(one.url) if one.url in {its.url for its in job.outputs}), None)
            whose = f": the job in {writer} has made it" if writer else ""
            raise AlreadyStoredError(
                f"{one.url} exists and was not written by this job{whose}; write to another file, or replace it:"
                " --overwrite (overwrite=True in Python)"
            )


def forget_replaced(outputs: Sequence[Output], own: JobDirectory) -> None:
    """Delete the records of other jobs on what a job is about to replace: they would say that it is done."""
    made, here = [one for one in outputs if one.kind in ("level", "file", *_FILES)], kvstore.resolved(own.url)
    for url in {one.url for one in made}:
        for job in jobs_of(url):
            theirs = job.outputs
            left = [one for one in theirs if not any(map(one.replaced_by, made))]
            if kvstore.resolved(job.url) == here or len(left) == len(theirs):
                continue
            with Lease(job.lock):
                if left:
                    pointers = _pointers(job, theirs)
                    job.write("job.json", {**job.read("job.json"), "outputs": [one.to_json() for one in left]})
                    _forget(set(pointers).difference(_pointers(job, left)))
                else:
                    job.clear()
                    forget(job)


def _writer(store: Store, url: str) -> str:
    for job in jobs_of(url):
        known = job.read("job.json") or {}
        if any(one.kind == "level" and (one.url, one.mip) == (place_of(url), store.mip) for one in job.outputs):
            command = f" ({' '.join(known['command'])})" if known.get("command") else ""
            return f"the job in {job.url}{command}"
    for note in reversed(notes_at(store.provenance_url(url))):
        if store.mip in note.get("mips", [note.get("mip")]):
            told = [str(note[key]) for key in ("software", "task", "job", "user", "finished") if note.get(key)]
            return f"{', '.join(told) or 'unknown'}, as the provenance says"
    return "something unknown, e.g. CloudVolume"
