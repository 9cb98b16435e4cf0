"""Whose the chunks are that lie where a job would write."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from daskflow.errors import AlreadyStoredError
from daskflow.geometry import BoundingBox
from daskflow.jobs.directory import JobDirectory, jobs_of, levels_written
from daskflow.jobs.lock import Lease
from daskflow.redaction import redact
from daskflow.stores import kvstore
from daskflow.stores.base import Store

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


def forget_replaced(stages: Mapping[str, Any], own: JobDirectory) -> None:
    """Delete the records of other jobs that wrote what a job is about to replace: they would say that it is done.

    Args:
        stages: of the job, as ``job.json`` has them.
        own: its directory.

    Raises:
        LockedJobError: one of them is running.
    """
    replaced = _levels_of(stages)
    for url in {url for url, _ in replaced}:
        for job in jobs_of(url):
            theirs = _levels_of((job.read("job.json") or {}).get("stages", {}))
            common = [(replaced[level], theirs[level]) for level in replaced.keys() & theirs.keys()]
            boxes = [not one.clip(other).empty for one, other in common if one and other]
            if job.url.rstrip("/") != own.url.rstrip("/") and (any(boxes) if boxes else common):
                with Lease(job.lock):
                    job.clear()
                kvstore.delete_tree(job.url)


def _levels_of(stages: Mapping[str, Any]) -> dict[tuple[str, int], BoundingBox | None]:
    """Return the levels that stages write, by URL and mip, with what box of them, None for coarser ones."""
    found: dict[tuple[str, int], BoundingBox | None] = {}
    for stage in stages.values():
        for one in levels_written(stage.get("task", {})):
            coarser = one.get("downsampling") is not None
            found[one["url"], one["mip"]] = None if coarser else BoundingBox.from_string(stage["grid"]["box"])
    return found


def _writer(store: Store, url: str) -> str:
    from daskflow.jobs.provenance import notes_of  # which imports the sinks

    for job in jobs_of(url):
        known = job.read("job.json") or {}
        if (redact(url), store.mip) in _levels_of(known.get("stages", {})):
            command = f" ({' '.join(known['command'])})" if known.get("command") else ""
            return f"the job in {job.url}{command}"
    inside = store.opened is not None and store.opened.format == "precomputed"
    for note in reversed(notes_of(url, inside)):
        if store.mip in note.get("mips", [note.get("mip")]):
            told = [str(note[key]) for key in ("software", "task", "job", "user", "finished") if note.get(key)]
            return f"{', '.join(told) or 'unknown'}, as the provenance says"
    return "something unknown, e.g. CloudVolume"
