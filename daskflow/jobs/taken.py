"""Whose the chunks are that lie where a job would write."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from daskflow.errors import AlreadyStoredError
from daskflow.geometry import BoundingBox
from daskflow.jobs.directory import jobs_of, levels_written
from daskflow.redaction import redact
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


def _writer(store: Store, url: str) -> str:
    from daskflow.jobs.provenance import notes_of  # which imports the sinks

    for job in jobs_of(url):
        known = job.read("job.json") or {}
        levels = [one for stage in known.get("stages", {}).values() for one in levels_written(stage.get("task", {}))]
        if any((one["url"], one["mip"]) == (redact(url), store.mip) for one in levels):
            command = f" ({' '.join(known['command'])})" if known.get("command") else ""
            return f"the job in {job.url}{command}"
    inside = store.opened is not None and store.opened.format == "precomputed"
    for note in reversed(notes_of(url, inside)):
        if store.mip in note.get("mips", [note.get("mip")]):
            told = [str(note[key]) for key in ("software", "task", "job", "user", "finished") if note.get(key)]
            return f"{', '.join(told) or 'unknown'}, as the provenance says"
    return "something unknown, e.g. CloudVolume"
