"""Whose the chunks are that lie where a job would write."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from daskflow.errors import AlreadyStoredError
from daskflow.geometry import BoundingBox
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.lock import Lease
from daskflow.jobs.outputs import forget, jobs_of
from daskflow.stores import kvstore
from daskflow.stores.base import Store
from daskflow.stores.provenance import notes_at
from daskflow.volume.output import Output, place_of

_COUNTED = 20


def refuse_taken(store: Store, url: str, box: BoundingBox, found: Iterator[BoundingBox]) -> None:
    """Raise if there are chunks where something else would be written.

    Args:
        store: the level.
        url: of the layer.
        box: what would be written.
        found: the chunks that would be replaced.

    Raises:
        AlreadyStoredError: there are; the message says how many, whose they are, and what replaces them.
    """
    chunks = list(itertools.islice(found, _COUNTED + 1))
    if chunks:
        kind = "shard" if store.spec.shard else "chunk"
        number = f"more than {_COUNTED}" if len(chunks) > _COUNTED else str(len(chunks))
        raise AlreadyStoredError(
            f"mip {store.mip} of {url} has {number} {kind}{'s' * (len(chunks) > 1)} already in what would be written,"
            f" {box} (z0-z1_y0-y1_x0-x1), e.g. {min(chunks)}, written by {_writer(store, url)}; write to another"
            " output, or replace them: --overwrite (overwrite=True in Python)"
        )


def forget_replaced(outputs: Sequence[Output], own: JobDirectory) -> None:
    """Delete the records of other jobs that wrote what a job is about to replace: they would say that it is done.

    Args:
        outputs: of the job.
        own: its directory.

    Raises:
        LockedJobError: one of them is running.
    """
    levels, here = [one for one in outputs if one.kind == "level"], kvstore.resolved(own.url)
    for url in {one.url for one in levels}:
        for job in jobs_of(url):
            theirs = job.outputs
            if kvstore.resolved(job.url) != here and any(a.clashes(b) for a in levels for b in theirs):
                with Lease(job.lock):
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
