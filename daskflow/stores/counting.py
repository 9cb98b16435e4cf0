"""Named totals that stores report upwards, e.g. how many missing chunks were read as zeros."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_open: ContextVar[tuple[Counter[str], ...]] = ContextVar("open_counters", default=())
_lock = threading.Lock()


def count(name: str, n: int = 1) -> None:
    """Add `n` to the total `name` of every `counting` block that is open around this call; without one, nothing."""
    with _lock:
        for counts in _open.get():
            counts[name] += n


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Collect what is counted inside the block, by this thread or by code run in a copy of its context.

    >>> with counting() as counts:
    ...     count("missing_chunks", 2)
    >>> dict(counts)
    {'missing_chunks': 2}
    """
    counts: Counter[str] = Counter()
    token = _open.set((*_open.get(), counts))
    try:
        yield counts
    finally:
        _open.reset(token)
