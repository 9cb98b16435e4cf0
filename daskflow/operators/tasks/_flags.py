"""Files that say that something is done for a box: named by a prefix, the box and a suffix."""

from __future__ import annotations

from daskflow.errors import CorruptChunkError
from daskflow.geometry import BoundingBox
from daskflow.stores import kvstore


def flag_url(prefix: str, box: BoundingBox, suffix: str | None, adjust_size: int | None = None) -> str:
    """Return the URL of the file of a box, whose name may be of a box that is larger or smaller on every side."""
    named = box if not adjust_size else box.grow(adjust_size)
    return kvstore.normalise(f"{prefix}{named}{suffix or ''}")


def holds_something(url: str) -> bool:
    """Return whether a file is there and not empty."""
    try:
        return bool(kvstore.read_range(url, 0, 1))
    except CorruptChunkError:  # it is shorter than that
        return False


def touch(url: str) -> None:
    """Make a file that holds nothing, unless there is one."""
    if not kvstore.exists(url):
        kvstore.write_bytes(url, b"")
