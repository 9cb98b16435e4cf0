"""Writes that reach no store: what a job would refuse is found by checking as it does, and nothing is left of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_transaction: ContextVar[Any] = ContextVar("transaction", default=None)


def transaction() -> Any:
    """Return the tensorstore transaction that takes the writes of small objects, None outside of `rehearsing`."""
    return _transaction.get()


@contextmanager
def rehearsing() -> Iterator[None]:
    """Store nothing inside the block; what is written through `kvstore` can be read there until the block ends."""
    import tensorstore as ts

    rehearsed = ts.Transaction()
    token = _transaction.set(rehearsed)
    try:
        yield
    finally:
        _transaction.reset(token)
        rehearsed.abort()
